/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: put page table and file together, and sum up
 *
 * Step [5] memory of the data path. Two walks go through the range side by
 * side, each of which knows from an offset up to where things stay the same;
 * the nearer end of the two ends a run.
 *
 * Files are asked by SEEK_DATA and SEEK_HOLE: shmem, whose page cache is its
 * only home, and files on disks. Not hugetlbfs: to it, all of a file is data.
 * Its pages are mapped as they are allocated, so the page table is near the
 * truth, and fstat() tells whether it is all of it.
 *
 * Invariant: runs are in order, without gaps, and neighbours differ.
 */
#include <errno.h>
#include <unistd.h>
#include "scan-int.h"

/* Runs that a summary looks at a time. They are on its stack, 24 bytes each. */
#define SUMMARY_RUNS 128

/* One walk through the contents of a file */
typedef struct FileWalk {
    const HpbMemory *mem;   /* NULL: no file to be asked */
    HpbExtent ext;          /* what is known, from where it was asked */
    uint64_t start;
} FileWalk;

static gboolean asks_file(const HpbMemory *mem)
{
    return (mem->backing == HPB_BACKING_SHMEM ||
            mem->backing == HPB_BACKING_FILE) &&
           !(mem->disabled & HPB_NO_SEEK_DATA);
}

/* Where, from @offset on, @whence is: an offset into the mapping, or -errno. */
static int64_t seek(const HpbMemory *mem, uint64_t offset, int whence)
{
    uint64_t from = mem->fd_offset + offset;
    off_t to = mem->ops->lseek(mem->fd, (off_t)from, whence);

    if (to == -1) {
        return -errno;
    }
    return (uint64_t)to < from ? -EIO : to - (off_t)mem->fd_offset;
}

/* As hpb_pagemap_at(). */
static int file_at(FileWalk *walk, uint64_t offset, uint64_t end,
                   HpbExtent *ext)
{
    int64_t data;

    if (!walk->mem) {
        *ext = (HpbExtent) { .end = end };
        return 0;
    }
    if (offset >= walk->start && offset < walk->ext.end) {
        *ext = walk->ext;
        return 0;
    }
    data = seek(walk->mem, offset, SEEK_DATA);
    if (data == -ENXIO) {       /* nothing up to the end of the file */
        walk->ext = (HpbExtent) { .end = end };
    } else if (data < 0) {
        return (int)data;
    } else if ((uint64_t)data > offset) {
        walk->ext = (HpbExtent) { .end = MIN((uint64_t)data, end) };
    } else {
        int64_t hole = seek(walk->mem, offset, SEEK_HOLE);

        if (hole < 0 && hole != -ENXIO) {
            return (int)hole;
        }
        /* ENXIO, no progress: gone between the two questions */
        if (hole <= (int64_t)offset) {
            hole = (int64_t)(offset + walk->mem->page_size);
        }
        walk->ext = (HpbExtent) {
            .end = MIN((uint64_t)hole, end), .flags = HPB_SCAN_DATA,
        };
    }
    /* File systems may tell by blocks smaller than a page */
    walk->ext.end = (walk->ext.end + walk->mem->page_size - 1) &
                    ~(walk->mem->page_size - 1);
    walk->start = offset;
    *ext = walk->ext;
    return 0;
}

/* Append; FALSE when there is no room. */
static gboolean add_run(HpbRun *runs, size_t *used, size_t n, uint64_t offset,
                        uint64_t length, uint32_t flags)
{
    if (*used && runs[*used - 1].flags == flags) {
        runs[*used - 1].length += length;
        return TRUE;
    }
    if (*used == n) {
        return FALSE;
    }
    runs[(*used)++] = (HpbRun) {
        .offset = offset, .length = length, .flags = flags,
    };
    return TRUE;
}

/* @map: NULL to ask the file only */
static ssize_t scan(HpbPagemap *map, FileWalk *walk, const HpbRange *range,
                    HpbRun *runs, size_t n)
{
    uint64_t pos = range->offset;
    uint64_t end = range->offset + range->length;
    size_t used = 0;

    while (pos < end) {
        HpbExtent table = { 0 }, file = { 0 };
        uint64_t stop;
        int ret = 0;

        if (map) {
            ret = hpb_pagemap_at(map, pos, end, &table);
        } else {
            table.end = end;
        }
        if (ret >= 0) {
            ret = file_at(walk, pos, end, &file);
        }
        if (ret < 0) {
            return ret;
        }
        stop = MIN(table.end, file.end);
        if (!add_run(runs, &used, n, pos, stop - pos,
                     table.flags | file.flags)) {
            break;
        }
        pos = stop;
    }
    return (ssize_t)used;
}

