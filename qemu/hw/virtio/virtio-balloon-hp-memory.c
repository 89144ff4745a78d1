/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp, step [5]: free the host's memory, in a worker thread
 *
 * How memory of each backing is freed is the helper library's business; this
 * file knows RAM blocks and the library, and runs the one on the other in a
 * worker thread, so that freeing never holds the BQL. Providing memory again
 * is -provide.c. A request is with the
 * worker from vbhp_memory_submit() until it comes back by a bottom half, by
 * vbhp_memory_take() or by vbhp_memory_flush(). In between its runs are the
 * worker's: their busy bits keep other requests away, their references keep
 * the blocks, and its mapped element keeps the memory.
 *
 * One thread, first come first served: kernels serialise most of the work
 * anyway, and it makes waiting for the one that runs simple. Rejected: QEMU's
 * thread pools. The AIO one can only be waited for by running a nested event
 * loop, in which other devices' handlers would run in the middle of a reset;
 * and its threads are born by whoever submits, with a vCPU's scheduling.
 *
 * The thread sleeps on a condition variable when there is nothing to do.
 */

#include "qemu/osdep.h"
#include "qemu/bitmap.h"
#include "qemu/error-report.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "migration/misc.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

/* Ranges in one call to the library; it merges neighbours in a call only */
#define VBHP_CALL_RANGES 256
/* How often the end of incoming postcopy is looked for; nothing reports it */
#define VBHP_HOLD_MS 50

/* Backings */

void vbhp_memory_open(VbhpBlock *blk)
{
    RAMBlock *rb = blk->rb;
    HpbMemoryDesc desc = HPB_MEMORY_DESC_INIT;
    g_autoptr(GError) err = NULL;

    desc.name = rb->idstr;
    desc.host = rb->host;
    desc.length = QEMU_ALIGN_UP(rb->used_length, rb->page_size);
    desc.fd = rb->fd;
    desc.fd_offset = rb->fd < 0 ? 0 : rb->fd_offset;
    desc.page_size = rb->page_size;
    if (qemu_ram_is_shared(rb)) {
        desc.flags |= HPB_MEMORY_SHARED;
    }
    if (rb->flags & (RAM_READONLY | RAM_READONLY_FD)) {
        desc.flags |= HPB_MEMORY_READ_ONLY;
    }
    blk->mem = hpb_memory_new(&desc, &err);
    if (!blk->mem) {
        warn_report("virtio-balloon-hp: memory of RAM block '%s' stays with "
                    "the guest: %s", rb->idstr, err->message);
        return;
    }
    trace_virtio_balloon_hp_backing(
        rb->idstr, hpb_backing_name(hpb_memory_backing(blk->mem)),
        hpb_method_name(hpb_memory_method(blk->mem)),
        hpb_memory_preferred_range(blk->mem));
}

void vbhp_memory_close(VbhpBlock *blk)
{
    g_clear_pointer(&blk->mem, hpb_memory_free);
}

bool vbhp_memory_has_work(const VbhpBlock *blk, uint16_t type)
{
    return type != VIRTIO_BALLOON_HP_REQ_DEFLATE || blk->provide;
}

/* How memory of @mem is freed and provided, and how often that was done */
static bool vbhp_visit_methods(Visitor *v, HpbMemory *mem, bool provide,
                               Error **errp)
{
    char *method = (char *)hpb_method_name(hpb_memory_method(mem));
    char *populate = (char *)(provide ? hpb_populate_method_name(
                              hpb_memory_populate_method(mem)) : "on-touch");
    bool vectored = hpb_memory_vectored(mem);
    HpbCounters discards, populates;

    hpb_memory_discard_counters(mem, &discards);
    hpb_memory_populate_counters(mem, &populates);
    return visit_type_str(v, "method", &method, errp) &&
           visit_type_bool(v, "vectored", &vectored, errp) &&
           visit_type_uint64(v, "discard-calls", &discards.syscalls, errp) &&
           visit_type_str(v, "populate", &populate, errp) &&
           visit_type_uint64(v, "populate-calls", &populates.syscalls, errp);
}

