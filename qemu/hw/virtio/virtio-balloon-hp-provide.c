/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp, step [5]: provide the host's memory again, or say no
 *
 * Pages of the host's ordinary size come when they are touched. Huge pages
 * come from a pool that can be empty, and then touching them kills; with the
 * property prealloc nothing else is left to chance either. Such memory is
 * fetched by the worker before the guest is told that it has it. Where it comes
 * from is what the memory backend's policy (policy, host-nodes) has bound its
 * mapping to.
 *
 * A host that does not have the memory refuses it (NOMEM), and nothing else
 * happens: the guest runs on, its driver asks again by itself. Huge pages can
 * be tried. Ordinary pages cannot, as the out-of-memory killer is the answer
 * to a try that fails: there the limits are looked at before, and a reserve is
 * left for what QEMU and the kernel need themselves.
 *
 * Why memory was refused is for the operator, in the property grow-refused. A
 * refusal begins with the first request and ends when memory of the same RAM
 * block is given back in full. The log gets one line when it begins, and not
 * more than one a minute, whatever the guest does.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qemu/units.h"
#include "qapi/visitor.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

/* Bytes fetched between two looks at the limits: about 5 ms */
#define VBHP_PROVIDE_CHUNK (64 * MiB)
/* Bytes of the host's and the control group's memory that are left alone */
#define VBHP_PROVIDE_SPARE (32 * MiB)
/* Least time between two lines in the log */
#define VBHP_WARN_MS (60 * 1000)

/* Work: in the worker thread, without the BQL */

/*
 * Bytes of @length that the limits allow, a multiple of @unit. Huge pages are
 * asked for rather than counted: reservations and policies decide who gets the
 * last ones.
 */
static uint64_t vbhp_allowed(VbhpBlock *blk, uint64_t length, uint64_t unit)
{
    uint64_t room;

    if (blk->rb->page_size > qemu_real_host_page_size()) {
        return length;
    }
    room = hpb_memory_headroom(blk->mem, NULL, 0);
    room -= MIN(room, VBHP_PROVIDE_SPARE);
    return MIN(length, QEMU_ALIGN_DOWN(room, unit));
}

/* Fetch a part of @blk, not 0; sets bytes @done, and returns a status. */
static uint16_t vbhp_populate(VbhpRequest *req, VbhpBlock *blk, uint64_t offset,
                              uint64_t length, uint64_t unit, uint64_t *done)
{
    HpbRange range = { .offset = offset, .length = length };
    HpbResult result;

    hpb_memory_populate(blk->mem, &range, 1, unit, &result, &req->cancel);
    trace_virtio_balloon_hp_populate(blk->rb->idstr, offset, length,
                                     result.done, result.error);
    *done = result.done;
    if (result.error == -ENOTSUP) {
        /*
         * A kernel before 5.14, and no file: memory comes when it is touched,
         * as without us. Only counting helps.
         */
        uint64_t room = hpb_memory_headroom(blk->mem, NULL, 0);

        *done = MIN(length, QEMU_ALIGN_DOWN(room, unit));
        return *done == length ? VIRTIO_BALLOON_HP_OK : VIRTIO_BALLOON_HP_NOMEM;
    }
    switch (hpb_outcome_from_error(result.error)) {
    case HPB_OUTCOME_OK:
        return VIRTIO_BALLOON_HP_OK;
    case HPB_OUTCOME_CANCELED:
        return VIRTIO_BALLOON_HP_AGAIN;
    case HPB_OUTCOME_NO_MEMORY:
        return VIRTIO_BALLOON_HP_NOMEM;
    case HPB_OUTCOME_BUSY:
        return VIRTIO_BALLOON_HP_BUSY;
    default:
        return VIRTIO_BALLOON_HP_IO;
    }
}

/* Remember why there is no memory, if it is the first time in @req. */
static void vbhp_refuse(VbhpRequest *req, VbhpBlock *blk)
{
    bool huge = blk->rb->page_size > qemu_real_host_page_size();
    char text[HPB_HEADROOM_TEXT];
    uint64_t room;

    if (req->refused_block) {
        return;
    }
    room = hpb_memory_headroom(blk->mem, text, sizeof(text));
    req->refused_block = g_strdup(blk->rb->idstr);
    if (!huge) {
        req->refused_reason = g_strdup_printf("%s; %" PRIu64 " MiB are left "
                                              "alone", text,
                                              VBHP_PROVIDE_SPARE / MiB);
    } else if (room < blk->rb->page_size) {
        req->refused_reason = g_strdup(text);
    } else {
        req->refused_reason = g_strdup_printf(
            "%s, but none that this memory can have (policy and host-nodes of "
            "its memory backend, or taken in the meantime)", text);
    }
}

