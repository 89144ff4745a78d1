/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp: what the files of the driver share.
 *
 * The data path: target.c decides, pages.c [1] takes and returns blocks,
 * ranges.c [2] merges them and reads answers, queue.c [3] sends requests and
 * collects what the device answered; flow.c connects target.c with [3]. main.c
 * ties this to the virtio device; oom.c, hotplug.c, reporting.c, stats.c and
 * debugfs.c stand beside the path.
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
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "blocks.h"
#include "compat.h"
#include "ranges.h"
#include "virtio_balloon_hp.h"

/*
 * Blocks in one inflate request. 512 MiB at 2 MiB: a 3 GiB change takes six
 * requests, few enough that round trips do not show, many enough that the
 * guest takes blocks while the host frees the ones before.
 */
#define HPB_INFLATE_BATCH	256
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
 * Requests in flight, the OOM notifier's not counted. Eight batches are 4 GiB:
 * a change up to that size never waits for an answer before its last request
 * is sent. A slot costs 24 KiB.
 */
#define HPB_SLOTS		8
/* Most ranges in a request: what a queue of 1024 leaves for them. */
#define HPB_RANGES_MAX		1022
/* Longest range: sg lengths are 32 bit, and QEMU maps a range in one piece. */
#define HPB_RANGE_BYTES_MAX	SZ_1G
/* Room for a response with 254 exceptions. */
#define HPB_RESP_SIZE		(sizeof(struct virtio_balloon_hp_resp) + \
				 254 * sizeof(struct virtio_balloon_hp_exception))
/*
 * Size of a block where the device would like smaller ranges: what the page
 * tables of both sides can map as one.
 */
#define HPB_BLOCK_MIN		SZ_2M
/* Refused blocks after which a pass ends, requests in flight apart. */
#define HPB_REFUSED_MAX		64
/*
 * Blocks that may be out with pages not marked yet (8 GiB): bounds how long a
 * pass keeps readers of /proc/kcore waiting, some 20 ms.
 */
#define HPB_UNMARKED_MAX	4096
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

/* State of a request slot. Set by hpb_slot_set() only. */
enum hpb_slot_state {
	HPB_SLOT_FREE,		/* nothing in it */
	HPB_SLOT_FILLING,	/* owned by who fills it */
	HPB_SLOT_SENT,		/* owned by the device */
	HPB_SLOT_ANSWERED,	/* answer has arrived and nobody has looked */
	HPB_SLOT_SETTLING,	/* owned by who acts on the answer */
	HPB_SLOT_LOST,		/* answer made no sense; blocks stay here */
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
	HPB_C_SCANS,		/* times all memory was looked at */
	HPB_C_EMPTIED_BLOCKS,	/* blocks in use that were emptied */
	HPB_C_MOVED_BYTES,	/* bytes moved for that, other movers included */
	HPB_C_CHEAPEST_BYTES,	/* bytes that the chosen blocks had to move */
	HPB_C_OFFLINE_BLOCKS,	/* blocks deflated for memory going offline */
	HPB_C_REPORTS,		/* free page reports sent */
	HPB_C_REPORT_BYTES,	/* bytes in them that the device did */
	HPB_C_STATS,		/* statistics buffers filled */
	HPB_C_MAX
};

/* Statuses that are counted one by one; higher ones share the last entry. */
#define HPB_STATUS_MAX	(VIRTIO_BALLOON_HP_UNSUPP + 2)

/**
 * struct hpb_slot - one request
 * @state:  protected by hpb.vq_lock
 * @type:   VIRTIO_BALLOON_HP_REQ_*
 * @cap:    entries in @ranges
 * @nr:     ranges in the request
 * @blocks: blocks in the request
 * @used:   used length of the answer
 * @from:   pool that the blocks come from and belong to if nothing happens to
 *          them; NULL if they come from the page allocator
 * @marked: inflate: blocks whose pages are marked PageOffline, from the first
 * @ranges: the ranges, in the order in which they were sent
 * @sg:     scatterlist with @cap entries; only used while the request is added
 * @req:    device-readable part
 * @resp:   response, HPB_RESP_SIZE bytes, the device writes here
 * @copy:   the response once more, where the device cannot change it
 */
struct hpb_slot {
	enum hpb_slot_state state;
	u16 type;
	unsigned int cap;
	unsigned int nr;
	unsigned long blocks;
	u32 used;
	struct hpb_pool *from;
	unsigned long marked;
	struct hpb_range *ranges;
	struct scatterlist *sg;
	struct virtio_balloon_hp_req *req;
	void *resp;
	void *copy;
};

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

	/* Protected by op, set by the worker: */
	u64 requested;		/* bytes, as last read */
	unsigned int backoff;	/* ms; next delay */
	struct hpb_choice choice;	/* blocks to empty next */
	bool told;		/* reason for stopping is in the log already */
	/* blocks to have out, by node; NULL: the device has no such targets */
	unsigned long *node_target;
	bool by_node;		/* node_target is to be followed */
	unsigned long unmarked;	/* blocks sent out since kcore_off */
	bool kcore_off;		/* page_offline_begin() is in effect */

	spinlock_t vq_lock;	/* queues but for statistics, states of slots */
	struct hpb_slot slots[HPB_SLOTS];	/* who fills one holds op */
	struct hpb_slot oom_slot;		/* OOM notifier only */
	wait_queue_head_t answered;

	struct notifier_block oom_nb;
	struct notifier_block mem_nb;
	struct notifier_block pm_nb;
	struct notifier_block reboot_nb;

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

/* main.c */

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

/* Give @bh->op back; the worker looks again. */
void hpb_op_end(struct hpb *bh);

