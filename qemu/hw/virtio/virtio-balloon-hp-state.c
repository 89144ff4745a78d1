/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp, step [6]: which units are out
 *
 * The device keeps the truth about what it was given. For each RAM block two
 * bitmaps of units: @out, and @busy for units in a request that is not yet
 * answered. s->actual is the population count of all @out bitmaps, always.
 *
 * Invariants:
 *  - only vbhp_run_commit(), vbhp_block_drop(), vbhp_state_reset() and the
 *    loading of state change @out, and all of them keep nr_out and actual;
 *  - a busy unit belongs to exactly one run of one request, so the worker may
 *    free its memory without a lock;
 *  - a block in the list is mapped, and its memory region is referenced.
 *
 * Which RAM counts: the machine's own (one region, or one for each NUMA node)
 * and DIMMs, which is what QMP balloon sizes refer to as well. They are looked
 * for by who owns them. Rejected: taking every RAM region that is not ROM. It
 * would let a guest balloon the memory of a display adapter or of a
 * virtio-pmem file.
 *
 * Units are counted in the RAM block, not in guest-physical memory, because
 * that is what is freed, migrated and unplugged. Where the machine places a
 * block so that the two do not fall together at the unit, [4] refuses it.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qapi/qapi-events-machine.h"
#include "exec/address-spaces.h"
#include "hw/acpi/acpi.h"
#include "hw/boards.h"
#include "hw/mem/pc-dimm.h"
#include "hw/qdev-core.h"
#include "migration/vmstate.h"
#include "system/hostmem.h"
#include "system/numa.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

uint64_t vbhp_ram_size(void)
{
    MachineState *machine = MACHINE(qdev_get_machine());

    return machine->ram_size +
           (machine->device_memory ? machine->device_memory->dimm_size : 0);
}

void vbhp_actual_changed(VirtIOBalloonHP *s)
{
    uint64_t ram = vbhp_ram_size();

    /* The monitor limits the rate of this event and always sends the last. */
    qapi_event_send_balloon_change(ram - MIN(ram, s->actual));
}

/* Blocks */

void vbhp_block_ref(VbhpBlock *blk)
{
    blk->users++;
}

static void vbhp_block_free(VbhpBlock *blk)
{
    vbhp_memory_close(blk);
    memory_region_unref(blk->mr);
    g_free(blk->out);
    g_free(blk->busy);
    g_free(blk);
}

void vbhp_block_unref(VbhpBlock *blk)
{
    g_assert(blk->users);
    if (--blk->users == 0 && blk->gone) {
        vbhp_block_free(blk);
    }
}

static void vbhp_block_add(VirtIOBalloonHP *s, MemoryRegion *mr)
{
    VbhpBlock *blk = g_new0(VbhpBlock, 1);

    memory_region_ref(mr);
    blk->mr = mr;
    blk->rb = mr->ram_block;
    blk->nr_units = blk->rb->used_length / s->unit;
    vbhp_memory_open(blk);
    QTAILQ_INSERT_TAIL(&s->blocks, blk, next);
    trace_virtio_balloon_hp_block(blk->rb->idstr, blk->nr_units, true);
}

/* The block's memory is no longer the guest's: what was out of it is not. */
static void vbhp_block_drop(VirtIOBalloonHP *s, VbhpBlock *blk)
{
    bool changed = blk->nr_out;

    trace_virtio_balloon_hp_block(blk->rb->idstr, blk->nr_out, false);
    QTAILQ_REMOVE(&s->blocks, blk, next);
    s->actual -= blk->nr_out * s->unit;
    blk->nr_out = 0;
    blk->gone = true;
    if (!blk->users) {
        vbhp_block_free(blk);
    }
    if (changed) {
        vbhp_actual_changed(s);
    }
}

static VbhpBlock *vbhp_block_by_mr(VirtIOBalloonHP *s, const MemoryRegion *mr)
{
    VbhpBlock *blk;

    QTAILQ_FOREACH(blk, &s->blocks, next) {
        if (blk->mr == mr) {
            return blk;
        }
    }
    return NULL;
}

