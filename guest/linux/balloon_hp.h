/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp: what the files of the driver share.
 *
 * The data path: target.c decides, pages.c [1] takes and returns blocks,
 * ranges.c [2] merges them and reads answers, queue.c [3] sends requests and
 * collects what the device answered; flow.c connects target.c with [3]. main.c
 * ties this to the virtio device, state.c knows what may happen when; oom.c,
 * hotplug.c, reporting.c, stats.c and debugfs.c stand beside the path.
 *
 * A *block* is the piece of memory the driver takes from the page allocator
 * and returns to it: one order-9 page on x86, naturally aligned, a multiple of
 * the device's unit. Blocks are numbered by address. A *run* is a number of
 * adjacent blocks.
 *
 * Where a block can be, from the driver's point of view:
 *
 *   page allocator -> slot (inflate request) -> held -> slot (deflate request)
 *                                                         -> page allocator
 *
 * with four side tracks: a block that is out before its pages are marked waits
 * on `fresh` until they are; a refused inflate puts the block on `refused` until
 * the pass ends (so that it is not taken again at once); a block of which the
 * device did only a part goes to `undo` and is deflated; a device reset makes
 * all blocks the guest's, and those that were out go to `idle`.
 *
 * Locks, in the order in which they nest:
 *
 *   hpb.op (mutex)       one operation that moves blocks at a time: a pass of
 *                        the worker, memory going offline, freeze, removal.
 *                        Held across allocation and waiting. Never taken by
 *                        the OOM notifier.
 *   hpb.lock (spinlock)  the pools, the counts of blocks in flight, the state
 *                        of the device, the reason for stopping. Held for
 *                        bounded work only, never across an allocation.
 *   hpb.vq_lock (spinlock, irq) the inflate, deflate and reporting queues, and
 *                        the states of the requests. A request is only added
 *                        while the state, looked at under this lock, is
 *                        RUNNING.
 *
 * Memory the driver uses for itself does not grow with the guest: runs are
 * linked through the struct pages of their own first page.
 */
#ifndef HPB_BALLOON_HP_H
#define HPB_BALLOON_HP_H

#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/nodemask.h>
#include <linux/notifier.h>
#include <linux/page_reporting.h>
#include <linux/scatterlist.h>
#include <linux/shrinker.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "blocks.h"
#include "compat.h"
#include "flow.h"
#include "need.h"
#include "queue.h"
#include "ranges.h"
#include "virtio_balloon_hp.h"

/*
 * Blocks in one inflate request. 512 MiB at 2 MiB: a 3 GiB change takes nine
 * requests, few enough that round trips do not show, many enough that the
 * guest takes blocks while the host frees the ones before.
 */
#define HPB_INFLATE_BATCH	256
/*
 * Blocks in the first of a pass; each further one has twice as many as the one
 * before. 64 MiB are found in an eighth of the time of a whole batch, and that is
 * how long the host has nothing to do.
 */
#define HPB_INFLATE_FIRST	32
/*
 * The same where the page allocator clears what it hands out: 32 MiB. The host
 * has to provide what is cleared, so the requests in flight are memory it needs
 * at once; and what it gets back soon it provides again while that is in its
 * caches.
 */
#define HPB_CLEARED_BATCH	16
/*
 * Blocks in one deflate request. 1 GiB at 2 MiB: bounds how long the worker is
 * deaf to a new target while the freed blocks go back to the page allocator.
 */
#define HPB_DEFLATE_BATCH	512
/*
 * Blocks in one request of the OOM notifier: 128 MiB, enough to end most OOMs
 * at once, little enough to be answered within HPB_OOM_WAIT.
 */
#define HPB_OOM_BATCH		64
/*
 * Requests in flight, the OOM notifier's not counted. The first eight of a pass
 * are 3 GiB, and what comes then waits for the first answer, which is one of
 * 64 MiB, so the host always has gigabytes to do. A slot costs 24 KiB.
 */
