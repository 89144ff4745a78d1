/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp: what the device's own files know of each other
 *
 *   virtio-balloon-hp.c         properties, configuration, life cycle
 *   virtio-balloon-hp-nodes.c   target, targets of NUMA nodes
 *   virtio-balloon-hp-queue.c   [4] take requests, dispatch, answer
 *   virtio-balloon-hp-plan.c    [4] validate the ranges of a request
 *   virtio-balloon-hp-memory.c  [5] free the backing, in a worker thread
 *   virtio-balloon-hp-provide.c [5] provide memory again, or say why not
 *   virtio-balloon-hp-migrate.c [6] saved state
 *   virtio-balloon-hp-discard.c [6] tell migration and others what is out
 *   virtio-balloon-hp-state.c   [6] which units are out
 *   virtio-balloon-hp-map.c     tell which units are out
 *   virtio-balloon-hp-stats.c   guest statistics
 *   virtio-balloon-hp-guest.c   what it may give up, how it stands
 *   virtio-balloon-hp-session.c what it lends for the time of a migration
 *
 * Calls go down this list only, except for those that the worker's bottom half
 * makes (vbhp_queue_complete(), vbhp_settled()), what unplugging and loading
 * mean for the target (vbhp_nodes_shrunk(), vbhp_target_loaded() and those
 * beside it), and what a loan changes or has to know (vbhp_requested(),
 * vbhp_reclaim(), vbhp_session_news(), vbhp_session_end()). A request is
 * validated once, in [4], and becomes a list of runs: below, only runs travel.
 *
 * Every function wants the BQL unless it says otherwise.
 */

#ifndef HW_VIRTIO_BALLOON_HP_INTERNAL_H
#define HW_VIRTIO_BALLOON_HP_INTERNAL_H

#include "hw/virtio/virtio-balloon-hp.h"
#include "exec/ramblock.h"
#include "hpballoon/hpballoon.h"

/* Node of a block that belongs to none, or to several */
#define VBHP_NO_NODE UINT32_MAX

typedef struct VbhpDiscard VbhpDiscard;

/*
 * One RAM block that ranges may come from. @out says which units are out,
 * @busy which are in a request that has not been answered. Both bitmaps exist
 * from the first request on that names the block. A block that was unplugged
 * while requests use it is @gone: in no list, freed with its last user.
 */
struct VbhpBlock {
    MemoryRegion *mr;           /* referenced */
    RAMBlock *rb;
    HpbMemory *mem;             /* NULL: the host cannot free it */
    VbhpDiscard *discard;       /* NULL: nothing was ever out */
    bool provide;               /* fetch memory before the guest gets it */
    uint32_t node;              /* NUMA node of the guest, or VBHP_NO_NODE */
    uint64_t nr_units;
    uint64_t nr_out;
    unsigned long *out;
    unsigned long *busy;
    unsigned users;             /* runs in requests, and the settle request */
    bool gone;
    QTAILQ_ENTRY(VbhpBlock) next;
};

/*
 * Consecutive units of a request which are consecutive in one RAM block too.
 * The first @done of them are done; @status holds for the others.
 */
typedef struct VbhpRun {
    VbhpBlock *blk;             /* block with this run's busy bits, or NULL */
    uint64_t index;             /* first unit in @blk */
    uint32_t first;             /* first unit in the request */
    uint32_t count;
    uint32_t done;
    uint16_t status;
} VbhpRun;

/* Frees what is out after state was loaded; has no element, nobody answers */
#define VBHP_REQ_SETTLE 0

struct VbhpRequest {
    VirtQueueElement elem;      /* first: virtqueue_pop() allocates us */
    unsigned qi;                /* queue index, VIRTIO_BALLOON_HP_VQ_* */
    uint16_t type;              /* VIRTIO_BALLOON_HP_REQ_*, VBHP_REQ_SETTLE */
    uint16_t tail_status;       /* of units that no exception has room for */
    uint32_t units;             /* in the whole request */
    uint32_t room;              /* exceptions that the response can hold */
    VbhpRun *runs;              /* cover all units, ascending */
    unsigned nr_runs;
    unsigned max_runs;
    bool discards;              /* holds ram_block_discard_require() */
    bool not_zeroed;            /* settle: something out may not be zero */
    int cancel;                 /* atomic: stop at the next slice */
    GPtrArray *blocks;          /* settle: the blocks to go through */
    char *refused_block;        /* deflate: there was no memory for this one */
    char *refused_reason;       /* and why; set together */
    QTAILQ_ENTRY(VbhpRequest) next;
};

