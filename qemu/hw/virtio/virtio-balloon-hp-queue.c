/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp, step [4]: take requests, dispatch them, answer them
 *
 * A request is popped, its header checked, and its ranges made into runs by
 * vbhp_plan(), which claims their units. Runs that are OK go to [5]; what
 * comes back is made the truth in [6] and answered. A request without work for
 * the host is answered at once.
 *
 * Outcomes, by what is wrong (DEV-10, DEV-11): no safe place for an answer
 * breaks the device, until it is reset; a header that contradicts itself is
 * refused as a whole; everything else is answered unit by unit.
 *
 * Everything is bounded by what the device decides (DEV-18): requests in
 * flight per queue, requests per look at a queue, exceptions per answer and
 * with them runs per request.
 *
 * Rejected: popping everything there is and keeping our own queue. The ring
 * is the queue; what is not popped needs no memory and is migrated with it.
 */

#include "qemu/osdep.h"
#include "qemu/iov.h"
#include "qemu/log.h"
#include "qemu/main-loop.h"
#include "migration/misc.h"
#include "hw/virtio/virtio-access.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

/*
 * In flight per queue. More than one lets the guest take pages while the host
 * frees others; each costs up to 300 KiB (1024 mapped pieces, MAX_ROOM runs).
 */
#define VBHP_MAX_INFLIGHT 16
/* Requests taken in one go before other users of the main loop get a turn */
#define VBHP_MAX_BATCH 16
/* Exceptions in one answer, however much room the driver offers */
#define VBHP_MAX_ROOM 4096
/* What a paused VM waits for work in hand before the rest becomes AGAIN */
#define VBHP_DRAIN_MS 100

QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_req) != 16);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_resp) != 16);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_exception) != 16);
QEMU_BUILD_BUG_ON(VIRTIO_BALLOON_HP_RESP_SIZE_MIN !=
                  sizeof(struct virtio_balloon_hp_resp) +
                  2 * sizeof(struct virtio_balloon_hp_exception));
QEMU_BUILD_BUG_ON(offsetof(VbhpRequest, elem) != 0);

/* Answers */

static void vbhp_request_free(VbhpRequest *req)
{
    g_free(req->refused_block);
    g_free(req->refused_reason);
    g_free(req->runs);
    g_free(req);
}

/* Write the response and return the request; wants a notification later. */
static void vbhp_answer(VirtIOBalloonHP *s, VbhpRequest *req, uint16_t status,
                        uint16_t flags, uint64_t done,
                        const struct virtio_balloon_hp_exception *exceptions,
                        uint32_t nr_exceptions)
{
    VirtQueueElement *elem = &req->elem;
    struct virtio_balloon_hp_resp resp = {
        .status = cpu_to_le16(status),
        .flags = cpu_to_le16(flags),
        .nr_exceptions = cpu_to_le32(nr_exceptions),
        .done = cpu_to_le64(done),
    };
    size_t size = nr_exceptions * sizeof(*exceptions);

    iov_from_buf(elem->in_sg, elem->in_num, 0, &resp, sizeof(resp));
    if (size) {
        iov_from_buf(elem->in_sg, elem->in_num, sizeof(resp), exceptions, size);
    }
    trace_virtio_balloon_hp_answer(req, status, done, nr_exceptions);
    virtqueue_push(s->vq[req->qi], elem, sizeof(resp) + size);
    vbhp_request_free(req);
}

/*
 * Name what was not done. Freeing can fail where the plan had expected it to
 * work, so that here, too, the room can end: then nothing from there on is
 * counted as done, and the last exception covers it with @tail_status.
 */