static VbhpBlock *vbhp_block_by_name(VirtIOBalloonHP *s, const char *idstr)
{
    VbhpBlock *blk;

    QTAILQ_FOREACH(blk, &s->blocks, next) {
        if (!strcmp(blk->rb->idstr, idstr)) {
            return blk;
        }
    }
    return NULL;
}

static bool vbhp_region_usable(MemoryRegion *mr)
{
    return mr && mr->ram_block && memory_region_is_mapped(mr) &&
           memory_region_is_ram(mr) && !memory_region_is_rom(mr) &&
           !memory_region_is_romd(mr) && !memory_region_is_ram_device(mr) &&
           !memory_region_is_nonvolatile(mr) &&
           !memory_region_has_ram_discard_manager(mr) &&
           !memory_region_has_guest_memfd(mr);
}

static void vbhp_collect_region(GPtrArray *regions, MemoryRegion *mr)
{
    if (vbhp_region_usable(mr)) {
        g_ptr_array_add(regions, mr);
    }
}

static void vbhp_collect_backend(GPtrArray *regions, HostMemoryBackend *backend)
{
    if (backend && host_memory_backend_mr_inited(backend)) {
        vbhp_collect_region(regions, host_memory_backend_get_memory(backend));
    }
}

static int vbhp_collect_dimm(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_PC_DIMM)) {
        vbhp_collect_backend(opaque, PC_DIMM(obj)->hostmem);
    }
    return 0;
}

/* Returns the memory regions of ordinary RAM; the caller frees the array. */
static GPtrArray *vbhp_collect_regions(void)
{
    MachineState *machine = MACHINE(qdev_get_machine());
    GPtrArray *regions = g_ptr_array_new();

    vbhp_collect_region(regions, machine->ram);
    for (int i = 0; machine->numa_state && i < MAX_NODES; i++) {
        HostMemoryBackend *backend = machine->numa_state->nodes[i].node_memdev;

        if (backend && &backend->mr != machine->ram) {
            vbhp_collect_backend(regions, backend);
        }
    }
    if (machine->device_memory) {
        object_child_foreach_recursive(OBJECT(machine), vbhp_collect_dimm,
                                       regions);
    }
    return regions;
}

void vbhp_blocks_refresh(VirtIOBalloonHP *s)
{
    g_autoptr(GPtrArray) regions = NULL;
    VbhpBlock *blk, *tmp;

    if (!s->blocks_stale) {
        return;
    }
    s->blocks_stale = false;
    regions = vbhp_collect_regions();

    QTAILQ_FOREACH_SAFE(blk, &s->blocks, next, tmp) {
        if (!g_ptr_array_find(regions, blk->mr, NULL)) {
            vbhp_block_drop(s, blk);
        }
    }
    for (guint i = 0; i < regions->len; i++) {
        if (!vbhp_block_by_mr(s, g_ptr_array_index(regions, i))) {
            vbhp_block_add(s, g_ptr_array_index(regions, i));
        }
    }
}

/*
 * The map changes often and for reasons that are not ours, so that the look
 * for new RAM waits until somebody asks. But what was unplugged must not stay
 * in actual, and must not be found out when it is plugged again.
 */
static void vbhp_listener_commit(MemoryListener *listener)
{
    VirtIOBalloonHP *s = container_of(listener, VirtIOBalloonHP, listener);
    VbhpBlock *blk, *tmp;

    s->blocks_stale = true;
    QTAILQ_FOREACH_SAFE(blk, &s->blocks, next, tmp) {
        if (!memory_region_is_mapped(blk->mr)) {
            vbhp_block_drop(s, blk);
        }
    }
}

static void vbhp_block_prepare(VbhpBlock *blk)
{
    if (!blk->busy) {
        blk->out = bitmap_new(blk->nr_units);
        blk->busy = bitmap_new(blk->nr_units);
    }
}