/* Target */

void vbhp_nodes_instance_init(Object *obj);
/* Find out whether this machine has nodes; then its configuration has them */
void vbhp_nodes_realize(VirtIOBalloonHP *s);
void vbhp_nodes_unrealize(VirtIOBalloonHP *s);
/* Write s->nr_nodes entries of the configuration space */
void vbhp_nodes_get_config(VirtIOBalloonHP *s,
                           struct virtio_balloon_hp_node *nodes);
/*
 * The one setter of the target: @requested bytes out, and if @nodes is not NULL
 * it has as many bytes for each node, which sum up to @requested. Tells the
 * driver if that is another target.
 */
void vbhp_target_set(VirtIOBalloonHP *s, uint64_t requested,
                     const uint64_t *nodes);
/* Memory was unplugged: no node is asked for more than it has left */
void vbhp_nodes_shrunk(VirtIOBalloonHP *s);
/* Forget what an earlier load left */
void vbhp_nodes_pre_load(VirtIOBalloonHP *s);
/* Whether loaded targets of nodes fit this machine; says why not */
bool vbhp_nodes_check_loaded(VirtIOBalloonHP *s);
/*
 * Take the loaded target, unless a newer one was set while the state was
 * awaited. True if the driver has to be told of a target that is not the one
 * in the stream.
 */
bool vbhp_target_loaded(VirtIOBalloonHP *s);

extern const VMStateDescription vmstate_vbhp_nodes;

/* [4] queue */

/* Set by @vq's handler and by kick_bh: take what is available, up to limits */
void vbhp_queue_process(VirtIOBalloonHP *s, unsigned qi);
/* Look at all queues soon, from the main loop */
void vbhp_queue_kick(VirtIOBalloonHP *s);
/* Answer the requests in @done, which becomes empty, and notify the driver */
void vbhp_queue_complete(VirtIOBalloonHP *s, VbhpRequestList *done);
/*
 * Give up all requests of queue @qi, or of all queues if @qi is
 * VIRTIO_BALLOON_HP_VQ_MAX: nothing touches memory for them once this
 * returns, nothing is answered, no unit changes state. Waits for the slice
 * that is being freed.
 */
void vbhp_queue_abandon(VirtIOBalloonHP *s, unsigned qi);
/* Answer everything that is being worked on; nothing is in flight afterwards */
void vbhp_queue_drain(VirtIOBalloonHP *s);
/* Stop working until the driver resets the device, because of @why */
void vbhp_break(VirtIOBalloonHP *s, const char *why);
void vbhp_queue_realize(VirtIOBalloonHP *s);
void vbhp_queue_unrealize(VirtIOBalloonHP *s);

/*
 * Make runs of the ranges of @req, which begin @resp_size bytes into its
 * writable part; the header has been checked. The runs cover all units, hold
 * their claims, and need at most @req->room exceptions. Units that could be
 * done get @deny, which is OK or why nothing can be done now.
 */
void vbhp_plan(VirtIOBalloonHP *s, VbhpRequest *req, uint64_t resp_size,
               uint16_t deny);

/* [5] memory */

/* Start and stop the worker thread; stop wants that nothing is in flight */
void vbhp_memory_realize(VirtIOBalloonHP *s);
void vbhp_memory_unrealize(VirtIOBalloonHP *s);
void vbhp_memory_instance_init(Object *obj);
/*
 * A QOM property with an element for each RAM block, written by @visit; an
 * empty list before the device is realized
 */
typedef bool (*VbhpVisitBlock)(Visitor *v, VbhpBlock *blk, uint64_t unit,
                               Error **errp);
void vbhp_visit_blocks(VirtIOBalloonHP *s, Visitor *v, const char *name,
                       VbhpVisitBlock visit, Error **errp);
