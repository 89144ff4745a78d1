/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: provide memory for ranges of a mapping
 *
 * Step [5] memory of the data path: which call provides a slice. How a request
 * becomes slices, and failed slices become steps, is in work.c. Providing what
 * is there already changes nothing, so trying again is harmless.
 *
 * MADV_POPULATE_WRITE fails where a touch would kill. Kernels before 5.14 do
 * not have it; there a file can still be asked to have the memory. Memory
 * without a file cannot be asked for anything then: touching it is what the
 * guest does anyway.
 */
#include <errno.h>
#include <sys/mman.h>
#include "memory-int.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23      /* Linux 5.14 */
#endif
#ifndef EHWPOISON
#define EHWPOISON 133
#endif

static int populate_once(HpbWork *work, HpbPopulateMethod method,
                         uint64_t offset, uint64_t length)
{
    const HpbMemory *mem = work->mem;
    int ret = -1;

    switch (method) {
    case HPB_POPULATE_WRITE:
        work->count.syscalls++;
        ret = mem->ops->madvise(mem->host + offset, length,
                                MADV_POPULATE_WRITE);
        break;
    case HPB_POPULATE_FALLOCATE:
        work->count.syscalls++;
        ret = mem->ops->fallocate(mem->fd, 0, (off_t)(mem->fd_offset + offset),
                                  (off_t)length);
        break;
    case HPB_POPULATE_NONE:
        errno = ENOTSUP;
        break;
    }
    return ret ? -errno : 0;
}

HpbPopulateMethod hpb_populate_fallback(const HpbMemory *mem)
{
    return mem->shared && mem->fd >= 0 ? HPB_POPULATE_FALLOCATE
                                       : HPB_POPULATE_NONE;
}

static int populate_call(HpbWork *work, uint64_t offset, uint64_t length)
{
    HpbPopulateMethod method = hpb_memory_populate_method(work->mem);
    int ret;

    if (!hpb_place_has_room(work->mem, length)) {
        return -ENOMEM;
    }
    ret = populate_once(work, method, offset, length);

    if (ret == -EINVAL && method == HPB_POPULATE_WRITE) {
        /* The range is valid: the kernel does not know the advice */
        method = hpb_populate_fallback(work->mem);
        ret = populate_once(work, method, offset, length);
        if (!ret || method == HPB_POPULATE_NONE) {
            atomic_store_explicit(&work->mem->populate_method, method,
                                  memory_order_relaxed);
        }
    }
    switch (ret) {
    case -EFAULT:       /* a touch would have raised SIGBUS */
    case -ENOSPC:       /* pool or file system has no more */
        return -ENOMEM;
    case -EHWPOISON:
        return -EIO;
    default:
        return ret;
    }
}

/* Half a step is of no use: others may need it. It may fail; so be it. */
static void populate_undo(HpbWork *work, uint64_t offset, uint64_t length)
{
    (void)hpb_discard_call(work, offset, length);
}

gboolean hpb_memory_populate(HpbMemory *mem, const HpbRange *ranges, size_t n,
                             uint64_t step, HpbResult *results,
                             const int *cancel)
{
    HpbWork work = {
        .mem = mem,
        .ranges = ranges,
        .n = n,
        .results = results,
        .cancel = cancel,
        .step = MAX(step, mem->page_size),
        .slice = mem->slice,
        .call = populate_call,
        .undo = populate_undo,
    };

    return hpb_work_run(&work, &mem->populated);
}

HpbPopulateMethod hpb_memory_populate_method(const HpbMemory *mem)
{
    return atomic_load_explicit(&mem->populate_method, memory_order_relaxed);
}

void hpb_memory_populate_counters(HpbMemory *mem, HpbCounters *counters)
{
    pthread_mutex_lock(&mem->lock);
    *counters = mem->populated;
    pthread_mutex_unlock(&mem->lock);
}
