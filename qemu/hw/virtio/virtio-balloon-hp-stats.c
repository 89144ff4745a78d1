/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp: guest statistics
 *
 * Beside the data path. Works, and looks to the management, as with the
 * traditional balloon: "guest-stats" holds the last values that the guest
 * sent, and while "guest-stats-polling-interval" is not 0 the device asks for
 * new ones by returning the driver's buffer. At most one buffer is held
 * (DEV-22), and the timer exists only while polling is on.
 *
 * When the VM stops the buffer goes back to the ring as if it had not been
 * taken. So it needs no place in the saved state, and the destination finds
 * the last values in it.
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

/* Entries of one buffer that are looked at (DEV-21) */
#define VBHP_STATS_MAX_ENTRIES 256
/* Buffers taken in one go before other users of the main loop get a turn */
#define VBHP_STATS_MAX_BATCH 64

QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_stat) != 16);
QEMU_BUILD_BUG_ON(VIRTIO_BALLOON_HP_STAT_DIRECT_RECLAIM != 15);

/* Names of the traditional balloon, by tag; and those that it does not have */
static const char *const vbhp_stat_name[VBHP_NR_STAT] = {
    [VIRTIO_BALLOON_HP_STAT_SWAP_IN] = "stat-swap-in",
    [VIRTIO_BALLOON_HP_STAT_SWAP_OUT] = "stat-swap-out",
    [VIRTIO_BALLOON_HP_STAT_MAJFLT] = "stat-major-faults",
    [VIRTIO_BALLOON_HP_STAT_MINFLT] = "stat-minor-faults",
    [VIRTIO_BALLOON_HP_STAT_MEMFREE] = "stat-free-memory",
    [VIRTIO_BALLOON_HP_STAT_MEMTOT] = "stat-total-memory",
    [VIRTIO_BALLOON_HP_STAT_AVAIL] = "stat-available-memory",
    [VIRTIO_BALLOON_HP_STAT_CACHES] = "stat-disk-caches",
    [VIRTIO_BALLOON_HP_STAT_HTLB_PGALLOC] = "stat-htlb-pgalloc",
    [VIRTIO_BALLOON_HP_STAT_HTLB_PGFAIL] = "stat-htlb-pgfail",
    [VIRTIO_BALLOON_HP_STAT_OOM_KILL] = "stat-oom-kills",
    [VIRTIO_BALLOON_HP_STAT_ALLOC_STALL] = "stat-alloc-stalls",
    [VIRTIO_BALLOON_HP_STAT_ASYNC_SCAN] = "stat-async-scans",
    [VIRTIO_BALLOON_HP_STAT_DIRECT_SCAN] = "stat-direct-scans",
    [VIRTIO_BALLOON_HP_STAT_ASYNC_RECLAIM] = "stat-async-reclaims",
    [VIRTIO_BALLOON_HP_STAT_DIRECT_RECLAIM] = "stat-direct-reclaims",
    [VBHP_STAT_FREE_RANGES] = "stat-free-ranges",
    [VBHP_STAT_REFAULTS] = "stat-refaults",
};

static VirtQueue *vbhp_stats_vq(VirtIOBalloonHP *s)
{
    return s->vq[VIRTIO_BALLOON_HP_VQ_STATS];
}

/* All ones means "not reported", as with the traditional balloon. */
static void vbhp_stats_clear(VirtIOBalloonHP *s)
{
    memset(s->stats, 0xff, sizeof(s->stats));
}

/* Polling */

static void vbhp_stats_arm(VirtIOBalloonHP *s, int64_t secs)
{
    if (s->stats_timer) {
        timer_mod(s->stats_timer,
                  qemu_clock_get_ms(QEMU_CLOCK_VIRTUAL) + secs * 1000);
    }
}

/* Return the held buffer, which asks the driver for new values. */
static void vbhp_stats_return(VirtIOBalloonHP *s)
{
    virtqueue_push(vbhp_stats_vq(s), s->stats_elem, 0);
    virtio_notify(VIRTIO_DEVICE(s), vbhp_stats_vq(s));
    g_clear_pointer(&s->stats_elem, g_free);
}

static void vbhp_stats_poll(void *opaque)
{
    VirtIOBalloonHP *s = opaque;

    if (s->stats_elem) {
        vbhp_stats_return(s);   /* its return starts the timer again */
    } else {
        vbhp_stats_arm(s, s->stats_interval);
    }
}

static void vbhp_stats_set_interval(VirtIOBalloonHP *s, int64_t secs)
{
    bool was_off = !s->stats_interval;

    s->stats_interval = secs;
    if (!secs) {
        g_clear_pointer(&s->stats_timer, timer_free);
        return;
    }
    if (!s->stats_timer) {
        s->stats_timer = timer_new_ms(QEMU_CLOCK_VIRTUAL, vbhp_stats_poll, s);
    }
    vbhp_stats_arm(s, was_off ? 0 : secs);
}

/* Queue */

