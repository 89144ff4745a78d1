/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp: the guest lends memory for the time of a migration
 *
 * Beside the data path. If the operator wants it ("migration-lend"), the driver
 * is asked for more than the target as long as a migration takes: all that is
 * free, and with "clean" page cache as well. What is lent is out like anything
 * else, so it is passed over, freed and never sent. There is no request for it:
 * the configuration shows a larger "requested", and a "reclaim" that says that
 * this is a loan (DEV-33, DRV-27). When the migration has ended in whatever way,
 * or the operator sets a target, the configuration is as before.
 *
 * The destination never hears of loans. It gets a device with more out than its
 * target, and the driver takes that back as always.
 *
 * Time. A migration that begins waits until the driver says that it can lend no
 * more, at most "migration-lend-time". It waits the way it does for devices
 * that the guest has to let go of, as status "wait-unplug", and the guest runs.
 * What is lent later is still taken from the dirty bitmap.
 *
 * Memory that the guest wants back (it says so, with "wanted", while it
 * takes it) is not asked for again in this migration.
 *
 * Invariants
 *  - s->requested is the operator's target, always; the driver is shown
 *    vbhp_requested().
 *
 * Rejected: a request of its own for loans. The driver would need a second
 * list of what is out, and the destination a way to tell both apart.
 * Rejected: waiting in a migration notifier. It holds the lock that the device
 * needs to do anything for the guest.
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "migration/misc.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

/* Longest time that a migration waits for a guest to lend, ms */
#define VBHP_LEND_TIME 1000

enum { VBHP_LEND_OFF, VBHP_LEND_FREE, VBHP_LEND_CLEAN };

static const char *const vbhp_lend_name[] = {
    [VBHP_LEND_OFF] = "off",
    [VBHP_LEND_FREE] = "free",
    [VBHP_LEND_CLEAN] = "clean",
};

uint64_t vbhp_requested(const VirtIOBalloonHP *s)
{
    return s->session.active ? MAX(s->requested, s->session.limit)
                             : s->requested;
}

uint32_t vbhp_reclaim(const VirtIOBalloonHP *s)
{
    if (!s->session.active) {
        return s->reclaim;
    }
    return s->session.lend == VBHP_LEND_CLEAN ?
           VIRTIO_BALLOON_HP_RECLAIM_LEND_CLEAN :
           VIRTIO_BALLOON_HP_RECLAIM_LEND_FREE;
}

static uint64_t vbhp_lent(const VirtIOBalloonHP *s)
{
    return s->session.active && s->actual > s->requested ?
           s->actual - s->requested : 0;
}

static void vbhp_session_tell(VirtIOBalloonHP *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (vdev->vm_running) {
        virtio_notify_config(vdev);
    } else {
        s->config_pending = true;
    }
}

/* Migration goes on. */
static void vbhp_session_ready(VirtIOBalloonHP *s)
{
    if (qatomic_xchg(&s->session.waiting, false)) {
        timer_del(s->session.timer);
        trace_virtio_balloon_hp_lent(vbhp_lent(s));
        migration_unplug_done();
    }
}

static void vbhp_session_timeout(void *opaque)
{
    vbhp_session_ready(opaque);
}

bool vbhp_session_pending(void *opaque)
{
    VirtIOBalloonHP *s = opaque;

    return qatomic_read(&s->session.waiting) && !migration_is_cancelling();
}

static void vbhp_session_begin(VirtIOBalloonHP *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    s->session.most = 0;
    if (s->session.lend == VBHP_LEND_OFF || s->session.active ||
        /* It has to read all that is in use now: nothing may be given up. */
        migration_in_bg_snapshot() ||
        !vdev->vm_running || vdev->broken ||
        !(vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) ||
        /* Else nothing says that it is a loan, nor when it is complete. */
        !virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_HP_F_RECLAIM) ||
        !virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_HP_F_STATE)) {
        return;
    }
    s->session.active = true;
    s->session.limit = QEMU_ALIGN_DOWN(vbhp_ram_size(), s->unit);
    trace_virtio_balloon_hp_lend(s->session.limit, s->session.time);
    if (s->session.time) {
        qatomic_set(&s->session.waiting, true);
        timer_mod(s->session.timer, s->session.time +
                  qemu_clock_get_ms(QEMU_CLOCK_REALTIME));
    }
    vbhp_session_tell(s);
}