#define HPB_SLOTS		8
/* Most ranges in a request: what a queue of 1024 leaves, beside a message. */
#define HPB_RANGES_MAX		1020
/* Longest range: sg lengths are 32 bit, and QEMU maps a range in one piece. */
#define HPB_RANGE_BYTES_MAX	SZ_1G
/*
 * Size of a block where the device would like smaller ranges: what the page
 * tables of both sides can map as one.
 */
#define HPB_BLOCK_MIN		SZ_2M
/* Refused blocks after which a pass ends, requests in flight apart. */
#define HPB_REFUSED_MAX		64
/*
 * Blocks that may be out with pages not marked yet (8 GiB), and how long the
 * device is waited for before they are marked, in ms: as long as it takes the
 * host to free some GiB of huge pages. Both bound how long a pass keeps readers
 * of /proc/kcore waiting, some 20 ms each.
 */
#define HPB_UNMARKED_MAX	4096
#define HPB_MARK_DELAY		20
/*
 * Blocks marked in one go, some 0.1 ms: answers wait for it, and the OOM
 * notifier cannot have the blocks meanwhile.
 */
#define HPB_MARK_BATCH		32

/* First and longest delay before trying again what did not work, in ms. */
#define HPB_BACKOFF_MIN		100
#define HPB_BACKOFF_MAX		30000
/* How long an OOM notification waits for its answer, in jiffies. */
#define HPB_OOM_WAIT		HZ
/* No inflating for this long after an OOM notification, in ms. */
#define HPB_OOM_HOLD		30000
/* Without an answer for this long the log says so, in seconds. */
#define HPB_ANSWER_WARN		10
/*
 * Without an answer for this long removal and memory offlining go on, in
 * seconds.
 */
#define HPB_ANSWER_LIMIT	5

/* State of the device as the driver sees it. Set by hpb_set_state() only. */
enum hpb_state {
	HPB_DOWN,	/* no queues: before probe is done, and while suspended */
	HPB_RUNNING,	/* requests flow */
	HPB_UNUSABLE,	/* configuration cannot be served; statistics only */
	HPB_BROKEN,	/* device broke the protocol or died; waits for a reset */
	HPB_GONE,	/* being removed, or the machine goes down */
};

/* Event counters, in debugfs under the names in debugfs.c. */
enum hpb_count {
	HPB_C_INFLATE_REQS,	/* inflate requests sent */
	HPB_C_INFLATE_RANGES,	/* ranges in them */
	HPB_C_INFLATE_BLOCKS,	/* blocks that went out */
	HPB_C_INFLATE_REFUSED,	/* blocks that came back */
	HPB_C_DEFLATE_REQS,	/* deflate requests sent */
	HPB_C_DEFLATE_RANGES,	/* ranges in them */
	HPB_C_DEFLATE_BLOCKS,	/* blocks that came back in */
	HPB_C_DEFLATE_REFUSED,	/* blocks that stay out */
	HPB_C_MIXED,		/* blocks of which only a part was done */
	HPB_C_TARGETS,		/* changes of the requested size */
	HPB_C_INTERRUPTED,	/* passes left early for a new target */
	HPB_C_STOPS,		/* passes that ended short of the target */
	HPB_C_OOM,		/* OOM notifications acted on */
	HPB_C_OOM_BLOCKS,	/* blocks they gave the guest back */
	HPB_C_SHORTAGES,	/* times the guest was found short of memory */
	HPB_C_RELIEF_BLOCKS,	/* blocks given back for that */
	HPB_C_SCANS,		/* times all memory was looked at */
	HPB_C_FLUSHES,		/* times a zone's per-CPU lists were emptied */
	HPB_C_EMPTIED_BLOCKS,	/* blocks in use that were emptied */
	HPB_C_MOVED_BYTES,	/* bytes moved for that, other movers included */
	HPB_C_CHEAPEST_BYTES,	/* bytes that the chosen blocks had to move */
	HPB_C_OFFLINE_BLOCKS,	/* blocks deflated for memory going offline */
	HPB_C_REPORTS,		/* free page reports sent */
	HPB_C_REPORT_BYTES,	/* bytes in them that the device did */
	HPB_C_STATS,		/* statistics buffers filled */
	HPB_C_STATES,		/* messages of how the driver stands */
	HPB_C_WAKES,		/* times freed memory woke a stopped balloon */
	HPB_C_WORK_NS,		/* time the worker was at work, waits included */
	HPB_C_MAX
};