static bool vbhp_visit_memory(Visitor *v, VbhpBlock *blk, uint64_t unit,
                              Error **errp)
{
    char *backing = (char *)(blk->mem ? hpb_backing_name(
                             hpb_memory_backing(blk->mem)) : "none");
    uint64_t page = blk->rb->page_size, size = blk->rb->used_length;
    uint64_t preferred = blk->mem ? hpb_memory_preferred_range(blk->mem) : 0;
    uint64_t out = blk->nr_out * unit;
    int64_t node = blk->node;
    char *name = blk->rb->idstr;
    bool ok = visit_start_struct(v, NULL, NULL, 0, errp);

    if (ok) {
        ok = visit_type_str(v, "block", &name, errp) &&
             visit_type_str(v, "backing", &backing, errp) &&
             (!blk->mem ||
              vbhp_visit_methods(v, blk->mem, blk->provide, errp)) &&
             visit_type_uint64(v, "page-size", &page, errp) &&
             visit_type_uint64(v, "preferred-size", &preferred, errp) &&
             visit_type_uint64(v, "size", &size, errp) &&
             visit_type_uint64(v, "out-size", &out, errp) &&
             (blk->node == VBHP_NO_NODE ||
              visit_type_int(v, "node", &node, errp)) &&
             visit_check_struct(v, errp);
        visit_end_struct(v, NULL);
    }
    return ok;
}

void vbhp_visit_blocks(VirtIOBalloonHP *s, Visitor *v, const char *name,
                       VbhpVisitBlock visit, Error **errp)
{
    VbhpBlock *blk;
    bool ok = true;

    if (!visit_start_list(v, name, NULL, 0, errp)) {
        return;
    }
    if (DEVICE(s)->realized) {
        vbhp_blocks_refresh(s);
        QTAILQ_FOREACH(blk, &s->blocks, next) {
            ok = ok && visit(v, blk, s->unit, errp);
        }
    }
    if (ok) {
        visit_check_list(v, errp);
    }
    visit_end_list(v, NULL);
}

/* What each RAM block is for the helper library, and how it is freed */
static void vbhp_memory_get(Object *obj, Visitor *v, const char *name,
                            void *opaque, Error **errp)
{
    vbhp_visit_blocks(VIRTIO_BALLOON_HP(obj), v, name, vbhp_visit_memory, errp);
}

void vbhp_memory_instance_init(Object *obj)
{
    object_property_add(obj, "memory", "backing of each RAM block",
                        vbhp_memory_get, NULL, NULL, NULL);
}

/* Work: in the worker thread, without the BQL */

static uint16_t vbhp_status_from_error(int error)
{
    switch (hpb_outcome_from_error(error)) {
    case HPB_OUTCOME_OK:
        return VIRTIO_BALLOON_HP_OK;
    case HPB_OUTCOME_CANCELED:
        return VIRTIO_BALLOON_HP_AGAIN;
    case HPB_OUTCOME_DENIED:
        return VIRTIO_BALLOON_HP_DENIED;
    case HPB_OUTCOME_NO_MEMORY:     /* NOMEM is about memory for the guest */
    case HPB_OUTCOME_BUSY:
        return VIRTIO_BALLOON_HP_BUSY;
    case HPB_OUTCOME_INVALID:       /* ours: runs have been checked */
    case HPB_OUTCOME_IO:
    default:
        return VIRTIO_BALLOON_HP_IO;
    }
}