/**
 * hpb_interrupted() - whether there is something new to look at: leave the pass
 * @bh:   balloon
 * @seen: value of @bh->kicks when the pass began
 */
bool hpb_interrupted(struct hpb *bh, int seen);

const char *hpb_state_name(enum hpb_state state);
const char *hpb_stop_name(enum hpb_stop stop);

/* [3] queue.c */

/**
 * hpb_status_errno() - the one place where statuses become errnos
 * @status: VIRTIO_BALLOON_HP_*
 *
 * Return: 0 or a negative errno; -EPROTO for a status this driver does not know.
 */
int hpb_status_errno(u16 status);

int hpb_slots_alloc(struct hpb *bh);
void hpb_slots_free(struct hpb *bh);

/**
 * hpb_slot_get() - a free slot
 * @bh:   balloon; @bh->op is held
 * @type: VIRTIO_BALLOON_HP_REQ_*
 *
 * Return: slot in state FILLING, NULL if all are in use.
 */
struct hpb_slot *hpb_slot_get(struct hpb *bh, u16 type);

/* Change a slot's state; the caller is its owner. */
void hpb_slot_put(struct hpb *bh, struct hpb_slot *slot,
		  enum hpb_slot_state state);

/**
 * hpb_slot_claim() - claim a slot in a given state
 * @from: state it must have
 * @to:   state it gets
 *
 * Return: true if the slot now belongs to the caller.
 */
bool hpb_slot_claim(struct hpb *bh, struct hpb_slot *slot,
		    enum hpb_slot_state from, enum hpb_slot_state to);

/**
 * hpb_send() - make a request available
 * @bh:   balloon
 * @slot: filled slot; on success the device's
 * @gfp:  for the indirect table; without one the ring itself is used
 *
 * Return: 0, -ENOSPC if the ring is full, -ENODEV if the device is not running.
 */
int hpb_send(struct hpb *bh, struct hpb_slot *slot, gfp_t gfp);

/**
 * hpb_wait() - wait until some request has been answered
 * @bh: balloon
 *
 * Return: 0, -EIO if the device broke, -ETIMEDOUT if waiting is bounded and
 * nothing was answered in HPB_ANSWER_LIMIT seconds, or if it is pointless.
 */
int hpb_wait(struct hpb *bh);

/**
 * hpb_failed() - notice that the device cannot answer any more
 * @bh: balloon; its queues are set up
 *
 * Return: whether requests are over, for this reason or another.
 */
bool hpb_failed(struct hpb *bh);

/* Whether there is an answer to act on, the OOM notifier's apart. */
bool hpb_answered(struct hpb *bh);

/* Whether requests other than the OOM notifier's are with the device. */
bool hpb_in_flight(struct hpb *bh);

/* Virtqueue callback of the inflate and the deflate queue. */
void hpb_vq_answered(struct virtqueue *vq);

/**
 * hpb_slots_recover() - after a device reset: blocks of all requests are ours
 * @bh: balloon; the device has been reset, its callbacks do not run any more
 */
void hpb_slots_recover(struct hpb *bh);

/* flow.c */

/*
 * What to do about an errno from hpb_status_errno(). In ascending order of how
 * much they say about a pass: if some blocks may work later, there is a later.
 */
enum hpb_verdict {
	HPB_FINE,	/* nothing to do */
	HPB_NOW,	/* try again at once */
	HPB_NEVER,	/* trying again does not help, only another target does */
	HPB_LATER,	/* try again after a delay */
};

enum hpb_verdict hpb_judge(int err);

/**
 * struct hpb_tally - what became of the blocks of some requests
 * @done:   blocks
 * @failed: blocks
 * @err:    errno of the worst failure
 */
struct hpb_tally {
	unsigned long done;
	unsigned long failed;
	int err;
};

void hpb_tally_add(struct hpb_tally *t, unsigned long done, unsigned long failed,
		   int err);

/**
 * hpb_settle() - act on an answer
 * @bh:    balloon
 * @slot:  slot in state SETTLING; is FREE (or LOST) afterwards
 * @tally: added to
 */
void hpb_settle(struct hpb *bh, struct hpb_slot *slot, struct hpb_tally *tally);

/**
 * hpb_mark_all() - mark all pages that are out, or may be
 * @bh: balloon; @bh->op is held
 */
void hpb_mark_all(struct hpb *bh);

/* Act on all answers there are. @bh->op is held. */
void hpb_reap(struct hpb *bh, struct hpb_tally *tally);

/**
 * hpb_drain() - act on answers until no request is outstanding
 * @bh:    balloon; @bh->op is held
 * @tally: added to
 *
 * Return: 0, or as hpb_wait().
 */
int hpb_drain(struct hpb *bh, struct hpb_tally *tally);

/**
 * hpb_next_slot() - a slot to fill, waiting for one if need be
 * @bh:    balloon; @bh->op is held
 * @type:  VIRTIO_BALLOON_HP_REQ_*
 * @tally: added to
 *
 * Return: slot in state FILLING, or NULL with the reason in @tally.
 */
struct hpb_slot *hpb_next_slot(struct hpb *bh, u16 type,
			       struct hpb_tally *tally);

/**
 * hpb_send_wait() - hpb_send() that waits for room in the ring
 * @bh:    balloon; @bh->op is held
 * @slot:  filled slot
 * @tally: added to
 *
 * Return: as hpb_send() and hpb_wait().
 */
int hpb_send_wait(struct hpb *bh, struct hpb_slot *slot, struct hpb_tally *tally);

/* target.c */

void hpb_work(struct work_struct *work);

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
