/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: make huge pages of the small ones in a range
 *
 * For memory that came back in pieces: the guest touched it page by page while
 * the host had no huge page free, or a file's page cache was filled by others.
 * The kernel's own daemon does that too, minutes later.
 *
 * Contents stay, and may be used meanwhile; it costs a copy of what is there.
 */
#ifndef HPBALLOON_COLLAPSE_H
#define HPBALLOON_COLLAPSE_H

#include <stddef.h>
#include <hpballoon/memory.h>
#include <hpballoon/range.h>

G_BEGIN_DECLS

/*
 * Collapse @ranges into huge pages, by madvise(MADV_COLLAPSE), Linux 6.1. Parts
 * with nothing in them stay so; parts with something are filled up.
 *
 * @ranges, @n, @results, @cancel: as for hpb_memory_discard(), but multiples of
 *     hpb_memory_preferred_range(). HpbResult.done is one too; of a range that
 *     fails, more may have been done.
 *
 * Returns whether every range is huge or holes now. Per range:
 *     0           done; memory of a huge page pool always is
 *     -EINVAL     not a multiple of the preferred range, or length 0
 *     -ERANGE     not inside the mapping
 *     -ECANCELED  @cancel
 *     -ENOTSUP    kernel or memory cannot: older kernel, MADV_NOHUGEPAGE, file
 *                 system, addresses that huge pages do not fit to
 *     -ENOMEM     the host has no huge page free
 *     -EBUSY      a limit of a control group, or pages that stayed in use
 *     other       as the kernel says
 */
gboolean hpb_memory_collapse(HpbMemory *mem, const HpbRange *ranges, size_t n,
                             HpbResult *results, const int *cancel);

/* As hpb_memory_discard_counters(). */
void hpb_memory_collapse_counters(HpbMemory *mem, HpbCounters *counters);

G_END_DECLS

#endif /* HPBALLOON_COLLAPSE_H */