static struct virtio_balloon_hp_exception *
vbhp_exceptions(VirtIOBalloonHP *s, VbhpRequest *req, uint32_t *nr)
{
    g_autoptr(GArray) list = NULL;
    struct virtio_balloon_hp_exception e = { };
    uint16_t last_status = VIRTIO_BALLOON_HP_OK;
    uint32_t last_end = 0;

    for (unsigned i = 0; i < req->nr_runs; i++) {
        VbhpRun *run = &req->runs[i];
        uint32_t first = run->first + run->done;
        uint32_t end = run->first + run->count;

        if (first == end) {
            continue;
        }
        if (!list) {
            list = g_array_new(false, false, sizeof(e));
        }
        if (list->len && last_end == first && last_status == run->status) {
            struct virtio_balloon_hp_exception *last =
                &g_array_index(list, struct virtio_balloon_hp_exception,
                               list->len - 1);

            last->count = cpu_to_le32(le32_to_cpu(last->count) + end - first);
            last_end = end;
            continue;
        }
        if (list->len == req->room - 1 && end < req->units) {
            run->status = req->tail_status;
            for (unsigned j = i + 1; j < req->nr_runs; j++) {
                if (req->runs[j].done &&
                    req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE) {
                    vbhp_discard_stays_out(s, &req->runs[j]);
                }
                req->runs[j].done = 0;
            }
            end = req->units;
            i = req->nr_runs;
        }
        last_status = run->status;
        last_end = end;
        e.first = cpu_to_le32(first);
        e.count = cpu_to_le32(end - first);
        e.status = cpu_to_le16(last_status);
        g_array_append_val(list, e);
    }
    *nr = list ? list->len : 0;
    return list ? (void *)g_array_free(g_steal_pointer(&list), false) : NULL;
}

/* True if everything done in @req reads as zero when the driver looks. */
static bool vbhp_is_zeroed(VirtIOBalloonHP *s, VbhpRequest *req)
{
    if (req->type == VIRTIO_BALLOON_HP_REQ_INFLATE) {
        return false;
    }
    if (req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE && s->zero_unknown) {
        return false;
    }
    for (unsigned i = 0; i < req->nr_runs; i++) {
        VbhpRun *run = &req->runs[i];

        if (!run->done) {
            continue;
        }
        /*
         * While memory is migrated the destination may have been sent older
         * contents already, and freeing does not mark pages as written.
         */
        if (!hpb_memory_discard_zeroes(run->blk->mem) ||
            memory_region_get_dirty_log_mask(run->blk->mr) &
            (1 << DIRTY_MEMORY_MIGRATION)) {
            return false;
        }
    }
    return true;
}

/* Everything that can be done for @req has been done: commit and answer. */
static void vbhp_request_finish(VirtIOBalloonHP *s, VbhpRequest *req)
{
    g_autofree struct virtio_balloon_hp_exception *exceptions = NULL;
    uint64_t old_actual = s->actual;
    uint16_t status = VIRTIO_BALLOON_HP_OK;
    uint16_t flags = 0;
    uint32_t nr = 0, done = 0;

    if (req->discards) {
        ram_block_discard_require(false);
    }
    for (unsigned i = 0; i < req->nr_runs; i++) {
        VbhpRun *run = &req->runs[i];

        if (run->blk && run->blk->gone) {
            /* Unplugged while we worked on it. */
            run->done = 0;
            run->status = VIRTIO_BALLOON_HP_NOT_RAM;
        } else if (req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE && run->done &&
                   !vbhp_discard_can_come_back(s, run->blk, run->index,
                                               run->done)) {
            /* A device that maps guest memory has no more room for it. */
            run->done = 0;
            run->status = VIRTIO_BALLOON_HP_NOMEM;
        }
    }
    exceptions = vbhp_exceptions(s, req, &nr);
    if (vbhp_is_zeroed(s, req)) {
        flags |= VIRTIO_BALLOON_HP_RESP_F_ZEROED;
    }
    if (req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE) {
        vbhp_refusal_update(s, req);
    }
    for (unsigned i = 0; i < req->nr_runs; i++) {
        done += req->runs[i].done;
        s->count.ranges[req->type] += req->runs[i].done > 0;
        vbhp_run_commit(s, &req->runs[i], req->type);
    }
    for (uint32_t i = 0; i < nr; i++) {
        s->count.refused[le16_to_cpu(exceptions[i].status)]++;
    }
    if (nr) {
        status = done ? VIRTIO_BALLOON_HP_PARTIAL
                      : le16_to_cpu(exceptions[0].status);
    }
    s->count.requests[req->type]++;
    s->count.bytes[req->type] += done * s->unit;
    if (s->actual != old_actual) {
        vbhp_actual_changed(s);
    }
    if (!s->actual) {
        s->zero_unknown = false;
    }
    vbhp_answer(s, req, status, done ? flags : 0, done * s->unit,
                exceptions, nr);
}

