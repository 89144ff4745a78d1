/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp, step [6]: which units are out, as saved state
 *
 * Saved state, version 1: the target, the unit, and for each block of which
 * something is out its name, its length and its bitmap in little endian.
 * Busy units do not exist here: the VM is stopped, so everything has been
 * answered. Targets of NUMA nodes are a subsection, which is only sent if there
 * are any, so that a device that knows nothing of them can go on with the rest.
 *
 * A stream is checked against this machine before any of it is believed, and a
 * load that fails leaves nothing out (DEV-27).
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "hw/acpi/acpi.h"
#include "migration/vmstate.h"
#include "system/numa.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

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
    s->config_pending = false;
    vbhp_nodes_pre_load(s);
    vbhp_guest_reset(s);
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
    vbhp_block_load(s, blk, saved->bits);
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
    ok = ok && vbhp_nodes_check_loaded(s);
    vbhp_saved_free(s);
    if (!ok) {
        vbhp_state_reset(s);
        return -EINVAL;
    }

    s->config_pending |= vbhp_target_loaded(s);
    s->settle_wanted = s->actual;
    s->zero_unknown = s->actual;
    vbhp_actual_tell(s);
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
    },
    .subsections = (const VMStateDescription * const []) {
        &vmstate_vbhp_nodes,
        &vmstate_vbhp_guest,
        NULL
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
    .dev_unplug_pending = vbhp_session_pending,
    .pre_save = vbhp_early_pre_save,
    .post_load = vbhp_early_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(saved_unit, VirtIOBalloonHP),
        VMSTATE_END_OF_LIST()
    }
};

void vbhp_migrate_realize(VirtIOBalloonHP *s)
{
    vmstate_register_any(VMSTATE_IF(s), &vmstate_vbhp_early, s);
}

void vbhp_migrate_unrealize(VirtIOBalloonHP *s)
{
    vmstate_unregister(VMSTATE_IF(s), &vmstate_vbhp_early, s);
}
