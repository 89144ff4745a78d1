/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp, step [6]: tell the rest of QEMU what is out
 *
 * Each RAM block of which something has been given up gets a RamDiscardManager.
 * It has no state of its own: it reads the bitmap of the block. Whoever asks it
 * passes over what is out: migration (precopy, multifd, postcopy, files,
 * snapshots in the background), dumps of guest memory, devices that map guest
 * memory for themselves.
 *
 * When. From the first inflate on, not from the start. A listener that mapped
 * the region before it had a manager would be lost when it goes; but those are
 * exactly the ones that forbid to discard memory while they are there, and an
 * inflate that is forbidden does nothing. So at the first one that is done there is
 * none, and all that come later find the manager. Rejected: managers from the
 * start. They make a difference to guests that never balloon, and the regions
 * would have to vanish from the memory map for a moment, under running vCPUs
 * when the device is plugged later.
 *
 * While migrating. What is out when it begins is not in the first dirty bitmap
 * (migration asks the manager). What goes out later is taken from the bitmap
 * by the function that free page hints use, and what comes back is dirty, as
 * nobody has sent it. Precopy notifiers tell when there is a bitmap.
 *
 * Invariants:
 *  - listeners have been told of every unit that is out, and of no other;
 *  - a manager stays with its region until the region's last listener is gone,
 *    even if the balloon is unplugged before; it then says that all is there.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "exec/memory.h"
#include "migration/misc.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

#define TYPE_VBHP_DISCARD "virtio-balloon-hp-discard"
OBJECT_DECLARE_SIMPLE_TYPE(VbhpDiscard, VBHP_DISCARD)

struct VbhpDiscard {
    Object parent_obj;
    MemoryRegion *mr;           /* referenced */
    VbhpBlock *blk;             /* NULL: unplugged */
    uint64_t unit;
    QLIST_HEAD(, RamDiscardListener) listeners;
};

typedef int (*VbhpSectionFunc)(MemoryRegionSection *section, void *opaque);

/* One more than the last byte from @pos on that is out or not as @pos is. */
static uint64_t vbhp_same_until(const VbhpDiscard *d, uint64_t pos, bool *out)
{
    const VbhpBlock *blk = d->blk;
    uint64_t bit = pos / d->unit;

    *out = false;
    if (!blk || !blk->nr_out || bit >= blk->nr_units) {
        return UINT64_MAX;
    }
    *out = test_bit(bit, blk->out);
    if (*out) {
        return find_next_zero_bit(blk->out, blk->nr_units, bit) * d->unit;
    }
    bit = find_next_bit(blk->out, blk->nr_units, bit);
    return bit < blk->nr_units ? bit * d->unit : UINT64_MAX;
}

/* Call @func for the parts of @section that are @out, or those that are not. */
static int vbhp_each_section(const VbhpDiscard *d,
                             const MemoryRegionSection *section, bool out,
                             VbhpSectionFunc func, void *opaque)
{
    uint64_t pos = section->offset_within_region;
    uint64_t end = pos + int128_get64(section->size);

    while (pos < end) {
        bool is_out;
        uint64_t stop = MIN(end, vbhp_same_until(d, pos, &is_out));

        if (is_out == out) {
            MemoryRegionSection part = *section;
            int ret;

            part.offset_within_address_space +=
                pos - section->offset_within_region;
            part.offset_within_region = pos;
            part.size = int128_make64(stop - pos);
            ret = func(&part, opaque);
            if (ret) {
                return ret;
            }
        }
        pos = stop;
    }
    return 0;
}

/* What others ask */

static uint64_t vbhp_rdm_granularity(const RamDiscardManager *rdm,
                                     const MemoryRegion *mr)
{
    return VBHP_DISCARD(rdm)->unit;
}

static bool vbhp_rdm_is_populated(const RamDiscardManager *rdm,
                                  const MemoryRegionSection *section)
{
    uint64_t pos = section->offset_within_region;
    bool out;

    return vbhp_same_until(VBHP_DISCARD(rdm), pos, &out) >=
           pos + int128_get64(section->size) && !out;
}

typedef struct VbhpReplay {
    ReplayRamPopulate populate;
    ReplayRamDiscard discard;
    void *opaque;
} VbhpReplay;

static int vbhp_replay_one(MemoryRegionSection *section, void *opaque)
{
    VbhpReplay *replay = opaque;

    if (replay->populate) {
        return replay->populate(section, replay->opaque);
    }
    replay->discard(section, replay->opaque);
    return 0;
}

static int vbhp_rdm_replay_populated(const RamDiscardManager *rdm,
                                     MemoryRegionSection *section,
                                     ReplayRamPopulate func, void *opaque)
{
    VbhpReplay replay = { .populate = func, .opaque = opaque };

    return vbhp_each_section(VBHP_DISCARD(rdm), section, false,
                             vbhp_replay_one, &replay);
}

