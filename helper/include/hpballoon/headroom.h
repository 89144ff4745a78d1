/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: how much memory the host can provide for a mapping
 *
 * Touching memory that the host does not have ends badly: a signal when huge
 * pages or a file system are used up, the out-of-memory killer when a control
 * group or the host is. Who populates memory for somebody else asks here
 * first, and has the reason in words for its operator afterwards.
 *
 * The number is a look at counters that others change at any time. It is a
 * reason to refuse, not a promise.
 */
#ifndef HPBALLOON_HEADROOM_H
#define HPBALLOON_HEADROOM_H

#include <stddef.h>
#include <stdint.h>
#include <hpballoon/memory.h>

G_BEGIN_DECLS

/* Bytes that are enough for any text of hpb_memory_headroom(), 0 included */
#define HPB_HEADROOM_TEXT 256

/*
 * Bytes that the host can provide for @mem now without taking them from
 * anybody: the least of
 *   - huge pages free in the pool and not reserved, and those that may be added
 *     beyond it, for a mapping of huge pages;
 *   - free space of the file system, for a mapping of any other file;
 *   - MemAvailable, for memory of ordinary pages;
 *   - what each memory (or hugetlb) control group of the process and each group
 *     above may still use. Page cache that has not been used lately counts as
 *     unused, swap does not count. Versions 1 and 2.
 * What cannot be read limits nothing; G_MAXUINT64 if that is everything.
 *
 * @text, @size: takes what it is that limits, for people: "2 MiB huge pages: 0
 *     free in the pool (vm.nr_hugepages)". "" if nothing does. May be NULL, 0.
 *
 * Takes some 50 us: reads a few files of /proc and /sys.
 */
uint64_t hpb_memory_headroom(const HpbMemory *mem, char *text, size_t size);

G_END_DECLS

#endif /* HPBALLOON_HEADROOM_H */