/* Free up to VBHP_CALL_RANGES runs from @first on; returns how many. */
static unsigned vbhp_discard_some(VbhpRequest *req, unsigned first,
                                  uint64_t unit)
{
    HpbRange ranges[VBHP_CALL_RANGES];
    HpbResult results[VBHP_CALL_RANGES];
    VbhpRun *runs = &req->runs[first];
    VbhpBlock *blk = runs[0].blk;
    unsigned n;

    for (n = 0; n < VBHP_CALL_RANGES && first + n < req->nr_runs; n++) {
        VbhpRun *run = &runs[n];

        if (run->status != VIRTIO_BALLOON_HP_OK || run->blk != blk) {
            break;
        }
        ranges[n].offset = run->index * unit;
        ranges[n].length = run->count * unit;
    }
    hpb_memory_discard(blk->mem, ranges, n, results, &req->cancel);
    for (unsigned i = 0; i < n; i++) {
        runs[i].status = vbhp_status_from_error(results[i].error);
        runs[i].done = results[i].done / unit;
        trace_virtio_balloon_hp_discard(blk->rb->idstr, ranges[i].offset,
                                        ranges[i].length, results[i].done,
                                        results[i].error);
    }
    return n;
}

static void vbhp_work_discard(VbhpRequest *req, uint64_t unit)
{
    for (unsigned i = 0; i < req->nr_runs; ) {
        VbhpRun *run = &req->runs[i];

        if (run->status == VIRTIO_BALLOON_HP_OK) {
            i += vbhp_discard_some(req, i, unit);
        } else {
            i++;
        }
    }
}

/* Free the out units of @blk. Nobody changes its bitmap while we are held. */
static void vbhp_settle_block(VbhpRequest *req, VbhpBlock *blk, uint64_t unit)
{
    HpbRange ranges[VBHP_CALL_RANGES];
    uint64_t index = find_first_bit(blk->out, blk->nr_units);

    if (!blk->mem || !hpb_memory_discard_zeroes(blk->mem)) {
        req->not_zeroed = true;
    }
    while (blk->mem && index < blk->nr_units) {
        unsigned n = 0;

        while (index < blk->nr_units && n < VBHP_CALL_RANGES) {
            uint64_t end = find_next_zero_bit(blk->out, blk->nr_units, index);

            ranges[n].offset = index * unit;
            ranges[n].length = (end - index) * unit;
            n++;
            index = find_next_bit(blk->out, blk->nr_units, end);
        }
        if (!hpb_memory_discard(blk->mem, ranges, n, NULL, &req->cancel)) {
            req->not_zeroed = true;
        }
    }
}

static void vbhp_work(VbhpRequest *req, uint64_t unit)
{
    switch (req->type) {
    case VBHP_REQ_SETTLE:
        for (guint i = 0; i < req->blocks->len; i++) {
            vbhp_settle_block(req, g_ptr_array_index(req->blocks, i), unit);
        }
        break;
    case VIRTIO_BALLOON_HP_REQ_DEFLATE:
        vbhp_provide(req, unit);
        break;
    default:
        vbhp_work_discard(req, unit);
        break;
    }
}

static void *vbhp_worker_thread(void *opaque)
{
    VirtIOBalloonHP *s = opaque;
    VbhpWorker *w = &s->worker;
    uint64_t unit = s->unit;    /* does not change while we exist */

    qemu_mutex_lock(&w->lock);
    while (!w->stop) {
        VbhpRequest *req = QTAILQ_FIRST(&w->todo);

        if (!req) {
            qemu_cond_wait(&w->todo_cond, &w->lock);
            continue;
        }
        QTAILQ_REMOVE(&w->todo, req, next);
        w->running = req;
        qemu_mutex_unlock(&w->lock);

        vbhp_work(req, unit);

        qemu_mutex_lock(&w->lock);
        w->running = NULL;
        QTAILQ_INSERT_TAIL(&w->done, req, next);
        qemu_cond_broadcast(&w->done_cond);
        qemu_bh_schedule(w->done_bh);
    }
    qemu_mutex_unlock(&w->lock);
    return NULL;
}

/* Hand-over: under the BQL */