VbhpBlock *vbhp_block_of(VirtIOBalloonHP *s, const MemoryRegionSection *section)
{
    VbhpBlock *blk;

    if (section->readonly || section->nonvolatile) {
        return NULL;
    }
    vbhp_blocks_refresh(s);
    blk = vbhp_block_by_mr(s, section->mr);
    if (blk) {
        vbhp_block_prepare(blk);
    }
    return blk;
}

bool vbhp_block_frees(VirtIOBalloonHP *s, const VbhpBlock *blk)
{
    return blk->mem && blk->rb->page_size <= s->unit;
}

uint64_t vbhp_largest_page(void)
{
    g_autoptr(GPtrArray) regions = vbhp_collect_regions();
    uint64_t largest = 0;

    for (guint i = 0; i < regions->len; i++) {
        MemoryRegion *mr = g_ptr_array_index(regions, i);

        largest = MAX(largest, mr->ram_block->page_size);
    }
    return largest;
}

uint64_t vbhp_preferred_range(VirtIOBalloonHP *s)
{
    uint64_t preferred = s->unit;
    VbhpBlock *blk;

    vbhp_blocks_refresh(s);
    QTAILQ_FOREACH(blk, &s->blocks, next) {
        if (blk->mem) {
            preferred = MAX(preferred, hpb_memory_preferred_range(blk->mem));
        }
    }
    return preferred;
}

/* Runs */

void vbhp_run_claim(VbhpRun *run)
{
    bitmap_set(run->blk->busy, run->index, run->count);
    vbhp_block_ref(run->blk);
}

void vbhp_run_release(VbhpRun *run)
{
    VbhpBlock *blk = run->blk;

    if (blk) {
        bitmap_clear(blk->busy, run->index, run->count);
        run->blk = NULL;
        vbhp_block_unref(blk);
    }
}

void vbhp_run_commit(VirtIOBalloonHP *s, VbhpRun *run, uint16_t type)
{
    VbhpBlock *blk = run->blk;

    if (run->done) {
        g_assert(blk && !blk->gone);
        if (type == VIRTIO_BALLOON_HP_REQ_INFLATE) {
            bitmap_set(blk->out, run->index, run->done);
            blk->nr_out += run->done;
            s->actual += run->done * s->unit;
        } else if (type == VIRTIO_BALLOON_HP_REQ_DEFLATE) {
            bitmap_clear(blk->out, run->index, run->done);
            blk->nr_out -= run->done;
            s->actual -= run->done * s->unit;
        }
    }
    vbhp_run_release(run);
}

void vbhp_state_reset(VirtIOBalloonHP *s)
{
    VbhpBlock *blk;
    bool changed = s->actual;

    QTAILQ_FOREACH(blk, &s->blocks, next) {
        g_assert(!blk->users);
        if (blk->nr_out) {
            bitmap_zero(blk->out, blk->nr_units);
            s->actual -= blk->nr_out * s->unit;
            blk->nr_out = 0;
        }
    }
    g_assert(!s->actual);
    s->zero_unknown = false;
    if (changed) {
        vbhp_actual_changed(s);
    }
}

/*
 * Saved state, version 1: the target, the unit, and for each block of which
 * something is out its name, its length and its bitmap in little endian.
 * Busy units do not exist here: the VM is stopped, so everything has been
 * answered.
 */

struct VbhpSavedBlock {
    uint8_t idstr[256];
    uint64_t length;
    uint32_t bytes;
    uint8_t *bits;
};

static uint32_t vbhp_bitmap_bytes(uint64_t nr_units)
{
    return DIV_ROUND_UP(nr_units, 64) * 8;
}

static void vbhp_saved_free(VirtIOBalloonHP *s)
{
    for (int i = 0; i < s->nr_saved; i++) {
        g_free(s->saved[i].bits);
    }
    g_clear_pointer(&s->saved, g_free);
    s->nr_saved = 0;
}