bool vbhp_session_end(VirtIOBalloonHP *s)
{
    if (!s->session.active) {
        return false;
    }
    vbhp_session_ready(s);
    s->session.active = false;
    trace_virtio_balloon_hp_lend_end(s->session.most);
    return true;
}

void vbhp_session_news(VirtIOBalloonHP *s)
{
    VbhpGuest *g = &s->guest;

    if (!s->session.active) {
        return;
    }
    s->session.most = MAX(s->session.most, vbhp_lent(s));
    if (s->actual >= vbhp_requested(s) ||
        (g->stop != VIRTIO_BALLOON_HP_STOP_NONE &&
         g->requested == vbhp_requested(s))) {
        vbhp_session_ready(s);
    }
    if (g->wanted) {
        uint64_t limit = s->actual - MIN(s->actual, g->wanted);

        limit = QEMU_ALIGN_DOWN(limit, s->unit);
        if (limit < s->session.limit) {
            s->session.limit = limit;
            vbhp_session_ready(s);
            vbhp_session_tell(s);
        }
    }
}

static int vbhp_session_notify(NotifierWithReturn *notifier,
                               MigrationEvent *e, Error **errp)
{
    VirtIOBalloonHP *s = container_of(notifier, VirtIOBalloonHP,
                                      session.notifier);

    if (e->type == MIG_EVENT_PRECOPY_SETUP) {
        vbhp_session_begin(s);
    } else if (vbhp_session_end(s)) {
        vbhp_session_tell(s);
    }
    return 0;
}

void vbhp_session_realize(VirtIOBalloonHP *s)
{
    s->session.timer = timer_new_ms(QEMU_CLOCK_REALTIME, vbhp_session_timeout,
                                    s);
    migration_add_notifier(&s->session.notifier, vbhp_session_notify);
}

void vbhp_session_unrealize(VirtIOBalloonHP *s)
{
    migration_remove_notifier(&s->session.notifier);
    vbhp_session_end(s);
    timer_free(s->session.timer);
    s->session.timer = NULL;
}

/* Properties */

static char *vbhp_lend_get(Object *obj, Error **errp)
{
    return g_strdup(vbhp_lend_name[VIRTIO_BALLOON_HP(obj)->session.lend]);
}

static void vbhp_lend_set(Object *obj, const char *value, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);

    for (uint32_t i = 0; i < G_N_ELEMENTS(vbhp_lend_name); i++) {
        if (!strcmp(value, vbhp_lend_name[i])) {
            if (s->session.active && s->session.lend != i &&
                vbhp_session_end(s)) {
                vbhp_session_tell(s);
            }
            s->session.lend = i;
            return;
        }
    }
    error_setg(errp, "migration-lend=%s is none of 'off', 'free' (memory that "
               "is free) and 'clean' (also clean page cache)", value);
}

static void vbhp_session_get(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);
    bool active = s->session.active;
    bool waiting = qatomic_read(&s->session.waiting);
    uint64_t lent = vbhp_lent(s);

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    if (visit_type_bool(v, "active", &active, errp) &&
        visit_type_bool(v, "waiting", &waiting, errp) &&
        visit_type_uint64(v, "lent", &lent, errp) &&
        visit_type_uint64(v, "most-lent", &s->session.most, errp)) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
}

void vbhp_session_instance_init(Object *obj)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);

    s->session.time = VBHP_LEND_TIME;
    object_property_add_str(obj, "migration-lend", vbhp_lend_get,
                            vbhp_lend_set);
    object_property_add_uint32_ptr(obj, "migration-lend-time",
                                   &s->session.time, OBJ_PROP_FLAG_READWRITE);
    object_property_add(obj, "migration-session", "what is lent",
                        vbhp_session_get, NULL, NULL, NULL);
}
