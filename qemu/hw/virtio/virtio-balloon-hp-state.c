/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp, step [6]: which units are out
 *
 * The device keeps the truth about what it was given. For each RAM block two
 * bitmaps of units: @out, and @busy for units in a request that is not yet
 * answered. s->actual is the population count of all @out bitmaps, always.
 *
 * Invariants:
 *  - only vbhp_run_commit(), vbhp_block_drop(), vbhp_state_reset() and
 *    vbhp_block_load() change @out, and all of them keep nr_out and actual;
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
 * block so that the two do not fall together at the unit, [4] refuses it. A
 * block belongs to one NUMA node of the guest, so that what is out of a node
 * is a sum over blocks and nothing that could get out of step (-nodes.c).
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qapi/qapi-events-machine.h"
#include "exec/address-spaces.h"
#include "hw/boards.h"
#include "hw/mem/pc-dimm.h"
#include "hw/qdev-core.h"
#include "system/hostmem.h"
#include "system/numa.h"
#include "system/qtest.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

/* The monitor's limit: one BALLOON_CHANGE in so many ms, by the same clock */
#define VBHP_CHANGE_MS 1000
#define VBHP_CHANGE_MAX_MS 10000

static QEMUClockType vbhp_change_clock(void)
{
    return qtest_enabled() ? QEMU_CLOCK_VIRTUAL : QEMU_CLOCK_REALTIME;
}

uint64_t vbhp_ram_size(void)
{
    MachineState *machine = MACHINE(qdev_get_machine());

    return machine->ram_size +
           (machine->device_memory ? machine->device_memory->dimm_size : 0);
}

/* Management */

void vbhp_actual_tell(VirtIOBalloonHP *s)
{
    uint64_t ram = vbhp_ram_size();

    timer_del(s->change_timer);
    /* The monitor limits the rate of this event and always sends the last. */
    qapi_event_send_balloon_change(ram - MIN(ram, s->actual));
}

static void vbhp_change_timeout(void *opaque)
{
    vbhp_actual_tell(opaque);
}

/*
 * A resize is several requests within milliseconds, and of the events of a
 * second the monitor sends the first at once and the last when the second is
 * over. Libvirt takes the size that it saves with a guest from the event, and
 * asks the guest for it when that is restored. So what is told at once is the
 * target. A size on the way to it is told when nothing has changed for a second
 * or when it is ten seconds old: what follows it within a second would be late.
 */
