/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp: what the guest may give up, and how it stands
 *
 * Beside the data path; two things that the target alone does not say.
 *
 *  - The operator says whether a guest may drop clean page cache to reach its
 *    target ("reclaim"), and how much of it is to stay ("cache-floor"). The
 *    driver reads both in its configuration.
 *  - The driver says why it has stopped short of the target, and whether the
 *    guest wants memory back (VIRTIO_BALLOON_HP_REQ_STATE). It is shown as
 *    "guest-state", and nothing is decided by it: a guest that lies deceives
 *    whoever looks, and nobody else.
 *
 * Only the newest state is kept, and it is neither logged nor an event: the
 * guest decides how often it sends one.
 *
 * Rejected: sending it with the statistics. Those are sent when the host asks,
 * which by default is never.
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "migration/vmstate.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_state) != 32);

static const char *const vbhp_reclaim_name[] = {
    [VIRTIO_BALLOON_HP_RECLAIM_FREE] = "free",
    [VIRTIO_BALLOON_HP_RECLAIM_CLEAN] = "clean",
};

/* Words of "stop"; a driver of the future may know others */
static const char *const vbhp_stop_name[] = {
    [VIRTIO_BALLOON_HP_STOP_NONE] = "none",
    [VIRTIO_BALLOON_HP_STOP_FRAGMENTED] = "fragmented",
    [VIRTIO_BALLOON_HP_STOP_FLOOR] = "guest-floor",
    [VIRTIO_BALLOON_HP_STOP_RECLAIM] = "page-cache",
    [VIRTIO_BALLOON_HP_STOP_PRESSURE] = "pressure",
    [VIRTIO_BALLOON_HP_STOP_REFUSED] = "host-refuses",
    [VIRTIO_BALLOON_HP_STOP_HOST] = "host-busy",
    [VIRTIO_BALLOON_HP_STOP_NOMEM] = "host-no-memory",
};

/* Configuration */

void vbhp_guest_get_config(VirtIOBalloonHP *s,
                           struct virtio_balloon_hp_config *config)
{
    if (virtio_vdev_has_feature(VIRTIO_DEVICE(s),
                                VIRTIO_BALLOON_HP_F_RECLAIM)) {
        config->reclaim = cpu_to_le32(vbhp_reclaim(s));
        config->cache_floor = cpu_to_le64(s->cache_floor);
    }
}

static void vbhp_reclaim_changed(VirtIOBalloonHP *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    trace_virtio_balloon_hp_reclaim(s->reclaim, s->cache_floor);
    if (!virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_HP_F_RECLAIM)) {
        return;
    }
    if (vdev->vm_running) {
        virtio_notify_config(vdev);
    } else {
        s->config_pending = true;
    }
}

/* Requests */

uint16_t vbhp_guest_state(VirtIOBalloonHP *s, const VirtQueueElement *elem,
                          uint64_t size)
{
    struct virtio_balloon_hp_state state;

    if (!virtio_vdev_has_feature(VIRTIO_DEVICE(s),
                                 VIRTIO_BALLOON_HP_F_STATE)) {
        return VIRTIO_BALLOON_HP_UNSUPP;
    }
    if (size || iov_to_buf(elem->out_sg, elem->out_num,
                           sizeof(struct virtio_balloon_hp_req), &state,
                           sizeof(state)) != sizeof(state)) {
        return VIRTIO_BALLOON_HP_INVAL;
    }
    s->guest.stop = le16_to_cpu(state.stop);
    s->guest.requested = le64_to_cpu(state.requested);
    s->guest.available = le64_to_cpu(state.available);
    s->guest.wanted = le64_to_cpu(state.wanted);
    s->guest.last_update = g_get_real_time() / G_USEC_PER_SEC;
    trace_virtio_balloon_hp_guest_state(s->guest.stop, s->guest.requested,
                                        s->guest.available, s->guest.wanted);
    vbhp_session_news(s);
    return VIRTIO_BALLOON_HP_OK;
}

void vbhp_guest_reset(VirtIOBalloonHP *s)
{
    memset(&s->guest, 0, sizeof(s->guest));
}

