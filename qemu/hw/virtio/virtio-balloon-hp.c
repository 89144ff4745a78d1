/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp: memory balloon in huge page ranges, the device as such
 *
 * Around the data path: properties, configuration space, the machine's balloon
 * for QMP and HMP, reset, and the order in which the steps [4] to [6] are
 * brought up and down.
 *
 * What is promised to the management:
 *  - a target of N bytes asks the guest to have at least N: what it is asked to
 *    give up is RAM - N, rounded down to the unit; it is for the guest as a
 *    whole, and ends targets of NUMA nodes (-nodes.c);
 *  - a target outlives resets, and one that is set before the state of an
 *    incoming migration arrives is newer than that state;
 *  - BALLOON_CHANGE follows every change of what the guest really has: at once
 *    when that is the target, else a second after the last change, or ten
 *    seconds after the first that was not told.
 *
 * Reset, unplug and pause have one rule: nothing is in flight afterwards.
 * Reset abandons requests without an answer, pause answers them. So saved
 * state never has requests in it (DEV-20), and after a reset the guest may use
 * all memory at once (DEV-24, DEV-25).
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "hw/boards.h"
#include "hw/qdev-properties.h"
#include "hw/virtio/virtio-access.h"
#include "hw/virtio/virtio-bus.h"
#include "standard-headers/linux/virtio_ids.h"
#include "system/balloon.h"
#include "system/numa.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

/* Smallest default unit: the huge page size of most hosts and guests */
#define VBHP_DEFAULT_UNIT (2 * MiB)

QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_config) != 56);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_node) != 16);
QEMU_BUILD_BUG_ON(VIRTIO_BALLOON_HP_DEVICE_ID != VIRTIO_ID_MEMORY_BALLOON);

/* Configuration and features */

static void vbhp_get_config(VirtIODevice *vdev, uint8_t *data)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(vdev);
    struct virtio_balloon_hp_config config = {
        .requested = cpu_to_le64(vbhp_requested(s)),
        .actual = cpu_to_le64(s->actual),
        .preferred = cpu_to_le64(s->preferred),
        .unit = cpu_to_le64(s->unit),
        .max_ranges = cpu_to_le32(s->max_ranges),
        .nr_nodes = cpu_to_le32(s->nr_nodes),
    };

    vbhp_guest_get_config(s, &config);
    memcpy(data, &config, sizeof(config));
    vbhp_nodes_get_config(s, (void *)(data + sizeof(config)));
}

static uint64_t vbhp_get_features(VirtIODevice *vdev, uint64_t features,
                                  Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(vdev);

    features |= s->host_features;
    virtio_add_feature(&features, VIRTIO_F_VERSION_1);
    virtio_add_feature(&features, VIRTIO_BALLOON_HP_F_STATS);
    if (!s->nr_nodes) {
        virtio_clear_feature(&features, VIRTIO_BALLOON_HP_F_NODES);
    }
    return features;
}

/* The machine's balloon */

static void vbhp_balloon_target(void *opaque, ram_addr_t target)
{
    VirtIOBalloonHP *s = opaque;
    uint64_t ram = vbhp_ram_size();
    uint64_t requested = QEMU_ALIGN_DOWN(ram - MIN(target, ram), s->unit);

    trace_virtio_balloon_hp_target(target, ram, requested);
    vbhp_target_set(s, requested, NULL);
}

static void vbhp_balloon_stat(void *opaque, BalloonInfo *info)
{
    VirtIOBalloonHP *s = opaque;
    uint64_t ram = vbhp_ram_size();

    info->actual = ram - MIN(ram, s->actual);
}

/* Life */

static void vbhp_reset(VirtIODevice *vdev)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(vdev);

    vbhp_queue_abandon(s, VIRTIO_BALLOON_HP_VQ_MAX);
    s->settle_wanted = false;
    vbhp_session_end(s);
    vbhp_stats_reset(s);
    vbhp_guest_reset(s);
    vbhp_state_reset(s);
}