static void vbhp_rdm_replay_discarded(const RamDiscardManager *rdm,
                                      MemoryRegionSection *section,
                                      ReplayRamDiscard func, void *opaque)
{
    VbhpReplay replay = { .discard = func, .opaque = opaque };

    vbhp_each_section(VBHP_DISCARD(rdm), section, true, vbhp_replay_one,
                      &replay);
}

static int vbhp_tell_populated(MemoryRegionSection *section, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    return rdl->notify_populate(rdl, section);
}

static int vbhp_tell_discarded(MemoryRegionSection *section, void *opaque)
{
    RamDiscardListener *rdl = opaque;

    rdl->notify_discard(rdl, section);
    return 0;
}

static void vbhp_rdm_register(RamDiscardManager *rdm, RamDiscardListener *rdl,
                              MemoryRegionSection *section)
{
    VbhpDiscard *d = VBHP_DISCARD(rdm);
    int ret;

    rdl->section = memory_region_section_new_copy(section);
    QLIST_INSERT_HEAD(&d->listeners, rdl, next);
    ret = vbhp_each_section(d, rdl->section, false, vbhp_tell_populated, rdl);
    if (ret) {
        error_report("virtio-balloon-hp: a device cannot map RAM block '%s': "
                     "%s", memory_region_name(d->mr), strerror(-ret));
    }
}

/* Nobody needs the manager of a balloon that is gone. */
static void vbhp_discard_free_orphan(VbhpDiscard *d)
{
    if (!d->blk && QLIST_EMPTY(&d->listeners)) {
        memory_region_set_ram_discard_manager(d->mr, NULL);
        object_unref(OBJECT(d));
    }
}

static void vbhp_rdm_unregister(RamDiscardManager *rdm,
                                RamDiscardListener *rdl)
{
    VbhpDiscard *d = VBHP_DISCARD(rdm);

    if (rdl->double_discard_supported) {
        rdl->notify_discard(rdl, rdl->section);
    } else {
        vbhp_each_section(d, rdl->section, false, vbhp_tell_discarded, rdl);
    }
    memory_region_section_free_copy(rdl->section);
    rdl->section = NULL;
    QLIST_REMOVE(rdl, next);
    vbhp_discard_free_orphan(d);
}

/* What changes */

/* The part of @offset, @length that @rdl is interested in; false if none. */
static bool vbhp_clip(const RamDiscardListener *rdl, uint64_t offset,
                      uint64_t length, MemoryRegionSection *part)
{
    uint64_t first = rdl->section->offset_within_region;
    uint64_t start = MAX(offset, first);
    uint64_t end = MIN(offset + length,
                       first + int128_get64(rdl->section->size));

    if (start >= end) {
        return false;
    }
    *part = *rdl->section;
    part->offset_within_address_space += start - first;
    part->offset_within_region = start;
    part->size = int128_make64(end - start);
    return true;
}

static void vbhp_notify_discard(VbhpDiscard *d, uint64_t offset,
                                uint64_t length, const RamDiscardListener *stop)
{
    MemoryRegionSection part;
    RamDiscardListener *rdl;

    QLIST_FOREACH(rdl, &d->listeners, next) {
        if (rdl == stop) {
            break;
        }
        if (vbhp_clip(rdl, offset, length, &part)) {
            rdl->notify_discard(rdl, &part);
        }
    }
}

/* All listeners, or none: then the first one's error. */
static int vbhp_notify_populate(VbhpDiscard *d, uint64_t offset,
                                uint64_t length)
{
    MemoryRegionSection part;
    RamDiscardListener *rdl;

    QLIST_FOREACH(rdl, &d->listeners, next) {
        int ret = vbhp_clip(rdl, offset, length, &part)
                  ? rdl->notify_populate(rdl, &part) : 0;

        if (ret) {
            vbhp_notify_discard(d, offset, length, rdl);
            return ret;
        }
    }
    return 0;
}

static void vbhp_discard_attach(VirtIOBalloonHP *s, VbhpBlock *blk)
{
    VbhpDiscard *d;

    if (blk->discard || memory_region_has_ram_discard_manager(blk->mr) ||
        ram_block_discard_is_disabled()) {
        return;
    }
    d = VBHP_DISCARD(object_new(TYPE_VBHP_DISCARD));
    d->mr = blk->mr;
    memory_region_ref(d->mr);
    d->blk = blk;
    d->unit = s->unit;
    blk->discard = d;
    memory_region_set_ram_discard_manager(blk->mr, RAM_DISCARD_MANAGER(d));
}

void vbhp_discard_detach(VbhpBlock *blk)
{
    VbhpDiscard *d = blk->discard;

    if (d) {
        blk->discard = NULL;
        d->blk = NULL;
        vbhp_discard_free_orphan(d);
    }
}

bool vbhp_discard_is_ours(MemoryRegion *mr)
{
    RamDiscardManager *rdm = memory_region_get_ram_discard_manager(mr);
    Object *d = rdm ? object_dynamic_cast(OBJECT(rdm), TYPE_VBHP_DISCARD)
                    : NULL;

    return d && VBHP_DISCARD(d)->blk;
}