/* A request that is refused as a whole, before its ranges were looked at. */
static void vbhp_request_refuse(VirtIOBalloonHP *s, VbhpRequest *req,
                                uint16_t status)
{
    s->count.refused[status]++;
    vbhp_answer(s, req, status, 0, 0, NULL, 0);
}

/*
 * The effect of virtio_error(), but a driver that does it again after each
 * reset fills nobody's log.
 */
void vbhp_break(VirtIOBalloonHP *s, const char *why)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (s->count.broken++ == 0) {
        virtio_error(vdev, "virtio-balloon-hp: %s; the driver has to reset the "
                     "device (said once, see \"broken\" of the property "
                     "\"counters\")", why);
        return;
    }
    qemu_log_mask(LOG_GUEST_ERROR, "virtio-balloon-hp: %s\n", why);
    vdev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
    virtio_notify_config(vdev);
    vdev->broken = true;
}

/* DEV-11: there is no safe place for an answer. */
static void vbhp_request_broken(VirtIOBalloonHP *s, VbhpRequest *req,
                                const char *why)
{
    vbhp_break(s, why);
    virtqueue_detach_element(s->vq[req->qi], &req->elem, 0);
    vbhp_request_free(req);
}

/* Requests */

/*
 * Whether memory can be let go now: OK, and then it is held off that somebody
 * forbids it until the request is finished, or the reason why not.
 */
static uint16_t vbhp_discard_begin(VbhpRequest *req)
{
    if (req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE) {
        return VIRTIO_BALLOON_HP_OK;
    }
    if (migration_in_bg_snapshot()) {
        return VIRTIO_BALLOON_HP_BUSY;
    }
    if (ram_block_discard_require(true)) {
        return VIRTIO_BALLOON_HP_DENIED;
    }
    req->discards = true;
    return VIRTIO_BALLOON_HP_OK;
}

/* Runs that are OK and need no work are done; true if others remain. */
static bool vbhp_request_has_work(VbhpRequest *req)
{
    bool work = false;

    for (unsigned i = 0; i < req->nr_runs; i++) {
        VbhpRun *run = &req->runs[i];

        if (run->status != VIRTIO_BALLOON_HP_OK) {
            continue;
        }
        if (vbhp_memory_has_work(run->blk, req->type)) {
            work = true;
        } else {
            run->done = run->count;
        }
    }
    return work;
}

static const uint16_t vbhp_queue_type[VIRTIO_BALLOON_HP_VQ_MAX] = {
    [VIRTIO_BALLOON_HP_VQ_INFLATE] = VIRTIO_BALLOON_HP_REQ_INFLATE,
    [VIRTIO_BALLOON_HP_VQ_DEFLATE] = VIRTIO_BALLOON_HP_REQ_DEFLATE,
    [VIRTIO_BALLOON_HP_VQ_REPORTING] = VIRTIO_BALLOON_HP_REQ_REPORT,
};

