/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp: memory balloon in huge page ranges (virtio device ID 13)
 *
 * The state of one device. What crosses the boundary to the driver is in
 * standard-headers/linux/virtio_balloon_hp.h; the functions of the device's
 * files among themselves are in hw/virtio/virtio-balloon-hp-internal.h.
 *
 * Locking: everything here is protected by the big QEMU lock (BQL), except
 * what VbhpWorker says. Lock order: BQL, then VbhpWorker.lock. The worker
 * thread never takes the BQL; it hands results over through a bottom half.
 */

#ifndef HW_VIRTIO_BALLOON_HP_H
#define HW_VIRTIO_BALLOON_HP_H

#include "qemu/queue.h"
#include "qemu/thread.h"
#include "exec/memory.h"
#include "hw/virtio/virtio.h"
#include "standard-headers/linux/virtio_balloon_hp.h"
#include "qom/object.h"

#define TYPE_VIRTIO_BALLOON_HP "virtio-balloon-hp-device"
OBJECT_DECLARE_SIMPLE_TYPE(VirtIOBalloonHP, VIRTIO_BALLOON_HP)

/* Statuses of the wire header: 0 .. VIRTIO_BALLOON_HP_UNSUPP */
#define VBHP_NR_STATUS (VIRTIO_BALLOON_HP_UNSUPP + 1)
/* Request types of the wire header: 1 .. VIRTIO_BALLOON_HP_REQ_STATE */
#define VBHP_NR_TYPE (VIRTIO_BALLOON_HP_REQ_STATE + 1)
/* Traditional statistics have tags 0 .. VBHP_STAT_FREE_RANGES - 1 */
#define VBHP_STAT_FREE_RANGES (VIRTIO_BALLOON_HP_STAT_DIRECT_RECLAIM + 1)
#define VBHP_STAT_REFAULTS (VBHP_STAT_FREE_RANGES + 1)
#define VBHP_NR_STAT (VBHP_STAT_REFAULTS + 1)

typedef struct VbhpBlock VbhpBlock;
typedef struct VbhpRequest VbhpRequest;
typedef struct VbhpSavedBlock VbhpSavedBlock;

typedef QTAILQ_HEAD(VbhpRequestList, VbhpRequest) VbhpRequestList;

/* The thread that frees memory, and what it was given to do */
typedef struct VbhpWorker {
    QemuThread thread;
    QEMUBH *done_bh;

    QemuMutex lock;         /* protects what follows */
    QemuCond todo_cond;     /* todo is not empty, or stop */
    QemuCond done_cond;     /* running has become NULL */
    VbhpRequestList todo;
    VbhpRequestList done;
    VbhpRequest *running;   /* in neither list */
    bool stop;
} VbhpWorker;

/* Counters since the device was created; they only grow */
typedef struct VbhpCounters {
    uint64_t requests[VBHP_NR_TYPE];    /* answered, by type */
    uint64_t ranges[VBHP_NR_TYPE];      /* contiguous runs done, by type */
    uint64_t bytes[VBHP_NR_TYPE];       /* done, by type */
    uint64_t descriptors;               /* pieces of ranges in all requests */
    uint64_t refused[VBHP_NR_STATUS];   /* runs and requests, by status */
    uint64_t broken;                    /* malformed beyond an answer */
    uint64_t dropped;                   /* abandoned by a reset */
} VbhpCounters;

/* Memory that the guest asked for and the host does not have, for operators */
typedef struct VbhpRefusal {
    int64_t since;              /* seconds since the epoch; 0: there is none */
    int64_t last;               /* likewise, of the newest request */
    uint64_t requests;          /* refused in all or part since @since */
    uint64_t bytes;             /* refused of the newest request */
    char *block;                /* name of the RAM block */
    char *reason;
    int64_t warned;             /* ms of the host's clock, 0: never */
} VbhpRefusal;

