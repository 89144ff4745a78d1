/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp, beside step [6]: where the memory is that is out
 *
 * The read-only property "out-ranges" gives for each RAM block which of its
 * bytes are out, and where in QEMU's address space the block is mapped, so
 * that a tool can put it beside what the host holds for this process
 * (/proc/PID/pagemap). The host address is not a new disclosure: QEMU's own
 * "info ramblock" prints it, but as a table for people.
 *
 * It only reads what -state.c keeps. A look takes time by the number of
 * ranges that are out, neighbours merged: some hundred for a guest with free
 * memory in large pieces. The worst case is a range for every second unit,
 * 256 Ki of them for 1 TiB, which holds the BQL for some 100 ms: a property
 * for somebody who looks, not to be polled.
 *
 * Rejected: the bitmap itself, as a string. It has a bound, but makes the
 * reader know the unit and a bit order, and is 64 KiB where two numbers do.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qapi/error.h"
#include "qapi/qapi-builtin-visit.h"
#include "qapi/visitor.h"
#include "virtio-balloon-hp-internal.h"

/* What is out of @blk: offset and length in turn, bytes, ascending */
static uint64List *vbhp_map_ranges(const VbhpBlock *blk, uint64_t unit)
{
    uint64List *list = NULL, **tail = &list;
    uint64_t index = blk->nr_out ? find_first_bit(blk->out, blk->nr_units)
                                 : blk->nr_units;

    while (index < blk->nr_units) {
        uint64_t end = find_next_zero_bit(blk->out, blk->nr_units, index);

        QAPI_LIST_APPEND(tail, index * unit);
        QAPI_LIST_APPEND(tail, (end - index) * unit);
        index = find_next_bit(blk->out, blk->nr_units, end);
    }
    return list;
}

static bool vbhp_map_visit(Visitor *v, VbhpBlock *blk, uint64_t unit,
                           Error **errp)
{
    uint64_t host = (uintptr_t)blk->rb->host;
    uint64_t size = blk->rb->used_length, page = blk->rb->page_size;
    uint64List *ranges = vbhp_map_ranges(blk, unit);
    char *name = blk->rb->idstr;
    int64_t node = blk->node;
    bool ok = visit_start_struct(v, NULL, NULL, 0, errp);

    if (ok) {
        ok = visit_type_str(v, "block", &name, errp) &&
             visit_type_uint64(v, "host", &host, errp) &&
             visit_type_uint64(v, "size", &size, errp) &&
             visit_type_uint64(v, "page-size", &page, errp) &&
             (blk->node == VBHP_NO_NODE ||
              visit_type_int(v, "node", &node, errp)) &&
             visit_type_uint64List(v, "ranges", &ranges, errp) &&
             visit_check_struct(v, errp);
        visit_end_struct(v, NULL);
    }
    qapi_free_uint64List(ranges);
    return ok;
}

static void vbhp_map_get(Object *obj, Visitor *v, const char *name,
                         void *opaque, Error **errp)
{
    vbhp_visit_blocks(VIRTIO_BALLOON_HP(obj), v, name, vbhp_map_visit, errp);
}

void vbhp_map_instance_init(Object *obj)
{
    object_property_add(obj, "out-ranges", "what is out of each RAM block",
                        vbhp_map_get, NULL, NULL, NULL);
}