/* Open @blk's backing in the helper library; says why if it cannot be freed */
void vbhp_memory_open(VbhpBlock *blk);
void vbhp_memory_close(VbhpBlock *blk);
/* True if doing @type on @blk needs the worker */
bool vbhp_memory_has_work(const VbhpBlock *blk, uint16_t type);
/*
 * Hand @req to the worker, which owns it until it is returned by
 * vbhp_memory_take() or given to vbhp_queue_complete().
 */
void vbhp_memory_submit(VirtIOBalloonHP *s, VbhpRequest *req);
/*
 * Take requests of queue @qi (VIRTIO_BALLOON_HP_VQ_MAX: all, and settling)
 * back from the worker, done or not. Waits for the one being worked on, which
 * is told to stop.
 */
void vbhp_memory_take(VirtIOBalloonHP *s, unsigned qi, VbhpRequestList *list);
/*
 * Wait until everything submitted is done, at most @ms milliseconds; then
 * tell the rest to stop (undone units become AGAIN). Returns all of them.
 */
void vbhp_memory_flush(VirtIOBalloonHP *s, int ms, VbhpRequestList *list);
/*
 * Free the host memory of all that is out, in the background, if @s wants
 * that and it is safe. No request is taken from a queue until it is done.
 */
void vbhp_settle(VirtIOBalloonHP *s);
/*
 * True if requests have to wait for vbhp_settle() or for incoming postcopy to
 * end; the queues are looked at again when that may have changed
 */
bool vbhp_held(VirtIOBalloonHP *s);

void vbhp_provide_instance_init(Object *obj);
/*
 * Worker, without the BQL: fetch the memory of a deflate. Units for which
 * there is none become NOMEM, and nothing of them stays populated.
 */
void vbhp_provide(VbhpRequest *req, uint64_t unit);
/* Keep for the operator what became of deflate @req; its runs hold blocks yet */
void vbhp_refusal_update(VirtIOBalloonHP *s, const VbhpRequest *req);
/* A refusal about @block (NULL: any) is no longer true */
void vbhp_refusal_forget(VirtIOBalloonHP *s, const char *block);

/* [6] state */

void vbhp_state_realize(VirtIOBalloonHP *s);
void vbhp_state_unrealize(VirtIOBalloonHP *s);
/* Nothing is out any more; wants that nothing is in flight */
void vbhp_state_reset(VirtIOBalloonHP *s);
/* Look again which RAM there is, if the memory map has changed */
void vbhp_blocks_refresh(VirtIOBalloonHP *s);
/*
 * The block behind @section if it is ordinary RAM of the machine, else NULL.
 * The caller holds a reference to the section's memory region.
 */
VbhpBlock *vbhp_block_of(VirtIOBalloonHP *s,
                         const MemoryRegionSection *section);
/* The block of that name, or NULL */
VbhpBlock *vbhp_block_by_name(VirtIOBalloonHP *s, const char *idstr);
/* Whether the host can free units of @blk at all */
bool vbhp_block_frees(VirtIOBalloonHP *s, const VbhpBlock *blk);
/* Page sizes of the ordinary RAM's backings, bytes */
void vbhp_page_sizes(uint64_t *smallest, uint64_t *largest);
/* Range size that suits all ordinary RAM, bytes, a power of two */
uint64_t vbhp_preferred_range(VirtIOBalloonHP *s);
/*
 * NUMA nodes of the machine, if there are two or more and all ordinary RAM is
 * of one of them; else 0
 */
unsigned vbhp_ram_nodes(void);
void vbhp_block_ref(VbhpBlock *blk);
void vbhp_block_unref(VbhpBlock *blk);
/* Mark the units of @run busy; none may be. @run holds the block from now on */
void vbhp_run_claim(VbhpRun *run);
/* The reverse, without a change of state */
void vbhp_run_release(VbhpRun *run);
/* Make what @run says is done the truth: inflate or deflate. Then release */
void vbhp_run_commit(VirtIOBalloonHP *s, VbhpRun *run, uint16_t type);
/* Take @bits, a little endian bitmap, as what is out of @blk: nothing was */
void vbhp_block_load(VirtIOBalloonHP *s, VbhpBlock *blk, const void *bits);
/* The size of the guest is another: tell management, when there is news */
void vbhp_actual_changed(VirtIOBalloonHP *s);
/* Tell management the size now */
void vbhp_actual_tell(VirtIOBalloonHP *s);
/* Bytes of RAM that targets and answers of QMP balloon commands refer to */
uint64_t vbhp_ram_size(void);