static void vbhp_queue_reset(VirtIODevice *vdev, uint32_t queue_index)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(vdev);

    if (queue_index == VIRTIO_BALLOON_HP_VQ_STATS) {
        vbhp_stats_abandon(s);
    } else if (queue_index < VIRTIO_BALLOON_HP_VQ_MAX) {
        vbhp_queue_abandon(s, queue_index);
    }
}

/* Also called when the VM starts and stops. */
static void vbhp_set_status(VirtIODevice *vdev, uint8_t status)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(vdev);

    if (!vdev->vm_running) {
        vbhp_queue_drain(s);
        vbhp_stats_pause(s);
    } else if (status & VIRTIO_CONFIG_S_DRIVER_OK) {
        if (!virtio_vdev_has_feature(vdev, VIRTIO_F_VERSION_1) &&
            !vdev->broken) {
            vbhp_break(s, "driver did not accept VIRTIO_F_VERSION_1 (with "
                       "virtio-mmio, set force-legacy=off)");
            return;
        }
        /* What was left in the rings, or put there before the driver was up. */
        vbhp_queue_kick(s);
    }
}

static int vbhp_post_load(VirtIODevice *vdev)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(vdev);

    s->target_is_new = false;
    vbhp_stats_post_load(s);
    vbhp_queue_kick(s);
    return 0;
}

/*
 * By default all memory can be moved, so the largest pages of any backend are
 * the unit. Where that is too much for the guest (1 GiB pages behind one node,
 * ordinary ones behind another) the user says what it shall be, and memory of
 * larger pages stays with the guest.
 */
static bool vbhp_check_unit(VirtIOBalloonHP *s, Error **errp)
{
    uint64_t host_page = qemu_real_host_page_size();
    uint64_t smallest, largest;

    vbhp_page_sizes(&smallest, &largest);
    if (!s->unit) {
        s->unit = MAX(VBHP_DEFAULT_UNIT, largest);
    }
    if (!is_power_of_2(s->unit) || s->unit < 4 * KiB || s->unit < host_page) {
        error_setg(errp, "unit=%" PRIu64 " is not a power of two of at least "
                   "%" PRIu64 " bytes", s->unit, MAX(host_page, 4 * KiB));
        return false;
    }
    if (s->unit < smallest) {
        error_setg(errp, "unit=%" PRIu64 " is smaller than the pages of the "
                   "guest's memory backend; use unit=%" PRIu64 " or leave it "
                   "out", s->unit, largest);
        return false;
    }
    if (s->unit > vbhp_ram_size()) {
        error_setg(errp, "unit=%" PRIu64 " is more than the guest's memory of "
                   "%" PRIu64 " bytes; use a smaller one", s->unit,
                   vbhp_ram_size());
        return false;
    }
    if (s->unit < largest) {
        warn_report("virtio-balloon-hp: unit=%" PRIu64 " is smaller than the "
                    "pages of some memory backends (up to %" PRIu64 " bytes); "
                    "their memory stays with the guest", s->unit, largest);
    }
    return true;
}

/*
 * QEMU maps at most VIRTQUEUE_MAX_SIZE pieces for a request. Header and
 * response take two, and a range takes one more for each border between RAM
 * blocks that it crosses.
 */
static uint32_t vbhp_max_ranges(void)
{
    MachineState *machine = MACHINE(qdev_get_machine());
    uint32_t borders = machine->ram_slots;

    if (machine->numa_state) {
        borders += machine->numa_state->num_nodes;
    }
    return VIRTQUEUE_MAX_SIZE - 2 - MIN(borders, VIRTQUEUE_MAX_SIZE / 2);
}

static void vbhp_device_realize(DeviceState *dev, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(dev);

    if (virtio_host_has_feature(vdev, VIRTIO_F_IOMMU_PLATFORM)) {
        error_setg(errp, "iommu_platform=on is not possible: a balloon works "
                   "on guest-physical addresses; leave it out");
        return;
    }
    if (!vbhp_check_unit(s, errp)) {
        return;
    }
    if (qemu_add_balloon_handler(vbhp_balloon_target, vbhp_balloon_stat, s)) {
        error_setg(errp, "Only one balloon device is supported, and there is "
                   "one already");
        return;
    }

    vbhp_nodes_realize(s);
    virtio_init(vdev, VIRTIO_ID_MEMORY_BALLOON,
                sizeof(struct virtio_balloon_hp_config) +
                s->nr_nodes * sizeof(struct virtio_balloon_hp_node));
    vbhp_state_realize(s);
    vbhp_migrate_realize(s);
    vbhp_session_realize(s);
    s->preferred = vbhp_preferred_range(s);
    s->max_ranges = vbhp_max_ranges();
    vbhp_memory_realize(s);
    vbhp_queue_realize(s);
}