static int vbhp_state_pre_save(void *opaque)
{
    VirtIOBalloonHP *s = opaque;
    VbhpBlock *blk;
    int i = 0;

    s->saved_unit = s->unit;
    s->saved_requested = s->requested;
    s->nr_saved = 0;
    QTAILQ_FOREACH(blk, &s->blocks, next) {
        s->nr_saved += !!blk->nr_out;
    }
    s->saved = g_new0(VbhpSavedBlock, s->nr_saved);
    QTAILQ_FOREACH(blk, &s->blocks, next) {
        if (blk->nr_out) {
            VbhpSavedBlock *saved = &s->saved[i++];

            pstrcpy((char *)saved->idstr, sizeof(saved->idstr),
                    blk->rb->idstr);
            saved->length = blk->rb->used_length;
            saved->bytes = vbhp_bitmap_bytes(blk->nr_units);
            saved->bits = g_malloc0(saved->bytes);
            bitmap_to_le((unsigned long *)saved->bits, blk->out, blk->nr_units);
        }
    }
    return 0;
}

static int vbhp_state_post_save(void *opaque)
{
    vbhp_saved_free(opaque);
    return 0;
}

static int vbhp_state_pre_load(void *opaque)
{
    VirtIOBalloonHP *s = opaque;

    /* Whoever loads over a device that was in use has reset it: to be sure. */
    if (s->actual) {
        vbhp_state_reset(s);
    }
    s->nr_saved = 0;
    s->saved = NULL;
    return 0;
}

static bool vbhp_load_block(VirtIOBalloonHP *s, VbhpSavedBlock *saved)
{
    const char *name = (const char *)saved->idstr;
    VbhpBlock *blk;

    if (!memchr(name, 0, sizeof(saved->idstr))) {
        error_report("virtio-balloon-hp: saved state names a RAM block without "
                     "end; the stream is damaged");
        return false;
    }
    blk = vbhp_block_by_name(s, name);
    if (!blk) {
        error_report("virtio-balloon-hp: memory of RAM block '%s' is ballooned "
                     "in the saved state, but this machine has no such block; "
                     "give it the memory devices of the source", name);
        return false;
    }
    if (saved->length != blk->rb->used_length ||
        saved->bytes != vbhp_bitmap_bytes(blk->nr_units)) {
        error_report("virtio-balloon-hp: RAM block '%s' has %" PRIu64 " bytes "
                     "in the saved state and %" PRIu64 " here; give this "
                     "machine the memory sizes of the source", name,
                     saved->length, (uint64_t)blk->rb->used_length);
        return false;
    }
    if (!vbhp_block_frees(s, blk) || blk->nr_out) {
        error_report("virtio-balloon-hp: memory of RAM block '%s' is ballooned "
                     "in the saved state, but cannot be here; use the memory "
                     "backend of the source", name);
        return false;
    }
    vbhp_block_prepare(blk);
    bitmap_from_le(blk->out, (unsigned long *)saved->bits, blk->nr_units);
    blk->nr_out = bitmap_count_one(blk->out, blk->nr_units);
    s->actual += blk->nr_out * s->unit;
    return true;
}

static bool vbhp_load_unit(VirtIOBalloonHP *s)
{
    if (s->saved_unit == s->unit) {
        return true;
    }
    error_report("virtio-balloon-hp: the saved state counts in units of %"
                 PRIu64 " bytes and this device in units of %" PRIu64
                 "; use unit=%" PRIu64 " here", s->saved_unit, s->unit,
                 s->saved_unit);
    return false;
}

static int vbhp_state_post_load(void *opaque, int version_id)
{
    VirtIOBalloonHP *s = opaque;
    bool ok = vbhp_load_unit(s);

    s->blocks_stale = true;
    vbhp_blocks_refresh(s);
    for (int i = 0; ok && i < s->nr_saved; i++) {
        ok = vbhp_load_block(s, &s->saved[i]);
    }
    vbhp_saved_free(s);
    if (!ok) {
        vbhp_state_reset(s);
        return -EINVAL;
    }

    /* A target that was set while we waited is newer than the state's. */
    if (!s->target_is_new) {
        s->requested = QEMU_ALIGN_DOWN(s->saved_requested, s->unit);
    }
    s->config_pending = s->requested != s->saved_requested;
    s->settle_wanted = s->actual;
    s->zero_unknown = s->actual;
    vbhp_actual_changed(s);
    trace_virtio_balloon_hp_loaded(s->requested, s->actual, s->target_is_new);
    return 0;
}

