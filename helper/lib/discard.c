/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: free ranges of a mapping
 *
 * Step [5] memory of the data path. A request is walked once, in its order:
 * valid ranges that touch form a run, a run is cut into slices, a slice is one
 * system call. Only when that fails the ranges in the slice are tried one by
 * one, so that the answer says which range it was; trying again is harmless
 * because the contents are given up anyway.
 *
 * Slices end at multiples of the slice size by host address, so cutting a run
 * never cuts a huge page that the caller did not cut.
 *
 * Invariant: every range of a request gets exactly one answer, by
 * range_finish() or range_invalid().
 *
 * Not here: process_madvise(), which takes many ranges at once. It gains
 * nothing over one call per run when lists are sorted, is capped just below
 * 2 GiB a call and may return short; HpbMethod has room for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include "memory-int.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24     /* Linux 5.18 */
#endif

/*
 * Consecutive failures with EINTR or EAGAIN after which a slice is given up as
 * busy. Unit: calls. Neither is known to repeat for memory; the number only
 * has to be finite, for a caller that waits, and more than a burst of signals.
 */
#define HPB_RETRY_MAX 16

/* One call of hpb_memory_discard() */
typedef struct Request {
    HpbMemory *mem;
    const HpbRange *ranges;
    size_t n;
    HpbResult *results;         /* or NULL */
    const int *cancel;          /* or NULL */
    gboolean stopped;           /* cancel was seen once */
    HpbDiscardCounters count;
} Request;

static gboolean canceled(Request *req)
{
    if (req->cancel && __atomic_load_n(req->cancel, __ATOMIC_ACQUIRE)) {
        req->stopped = TRUE;
    }
    return req->stopped;
}

static void set_result(Request *req, size_t i, uint64_t done, int error)
{
    if (req->results) {
        req->results[i] = (HpbResult) { .done = done, .error = error };
    }
}

static void range_invalid(Request *req, size_t i, int error)
{
    req->count.ranges_invalid++;
    set_result(req, i, 0, error);
}

static void range_finish(Request *req, size_t i, uint64_t done, int error)
{
    uint64_t rest = req->ranges[i].length - done;

    req->count.bytes += req->ranges[i].length;
    req->count.bytes_done += done;
    if (!error) {
        req->count.ranges_done++;
    } else if (error == -ECANCELED) {
        req->count.ranges_canceled++;
        req->count.bytes_canceled += rest;
    } else {
        req->count.ranges_failed++;
        req->count.bytes_failed += rest;
    }
    set_result(req, i, done, error);
}

/* 0 or the error that answers the range. */
static int check_range(const HpbMemory *mem, const HpbRange *range)
{
    if (!range->length ||
        ((range->offset | range->length) & (mem->page_size - 1))) {
        return -EINVAL;
    }
    if (range->offset > mem->length ||
        range->length > mem->length - range->offset) {
        return -ERANGE;
    }
    return 0;
}

/* One call. 0 or a negative errno. */
static int call_once(Request *req, HpbMethod method, uint64_t offset,
                     uint64_t length)
{
    const HpbMemory *mem = req->mem;
    int ret = -1;

    req->count.syscalls++;
    switch (method) {
    case HPB_METHOD_DONTNEED:
        ret = mem->ops->madvise(mem->host + offset, length, MADV_DONTNEED);
        break;
    case HPB_METHOD_DONTNEED_LOCKED:
        ret = mem->ops->madvise(mem->host + offset, length,
                                MADV_DONTNEED_LOCKED);
        break;
    case HPB_METHOD_REMOVE:
        ret = mem->ops->madvise(mem->host + offset, length, MADV_REMOVE);
        break;
    case HPB_METHOD_PUNCH_HOLE:
        ret = mem->ops->fallocate(mem->fd,
                                  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                  (off_t)(mem->fd_offset + offset),
                                  (off_t)length);
        break;
    }
    return ret ? -errno : 0;
}

/*
 * One try with the method in use. The kernel says EINVAL to MADV_DONTNEED of
 * mlocked memory: what the guest gives up needs no lock, and is locked again
 * when it is next touched. From then on the call that worked is the method.
 */
static int call_method(Request *req, uint64_t offset, uint64_t length)
{
    HpbMethod method = hpb_memory_method(req->mem);
    int ret = call_once(req, method, offset, length);

    if (ret == -EINVAL && method == HPB_METHOD_DONTNEED) {
        method = HPB_METHOD_DONTNEED_LOCKED;
        ret = call_once(req, method, offset, length);
        if (!ret) {
            atomic_store_explicit(&req->mem->method, method,
                                  memory_order_relaxed);
        }
    }
    return ret;
}