static void vbhp_stats_take(VirtIOBalloonHP *s, VirtQueueElement *elem)
{
    struct virtio_balloon_hp_stat stat;
    size_t offset = 0;

    vbhp_stats_clear(s);
    for (int i = 0; i < VBHP_STATS_MAX_ENTRIES; i++) {
        uint16_t tag;

        if (iov_to_buf(elem->out_sg, elem->out_num, offset, &stat,
                       sizeof(stat)) != sizeof(stat)) {
            break;
        }
        offset += sizeof(stat);
        tag = le16_to_cpu(stat.tag);
        if (tag == VIRTIO_BALLOON_HP_STAT_FREE_RANGES) {
            s->stats[VBHP_STAT_FREE_RANGES] = le64_to_cpu(stat.val);
        } else if (tag == VIRTIO_BALLOON_HP_STAT_REFAULTS) {
            s->stats[VBHP_STAT_REFAULTS] = le64_to_cpu(stat.val);
        } else if (tag < VBHP_STAT_FREE_RANGES) {
            s->stats[tag] = le64_to_cpu(stat.val);
        }
    }
    if (!s->stats_again) {
        s->stats_last_update = g_get_real_time() / G_USEC_PER_SEC;
    }
    s->stats_again = false;
    trace_virtio_balloon_hp_stats(offset / sizeof(stat));
}

void vbhp_stats_process(VirtIOBalloonHP *s)
{
    VirtQueueElement *elem;
    bool any = false;

    for (int i = 0; ; i++) {
        if (i == VBHP_STATS_MAX_BATCH) {
            vbhp_queue_kick(s);
            break;
        }
        elem = virtqueue_pop(vbhp_stats_vq(s), sizeof(*elem));
        if (!elem) {
            break;
        }
        if (elem->in_num) {
            vbhp_break(s, "statistics buffer with device-writable parts");
            virtqueue_detach_element(vbhp_stats_vq(s), elem, 0);
            g_free(elem);
            return;
        }
        if (s->stats_elem) {
            vbhp_stats_return(s);
        }
        s->stats_elem = elem;
        vbhp_stats_take(s, elem);
        any = true;
    }
    if (any) {
        vbhp_stats_arm(s, s->stats_interval);
    }
}

void vbhp_stats_pause(VirtIOBalloonHP *s)
{
    if (s->stats_elem) {
        virtqueue_unpop(vbhp_stats_vq(s), s->stats_elem, 0);
        g_clear_pointer(&s->stats_elem, g_free);
        s->stats_again = true;
    }
}

void vbhp_stats_abandon(VirtIOBalloonHP *s)
{
    if (s->stats_elem) {
        virtqueue_detach_element(vbhp_stats_vq(s), s->stats_elem, 0);
        g_clear_pointer(&s->stats_elem, g_free);
    }
    s->stats_again = false;
}

void vbhp_stats_reset(VirtIOBalloonHP *s)
{
    vbhp_stats_abandon(s);
    vbhp_stats_clear(s);
    s->stats_last_update = 0;
}

void vbhp_stats_post_load(VirtIOBalloonHP *s)
{
    vbhp_stats_arm(s, s->stats_interval);
}

void vbhp_stats_unrealize(VirtIOBalloonHP *s)
{
    vbhp_stats_abandon(s);
    vbhp_stats_set_interval(s, 0);
}

/* Properties */

static void vbhp_stats_get(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);
    bool ok;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    ok = visit_type_int(v, "last-update", &s->stats_last_update, errp) &&
         visit_start_struct(v, "stats", NULL, 0, errp);
    if (ok) {
        for (int i = 0; ok && i < VBHP_NR_STAT; i++) {
            ok = visit_type_uint64(v, vbhp_stat_name[i], &s->stats[i], errp);
        }
        ok = ok && visit_check_struct(v, errp);
        visit_end_struct(v, NULL);
    }
    if (ok) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
}

static void vbhp_stats_interval_get(Object *obj, Visitor *v, const char *name,
                                    void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);

    visit_type_int(v, name, &s->stats_interval, errp);
}

static void vbhp_stats_interval_set(Object *obj, Visitor *v, const char *name,
                                    void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);
    int64_t value;

    if (!visit_type_int(v, name, &value, errp)) {
        return;
    }
    if (value < 0 || value > UINT32_MAX) {
        error_setg(errp, "%s: %" PRId64 " is not between 0 (off) and %" PRIu32
                   " seconds", name, value, UINT32_MAX);
        return;
    }
    if (value != s->stats_interval) {
        vbhp_stats_set_interval(s, value);
    }
}

void vbhp_stats_instance_init(Object *obj)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);

    vbhp_stats_clear(s);
    object_property_add(obj, "guest-stats", "guest statistics",
                        vbhp_stats_get, NULL, NULL, NULL);
    object_property_add(obj, "guest-stats-polling-interval", "int",
                        vbhp_stats_interval_get, vbhp_stats_interval_set,
                        NULL, NULL);
}