/* Returns true if the request was answered, and the driver has to be told. */
static bool vbhp_request_start(VirtIOBalloonHP *s, VbhpRequest *req)
{
    struct virtio_balloon_hp_req hdr;
    VirtQueueElement *elem = &req->elem;
    uint64_t writable = iov_size(elem->in_sg, elem->in_num);
    uint64_t resp_size, size;

    if (iov_to_buf(elem->out_sg, elem->out_num, 0, &hdr, sizeof(hdr)) !=
        sizeof(hdr)) {
        vbhp_request_broken(s, req, "request without a complete header");
        return false;
    }
    resp_size = le32_to_cpu(hdr.resp_size);
    size = le64_to_cpu(hdr.size);
    if (resp_size < VIRTIO_BALLOON_HP_RESP_SIZE_MIN || resp_size > writable) {
        vbhp_request_broken(s, req, "request without room for a response");
        return false;
    }
    req->type = le16_to_cpu(hdr.type);
    trace_virtio_balloon_hp_request(req, req->qi, req->type, size,
                                    elem->in_num);
    if (req->type == VIRTIO_BALLOON_HP_REQ_STATE &&
        req->qi == VIRTIO_BALLOON_HP_VQ_INFLATE) {
        uint16_t status = vbhp_guest_state(s, elem, size);

        if (status == VIRTIO_BALLOON_HP_OK) {
            s->count.requests[req->type]++;
            vbhp_answer(s, req, status, 0, 0, NULL, 0);
        } else {
            vbhp_request_refuse(s, req, status);
        }
        return true;
    }
    if (req->type != vbhp_queue_type[req->qi]) {
        vbhp_request_refuse(s, req, VIRTIO_BALLOON_HP_UNSUPP);
        return true;
    }
    if (hdr.flags || !size || size % s->unit || size > vbhp_ram_size() ||
        size != writable - resp_size || size / s->unit > UINT32_MAX) {
        vbhp_request_refuse(s, req, VIRTIO_BALLOON_HP_INVAL);
        return true;
    }
    req->units = size / s->unit;
    req->room = MIN((resp_size - sizeof(struct virtio_balloon_hp_resp)) /
                    sizeof(struct virtio_balloon_hp_exception), VBHP_MAX_ROOM);
    /* Freed memory has lost its contents; memory not populated lost nothing. */
    req->tail_status = req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE
                       ? VIRTIO_BALLOON_HP_NOMEM : VIRTIO_BALLOON_HP_IO;
    vbhp_plan(s, req, resp_size, vbhp_discard_begin(req));
    if (vbhp_request_has_work(req)) {
        s->inflight[req->qi]++;
        vbhp_memory_submit(s, req);
        return false;
    }
    vbhp_request_finish(s, req);
    return true;
}

/* Queues */

static bool vbhp_queue_may_run(VirtIOBalloonHP *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    return vdev->vm_running && !vdev->broken &&
           (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK) && !vbhp_held(s);
}

void vbhp_queue_process(VirtIOBalloonHP *s, unsigned qi)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    bool notify = false;
    int batch = 0;

    if (qi == VIRTIO_BALLOON_HP_VQ_REPORTING &&
        !virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_HP_F_REPORTING)) {
        return;
    }
    while (vbhp_queue_may_run(s) && s->inflight[qi] < VBHP_MAX_INFLIGHT) {
        VbhpRequest *req;

        if (batch++ == VBHP_MAX_BATCH) {
            vbhp_queue_kick(s);
            break;
        }
        req = virtqueue_pop(s->vq[qi], sizeof(*req));
        if (!req) {
            break;
        }
        memset((char *)req + sizeof(req->elem), 0,
               sizeof(*req) - sizeof(req->elem));
        req->qi = qi;
        notify |= vbhp_request_start(s, req);
    }
    if (notify) {
        virtio_notify(vdev, s->vq[qi]);
    }
}

static void vbhp_queue_kicked(void *opaque)
{
    VirtIOBalloonHP *s = opaque;
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (s->config_pending && vdev->vm_running) {
        s->config_pending = false;
        virtio_notify_config(vdev);
    }
    vbhp_settle(s);
    vbhp_queue_process(s, VIRTIO_BALLOON_HP_VQ_DEFLATE);
    vbhp_queue_process(s, VIRTIO_BALLOON_HP_VQ_INFLATE);
    vbhp_queue_process(s, VIRTIO_BALLOON_HP_VQ_REPORTING);
    if (vbhp_queue_may_run(s)) {
        vbhp_stats_process(s);
    }
}

