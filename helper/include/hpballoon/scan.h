/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: what the host holds for a mapping, without touching it
 *
 * Two views are put together. The page table of this process tells what is
 * mapped, how, and what is swapped out. For files it is not the truth: a page
 * can be held in the page cache and mapped by nobody, so the file is asked too.
 * A scan is a look at memory that others change meanwhile: each run was so at
 * some moment of the call.
 *
 * The kernel cannot tell everything of everything: hpb_memory_scan_flags()
 * says which flags mean something for a mapping.
 *
 * Rejected: /proc/self/smaps (sums by mapping, and slow by its size), mincore()
 * (does not know of swap, huge pages and, for hugetlb, of the page cache).
 */
#ifndef HPBALLOON_SCAN_H
#define HPBALLOON_SCAN_H

#include <stddef.h>
#include <sys/types.h>
#include <hpballoon/memory.h>
#include <hpballoon/range.h>

G_BEGIN_DECLS

/* HpbRun.flags; 0 is a hole: the host holds nothing there */
#define HPB_SCAN_PRESENT    (1u << 0)   /* in this process' page table */
#define HPB_SCAN_HUGE       (1u << 1)   /* ... by a huge page, THP or hugetlb */
/* ... and is the shared page of zeroes: was read, never written */
#define HPB_SCAN_ZERO       (1u << 2)
#define HPB_SCAN_SWAPPED    (1u << 3)   /* written out, not in memory */
/*
 * The file has contents there. For shmem that is memory or swap, mapped or not
 * (but not what fallocate() set aside and nobody touched); for files on disks
 * it is disk blocks.
 */
#define HPB_SCAN_DATA       (1u << 4)

/* Neighbouring bytes with the same flags */
typedef struct HpbRun {
    uint64_t offset;
    uint64_t length;
    uint32_t flags;         /* HPB_SCAN_* */
    uint32_t reserved;      /* 0 */
} HpbRun;

/* The call that reads page tables. Values are ABI: new ones are appended. */
typedef enum HpbScanMethod {
    HPB_SCAN_BY_IOCTL,      /* PAGEMAP_SCAN, Linux 6.7: by extents */
    /* /proc/self/pagemap, by pages: tells neither zero page nor THP */
    HPB_SCAN_BY_PAGEMAP,
} HpbScanMethod;

/*
 * Tell what is held of @range, from its start.
 *
 * @range: offset and length as for hpb_memory_discard(), else -EINVAL, -ERANGE.
 * @runs: room for @n runs, @n not 0. Without gaps, in order, neighbours differ.
 *
 * Returns how many runs were written, at least 1. If the last one ends before
 * the range, go on from where it ends: there were more runs than room.
 * Or a negative errno: -ENOTSUP without /proc; what the kernel says.
 *
 * Where the file is asked (HPB_SCAN_DATA), moves the position of fd.
 */
ssize_t hpb_memory_scan(HpbMemory *mem, const HpbRange *range, HpbRun *runs,
                        size_t n);

/*
 * As hpb_memory_scan(), for who only asks whether there are contents: a run
 * without flags has none, in memory or in swap. For shmem the file alone tells,
 * and HPB_SCAN_DATA is the only flag: no page table is walked, whose time goes
 * by the size of the mapping. All other memory is scanned in full.
 */
ssize_t hpb_memory_scan_contents(HpbMemory *mem, const HpbRange *range,
                                 HpbRun *runs, size_t n);

/* Flags that a scan sets for this memory. Less after a change of the method. */
uint32_t hpb_memory_scan_flags(const HpbMemory *mem);

/* May change from IOCTL to PAGEMAP by the first scan. */
HpbScanMethod hpb_memory_scan_method(const HpbMemory *mem);

/* Sums of a scan. Unit: bytes. */
typedef struct HpbSummary {
    uint64_t bytes;         /* looked at */
    uint64_t present;       /* the zero page too */
    uint64_t huge;
    uint64_t zero;
    uint64_t swapped;
    uint64_t data;
    /*
     * Held by the host: present but for the zero page, or data in memory of
     * shmem; swap is not counted where it can be told from memory.
     */
    uint64_t held;
    uint64_t holes;         /* runs without any flag */
    /*
     * What the whole file takes up, by fstat(): also what no page table has.
     * 0 without a file.
     */
    uint64_t file;
    uint64_t reserved[4];   /* 0 */
} HpbSummary;

/*
 * Scan all of @range and sum up. @cancel: as for hpb_memory_discard().
 * Returns 0, -ECANCELED (sums of what was seen), or as hpb_memory_scan().
 */
int hpb_memory_summary(HpbMemory *mem, const HpbRange *range,
                       HpbSummary *summary, const int *cancel);

/*
 * On which NUMA node is what is present in @range? Sampled: one look for each
 * huge page, and for each 64 KiB of smaller ones, which all count for the node
 * of the first that is there. Looks, does not fault in.
 *
 * @bytes: written: bytes on nodes 0 to @n - 1
 * @other: written: bytes on other nodes, or of which the kernel does not tell
 *     (zero page); or NULL
 * @cancel: as for hpb_memory_discard()
 *
 * Returns 0, -ECANCELED, -ENOTSUP on kernels without NUMA, or as
 * hpb_memory_scan().
 */
int hpb_memory_nodes(HpbMemory *mem, const HpbRange *range, uint64_t *bytes,
                     size_t n, uint64_t *other, const int *cancel);

/* Stable lower-case word ("pagemap-scan", ...), "unknown" outside the enum. */
const char *hpb_scan_method_name(HpbScanMethod method);

G_END_DECLS

#endif /* HPBALLOON_SCAN_H */