/* Free a slice whatever it takes. 0 or the error for its ranges. */
static int call_slice(Request *req, uint64_t offset, uint64_t length)
{
    for (unsigned int tries = 0; tries <= HPB_RETRY_MAX; tries++) {
        int ret;

        if (tries) {
            if (canceled(req)) {
                return -ECANCELED;
            }
            req->count.retries++;
        }
        ret = call_method(req, offset, length);
        if (ret == -EINVAL) {
            /* Our ranges are valid: the kernel does not like the memory */
            return -ENOTSUP;
        }
        if (ret != -EINTR && ret != -EAGAIN) {
            return ret;
        }
    }
    return -EBUSY;
}

/* End of the slice that begins at @offset of a run that ends at @end. */
static uint64_t slice_end(const HpbMemory *mem, uint64_t offset, uint64_t end)
{
    uint64_t room = mem->slice -
                    (((uintptr_t)mem->host + offset) & (mem->slice - 1));

    return room < end - offset ? offset + room : end;
}

/* Answer ranges @i and on, until the one that @pos is in or in front of. */
static size_t finish_until(Request *req, size_t i, size_t last, uint64_t pos)
{
    while (i < last && req->ranges[i].offset + req->ranges[i].length <= pos) {
        range_finish(req, i, req->ranges[i].length, 0);
        i++;
    }
    return i;
}

/* Free and answer the run of ranges @i to @last - 1: valid and contiguous. */
static void discard_run(Request *req, size_t i, size_t last)
{
    const HpbRange *ranges = req->ranges;
    uint64_t end = ranges[last - 1].offset + ranges[last - 1].length;
    uint64_t pos = ranges[i].offset;
    uint64_t one_by_one = 0;    /* below this offset a slice has failed */

    while (i < last) {
        uint64_t range_end = ranges[i].offset + ranges[i].length;
        uint64_t stop = slice_end(req->mem, pos, end);
        int ret;

        if (pos < one_by_one) {
            stop = MIN(stop, range_end);
        }
        ret = canceled(req) ? -ECANCELED : call_slice(req, pos, stop - pos);
        if (!ret) {
            pos = stop;
            i = finish_until(req, i, last, pos);
        } else if (ret != -ECANCELED && stop > range_end) {
            req->count.retries++;
            one_by_one = stop;
        } else {
            range_finish(req, i, pos - ranges[i].offset, ret);
            pos = range_end;
            i++;
        }
    }
}

static void add_counters(HpbMemory *mem, const HpbDiscardCounters *count)
{
    HpbDiscardCounters *sum = &mem->counters;

    pthread_mutex_lock(&mem->lock);
    sum->requests++;
    sum->ranges += count->ranges;
    sum->ranges_done += count->ranges_done;
    sum->ranges_failed += count->ranges_failed;
    sum->ranges_invalid += count->ranges_invalid;
    sum->ranges_canceled += count->ranges_canceled;
    sum->bytes += count->bytes;
    sum->bytes_done += count->bytes_done;
    sum->bytes_failed += count->bytes_failed;
    sum->bytes_canceled += count->bytes_canceled;
    sum->syscalls += count->syscalls;
    sum->retries += count->retries;
    pthread_mutex_unlock(&mem->lock);
}

gboolean hpb_memory_discard(HpbMemory *mem, const HpbRange *ranges, size_t n,
                            HpbResult *results, const int *cancel)
{
    Request req = {
        .mem = mem,
        .ranges = ranges,
        .n = n,
        .results = results,
        .cancel = cancel,
        .count.ranges = n,
    };
    size_t i = 0;

    while (i < n) {
        int error = check_range(mem, &ranges[i]);
        size_t last = i + 1;

        if (error) {
            range_invalid(&req, i, error);
            i++;
            continue;
        }
        while (last < n && !check_range(mem, &ranges[last]) &&
               ranges[last].offset ==
               ranges[last - 1].offset + ranges[last - 1].length) {
            last++;
        }
        discard_run(&req, i, last);
        i = last;
    }
    add_counters(mem, &req.count);
    return req.count.ranges_done == n;
}

void hpb_memory_discard_counters(HpbMemory *mem, HpbDiscardCounters *counters)
{
    pthread_mutex_lock(&mem->lock);
    *counters = mem->counters;
    pthread_mutex_unlock(&mem->lock);
}