void vbhp_migrate_realize(VirtIOBalloonHP *s);
void vbhp_migrate_unrealize(VirtIOBalloonHP *s);

extern const VMStateDescription vmstate_vbhp_state;

/*
 * Who asks QEMU what memory is there, and who is told of changes. @index and
 * @count are units of @blk.
 */

void vbhp_discard_realize(VirtIOBalloonHP *s);
void vbhp_discard_unrealize(VirtIOBalloonHP *s);
/* Whether the manager of @mr belongs to a balloon that is there */
bool vbhp_discard_is_ours(MemoryRegion *mr);
/* The balloon lets go of @blk, of which nothing is out any more */
void vbhp_discard_detach(VbhpBlock *blk);
/* These units are out now */
void vbhp_discard_went_out(VirtIOBalloonHP *s, VbhpBlock *blk, uint64_t index,
                           uint64_t count);
/*
 * Ask those who map guest memory whether they can have these units, which are
 * out. True: they have them now; vbhp_discard_came_back() must follow.
 */
bool vbhp_discard_can_come_back(VirtIOBalloonHP *s, VbhpBlock *blk,
                                uint64_t index, uint64_t count);
/* What that was asked about @run, which is true: they stay out */
void vbhp_discard_stays_out(VirtIOBalloonHP *s, const VbhpRun *run);
/* These units are not out any more */
void vbhp_discard_came_back(VirtIOBalloonHP *s, VbhpBlock *blk, uint64_t index,
                            uint64_t count);
/* The same for all that is out of @blk, whose @out is cleared or was loaded */
void vbhp_discard_all_back(VirtIOBalloonHP *s, VbhpBlock *blk);
void vbhp_discard_all_out(VirtIOBalloonHP *s, VbhpBlock *blk);

/* What the guest may give up, and how it stands */

void vbhp_guest_instance_init(Object *obj);
void vbhp_guest_reset(VirtIOBalloonHP *s);
void vbhp_guest_get_config(VirtIOBalloonHP *s,
                           struct virtio_balloon_hp_config *config);
/* The driver's state, in @elem behind the header, whose size is @size */
uint16_t vbhp_guest_state(VirtIOBalloonHP *s, const VirtQueueElement *elem,
                          uint64_t size);

extern const VMStateDescription vmstate_vbhp_guest;

/* What the guest lends for the time of a migration */

void vbhp_session_instance_init(Object *obj);
void vbhp_session_realize(VirtIOBalloonHP *s);
void vbhp_session_unrealize(VirtIOBalloonHP *s);
/* What the driver is asked to have out, bytes, and may take for it */
uint64_t vbhp_requested(const VirtIOBalloonHP *s);
uint32_t vbhp_reclaim(const VirtIOBalloonHP *s);
/* The driver has said something, or another size is out */
void vbhp_session_news(VirtIOBalloonHP *s);
/* Nothing is lent any more; true if the driver has to be told so */
bool vbhp_session_end(VirtIOBalloonHP *s);
/* Whether migration shall wait; from any thread */
bool vbhp_session_pending(void *opaque);

/* Tell which units are out */

void vbhp_map_instance_init(Object *obj);

/* statistics */

void vbhp_stats_instance_init(Object *obj);
void vbhp_stats_process(VirtIOBalloonHP *s);
/* Give the driver's buffer back to the queue, unread, until the VM runs */
void vbhp_stats_pause(VirtIOBalloonHP *s);
/* Forget buffer (it was detached) and values */
void vbhp_stats_abandon(VirtIOBalloonHP *s);
void vbhp_stats_reset(VirtIOBalloonHP *s);
void vbhp_stats_post_load(VirtIOBalloonHP *s);
void vbhp_stats_unrealize(VirtIOBalloonHP *s);

#endif