ssize_t hpb_memory_scan(HpbMemory *mem, const HpbRange *range, HpbRun *runs,
                        size_t n)
{
    FileWalk walk = { .mem = asks_file(mem) ? mem : NULL };
    HpbPagemap map;
    int ret = hpb_range_check(mem, range, mem->page_size);
    ssize_t used;

    if (ret < 0) {
        return ret;
    }
    if (!n) {
        return -EINVAL;
    }
    ret = hpb_pagemap_open(&map, mem);
    if (ret < 0) {
        return ret;
    }
    used = scan(&map, &walk, range, runs, n);
    hpb_pagemap_close(&map);
    return used;
}

ssize_t hpb_memory_scan_contents(HpbMemory *mem, const HpbRange *range,
                                 HpbRun *runs, size_t n)
{
    FileWalk walk = { .mem = mem };
    int ret;

    /* Others may have what the file has not, or cannot be asked */
    if (mem->backing != HPB_BACKING_SHMEM || !asks_file(mem)) {
        return hpb_memory_scan(mem, range, runs, n);
    }
    ret = hpb_range_check(mem, range, mem->page_size);
    if (ret < 0) {
        return ret;
    }
    return n ? scan(NULL, &walk, range, runs, n) : -EINVAL;
}

static void sum_up(const HpbMemory *mem, HpbSummary *sum, const HpbRun *run)
{
    uint32_t held = HPB_SCAN_PRESENT;

    sum->bytes += run->length;
    sum->present += run->flags & HPB_SCAN_PRESENT ? run->length : 0;
    sum->huge += run->flags & HPB_SCAN_HUGE ? run->length : 0;
    sum->zero += run->flags & HPB_SCAN_ZERO ? run->length : 0;
    sum->swapped += run->flags & HPB_SCAN_SWAPPED ? run->length : 0;
    sum->data += run->flags & HPB_SCAN_DATA ? run->length : 0;
    sum->holes += run->flags ? 0 : run->length;
    if (mem->backing == HPB_BACKING_SHMEM && !(run->flags & HPB_SCAN_SWAPPED)) {
        held |= HPB_SCAN_DATA;
    }
    if ((run->flags & held) && !(run->flags & HPB_SCAN_ZERO)) {
        sum->held += run->length;
    }
}

int hpb_memory_each_run(HpbMemory *mem, const HpbRange *range,
                        const int *cancel,
                        int (*func)(const HpbMemory *mem, const HpbRun *run,
                                    void *opaque), void *opaque)
{
    HpbRange rest = *range;
    HpbRun runs[SUMMARY_RUNS] = { 0 };

    do {
        ssize_t n;
        uint64_t end = 0;

        if (cancel && __atomic_load_n(cancel, __ATOMIC_ACQUIRE)) {
            return -ECANCELED;
        }
        n = hpb_memory_scan(mem, &rest, runs, G_N_ELEMENTS(runs));
        if (n < 0) {
            return (int)n;
        }
        for (ssize_t i = 0; i < n; i++) {
            int ret = func(mem, &runs[i], opaque);

            if (ret) {
                return ret;
            }
            end = runs[i].offset + runs[i].length;
        }
        rest.length -= end - rest.offset;
        rest.offset = end;
    } while (rest.length);
    return 0;
}

static int summary_run(const HpbMemory *mem, const HpbRun *run, void *opaque)
{
    sum_up(mem, opaque, run);
    return 0;
}

int hpb_memory_summary(HpbMemory *mem, const HpbRange *range,
                       HpbSummary *summary, const int *cancel)
{
    struct stat st;

    *summary = (HpbSummary) { 0 };
    if (mem->fd != -1) {
        if (mem->ops->fstat(mem->fd, &st)) {
            return -errno;
        }
        summary->file = (uint64_t)st.st_blocks * 512;
    }
    return hpb_memory_each_run(mem, range, cancel, summary_run, summary);
}

uint32_t hpb_memory_scan_flags(const HpbMemory *mem)
{
    return hpb_pagemap_flags(mem) | (asks_file(mem) ? HPB_SCAN_DATA : 0);
}

HpbScanMethod hpb_memory_scan_method(const HpbMemory *mem)
{
    return atomic_load_explicit(&mem->scan_method, memory_order_relaxed);
}