void vbhp_queue_kick(VirtIOBalloonHP *s)
{
    qemu_bh_schedule(s->kick_bh);
}

void vbhp_queue_complete(VirtIOBalloonHP *s, VbhpRequestList *done)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);
    VbhpRequest *req;
    uint32_t answered = 0;

    while ((req = QTAILQ_FIRST(done))) {
        unsigned qi = req->qi;

        QTAILQ_REMOVE(done, req, next);
        s->inflight[qi]--;
        answered |= 1u << qi;
        vbhp_request_finish(s, req);
    }
    for (unsigned qi = 0; qi < VIRTIO_BALLOON_HP_VQ_MAX; qi++) {
        if (answered & (1u << qi)) {
            virtio_notify(vdev, s->vq[qi]);
        }
    }
    /* There may be more in the rings than could be taken. */
    if (answered) {
        vbhp_queue_kick(s);
    }
}

void vbhp_queue_abandon(VirtIOBalloonHP *s, unsigned qi)
{
    VbhpRequestList list = QTAILQ_HEAD_INITIALIZER(list);
    VbhpRequest *req, *tmp;

    vbhp_memory_take(s, qi, &list);
    QTAILQ_FOREACH_SAFE(req, &list, next, tmp) {
        QTAILQ_REMOVE(&list, req, next);
        for (unsigned i = 0; i < req->nr_runs; i++) {
            vbhp_run_release(&req->runs[i]);
        }
        if (req->discards) {
            ram_block_discard_require(false);
        }
        s->inflight[req->qi]--;
        s->count.dropped++;
        virtqueue_detach_element(s->vq[req->qi], &req->elem, 0);
        vbhp_request_free(req);
    }
}

void vbhp_queue_drain(VirtIOBalloonHP *s)
{
    VbhpRequestList list = QTAILQ_HEAD_INITIALIZER(list);

    vbhp_memory_flush(s, VBHP_DRAIN_MS, &list);
    vbhp_queue_complete(s, &list);
}

static void vbhp_handle_output(VirtIODevice *vdev, VirtQueue *vq)
{
    vbhp_queue_process(VIRTIO_BALLOON_HP(vdev), virtio_get_queue_index(vq));
}

static void vbhp_handle_stats(VirtIODevice *vdev, VirtQueue *vq)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(vdev);

    if (vbhp_queue_may_run(s)) {
        vbhp_stats_process(s);
    }
}

static void vbhp_hold_timer(void *opaque)
{
    vbhp_queue_kick(opaque);
}

void vbhp_queue_realize(VirtIOBalloonHP *s)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    /* In the order of the indexes, which features do not change. */
    s->vq[VIRTIO_BALLOON_HP_VQ_INFLATE] =
        virtio_add_queue(vdev, VIRTQUEUE_MAX_SIZE, vbhp_handle_output);
    s->vq[VIRTIO_BALLOON_HP_VQ_DEFLATE] =
        virtio_add_queue(vdev, VIRTQUEUE_MAX_SIZE, vbhp_handle_output);
    s->vq[VIRTIO_BALLOON_HP_VQ_STATS] =
        virtio_add_queue(vdev, 16, vbhp_handle_stats);
    s->vq[VIRTIO_BALLOON_HP_VQ_REPORTING] =
        virtio_add_queue(vdev, 128, vbhp_handle_output);
    s->kick_bh = qemu_bh_new_guarded(vbhp_queue_kicked, s,
                                     &DEVICE(s)->mem_reentrancy_guard);
    s->hold_timer = timer_new_ms(QEMU_CLOCK_REALTIME, vbhp_hold_timer, s);
}

void vbhp_queue_unrealize(VirtIOBalloonHP *s)
{
    timer_free(s->hold_timer);
    s->hold_timer = NULL;
    qemu_bh_delete(s->kick_bh);
    s->kick_bh = NULL;
    for (unsigned qi = 0; qi < VIRTIO_BALLOON_HP_VQ_MAX; qi++) {
        virtio_delete_queue(s->vq[qi]);
        s->vq[qi] = NULL;
    }
}
