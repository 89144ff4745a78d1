/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: go through the ranges of a request
 *
 * Step [5] memory of the data path. A request is walked once, in its order:
 * valid ranges that touch form a run, a run is cut into slices, a slice is one
 * system call. Only when that fails its parts are tried one by one, so that the
 * answer says which it was: range by range, or step by step where what can be
 * had of a range counts. What is done to a slice is the caller's (discard.c,
 * populate.c), and has to be harmless when done twice.
 *
 * Short runs go in batches where the caller has a call for several. What a
 * batch did not get done is done run by run, as if there were no batches.
 *
 * Slices end at multiples of the slice size by host address, so cutting a run
 * never cuts a huge page that the caller did not cut.
 *
 * Invariant: every range of a request gets exactly one answer, by
 * range_finish() or range_invalid().
 */
#include <errno.h>
#include "memory-int.h"

/*
 * Runs in one batch. Unit: runs. They are on the stack (16 bytes each), and
 * one call for 256 is already 99 % of what there is to gain.
 */
#define HPB_BATCH_MAX 256

int hpb_range_check(const HpbMemory *mem, const HpbRange *range, uint64_t unit)
{
    if (!range->length || ((range->offset | range->length) & (unit - 1))) {
        return -EINVAL;
    }
    if (range->offset > mem->length ||
        range->length > mem->length - range->offset) {
        return -ERANGE;
    }
    return 0;
}

gboolean hpb_work_canceled(HpbWork *work)
{
    if (work->cancel && __atomic_load_n(work->cancel, __ATOMIC_ACQUIRE)) {
        work->stopped = TRUE;
    }
    return work->stopped;
}

static void set_result(HpbWork *work, size_t i, uint64_t done, int error)
{
    if (work->results) {
        work->results[i] = (HpbResult) { .done = done, .error = error };
    }
}

static void range_invalid(HpbWork *work, size_t i, int error)
{
    work->count.ranges_invalid++;
    set_result(work, i, 0, error);
}

static void range_finish(HpbWork *work, size_t i, uint64_t done, int error)
{
    uint64_t rest = work->ranges[i].length - done;

    work->count.bytes += work->ranges[i].length;
    work->count.bytes_done += done;
    if (!error) {
        work->count.ranges_done++;
    } else if (error == -ECANCELED) {
        work->count.ranges_canceled++;
        work->count.bytes_canceled += rest;
    } else {
        work->count.ranges_failed++;
        work->count.bytes_failed += rest;
    }
    set_result(work, i, done, error);
}

/* 0 or the error that answers the range. */
static int check_range(const HpbWork *work, const HpbRange *range)
{
    return hpb_range_check(work->mem, range,
                           MAX(work->step, work->mem->page_size));
}

/* End of the slice that begins at @offset of a run that ends at @end. */
static uint64_t slice_end(const HpbWork *work, uint64_t offset, uint64_t end)
{
    uintptr_t start = (uintptr_t)work->mem->host + offset;
    uint64_t room = work->slice - (start & (work->slice - 1));

    return room < end - offset ? offset + room : end;
}

/* Answer ranges @i and on, until the one that @pos is in or in front of. */
static size_t finish_until(HpbWork *work, size_t i, size_t last, uint64_t pos)
{
    while (i < last && work->ranges[i].offset + work->ranges[i].length <= pos) {
        range_finish(work, i, work->ranges[i].length, 0);
        i++;
    }
    return i;
}