/* Statuses that are counted one by one; higher ones share the last entry. */
#define HPB_STATUS_MAX	(VIRTIO_BALLOON_HP_UNSUPP + 2)

/**
 * struct hpb_told - what the host was told last
 * @stop:      VIRTIO_BALLOON_HP_STOP_*
 * @requested: bytes, the target that it is about
 * @wanted:    bytes the guest would like back
 */
struct hpb_told {
	u16 stop;
	u64 requested;
	u64 wanted;
};

struct hpb_message;

/* One balloon. */
struct hpb {
	struct virtio_device *vdev;
	struct virtqueue *vqs[VIRTIO_BALLOON_HP_VQ_MAX];

	/* Constant while the device is up. */
	u64 unit;		/* bytes */
	u64 preferred;		/* bytes */
	unsigned int order;	/* page order of a block */
	unsigned int shift;	/* log2 of the bytes of a block */
	u32 upb;		/* units in a block */
	u32 max_range;		/* blocks in the longest range */
	unsigned int max_ranges;/* ranges in a request */

	struct mutex op;	/* one operation at a time, see the top */
	struct workqueue_struct *wq;
	struct delayed_work work;
	/* Raised by everything that should make the worker look up. */
	atomic_t kicks;
	/* Set when the driver goes away: waits become bounded. */
	bool stopping;
	/*
	 * Above 0 the worker leaves its pass and starts no other, and waits are
	 * bounded: a suspend is coming, or somebody has or wants op.
	 */
	atomic_t holds;
	/* The device is about to be reset: waiting for answers is pointless. */
	bool abandon;

	spinlock_t lock;	/* pools, state, counts in flight */
	/* Protected by lock: */
	enum hpb_state state;
	struct hpb_pool held;	/* out, as answered by the device */
	struct hpb_pool fresh;	/* out, and not all pages are marked yet */
	struct hpb_pool undo;	/* partly out; to be deflated */
	struct hpb_pool idle;	/* ours, hidden, not out (after a reset) */
	struct hpb_pool refused;/* ours, hidden, back to the allocator soon */
	unsigned long inflating;/* blocks in inflate requests */
	unsigned long deflating;/* blocks in deflate requests */
	enum hpb_stop stop;
	unsigned long oom_until;/* jiffies; 0: no OOM seen since last target */
	bool oom_marks;		/* the OOM notifier marks pages that are out */

	/* Protected by op, set by the worker: */
	u64 requested;		/* bytes, as last read */
	unsigned int backoff;	/* ms; next delay */
	unsigned long flush_after;/* jiffies; 0: any time */
	struct hpb_choice choice;	/* blocks to empty next */
	bool told;		/* reason for stopping is in the log already */
	u32 reclaim;		/* VIRTIO_BALLOON_HP_RECLAIM_*, as last read */
	u64 cache_floor;	/* bytes, as last read */
	/* blocks to have out, by node; NULL: the device has no such targets */
	unsigned long *node_target;
	bool by_node;		/* node_target is to be followed */
	unsigned long unmarked;	/* blocks sent out since kcore_off */
	bool kcore_off;		/* page_offline_begin() is in effect */
	unsigned long mark_at;	/* jiffies; when kcore_off has lasted long enough */

