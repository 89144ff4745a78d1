/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: give memory back to the host by range
 *
 * Ranges are answered one by one: a range that cannot be freed costs the
 * others nothing. Neighbours in a list that are contiguous in memory go to the
 * kernel in one call, so a caller that sorts its list pays for runs, not for
 * ranges. Long runs are cut into slices of a few milliseconds, between which
 * the cancel flag is read.
 *
 * Rejected: sorting or merging the list here (needs memory by list size, and
 * callers have it sorted), one call for all (cannot be cancelled).
 */
#ifndef HPBALLOON_DISCARD_H
#define HPBALLOON_DISCARD_H

#include <stddef.h>
#include <hpballoon/memory.h>
#include <hpballoon/range.h>

G_BEGIN_DECLS

/*
 * Free the host memory of @ranges. Their contents are lost; the caller has
 * made sure that nobody uses them while this runs. Afterwards the host
 * provides new memory when they are next touched, zeroed if
 * hpb_memory_discard_zeroes().
 *
 * @ranges, @n: any order, any number; sorted lists of neighbours are fastest.
 *     Overlapping ranges are freed twice, harmlessly.
 * @results: @n entries, written entirely; or NULL.
 * @cancel: read with acquire order before each slice; not 0 makes the rest of
 *     the request end with -ECANCELED. A slice is 64 MiB of shared
 *     memory in small pages (about 5 ms), 256 MiB of private memory (8 ms;
 *     0.4 ms for huge pages) and of huge pages of a pool (0.2 ms), or one
 *     huge page if that is larger. NULL: runs to the end.
 *
 * Returns whether every range was done whole. Per range:
 *     0           done
 *     -EINVAL     offset or length not a multiple of the smallest range, or
 *                 length 0; nothing was done
 *     -ERANGE     not inside the mapping; nothing was done
 *     -ECANCELED  @cancel
 *     -ENOTSUP    the kernel does not free this part (mlocked on old kernels,
 *                 mappings with special pages)
 *     -EBUSY      the kernel kept on saying EAGAIN or EINTR
 *     other       as the kernel says: -ENOMEM, -EPERM (file sealed since), ...
 *
 * Slow callers that hold a lock should not: a call takes as long as the kernel
 * needs to free the pages. Never blocks on other users of @mem.
 */
gboolean hpb_memory_discard(HpbMemory *mem, const HpbRange *ranges, size_t n,
                            HpbResult *results, const int *cancel);

/* A consistent snapshot: requests that still run are not in it at all. */
void hpb_memory_discard_counters(HpbMemory *mem, HpbCounters *counters);

G_END_DECLS

#endif /* HPBALLOON_DISCARD_H */
