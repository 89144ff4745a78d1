/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp, step [4]: make runs of the ranges of a request
 *
 * The ranges of a request are its device-writable payload behind the response.
 * They are read as a stream of bytes that stands for guest-physical memory;
 * where descriptors, or QEMU's mapping of them, end does not matter (DEV-9).
 *
 * The stream becomes runs: units in a row with the same fate, adjacent in one
 * RAM block. Every unit gets a status by the first rule of DEV-12 that holds.
 * A unit that is RAM and in no other request is claimed, so that a second
 * request, or a second mention in this one, meets its busy bit and is told
 * OVERLAP. When the room for exceptions is used up the rest of the request is
 * not looked at, and is AGAIN (DEV-17).
 *
 * This is where input from the guest is validated, and it is validated once.
 * It takes time by runs and by words of bitmap, never by units: a range of all
 * memory is as cheap as one of 2 MiB.
 *
 * Rejected: a status for each descriptor. The virtio standard does not let a
 * device depend on framing, and QEMU splits descriptors where RAM blocks end.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "exec/address-spaces.h"
#include "virtio-balloon-hp-internal.h"

/* A plan in the making: the byte stream, and what was made of it so far */
typedef struct VbhpPlan {
    VirtIOBalloonHP *s;
    VbhpRequest *req;
    uint16_t deny;          /* status of units that would be OK, or OK */
    uint32_t planned;       /* units that have a run */
    uint32_t exceptions;    /* that the runs need */
    uint32_t carry;         /* bytes of a unit that is cut across addresses */
} VbhpPlan;

static bool vbhp_plan_complete(const VbhpPlan *plan)
{
    return plan->planned == plan->req->units;
}

static void vbhp_plan_append(VbhpPlan *plan, const VbhpRun *run)
{
    VbhpRequest *req = plan->req;

    if (req->nr_runs == req->max_runs) {
        req->max_runs = MAX(8, req->max_runs * 2);
        req->runs = g_renew(VbhpRun, req->runs, req->max_runs);
    }
    req->runs[req->nr_runs++] = *run;
    plan->planned += run->count;
}

/*
 * Give the next @count units @status. @blk and @index say where they are, if
 * they are to be claimed. Returns false if that used up the room for
 * exceptions, so that the plan is now complete.
 */
static bool vbhp_plan_run(VbhpPlan *plan, uint16_t status, uint32_t count,
                          VbhpBlock *blk, uint64_t index)
{
    VbhpRequest *req = plan->req;
    VbhpRun *last = req->nr_runs ? &req->runs[req->nr_runs - 1] : NULL;
    VbhpRun run = {
        .first = plan->planned, .count = count, .status = status,
        .blk = blk, .index = index,
    };

    if (status != VIRTIO_BALLOON_HP_OK && !(last && last->status == status)) {
        if (plan->exceptions == req->room - 1 &&
            run.first + run.count < req->units) {
            run.status = VIRTIO_BALLOON_HP_AGAIN;
            run.count = req->units - run.first;
            run.blk = NULL;
        }
        plan->exceptions++;
    }
    if (run.blk) {
        vbhp_run_claim(&run);
    }
    if (last && last->status == run.status && last->blk == run.blk &&
        (!run.blk || last->index + last->count == run.index)) {
        if (run.blk) {
            vbhp_block_unref(run.blk);
        }
        last->count += run.count;
        plan->planned += run.count;
    } else {
        vbhp_plan_append(plan, &run);
    }
    return !vbhp_plan_complete(plan);
}

/* Units of @blk from @index to @end, not busy: by whether they are out. */
static bool vbhp_plan_free_units(VbhpPlan *plan, VbhpBlock *blk,
                                 uint64_t index, uint64_t end)
{
    bool deflate = plan->req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE;

    while (index < end) {
        bool out = test_bit(index, blk->out);
        uint64_t next = out ? find_next_zero_bit(blk->out, end, index)
                            : find_next_bit(blk->out, end, index);
        uint16_t status = plan->deny;

        if (!deflate && !vbhp_block_frees(plan->s, blk)) {
            status = VIRTIO_BALLOON_HP_DENIED;
        }
        if (out != deflate) {
            status = deflate ? VIRTIO_BALLOON_HP_NOT_OUT
                             : VIRTIO_BALLOON_HP_ALREADY_OUT;
        }
        if (!vbhp_plan_run(plan, status, next - index, blk, index)) {
            return false;
        }
        index = next;
    }
    return true;
}

/*
 * Units of @blk. The two bitmaps are each walked once, also if they are full
 * of holes: a run of @busy at a time, and inside it runs of @out.
 */