void vbhp_discard_went_out(VirtIOBalloonHP *s, VbhpBlock *blk, uint64_t index,
                           uint64_t count)
{
    uint64_t offset = index * s->unit, length = count * s->unit;

    vbhp_discard_attach(s, blk);
    if (blk->discard) {
        vbhp_notify_discard(blk->discard, offset, length, NULL);
    }
    /* x-ignore-shared: a block without a bitmap is not sent anyway. */
    if (s->migration_has_bitmap && blk->rb->bmap) {
        qemu_guest_free_page_hint(blk->rb->host + offset, length);
        s->skipped += length;
    }
}

bool vbhp_discard_can_come_back(VirtIOBalloonHP *s, VbhpBlock *blk,
                                uint64_t index, uint64_t count)
{
    return !blk->discard ||
           !vbhp_notify_populate(blk->discard, index * s->unit,
                                 count * s->unit);
}

void vbhp_discard_stays_out(VirtIOBalloonHP *s, const VbhpRun *run)
{
    if (run->blk->discard) {
        vbhp_notify_discard(run->blk->discard, run->index * s->unit,
                            run->done * s->unit, NULL);
    }
}

void vbhp_discard_came_back(VirtIOBalloonHP *s, VbhpBlock *blk, uint64_t index,
                            uint64_t count)
{
    memory_region_set_dirty(blk->mr, index * s->unit, count * s->unit);
}

void vbhp_discard_all_back(VirtIOBalloonHP *s, VbhpBlock *blk)
{
    uint64_t first = find_first_bit(blk->out, blk->nr_units);

    while (first < blk->nr_units) {
        uint64_t end = find_next_zero_bit(blk->out, blk->nr_units, first);

        if (!vbhp_discard_can_come_back(s, blk, first, end - first)) {
            error_report("virtio-balloon-hp: a device cannot map memory of RAM "
                         "block '%s' that the guest has again after a reset",
                         blk->rb->idstr);
        }
        vbhp_discard_came_back(s, blk, first, end - first);
        first = find_next_bit(blk->out, blk->nr_units, end);
    }
}

void vbhp_discard_all_out(VirtIOBalloonHP *s, VbhpBlock *blk)
{
    uint64_t first = find_first_bit(blk->out, blk->nr_units);

    while (first < blk->nr_units) {
        uint64_t end = find_next_zero_bit(blk->out, blk->nr_units, first);

        vbhp_discard_went_out(s, blk, first, end - first);
        first = find_next_bit(blk->out, blk->nr_units, end);
    }
}

/* Migration */

static int vbhp_precopy_notify(NotifierWithReturn *notifier, void *data,
                               Error **errp)
{
    VirtIOBalloonHP *s = container_of(notifier, VirtIOBalloonHP,
                                      precopy_notifier);
    PrecopyNotifyData *pnd = data;

    switch (pnd->reason) {
    case PRECOPY_NOTIFY_SETUP:
        s->skipped = s->actual;
        break;
    case PRECOPY_NOTIFY_AFTER_BITMAP_SYNC:
        s->migration_has_bitmap = true;
        break;
    case PRECOPY_NOTIFY_COMPLETE:
    case PRECOPY_NOTIFY_CLEANUP:
        if (s->migration_has_bitmap) {
            trace_virtio_balloon_hp_skipped(s->skipped);
        }
        s->migration_has_bitmap = false;
        break;
    default:
        break;
    }
    return 0;
}

void vbhp_discard_realize(VirtIOBalloonHP *s)
{
    s->precopy_notifier.notify = vbhp_precopy_notify;
    precopy_add_notifier(&s->precopy_notifier);
}

void vbhp_discard_unrealize(VirtIOBalloonHP *s)
{
    precopy_remove_notifier(&s->precopy_notifier);
}

static void vbhp_discard_finalize(Object *obj)
{
    VbhpDiscard *d = VBHP_DISCARD(obj);

    if (d->mr) {
        memory_region_unref(d->mr);
    }
}

static void vbhp_discard_class_init(ObjectClass *klass, void *data)
{
    RamDiscardManagerClass *rdmc = RAM_DISCARD_MANAGER_CLASS(klass);

    rdmc->get_min_granularity = vbhp_rdm_granularity;
    rdmc->is_populated = vbhp_rdm_is_populated;
    rdmc->replay_populated = vbhp_rdm_replay_populated;
    rdmc->replay_discarded = vbhp_rdm_replay_discarded;
    rdmc->register_listener = vbhp_rdm_register;
    rdmc->unregister_listener = vbhp_rdm_unregister;
}

static const TypeInfo vbhp_discard_info = {
    .name = TYPE_VBHP_DISCARD,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(VbhpDiscard),
    .instance_finalize = vbhp_discard_finalize,
    .class_init = vbhp_discard_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_RAM_DISCARD_MANAGER },
        { }
    },
};

static void vbhp_discard_register_types(void)
{
    type_register_static(&vbhp_discard_info);
}

type_init(vbhp_discard_register_types)