static void vbhp_device_unrealize(DeviceState *dev)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(dev);
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(dev);

    vbhp_queue_abandon(s, VIRTIO_BALLOON_HP_VQ_MAX);
    vbhp_session_unrealize(s);
    vbhp_stats_unrealize(s);
    vbhp_memory_unrealize(s);
    vbhp_queue_unrealize(s);
    vbhp_migrate_unrealize(s);
    vbhp_state_unrealize(s);
    vbhp_nodes_unrealize(s);
    qemu_remove_balloon_handler(s);
    virtio_cleanup(vdev);
}

/* Properties that say what the device does */

/* Words of the wire header's statuses, as they appear in "refused" */
static const char *const vbhp_status_name[VBHP_NR_STATUS] = {
    [VIRTIO_BALLOON_HP_INVAL] = "inval",
    [VIRTIO_BALLOON_HP_NOT_RAM] = "not-ram",
    [VIRTIO_BALLOON_HP_ALREADY_OUT] = "already-out",
    [VIRTIO_BALLOON_HP_NOT_OUT] = "not-out",
    [VIRTIO_BALLOON_HP_OVERLAP] = "overlap",
    [VIRTIO_BALLOON_HP_NOMEM] = "nomem",
    [VIRTIO_BALLOON_HP_DENIED] = "denied",
    [VIRTIO_BALLOON_HP_BUSY] = "busy",
    [VIRTIO_BALLOON_HP_IO] = "io",
    [VIRTIO_BALLOON_HP_AGAIN] = "again",
    [VIRTIO_BALLOON_HP_UNSUPP] = "unsupp",
};

static const char *const vbhp_type_name[VBHP_NR_TYPE] = {
    [VIRTIO_BALLOON_HP_REQ_INFLATE] = "inflate",
    [VIRTIO_BALLOON_HP_REQ_DEFLATE] = "deflate",
    [VIRTIO_BALLOON_HP_REQ_REPORT] = "report",
    [VIRTIO_BALLOON_HP_REQ_STATE] = "state",
};

static bool vbhp_visit_type(Visitor *v, VbhpCounters *c, unsigned type,
                            Error **errp)
{
    bool ok = visit_start_struct(v, vbhp_type_name[type], NULL, 0, errp);

    if (ok) {
        ok = visit_type_uint64(v, "requests", &c->requests[type], errp) &&
             visit_type_uint64(v, "ranges", &c->ranges[type], errp) &&
             visit_type_uint64(v, "bytes", &c->bytes[type], errp) &&
             visit_check_struct(v, errp);
        visit_end_struct(v, NULL);
    }
    return ok;
}

static bool vbhp_visit_refused(Visitor *v, VbhpCounters *c, Error **errp)
{
    bool ok = visit_start_struct(v, "refused", NULL, 0, errp);

    if (ok) {
        for (int i = VIRTIO_BALLOON_HP_INVAL; ok && i < VBHP_NR_STATUS; i++) {
            ok = visit_type_uint64(v, vbhp_status_name[i], &c->refused[i],
                                   errp);
        }
        ok = ok && visit_check_struct(v, errp);
        visit_end_struct(v, NULL);
    }
    return ok;
}