	spinlock_t vq_lock;	/* queues but for statistics, states of slots */
	struct hpb_slot slots[HPB_SLOTS];	/* who fills one holds op */
	struct hpb_slot oom_slot;		/* OOM notifier only */
	wait_queue_head_t answered;

	struct notifier_block oom_nb;
	struct notifier_block mem_nb;
	struct notifier_block pm_nb;
	struct notifier_block reboot_nb;

	/* need.c */
	struct delayed_work need_work;
	struct hpb_shrinker shrinker;
	atomic_t pressed;	/* a shortage was noticed, and is looked at */

	/* tell.c */
	struct work_struct tell_work;
	struct hpb_message *message;	/* NULL: the host does not listen */
	/* Protected by vq_lock: */
	bool tell_busy;		/* the device has the message */
	bool tell_again;	/* there may be news when it comes back */
	struct hpb_told told_host;

	/* wake.c; wake_on is protected by op */
	struct page_reporting_dev_info wake;
	bool wake_on;		/* registered for page reporting */
	bool waiting;		/* stopped until memory is freed */
	unsigned long wake_at;	/* jiffies; not before */

	/* stats.c */
	struct work_struct stats_work;
	struct virtio_balloon_hp_stat *stats;

	/* reporting.c */
	struct page_reporting_dev_info reporting;
	bool reporting_on;
	/* Protected by vq_lock: */
	bool report_answered;
	u32 report_used;
	unsigned int resets;	/* device resets so far; a report waits for one */
	struct virtio_balloon_hp_req *report_req;
	void *report_resp;

	struct dentry *debugfs;
	atomic64_t counts[HPB_C_MAX];
	atomic64_t statuses[HPB_STATUS_MAX];
};

static inline void hpb_count(struct hpb *bh, enum hpb_count c, u64 n)
{
	atomic64_add(n, &bh->counts[c]);
}

static inline struct page *hpb_block_page(const struct hpb *bh, u64 block)
{
	return pfn_to_page(block << bh->order);
}

static inline u64 hpb_page_block(const struct hpb *bh, struct page *page)
{
	return page_to_pfn(page) >> bh->order;
}

/* Ranges that fit into a request, now: a reset may have changed the limit. */
static inline unsigned int hpb_slot_cap(const struct hpb *bh,
					const struct hpb_slot *slot)
{
	return min(slot->cap, bh->max_ranges);
}

/* Blocks that are out. */
static inline unsigned long hpb_out(const struct hpb *bh)
{
	return READ_ONCE(bh->held.blocks) + READ_ONCE(bh->fresh.blocks);
}

static inline bool hpb_running(struct hpb *bh)
{
	return READ_ONCE(bh->state) == HPB_RUNNING;
}

/* state.c */

/**
 * hpb_set_state() - the one place that changes the state of the device
 * @bh:  balloon
 * @new: new state; a transition that makes no sense is a bug and is refused
 */
void hpb_set_state(struct hpb *bh, enum hpb_state new);

/**
 * hpb_broken() - stop using the device until it is reset (DRV-15)
 * @bh:  balloon
 * @why: what is wrong, in words; logged once
 */
void hpb_broken(struct hpb *bh, const char *why);

/**
 * hpb_kick() - make the worker look at the requested size again
 * @bh: balloon
 *
 * Context: any.
 */
void hpb_kick(struct hpb *bh);

/**
 * hpb_op_begin() - take @bh->op from the worker
 * @bh: balloon
 *
 * The worker leaves its pass at the next batch.
 */
void hpb_op_begin(struct hpb *bh);

/* Like hpb_op_begin(); nobody waits for answers until the reset that follows. */
void hpb_op_abandon(struct hpb *bh);

/* Give @bh->op back; the worker looks again. */
void hpb_op_end(struct hpb *bh);

const char *hpb_state_name(enum hpb_state state);
const char *hpb_stop_name(enum hpb_stop stop);

/* target.c */

void hpb_work(struct work_struct *work);