/* Try a slice whatever it takes. 0 or the error for its ranges. */
static int call_slice(HpbWork *work, uint64_t offset, uint64_t length)
{
    for (unsigned int tries = 0; tries <= HPB_RETRY_MAX; tries++) {
        int ret;

        if (tries) {
            if (hpb_work_canceled(work)) {
                return -ECANCELED;
            }
            work->count.retries++;
        }
        ret = work->call(work, offset, length);
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

/* End of the step that @pos of the range is in. */
static uint64_t step_end(const HpbWork *work, const HpbRange *range,
                         uint64_t pos)
{
    uint64_t end = range->offset + range->length;
    uint64_t done = pos - range->offset;

    return work->step ? MIN(end, pos - done % work->step + work->step) : end;
}

/* The range ends at @pos, because of @error; only whole steps count as done. */
static void range_fail(HpbWork *work, size_t i, uint64_t pos, int error)
{
    const HpbRange *range = &work->ranges[i];
    uint64_t done = pos - range->offset;

    if (work->step) {
        done -= done % work->step;
    }
    if (work->undo) {
        work->undo(work, range->offset + done, range->length - done);
    }
    range_finish(work, i, done, error);
}

/* Work on and answer the run of ranges @i to @last - 1: valid and contiguous. */
static void work_run(HpbWork *work, size_t i, size_t last)
{
    const HpbRange *ranges = work->ranges;
    uint64_t end = ranges[last - 1].offset + ranges[last - 1].length;
    uint64_t pos = ranges[i].offset;
    uint64_t by_step = 0;       /* below this offset a slice has failed */

    while (i < last) {
        uint64_t range_end = ranges[i].offset + ranges[i].length;
        uint64_t stop = slice_end(work, pos, end);
        uint64_t step = step_end(work, &ranges[i], pos);
        int ret;

        if (pos < by_step) {
            stop = MIN(stop, step);
        }
        ret = hpb_work_canceled(work) ? -ECANCELED
                                      : call_slice(work, pos, stop - pos);
        if (!ret) {
            pos = stop;
            i = finish_until(work, i, last, pos);
        } else if (ret != -ECANCELED && stop > step) {
            work->count.retries++;
            by_step = stop;
        } else {
            range_fail(work, i, pos, ret);
            pos = range_end;
            i++;
        }
    }
}

/* Index behind the run of valid and contiguous ranges that begins at @i. */
static size_t run_last(const HpbWork *work, size_t i)
{
    const HpbRange *ranges = work->ranges;
    size_t last = i + 1;

    while (last < work->n && !check_range(work, &ranges[last]) &&
           ranges[last].offset ==
           ranges[last - 1].offset + ranges[last - 1].length) {
        last++;
    }
    return last;
}

/*
 * Gather runs from range @i on, together no longer than a slice. Sets *last to
 * the index behind them. Returns how many.
 */
static size_t batch_gather(const HpbWork *work, size_t i, struct iovec *iov,
                           size_t *last)
{
    const HpbRange *ranges = work->ranges;
    uint64_t room = work->slice;
    size_t n = 0;

    *last = i;
    while (n < HPB_BATCH_MAX && *last < work->n &&
           !check_range(work, &ranges[*last])) {
        size_t next = run_last(work, *last);
        uint64_t start = ranges[*last].offset;
        uint64_t length = ranges[next - 1].offset + ranges[next - 1].length -
                          start;

        if (length > room) {
            break;
        }
        iov[n].iov_base = work->mem->host + start;
        iov[n].iov_len = length;
        n++;
        room -= length;
        *last = next;
    }
    return n;
}

/*
 * Work on several runs at once. Returns the index of the first range that is
 * not answered: @i if there are no several, or the call did nothing.
 */
static size_t work_batch(HpbWork *work, size_t i)
{
    struct iovec iov[HPB_BATCH_MAX];
    size_t last;
    size_t n = batch_gather(work, i, iov, &last);
    ssize_t done;

    if (n < 2 || hpb_work_canceled(work)) {
        return i;
    }
    done = work->call_many(work, iov, n);
    while (i < last && done >= 0 &&
           (uint64_t)done >= work->ranges[i].length) {
        done -= (ssize_t)work->ranges[i].length;
        range_finish(work, i, work->ranges[i].length, 0);
        i++;
    }
    if (i < last) {
        work->count.retries++;
    }
    return i;
}

static void add_counters(HpbMemory *mem, HpbCounters *sum,
                         const HpbCounters *count)
{
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
    sum->vectored += count->vectored;
    sum->retries += count->retries;
    pthread_mutex_unlock(&mem->lock);
}

gboolean hpb_work_run(HpbWork *work, HpbCounters *sum)
{
    size_t i = 0;

    work->count.ranges = work->n;
    while (i < work->n) {
        int error = check_range(work, &work->ranges[i]);
        size_t last = i;

        if (error) {
            range_invalid(work, i, error);
            i++;
            continue;
        }
        if (work->call_many) {
            last = work_batch(work, i);
        }
        if (last == i) {
            last = run_last(work, i);
            work_run(work, i, last);
        }
        i = last;
    }
    add_counters(work->mem, sum, &work->count);
    return work->count.ranges_done == work->n;
}
