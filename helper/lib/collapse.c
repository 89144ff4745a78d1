/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: make huge pages of the small ones in a range
 *
 * Step [5] memory of the data path, afterwards: memory that a guest got back in
 * pieces becomes whole again. How a request becomes slices, and failed slices
 * become single huge pages, is in work.c.
 *
 * The kernel goes on behind a page that it cannot collapse, and says EINVAL to
 * a hole as it does to memory that cannot have huge pages at all. A single huge
 * page of which it says so is looked at: nothing in it means nothing to do.
 */
#include <errno.h>
#include <sys/mman.h>
#include "memory-int.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25            /* Linux 6.1 */
#endif

static gboolean is_hole(HpbMemory *mem, uint64_t offset, uint64_t length)
{
    HpbRange range = { .offset = offset, .length = length };
    HpbRun run;

    return hpb_memory_scan(mem, &range, &run, 1) == 1 && !run.flags &&
           run.length == length;
}

static int collapse_call(HpbWork *work, uint64_t offset, uint64_t length)
{
    HpbMemory *mem = work->mem;
    int ret;

    if (mem->page_size == mem->huge_size) {
        return 0;       /* of a pool: cannot be otherwise */
    }
    if ((mem->disabled & HPB_NO_COLLAPSE) || mem->preferred < mem->huge_size) {
        return -ENOTSUP;
    }
    work->count.syscalls++;
    ret = mem->ops->madvise(mem->host + offset, length, MADV_COLLAPSE)
        ? -errno : 0;
    if (ret == -EINVAL && length <= mem->huge_size &&
        is_hole(mem, offset, length)) {
        ret = 0;
    }
    return ret;
}

gboolean hpb_memory_collapse(HpbMemory *mem, const HpbRange *ranges, size_t n,
                             HpbResult *results, const int *cancel)
{
    HpbWork work = {
        .mem = mem,
        .ranges = ranges,
        .n = n,
        .results = results,
        .cancel = cancel,
        .step = mem->preferred,
        .slice = mem->slice,
        .call = collapse_call,
    };

    return hpb_work_run(&work, &mem->collapsed);
}

void hpb_memory_collapse_counters(HpbMemory *mem, HpbCounters *counters)
{
    pthread_mutex_lock(&mem->lock);
    *counters = mem->collapsed;
    pthread_mutex_unlock(&mem->lock);
}