/**
 * hpb_interrupted() - whether there is something new to look at: leave the pass
 * @bh:   balloon
 * @seen: value of @bh->kicks when the pass began
 */
bool hpb_interrupted(struct hpb *bh, int seen);

/**
 * hpb_deflate_all() - ask for everything back, for removal
 * @bh: balloon; @bh->op is held
 *
 * Return: blocks the device did not give back.
 */
unsigned long hpb_deflate_all(struct hpb *bh);

/**
 * hpb_deflate_window() - ask for the blocks in some part of memory back
 * @bh:    balloon; @bh->op is held
 * @where: the part
 *
 * Return: 0, or -EBUSY if some of them stay out.
 */
int hpb_deflate_window(struct hpb *bh, const struct hpb_where *where);

/* nodes.c */

/**
 * hpb_nodes_alloc() - prepare for targets of nodes, if the device has them
 * @bh: balloon
 *
 * Return: 0 or -ENOMEM.
 */
int hpb_nodes_alloc(struct hpb *bh);
void hpb_nodes_free(struct hpb *bh);

/**
 * hpb_nodes_read() - read the targets of the nodes
 * @bh: balloon; @bh->op is held
 *
 * Return: whether they have changed.
 */
bool hpb_nodes_read(struct hpb *bh);

/* Blocks of a node that are out. */
unsigned long hpb_node_out(struct hpb *bh, int nid);

/* Whether every node has out what it shall; true without targets of nodes. */
bool hpb_nodes_reached(struct hpb *bh);

/* tell.c */

/**
 * hpb_tell() - tell the host how the guest stands, if that is news
 * @bh: balloon
 *
 * Context: any.
 */
void hpb_tell(struct hpb *bh);
/* Whether @now differs from what the host was told, enough to say so. */
bool hpb_is_news(const struct hpb_told *old, const struct hpb_told *now);
/* A buffer came back. Return: whether it was the message. vq_lock is held. */
bool hpb_tell_answered(struct hpb *bh, void *token);
int hpb_tell_init(struct hpb *bh);
void hpb_tell_exit(struct hpb *bh);
/* Before a device reset, and after it. */
void hpb_tell_stop(struct hpb *bh);
void hpb_tell_reset(struct hpb *bh);

/* wake.c */

/* Memory was freed: try again now, or as soon as the back-off allows. */
void hpb_wake(struct hpb *bh);

/**
 * hpb_wake_wait() - the guest has to free memory first: wait for that
 * @bh:    balloon; @bh->op is held
 * @delay: no attempt before, in ms
 *
 * Return: after how many ms to try again without an event.
 */
unsigned int hpb_wake_wait(struct hpb *bh, unsigned int delay);
/* Events are not wanted any more. @bh->op is held, or the driver goes. */
void hpb_wake_off(struct hpb *bh);

/* oom.c */
int hpb_oom_init(struct hpb *bh);
void hpb_oom_exit(struct hpb *bh);
/* Act on the answer to the OOM notifier's request, if it is there. */
void hpb_oom_reap(struct hpb *bh);

/* hotplug.c */
int hpb_hotplug_init(struct hpb *bh);
void hpb_hotplug_exit(struct hpb *bh);

/* stats.c */
int hpb_stats_init(struct hpb *bh);
void hpb_stats_exit(struct hpb *bh);
void hpb_stats_start(struct hpb *bh);
void hpb_stats_stop(struct hpb *bh);
void hpb_stats_wanted(struct virtqueue *vq);

/* reporting.c */
bool hpb_reporting_safe(void);
int hpb_reporting_init(struct hpb *bh);
void hpb_reporting_exit(struct hpb *bh);
void hpb_reporting_answered(struct virtqueue *vq);

/* debugfs.c */
void hpb_debugfs_init(void);
void hpb_debugfs_exit(void);
void hpb_debugfs_add(struct hpb *bh);
void hpb_debugfs_del(struct hpb *bh);

#endif /* HPB_BALLOON_HP_H */