void vbhp_memory_submit(VirtIOBalloonHP *s, VbhpRequest *req)
{
    VbhpWorker *w = &s->worker;

    QEMU_LOCK_GUARD(&w->lock);
    QTAILQ_INSERT_TAIL(&w->todo, req, next);
    qemu_cond_signal(&w->todo_cond);
}

/* Move requests of @qi (VIRTIO_BALLOON_HP_VQ_MAX: all). Wants w->lock. */
static void vbhp_worker_move(VbhpRequestList *from, VbhpRequestList *to,
                             unsigned qi)
{
    VbhpRequest *req, *tmp;

    QTAILQ_FOREACH_SAFE(req, from, next, tmp) {
        if (qi == VIRTIO_BALLOON_HP_VQ_MAX || req->qi == qi) {
            QTAILQ_REMOVE(from, req, next);
            QTAILQ_INSERT_TAIL(to, req, next);
        }
    }
}

/* Tell what runs to stop, if it is of @qi, and wait for it. Wants w->lock. */
static void vbhp_worker_stop_running(VbhpWorker *w, unsigned qi)
{
    VbhpRequest *req = w->running;

    if (req && (qi == VIRTIO_BALLOON_HP_VQ_MAX || req->qi == qi)) {
        qatomic_store_release(&req->cancel, true);
        while (w->running == req) {
            qemu_cond_wait(&w->done_cond, &w->lock);
        }
    }
}

static void vbhp_settled(VirtIOBalloonHP *s)
{
    VbhpRequest *req = s->settle;

    s->settle = NULL;
    s->zero_unknown = req->not_zeroed;
    trace_virtio_balloon_hp_settle(false, req->not_zeroed);
    ram_block_discard_require(false);
    g_ptr_array_free(req->blocks, true);
    g_free(req);
    vbhp_queue_kick(s);
}

/* The settle request is in no queue: finish it here if it is in @list. */
static void vbhp_take_settle(VirtIOBalloonHP *s, VbhpRequestList *list)
{
    VbhpRequest *req, *tmp;

    QTAILQ_FOREACH_SAFE(req, list, next, tmp) {
        if (req->type == VBHP_REQ_SETTLE) {
            QTAILQ_REMOVE(list, req, next);
            vbhp_settled(s);
        }
    }
}

void vbhp_memory_take(VirtIOBalloonHP *s, unsigned qi, VbhpRequestList *list)
{
    VbhpWorker *w = &s->worker;

    WITH_QEMU_LOCK_GUARD(&w->lock) {
        vbhp_worker_move(&w->todo, list, qi);
        vbhp_worker_stop_running(w, qi);
        vbhp_worker_move(&w->done, list, qi);
    }
    vbhp_take_settle(s, list);
}

/* Not begun, and not to be: nothing of it was looked at. */
static void vbhp_mark_again(VbhpRequest *req)
{
    for (unsigned i = 0; i < req->nr_runs; i++) {
        if (req->runs[i].status == VIRTIO_BALLOON_HP_OK &&
            !req->runs[i].done) {
            req->runs[i].status = VIRTIO_BALLOON_HP_AGAIN;
        }
    }
}

void vbhp_memory_flush(VirtIOBalloonHP *s, int ms, VbhpRequestList *list)
{
    VbhpRequestList undone = QTAILQ_HEAD_INITIALIZER(undone);
    VbhpWorker *w = &s->worker;
    int64_t end = g_get_monotonic_time() / 1000 + ms;
    VbhpRequest *req;

    if (s->settle) {
        return;     /* no request can be with the worker, see vbhp_held() */
    }
    WITH_QEMU_LOCK_GUARD(&w->lock) {
        while (w->running || !QTAILQ_EMPTY(&w->todo)) {
            int64_t left = end - g_get_monotonic_time() / 1000;

            if (left <= 0) {
                vbhp_worker_move(&w->todo, &undone, VIRTIO_BALLOON_HP_VQ_MAX);
                vbhp_worker_stop_running(w, VIRTIO_BALLOON_HP_VQ_MAX);
                break;
            }
            qemu_cond_timedwait(&w->done_cond, &w->lock, left);
        }
        vbhp_worker_move(&w->done, list, VIRTIO_BALLOON_HP_VQ_MAX);
    }
    QTAILQ_FOREACH(req, &undone, next) {
        vbhp_mark_again(req);
    }
    vbhp_worker_move(&undone, list, VIRTIO_BALLOON_HP_VQ_MAX);
}