static bool vbhp_plan_block(VbhpPlan *plan, VbhpBlock *blk, uint64_t index,
                            uint64_t count)
{
    uint64_t end = index + count;

    while (index < end) {
        bool busy = test_bit(index, blk->busy);
        uint64_t next = busy ? find_next_zero_bit(blk->busy, end, index)
                             : find_next_bit(blk->busy, end, index);
        bool more;

        if (busy) {
            more = vbhp_plan_run(plan, VIRTIO_BALLOON_HP_OVERLAP, next - index,
                                 NULL, 0);
        } else {
            more = vbhp_plan_free_units(plan, blk, index, next);
        }
        if (!more) {
            return false;
        }
        index = next;
    }
    return true;
}

/* @count units at the start of @section, which is ordinary RAM or is not. */
static bool vbhp_plan_section(VbhpPlan *plan, MemoryRegionSection *section,
                              uint64_t count)
{
    VirtIOBalloonHP *s = plan->s;
    uint64_t index = section->offset_within_region / s->unit;
    VbhpBlock *blk = vbhp_block_of(s, section);

    if (!blk || section->offset_within_region % s->unit ||
        index >= blk->nr_units || count > blk->nr_units - index) {
        return vbhp_plan_run(plan, VIRTIO_BALLOON_HP_NOT_RAM, count, NULL, 0);
    }
    return vbhp_plan_block(plan, blk, index, count);
}

/* @count aligned units of guest-physical memory from @addr on. */
static bool vbhp_plan_units(VbhpPlan *plan, hwaddr addr, uint64_t count)
{
    uint64_t unit = plan->s->unit;

    while (count) {
        MemoryRegionSection section = memory_region_find(get_system_memory(),
                                                         addr, count * unit);
        uint64_t size = int128_get64(section.size);
        bool aligned = section.offset_within_address_space == addr;
        uint64_t n = aligned ? size / unit : 0;
        bool more;

        if (!section.mr) {
            return vbhp_plan_run(plan, VIRTIO_BALLOON_HP_NOT_RAM, count,
                                 NULL, 0);
        }
        if (n) {
            more = vbhp_plan_section(plan, &section, n);
        } else {
            /* A hole, or a unit that is only in part in one section. */
            n = 1;
            more = vbhp_plan_run(plan, VIRTIO_BALLOON_HP_NOT_RAM, n, NULL, 0);
        }
        memory_region_unref(section.mr);
        if (!more) {
            return false;
        }
        addr += n * unit;
        count -= n;
    }
    return true;
}

/*
 * The next @len bytes of the stream are contiguous memory at @addr. What is
 * not aligned, and a unit whose bytes are not adjacent, is INVAL (DEV-12 a).
 */
static bool vbhp_plan_extent(VbhpPlan *plan, hwaddr addr, uint64_t len)
{
    uint64_t unit = plan->s->unit;

    if (plan->carry) {
        uint64_t rest = MIN(len, unit - plan->carry);

        plan->carry += rest;
        if (plan->carry < unit) {
            return true;
        }
        plan->carry = 0;
        addr += rest;
        len -= rest;
        if (!vbhp_plan_run(plan, VIRTIO_BALLOON_HP_INVAL, 1, NULL, 0)) {
            return false;
        }
    }
    plan->carry = len % unit;
    if (len < unit) {
        return true;
    }
    if (addr % unit) {
        return vbhp_plan_run(plan, VIRTIO_BALLOON_HP_INVAL, len / unit,
                             NULL, 0);
    }
    return vbhp_plan_units(plan, addr, len / unit);
}

void vbhp_plan(VirtIOBalloonHP *s, VbhpRequest *req, uint64_t resp_size,
               uint16_t deny)
{
    VbhpPlan plan = { .s = s, .req = req, .deny = deny };
    VirtQueueElement *elem = &req->elem;
    uint64_t skip = resp_size;
    hwaddr addr = 0;
    uint64_t len = 0;

    for (unsigned i = 0; i < elem->in_num; i++) {
        uint64_t piece = elem->in_sg[i].iov_len;
        hwaddr start = elem->in_addr[i];

        if (skip >= piece) {
            skip -= piece;
            continue;
        }
        s->count.descriptors++;
        start += skip;
        piece -= skip;
        skip = 0;
        if (start == addr + len) {
            len += piece;
            continue;
        }
        if (len && !vbhp_plan_extent(&plan, addr, len)) {
            return;
        }
        addr = start;
        len = piece;
    }
    vbhp_plan_extent(&plan, addr, len);
    g_assert(vbhp_plan_complete(&plan));
}