/* What the driver said last of how it stands; zero: nothing yet */
typedef struct VbhpGuest {
    int64_t last_update;        /* seconds since the epoch, 0: never */
    uint16_t stop;              /* VIRTIO_BALLOON_HP_STOP_*, or unknown */
    uint64_t requested;         /* bytes, target that this is about */
    uint64_t available;         /* bytes */
    uint64_t wanted;            /* bytes that the guest wants back */
    uint32_t reclaim;           /* only in saved state, like cache_floor */
    uint64_t cache_floor;
} VbhpGuest;

/* Memory that the guest lends while it is migrated */
typedef struct VbhpSession {
    uint32_t lend;              /* what the operator allows: VBHP_LEND_* */
    uint32_t time;              /* ms that a migration waits at most */
    bool active;                /* more is asked for than the target */
    bool waiting;               /* atomic: migration waits for us */
    uint64_t limit;             /* bytes that may be out while active */
    uint64_t most;              /* lent, by this migration or the last one */
    QEMUTimer *timer;           /* ends the waiting */
    NotifierWithReturn notifier;
} VbhpSession;

struct VirtIOBalloonHP {
    VirtIODevice parent_obj;

    VirtQueue *vq[VIRTIO_BALLOON_HP_VQ_MAX];
    uint64_t host_features;

    uint64_t unit;              /* bytes, power of two */
    uint64_t preferred;         /* bytes, power of two, at least unit */
    uint32_t max_ranges;        /* descriptors with range bytes a request */
    uint64_t requested;         /* bytes the driver should have out */
    unsigned nr_nodes;          /* in the configuration; 0: no feature */
    uint64_t *node_requested;   /* bytes by node, sum is requested; or NULL */
    uint64_t actual;            /* bytes that are out: sum over blocks */
    QEMUTimer *change_timer;    /* pending: actual has changed, nobody knows */
    int64_t change_limit;       /* ms: while it is pending, its latest time */
    bool target_is_new;         /* set while waiting for incoming state */
    uint32_t reclaim;           /* VIRTIO_BALLOON_HP_RECLAIM_* */
    uint64_t cache_floor;       /* bytes of page cache that stay */
    VbhpGuest guest;
    VbhpSession session;
    bool config_pending;        /* tell the driver when the VM runs */

    /* [4] requests */
    unsigned inflight[VIRTIO_BALLOON_HP_VQ_MAX];
    QEMUBH *kick_bh;            /* look at all queues again */
    QEMUTimer *hold_timer;      /* runs only during incoming postcopy */

    /* [5] memory */
    bool prealloc;              /* populate on grow, whatever the backing */
    VbhpRefusal refusal;
    VbhpWorker worker;
    VbhpRequest *settle;        /* freeing what came in as out, or NULL */
    bool settle_wanted;         /* to be done when postcopy is over */
    bool zero_unknown;          /* something that is out may not be zero */

    /* [6] state */
    QTAILQ_HEAD(, VbhpBlock) blocks;
    bool blocks_stale;          /* memory map changed since the last look */
    MemoryListener listener;
    NotifierWithReturn precopy_notifier;
    bool migration_has_bitmap;  /* of dirty pages: what goes out is taken from it */
    uint64_t skipped;           /* bytes, by this migration or the last one */
    int32_t nr_saved;           /* only while state is saved or loaded */
    VbhpSavedBlock *saved;
    uint64_t saved_unit;
    uint64_t saved_requested;
    uint32_t saved_nr_nodes;    /* 0: the state had no targets of nodes */
    uint64_t *saved_node_requested;

    /* statistics */
    VirtQueueElement *stats_elem;
    bool stats_again;           /* stats_elem went back when the VM stopped */
    uint64_t stats[VBHP_NR_STAT];
    int64_t stats_last_update;  /* seconds since the epoch, 0: never */
    int64_t stats_interval;     /* seconds, 0: not polling */
    QEMUTimer *stats_timer;     /* exists while polling */

    VbhpCounters count;
};

#endif