static void vbhp_counters_get(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);
    VbhpCounters *c = &s->count;
    uint64_t inflight = 0;
    bool ok = true;

    for (int i = 0; i < VIRTIO_BALLOON_HP_VQ_MAX; i++) {
        inflight += s->inflight[i];
    }
    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    for (unsigned i = VIRTIO_BALLOON_HP_REQ_INFLATE; ok && i < VBHP_NR_TYPE;
         i++) {
        ok = vbhp_visit_type(v, c, i, errp);
    }
    ok = ok && visit_type_uint64(v, "descriptors", &c->descriptors, errp) &&
         vbhp_visit_refused(v, c, errp) &&
         visit_type_uint64(v, "broken", &c->broken, errp) &&
         visit_type_uint64(v, "dropped", &c->dropped, errp) &&
         visit_type_uint64(v, "in-flight", &inflight, errp) &&
         visit_check_struct(v, errp);
    visit_end_struct(v, NULL);
}

static void vbhp_instance_init(Object *obj)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);

    vbhp_stats_instance_init(obj);
    vbhp_guest_instance_init(obj);
    vbhp_session_instance_init(obj);
    vbhp_nodes_instance_init(obj);
    vbhp_memory_instance_init(obj);
    vbhp_provide_instance_init(obj);
    vbhp_map_instance_init(obj);
    object_property_add(obj, "counters", "what the device has done",
                        vbhp_counters_get, NULL, NULL, NULL);
    object_property_add_uint64_ptr(obj, "requested-size", &s->requested,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "migration-skipped", &s->skipped,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "actual-size", &s->actual,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "preferred-size", &s->preferred,
                                   OBJ_PROP_FLAG_READ);
}

static const VMStateDescription vmstate_virtio_balloon_hp = {
    .name = "virtio-balloon-hp",
    .minimum_version_id = 1,
    .version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_VIRTIO_DEVICE,
        VMSTATE_END_OF_LIST()
    },
};

static const Property vbhp_properties[] = {
    DEFINE_PROP_BIT64("deflate-on-oom", VirtIOBalloonHP, host_features,
                      VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM, false),
    DEFINE_PROP_BIT64("free-page-reporting", VirtIOBalloonHP, host_features,
                      VIRTIO_BALLOON_HP_F_REPORTING, false),
    /* Memory is there before the guest is told that it has it. */
    DEFINE_PROP_BOOL("prealloc", VirtIOBalloonHP, prealloc, false),
    /* Targets of NUMA nodes, if the machine has nodes with memory each. */
    DEFINE_PROP_BIT64("node-targets", VirtIOBalloonHP, host_features,
                      VIRTIO_BALLOON_HP_F_NODES, true),
    /* The driver says how it stands; the device says what it may take. */
    DEFINE_PROP_BIT64("report-state", VirtIOBalloonHP, host_features,
                      VIRTIO_BALLOON_HP_F_STATE, true),
    DEFINE_PROP_BIT64("offer-reclaim", VirtIOBalloonHP, host_features,
                      VIRTIO_BALLOON_HP_F_RECLAIM, true),
    /* Smallest range, bytes. 0: 2 MiB, or the backing's pages if larger. */
    DEFINE_PROP_SIZE("unit", VirtIOBalloonHP, unit, 0),
};

static void vbhp_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    VirtioDeviceClass *vdc = VIRTIO_DEVICE_CLASS(klass);

    device_class_set_props(dc, vbhp_properties);
    dc->desc = "Memory balloon in huge page ranges";
    dc->vmsd = &vmstate_virtio_balloon_hp;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    vdc->realize = vbhp_device_realize;
    vdc->unrealize = vbhp_device_unrealize;
    vdc->reset = vbhp_reset;
    vdc->queue_reset = vbhp_queue_reset;
    vdc->get_config = vbhp_get_config;
    vdc->get_features = vbhp_get_features;
    vdc->set_status = vbhp_set_status;
    vdc->post_load = vbhp_post_load;
    vdc->vmsd = &vmstate_vbhp_state;
}

static const TypeInfo vbhp_info = {
    .name = TYPE_VIRTIO_BALLOON_HP,
    .parent = TYPE_VIRTIO_DEVICE,
    .instance_size = sizeof(VirtIOBalloonHP),
    .instance_init = vbhp_instance_init,
    .class_init = vbhp_class_init,
};

static void vbhp_register_types(void)
{
    type_register_static(&vbhp_info);
}

type_init(vbhp_register_types)