static void vbhp_worker_done(void *opaque)
{
    VirtIOBalloonHP *s = opaque;
    VbhpRequestList list = QTAILQ_HEAD_INITIALIZER(list);

    WITH_QEMU_LOCK_GUARD(&s->worker.lock) {
        vbhp_worker_move(&s->worker.done, &list, VIRTIO_BALLOON_HP_VQ_MAX);
    }
    vbhp_take_settle(s, &list);
    vbhp_queue_complete(s, &list);
}

/* Settling */

/* Freeing and postcopy exclude each other; look again when it may be over. */
static bool vbhp_held_by_postcopy(VirtIOBalloonHP *s)
{
    if (!migration_in_incoming_postcopy()) {
        return false;
    }
    timer_mod(s->hold_timer,
              qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + VBHP_HOLD_MS);
    return true;
}

bool vbhp_held(VirtIOBalloonHP *s)
{
    return s->settle || s->settle_wanted || vbhp_held_by_postcopy(s);
}

static void vbhp_settle_start(VirtIOBalloonHP *s)
{
    VbhpRequest *req = g_new0(VbhpRequest, 1);
    VbhpBlock *blk;

    req->type = VBHP_REQ_SETTLE;
    req->qi = VIRTIO_BALLOON_HP_VQ_MAX;
    req->blocks = g_ptr_array_new_with_free_func(
        (GDestroyNotify)vbhp_block_unref);
    QTAILQ_FOREACH(blk, &s->blocks, next) {
        if (blk->nr_out) {
            vbhp_block_ref(blk);
            g_ptr_array_add(req->blocks, blk);
        }
    }
    s->settle = req;
    trace_virtio_balloon_hp_settle(true, false);
    vbhp_memory_submit(s, req);
}

void vbhp_settle(VirtIOBalloonHP *s)
{
    if (!s->settle_wanted || vbhp_held_by_postcopy(s)) {
        return;
    }
    s->settle_wanted = false;
    if (s->actual && ram_block_discard_require(true) == 0) {
        vbhp_settle_start(s);
    }
}

/* Life cycle */

void vbhp_memory_realize(VirtIOBalloonHP *s)
{
    VbhpWorker *w = &s->worker;

    qemu_mutex_init(&w->lock);
    qemu_cond_init(&w->todo_cond);
    qemu_cond_init(&w->done_cond);
    QTAILQ_INIT(&w->todo);
    QTAILQ_INIT(&w->done);
    w->stop = false;
    w->done_bh = qemu_bh_new_guarded(vbhp_worker_done, s,
                                     &DEVICE(s)->mem_reentrancy_guard);
    qemu_thread_create(&w->thread, "balloon-hp", vbhp_worker_thread, s,
                       QEMU_THREAD_JOINABLE);
}

void vbhp_memory_unrealize(VirtIOBalloonHP *s)
{
    VbhpWorker *w = &s->worker;

    WITH_QEMU_LOCK_GUARD(&w->lock) {
        g_assert(QTAILQ_EMPTY(&w->todo) && QTAILQ_EMPTY(&w->done) &&
                 !w->running);
        w->stop = true;
        qemu_cond_signal(&w->todo_cond);
    }
    qemu_thread_join(&w->thread);
    qemu_bh_delete(w->done_bh);
    w->done_bh = NULL;
    qemu_cond_destroy(&w->done_cond);
    qemu_cond_destroy(&w->todo_cond);
    qemu_mutex_destroy(&w->lock);
}