/* Returns why not all of @run is done, or OK. */
static uint16_t vbhp_provide_run(VbhpRequest *req, VbhpRun *run, uint64_t unit)
{
    uint64_t chunk = MAX(VBHP_PROVIDE_CHUNK, unit);

    while (run->done < run->count) {
        uint64_t offset = (run->index + run->done) * unit;
        uint64_t length = MIN(chunk, (run->count - run->done) * unit);
        uint64_t allowed = vbhp_allowed(run->blk, length, unit);
        uint16_t status = VIRTIO_BALLOON_HP_OK;
        uint64_t done = 0;

        if (allowed) {
            status = vbhp_populate(req, run->blk, offset, allowed, unit, &done);
        }
        run->done += done / unit;
        if (status == VIRTIO_BALLOON_HP_OK && done < length) {
            status = VIRTIO_BALLOON_HP_NOMEM;
        }
        if (status == VIRTIO_BALLOON_HP_NOMEM) {
            vbhp_refuse(req, run->blk);
        }
        if (status != VIRTIO_BALLOON_HP_OK) {
            return status;
        }
    }
    return VIRTIO_BALLOON_HP_OK;
}

void vbhp_provide(VbhpRequest *req, uint64_t unit)
{
    for (unsigned i = 0; i < req->nr_runs; i++) {
        VbhpRun *run = &req->runs[i];

        if (run->status != VIRTIO_BALLOON_HP_OK || run->done == run->count) {
            continue;
        }
        run->status = vbhp_provide_run(req, run, unit);
        if (run->status != VIRTIO_BALLOON_HP_NOMEM &&
            run->status != VIRTIO_BALLOON_HP_AGAIN) {
            continue;
        }
        /* The rest of this block's, or of all, need not be tried. */
        for (unsigned j = i + 1; j < req->nr_runs; j++) {
            VbhpRun *next = &req->runs[j];

            if (next->status == VIRTIO_BALLOON_HP_OK &&
                next->done < next->count &&
                (next->blk == run->blk ||
                 run->status == VIRTIO_BALLOON_HP_AGAIN)) {
                next->status = run->status;
            }
        }
    }
}

/* The record: under the BQL */

static void vbhp_refusal_warn(VirtIOBalloonHP *s)
{
    VbhpRefusal *r = &s->refusal;
    int64_t now = qemu_clock_get_ms(QEMU_CLOCK_HOST);

    if (!r->warned || now - r->warned >= VBHP_WARN_MS || now < r->warned) {
        r->warned = now;
        warn_report("virtio-balloon-hp: the guest asks for %" PRIu64 " MiB of "
                    "RAM block '%s' back, which the host cannot provide: %s; "
                    "it goes on without and asks again (property "
                    "\"grow-refused\")", r->bytes / MiB, r->block, r->reason);
    }
}

static void vbhp_refusal_note(VirtIOBalloonHP *s, const VbhpRequest *req)
{
    VbhpRefusal *r = &s->refusal;
    bool first = !r->since;

    r->last = g_get_real_time() / G_USEC_PER_SEC;
    r->since = first ? r->last : r->since;
    r->requests++;
    r->bytes = 0;
    for (unsigned i = 0; i < req->nr_runs; i++) {
        VbhpRun *run = &req->runs[i];

        if (run->status == VIRTIO_BALLOON_HP_NOMEM) {
            r->bytes += (run->count - run->done) * s->unit;
        }
    }
    g_free(r->block);
    g_free(r->reason);
    r->block = g_strdup(req->refused_block);
    r->reason = g_strdup(req->refused_reason);
    trace_virtio_balloon_hp_refused(r->block, r->bytes, r->reason);
    if (first) {
        vbhp_refusal_warn(s);
    }
}

void vbhp_refusal_forget(VirtIOBalloonHP *s, const char *block)
{
    VbhpRefusal *r = &s->refusal;

    if (r->since && (!block || !strcmp(block, r->block))) {
        g_clear_pointer(&r->block, g_free);
        g_clear_pointer(&r->reason, g_free);
        r->since = r->last = 0;
        r->requests = r->bytes = 0;
    }
}

void vbhp_refusal_update(VirtIOBalloonHP *s, const VbhpRequest *req)
{
    if (req->refused_block) {
        vbhp_refusal_note(s, req);
        return;
    }
    for (unsigned i = 0; s->refusal.since && i < req->nr_runs; i++) {
        if (req->runs[i].done < req->runs[i].count) {
            return;
        }
    }
    for (unsigned i = 0; s->refusal.since && i < req->nr_runs; i++) {
        if (req->runs[i].blk) {
            vbhp_refusal_forget(s, req->runs[i].blk->rb->idstr);
        }
    }
}

static void vbhp_refusal_get(Object *obj, Visitor *v, const char *name,
                             void *opaque, Error **errp)
{
    VbhpRefusal *r = &VIRTIO_BALLOON_HP(obj)->refusal;
    bool active = r->since;
    bool ok;

    if (!visit_start_struct(v, name, NULL, 0, errp)) {
        return;
    }
    ok = visit_type_bool(v, "active", &active, errp);
    if (ok && active) {
        ok = visit_type_int(v, "since", &r->since, errp) &&
             visit_type_int(v, "last", &r->last, errp) &&
             visit_type_uint64(v, "requests", &r->requests, errp) &&
             visit_type_uint64(v, "bytes", &r->bytes, errp) &&
             visit_type_str(v, "block", &r->block, errp) &&
             visit_type_str(v, "reason", &r->reason, errp);
    }
    if (ok) {
        visit_check_struct(v, errp);
    }
    visit_end_struct(v, NULL);
}

void vbhp_provide_instance_init(Object *obj)
{
    object_property_add(obj, "grow-refused", "memory the host does not have",
                        vbhp_refusal_get, NULL, NULL, NULL);
}
