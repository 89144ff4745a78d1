/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: free ranges of a mapping
 *
 * Step [5] memory of the data path: which call frees a slice. How a request
 * becomes slices is in work.c. Trying again is harmless because the contents
 * are given up anyway.
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

/* One call. 0 or a negative errno. */
static int discard_once(HpbWork *work, HpbMethod method, uint64_t offset,
                        uint64_t length)
{
    const HpbMemory *mem = work->mem;
    int ret = -1;

    work->count.syscalls++;
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
int hpb_discard_call(HpbWork *work, uint64_t offset, uint64_t length)
{
    HpbMethod method = hpb_memory_method(work->mem);
    int ret = discard_once(work, method, offset, length);

    if (ret == -EINVAL && method == HPB_METHOD_DONTNEED) {
        method = HPB_METHOD_DONTNEED_LOCKED;
        ret = discard_once(work, method, offset, length);
        if (!ret) {
            atomic_store_explicit(&work->mem->method, method,
                                  memory_order_relaxed);
        }
    }
    return ret;
}

gboolean hpb_memory_discard(HpbMemory *mem, const HpbRange *ranges, size_t n,
                            HpbResult *results, const int *cancel)
{
    HpbWork work = {
        .mem = mem,
        .ranges = ranges,
        .n = n,
        .results = results,
        .cancel = cancel,
        .call = hpb_discard_call,
    };

    return hpb_work_run(&work, &mem->discarded);
}

void hpb_memory_discard_counters(HpbMemory *mem, HpbCounters *counters)
{
    pthread_mutex_lock(&mem->lock);
    *counters = mem->discarded;
    pthread_mutex_unlock(&mem->lock);
}