static bool vbhp_nr_saved_valid(void *opaque, int version_id)
{
    VirtIOBalloonHP *s = opaque;

    return s->nr_saved >= 0 && s->nr_saved <= MAX_NODES + ACPI_MAX_RAM_SLOTS;
}

static bool vbhp_saved_block_valid(void *opaque, int version_id)
{
    VbhpSavedBlock *saved = opaque;

    return saved->bytes && saved->bytes % 8 == 0 &&
           saved->bytes <= vbhp_bitmap_bytes(saved->length / 4096);
}

static const VMStateDescription vmstate_vbhp_saved_block = {
    .name = "virtio-balloon-hp-device/block",
    .version_id = 1,
    .minimum_version_id = 1,
    .fields = (const VMStateField[]) {
        VMSTATE_BUFFER(idstr, VbhpSavedBlock),
        VMSTATE_UINT64(length, VbhpSavedBlock),
        VMSTATE_UINT32(bytes, VbhpSavedBlock),
        VMSTATE_VALIDATE("bitmap size", vbhp_saved_block_valid),
        VMSTATE_VBUFFER_ALLOC_UINT32(bits, VbhpSavedBlock, 1, NULL, bytes),
        VMSTATE_END_OF_LIST()
    }
};

const VMStateDescription vmstate_vbhp_state = {
    .name = "virtio-balloon-hp-device",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = vbhp_state_pre_save,
    .post_save = vbhp_state_post_save,
    .pre_load = vbhp_state_pre_load,
    .post_load = vbhp_state_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(saved_requested, VirtIOBalloonHP),
        VMSTATE_UINT64(saved_unit, VirtIOBalloonHP),
        VMSTATE_INT32(nr_saved, VirtIOBalloonHP),
        VMSTATE_VALIDATE("number of blocks", vbhp_nr_saved_valid),
        VMSTATE_STRUCT_VARRAY_ALLOC(saved, VirtIOBalloonHP, nr_saved, 1,
                                    vmstate_vbhp_saved_block, VbhpSavedBlock),
        VMSTATE_END_OF_LIST()
    }
};

/*
 * The unit is also sent ahead of RAM, so that a destination with another one
 * gives up while the source can still go on. Sizes of RAM blocks are compared
 * there by QEMU itself.
 */

static int vbhp_early_pre_save(void *opaque)
{
    VirtIOBalloonHP *s = opaque;

    s->saved_unit = s->unit;
    return 0;
}

static int vbhp_early_post_load(void *opaque, int version_id)
{
    return vbhp_load_unit(opaque) ? 0 : -EINVAL;
}

static const VMStateDescription vmstate_vbhp_early = {
    .name = "virtio-balloon-hp-device-early",
    .version_id = 1,
    .minimum_version_id = 1,
    .early_setup = true,
    .pre_save = vbhp_early_pre_save,
    .post_load = vbhp_early_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(saved_unit, VirtIOBalloonHP),
        VMSTATE_END_OF_LIST()
    }
};

/* Life cycle */

void vbhp_state_realize(VirtIOBalloonHP *s)
{
    QTAILQ_INIT(&s->blocks);
    s->blocks_stale = true;
    s->listener.commit = vbhp_listener_commit;
    s->listener.name = TYPE_VIRTIO_BALLOON_HP;
    memory_listener_register(&s->listener, &address_space_memory);
    vmstate_register_any(VMSTATE_IF(s), &vmstate_vbhp_early, s);
}

void vbhp_state_unrealize(VirtIOBalloonHP *s)
{
    VbhpBlock *blk, *tmp;

    vmstate_unregister(VMSTATE_IF(s), &vmstate_vbhp_early, s);
    memory_listener_unregister(&s->listener);
    QTAILQ_FOREACH_SAFE(blk, &s->blocks, next, tmp) {
        vbhp_block_drop(s, blk);
    }
}