void vbhp_actual_changed(VirtIOBalloonHP *s)
{
    int64_t now = qemu_clock_get_ms(vbhp_change_clock());

    if (s->actual == vbhp_requested(s)) {
        vbhp_actual_tell(s);
    } else {
        if (!timer_pending(s->change_timer)) {
            s->change_limit = now + VBHP_CHANGE_MAX_MS;
        }
        timer_mod(s->change_timer, MIN(now + VBHP_CHANGE_MS, s->change_limit));
    }
    vbhp_session_news(s);
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

/* A memory region of ordinary RAM, and its NUMA node or VBHP_NO_NODE */
typedef struct VbhpRegion {
    MemoryRegion *mr;
    uint32_t node;
} VbhpRegion;

static void vbhp_block_add(VirtIOBalloonHP *s, const VbhpRegion *region)
{
    VbhpBlock *blk = g_new0(VbhpBlock, 1);

    memory_region_ref(region->mr);
    blk->mr = region->mr;
    blk->rb = region->mr->ram_block;
    blk->node = region->node;
    blk->nr_units = blk->rb->used_length / s->unit;
    blk->provide = s->prealloc ||
                   blk->rb->page_size > qemu_real_host_page_size();
    vbhp_memory_open(blk);
    QTAILQ_INSERT_TAIL(&s->blocks, blk, next);
    trace_virtio_balloon_hp_block(blk->rb->idstr, blk->nr_units, true);
}

/* The block's memory is no longer the guest's: what was out of it is not. */
static void vbhp_block_drop(VirtIOBalloonHP *s, VbhpBlock *blk)
{
    bool changed = blk->nr_out;

    if (blk->nr_out && memory_region_is_mapped(blk->mr)) {
        vbhp_discard_all_back(s, blk);
    }
    trace_virtio_balloon_hp_block(blk->rb->idstr, blk->nr_out, false);
    QTAILQ_REMOVE(&s->blocks, blk, next);
    s->actual -= blk->nr_out * s->unit;
    blk->nr_out = 0;
    blk->gone = true;
    vbhp_discard_detach(blk);
    vbhp_refusal_forget(s, blk->rb->idstr);
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

VbhpBlock *vbhp_block_by_name(VirtIOBalloonHP *s, const char *idstr)
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
           (!memory_region_has_ram_discard_manager(mr) ||
            vbhp_discard_is_ours(mr)) &&
           !memory_region_has_guest_memfd(mr);
}

static void vbhp_collect_region(GArray *regions, MemoryRegion *mr,
                                uint32_t node)
{
    if (vbhp_region_usable(mr)) {
        VbhpRegion region = { .mr = mr, .node = node };

        g_array_append_val(regions, region);
    }
}

static void vbhp_collect_backend(GArray *regions, HostMemoryBackend *backend,
                                 uint32_t node)
{
    if (backend && host_memory_backend_mr_inited(backend)) {
        vbhp_collect_region(regions, host_memory_backend_get_memory(backend),
                            node);
    }
}

static int vbhp_collect_dimm(Object *obj, void *opaque)
{
    if (object_dynamic_cast(obj, TYPE_PC_DIMM)) {
        PCDIMMDevice *dimm = PC_DIMM(obj);

        vbhp_collect_backend(opaque, dimm->hostmem, dimm->node);
    }
    return 0;
}

/* Returns a VbhpRegion for all ordinary RAM; the caller frees the array. */
static GArray *vbhp_collect_regions(void)
{
    MachineState *machine = MACHINE(qdev_get_machine());
    GArray *regions = g_array_new(false, false, sizeof(VbhpRegion));

    vbhp_collect_region(regions, machine->ram, VBHP_NO_NODE);
    for (int i = 0; machine->numa_state && i < MAX_NODES; i++) {
        HostMemoryBackend *backend = machine->numa_state->nodes[i].node_memdev;

        if (backend && &backend->mr != machine->ram) {
            vbhp_collect_backend(regions, backend, i);
        }
    }
    if (machine->device_memory) {
        object_child_foreach_recursive(OBJECT(machine), vbhp_collect_dimm,
                                       regions);
    }
    return regions;
}

static bool vbhp_regions_have(GArray *regions, const MemoryRegion *mr)
{
    for (guint i = 0; i < regions->len; i++) {
        if (g_array_index(regions, VbhpRegion, i).mr == mr) {
            return true;
        }
    }
    return false;
}

void vbhp_blocks_refresh(VirtIOBalloonHP *s)
{
    g_autoptr(GArray) regions = NULL;
    VbhpBlock *blk, *tmp;

    if (!s->blocks_stale) {
        return;
    }
    s->blocks_stale = false;
    regions = vbhp_collect_regions();

    QTAILQ_FOREACH_SAFE(blk, &s->blocks, next, tmp) {
        if (!vbhp_regions_have(regions, blk->mr)) {
            vbhp_block_drop(s, blk);
        }
    }
    for (guint i = 0; i < regions->len; i++) {
        VbhpRegion *region = &g_array_index(regions, VbhpRegion, i);

        if (!vbhp_block_by_mr(s, region->mr)) {
            vbhp_block_add(s, region);
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
    bool unplugged = false;
    VbhpBlock *blk, *tmp;

    s->blocks_stale = true;
    QTAILQ_FOREACH_SAFE(blk, &s->blocks, next, tmp) {
        if (!memory_region_is_mapped(blk->mr)) {
            vbhp_block_drop(s, blk);
            unplugged = true;
        }
    }
    if (unplugged) {
        vbhp_nodes_shrunk(s);
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

void vbhp_page_sizes(uint64_t *smallest, uint64_t *largest)
{
    g_autoptr(GArray) regions = vbhp_collect_regions();

    *smallest = UINT64_MAX;
    *largest = 0;
    for (guint i = 0; i < regions->len; i++) {
        RAMBlock *rb = g_array_index(regions, VbhpRegion, i).mr->ram_block;

        *smallest = MIN(*smallest, rb->page_size);
        *largest = MAX(*largest, rb->page_size);
    }
}

unsigned vbhp_ram_nodes(void)
{
    g_autoptr(GArray) regions = vbhp_collect_regions();
    MachineState *machine = MACHINE(qdev_get_machine());
    unsigned nodes = machine->numa_state ? machine->numa_state->num_nodes : 0;

    for (guint i = 0; i < regions->len; i++) {
        if (g_array_index(regions, VbhpRegion, i).node >= nodes) {
            return 0;
        }
    }
    return nodes < 2 ? 0 : nodes;
}

uint64_t vbhp_preferred_range(VirtIOBalloonHP *s)
{
    uint64_t preferred = s->unit;
    VbhpBlock *blk;

    vbhp_blocks_refresh(s);
    QTAILQ_FOREACH(blk, &s->blocks, next) {
        if (vbhp_block_frees(s, blk)) {
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
            vbhp_discard_went_out(s, blk, run->index, run->done);
        } else if (type == VIRTIO_BALLOON_HP_REQ_DEFLATE) {
            bitmap_clear(blk->out, run->index, run->done);
            blk->nr_out -= run->done;
            s->actual -= run->done * s->unit;
            vbhp_discard_came_back(s, blk, run->index, run->done);
        }
    }
    vbhp_run_release(run);
}

void vbhp_block_load(VirtIOBalloonHP *s, VbhpBlock *blk, const void *bits)
{
    g_assert(!blk->nr_out && !blk->users);
    vbhp_block_prepare(blk);
    bitmap_from_le(blk->out, bits, blk->nr_units);
    blk->nr_out = bitmap_count_one(blk->out, blk->nr_units);
    s->actual += blk->nr_out * s->unit;
    vbhp_discard_all_out(s, blk);
}

void vbhp_state_reset(VirtIOBalloonHP *s)
{
    VbhpBlock *blk;
    bool changed = s->actual;

    QTAILQ_FOREACH(blk, &s->blocks, next) {
        g_assert(!blk->users);
        if (blk->nr_out) {
            vbhp_discard_all_back(s, blk);
            bitmap_zero(blk->out, blk->nr_units);
            s->actual -= blk->nr_out * s->unit;
            blk->nr_out = 0;
        }
    }
    g_assert(!s->actual);
    s->zero_unknown = false;
    vbhp_refusal_forget(s, NULL);
    if (changed) {
        vbhp_actual_changed(s);
    }
}

/* Life cycle */

void vbhp_state_realize(VirtIOBalloonHP *s)
{
    QTAILQ_INIT(&s->blocks);
    s->blocks_stale = true;
    s->change_timer = timer_new_ms(vbhp_change_clock(), vbhp_change_timeout,
                                   s);
    s->listener.commit = vbhp_listener_commit;
    s->listener.name = TYPE_VIRTIO_BALLOON_HP;
    memory_listener_register(&s->listener, &address_space_memory);
    vbhp_discard_realize(s);
}

void vbhp_state_unrealize(VirtIOBalloonHP *s)
{
    VbhpBlock *blk, *tmp;

    vbhp_discard_unrealize(s);
    memory_listener_unregister(&s->listener);
    QTAILQ_FOREACH_SAFE(blk, &s->blocks, next, tmp) {
        vbhp_block_drop(s, blk);
    }
    if (timer_pending(s->change_timer)) {
        vbhp_actual_tell(s);
    }
    timer_free(s->change_timer);
    s->change_timer = NULL;
}
