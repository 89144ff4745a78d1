/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: provide host memory for ranges before somebody touches them
 *
 * Memory that the host does not have when a guest touches it costs the guest
 * its life: SIGBUS where it comes from a pool of huge pages or a file system,
 * the OOM killer elsewhere. Asked beforehand, the answer is an error.
 *
 * Where pages come from (NUMA nodes) is the policy of the mapping: that of its
 * description, else as set by mbind() or of the thread that calls.
 *
 * Rejected: touching pages under a handler for SIGBUS. Handlers belong to the
 * process, not to a library.
 */
#ifndef HPBALLOON_POPULATE_H
#define HPBALLOON_POPULATE_H

#include <stddef.h>
#include <hpballoon/memory.h>
#include <hpballoon/range.h>

G_BEGIN_DECLS

/* The call that provides memory. Values are ABI: new ones are appended. */
typedef enum HpbPopulateMethod {
    HPB_POPULATE_WRITE,         /* madvise(MADV_POPULATE_WRITE), Linux 5.14 */
    /* fallocate(): memory is there, page tables are filled when it is touched */
    HPB_POPULATE_FALLOCATE,
    HPB_POPULATE_NONE,          /* older kernel, memory without a file */
} HpbPopulateMethod;

/*
 * Provide host memory for @ranges. What is there already stays as it is; what
 * is not reads as zeroes (see hpb_memory_discard_zeroes()).
 *
 * @ranges, @n, @results, @cancel: as for hpb_memory_discard(), but slices are
 *     64 MiB, or one huge page if that is larger. Where the mapping is
 *     registered with userfaultfd, a call waits for its handler, and cancel too.
 * @step: ranges are multiples of it, a power of two, at least the smallest
 *     range. HpbResult.done is a multiple of it: of a range that fails, as many
 *     steps from its start as could be had stay, and all behind them is freed
 *     again, with its contents if it had any.
 *
 * Returns whether every range was provided whole. Per range:
 *     0           done
 *     -EINVAL     offset or length not a multiple of @step, or length 0;
 *                 nothing was done
 *     -ERANGE     not inside the mapping; nothing was done
 *     -ECANCELED  @cancel
 *     -ENOMEM     no memory: pool empty, file system full, limit of a control
 *                 group on huge pages, RLIMIT_MEMLOCK
 *     -EIO        hardware failed (poisoned page)
 *     -ENOTSUP    this kernel cannot do it for this memory
 *     -EBUSY      the kernel kept on saying EAGAIN or EINTR
 *     other       as the kernel says
 *
 * A limit on ordinary memory (memory control group) is not among them: there
 * the kernel kills instead of failing, as whenever memory is touched. It would
 * too when the nodes of a mapping are full that its description binds
 * (HPB_PLACEMENT_BIND): these are looked at before, and answer -ENOMEM while
 * they have less than the slice and 128 MiB each, even if it is there already.
 */
gboolean hpb_memory_populate(HpbMemory *mem, const HpbRange *ranges, size_t n,
                             uint64_t step, HpbResult *results,
                             const int *cancel);

/* May change from WRITE to FALLOCATE or NONE by the first call. */
HpbPopulateMethod hpb_memory_populate_method(const HpbMemory *mem);

/* As hpb_memory_discard_counters(). */
void hpb_memory_populate_counters(HpbMemory *mem, HpbCounters *counters);

/* Stable lower-case word ("populate-write", ...), "unknown" outside the enum. */
const char *hpb_populate_method_name(HpbPopulateMethod method);

G_END_DECLS

#endif /* HPBALLOON_POPULATE_H */