/* Properties */

static void vbhp_guest_state_get(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);
    VbhpGuest *g = &s->guest;
    g_autofree char *stop = g_strdup(
        g->stop < G_N_ELEMENTS(vbhp_stop_name) ? vbhp_stop_name[g->stop]
                                               : "unknown");

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    if (visit_type_int(v, "last-update", &g->last_update, errp) &&
        visit_type_str(v, "stop", &stop, errp) &&
        visit_type_uint64(v, "requested", &g->requested, errp) &&
        visit_type_uint64(v, "available", &g->available, errp) &&
        visit_type_uint64(v, "wanted", &g->wanted, errp)) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
}

static char *vbhp_reclaim_get(Object *obj, Error **errp)
{
    return g_strdup(vbhp_reclaim_name[VIRTIO_BALLOON_HP(obj)->reclaim]);
}

static void vbhp_reclaim_set(Object *obj, const char *value, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);

    for (uint32_t i = 0; i < G_N_ELEMENTS(vbhp_reclaim_name); i++) {
        if (!strcmp(value, vbhp_reclaim_name[i])) {
            if (s->reclaim != i) {
                s->reclaim = i;
                vbhp_reclaim_changed(s);
            }
            return;
        }
    }
    error_setg(errp, "reclaim=%s is neither 'free' (memory that is free) nor "
               "'clean' (also clean page cache)", value);
}

static void vbhp_cache_floor_get(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    visit_type_size(v, name, &VIRTIO_BALLOON_HP(obj)->cache_floor, errp);
}

static void vbhp_cache_floor_set(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);
    uint64_t value;

    if (visit_type_size(v, name, &value, errp) && value != s->cache_floor) {
        s->cache_floor = value;
        vbhp_reclaim_changed(s);
    }
}

void vbhp_guest_instance_init(Object *obj)
{
    VIRTIO_BALLOON_HP(obj)->reclaim = VIRTIO_BALLOON_HP_RECLAIM_CLEAN;
    object_property_add_str(obj, "reclaim", vbhp_reclaim_get,
                            vbhp_reclaim_set);
    object_property_add(obj, "cache-floor", "size", vbhp_cache_floor_get,
                        vbhp_cache_floor_set, NULL, NULL);
    object_property_add(obj, "guest-state", "how the guest's driver stands",
                        vbhp_guest_state_get, NULL, NULL, NULL);
}

/* Migration: the driver says nothing twice, so the destination has to know. */

static bool vbhp_guest_needed(void *opaque)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(opaque);

    return virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_HP_F_STATE) ||
           virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_HP_F_RECLAIM);
}

static int vbhp_guest_pre_save(void *opaque)
{
    VirtIOBalloonHP *s = opaque;

    s->guest.reclaim = vbhp_reclaim(s);
    s->guest.cache_floor = s->cache_floor;
    return 0;
}

/* What may be given up is for this side to say. */
static int vbhp_guest_post_load(void *opaque, int version_id)
{
    VirtIOBalloonHP *s = opaque;

    if (s->guest.reclaim != s->reclaim ||
        s->guest.cache_floor != s->cache_floor) {
        s->config_pending = true;
    }
    return 0;
}

const VMStateDescription vmstate_vbhp_guest = {
    .name = "virtio-balloon-hp-device/guest",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = vbhp_guest_needed,
    .pre_save = vbhp_guest_pre_save,
    .post_load = vbhp_guest_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT16(guest.stop, VirtIOBalloonHP),
        VMSTATE_UINT64(guest.requested, VirtIOBalloonHP),
        VMSTATE_UINT64(guest.available, VirtIOBalloonHP),
        VMSTATE_UINT64(guest.wanted, VirtIOBalloonHP),
        VMSTATE_INT64(guest.last_update, VirtIOBalloonHP),
        VMSTATE_UINT32(guest.reclaim, VirtIOBalloonHP),
        VMSTATE_UINT64(guest.cache_floor, VirtIOBalloonHP),
        VMSTATE_END_OF_LIST()
    }
};
