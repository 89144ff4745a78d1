/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: read the page table of this process
 *
 * Step [5] memory of the data path, the half of a scan that is about page
 * tables. Answers one question: what is at this offset, and up to where is it
 * the same? Looks ahead by one system call and keeps that in a buffer of fixed
 * size, so going through a mapping in order costs a call for each few hundred
 * extents (PAGEMAP_SCAN) or pages (pagemap).
 *
 * The ioctl knows extents: 4 GiB of huge pages or of nothing take tens of
 * microseconds. Headers of Debian 12 do not have its structure, which is ABI of
 * the kernel, hence ours. It is tried first; ENOTTY (before 6.7), or EPERM and
 * ENOSYS of a sandbox, mean the file itself from then on.
 *
 * The file is opened for each scan: it belongs to the process that opens it,
 * and this one may be a child by the next time.
 */
#include <errno.h>
#include <unistd.h>
#include <linux/ioctl.h>
#include "scan-int.h"

/* struct pm_scan_arg and page_region of linux/fs.h, Linux 6.7 */
typedef struct ScanArg {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
} ScanArg;

G_STATIC_ASSERT(sizeof(ScanArg) == 96);
G_STATIC_ASSERT(sizeof(HpbPageRegion) == 24);

#define SCAN_REQUEST _IOWR('f', 16, ScanArg)
#define CATEGORY_PRESENT    (1u << 3)
#define CATEGORY_SWAPPED    (1u << 4)
#define CATEGORY_ZERO       (1u << 5)
#define CATEGORY_HUGE       (1u << 6)

#define ENTRY_PRESENT       (1ULL << 63)
#define ENTRY_SWAPPED       (1ULL << 62)

static gboolean is_hugetlb(const HpbMemory *mem)
{
    return mem->backing == HPB_BACKING_HUGETLB ||
           mem->backing == HPB_BACKING_HUGETLB_PRIVATE ||
           mem->backing == HPB_BACKING_HUGETLB_ANONYMOUS;
}

uint32_t hpb_pagemap_flags(const HpbMemory *mem)
{
    if (hpb_memory_scan_method(mem) == HPB_SCAN_BY_IOCTL) {
        return HPB_SCAN_PRESENT | HPB_SCAN_HUGE | HPB_SCAN_ZERO |
               HPB_SCAN_SWAPPED;
    }
    return HPB_SCAN_PRESENT | HPB_SCAN_SWAPPED |
           (is_hugetlb(mem) ? HPB_SCAN_HUGE : 0);
}

int hpb_pagemap_open(HpbPagemap *map, HpbMemory *mem)
{
    map->mem = mem;
    map->base = (uint64_t)sysconf(_SC_PAGESIZE);
    map->start = map->end = 0;
    map->fd = mem->ops->open_pagemap();
    if (map->fd != -1) {
        return 0;
    }
    /* Not mounted, or hidden from us */
    return errno == ENOENT || errno == EACCES ? -ENOTSUP : -errno;
}

void hpb_pagemap_close(HpbPagemap *map)
{
    close(map->fd);
}

static uint32_t flags_of_categories(uint64_t categories)
{
    return (categories & CATEGORY_PRESENT ? HPB_SCAN_PRESENT : 0) |
           (categories & CATEGORY_SWAPPED ? HPB_SCAN_SWAPPED : 0) |
           (categories & CATEGORY_ZERO ? HPB_SCAN_ZERO : 0) |
           (categories & CATEGORY_HUGE ? HPB_SCAN_HUGE : 0);
}

/* Look ahead from @offset to at most @end. 0 or a negative errno. */
static int fill_by_ioctl(HpbPagemap *map, uint64_t offset, uint64_t end)
{
    uint64_t host = (uintptr_t)map->mem->host;
    ScanArg arg = {
        .size = sizeof(arg),
        .start = host + offset,
        .end = host + end,
        .vec = (uintptr_t)map->buffer.regions,
        .vec_len = G_N_ELEMENTS(map->buffer.regions),
        .category_anyof_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED,
        .return_mask = CATEGORY_PRESENT | CATEGORY_SWAPPED | CATEGORY_ZERO |
                       CATEGORY_HUGE,
    };
    int ret = map->mem->ops->ioctl(map->fd, SCAN_REQUEST, &arg);

    if (ret < 0) {
        return -errno;
    }
    if (arg.walk_end <= arg.start || arg.walk_end > arg.end ||
        (size_t)ret > G_N_ELEMENTS(map->buffer.regions)) {
        return -EIO;    /* would loop, or read what nobody wrote */
    }
    map->n = (size_t)ret;
    map->next = 0;
    map->start = offset;
    map->end = arg.walk_end - host;
    return 0;
}

static int fill_by_read(HpbPagemap *map, uint64_t offset, uint64_t end)
{
    uint64_t pages = MIN((end - offset) / map->base,
                         G_N_ELEMENTS(map->buffer.entries));
    uint64_t first = ((uintptr_t)map->mem->host + offset) / map->base;
    ssize_t got = map->mem->ops->pread(map->fd, map->buffer.entries,
                                       pages * sizeof(uint64_t),
                                       (off_t)(first * sizeof(uint64_t)));

    if (got < 0) {
        return -errno;
    }
    map->n = (size_t)got / sizeof(uint64_t);
    if (!map->n || map->n > pages) {
        return -EIO;
    }
    map->start = offset;
    map->end = offset + map->n * map->base;
    return 0;
}

static int fill(HpbPagemap *map, uint64_t offset, uint64_t end)
{
    HpbMemory *mem = map->mem;
    gboolean by_ioctl = hpb_memory_scan_method(mem) == HPB_SCAN_BY_IOCTL;

    for (unsigned int tries = 0; tries <= HPB_RETRY_MAX; tries++) {
        int ret = by_ioctl ? fill_by_ioctl(map, offset, end)
                           : fill_by_read(map, offset, end);

        switch (ret) {
        case -EINTR:
        case -EAGAIN:
            break;
        case -ENOTTY:
        case -ENOSYS:
        case -EPERM:
        case -EINVAL:
            if (!by_ioctl) {
                return ret;
            }
            by_ioctl = FALSE;
            atomic_store_explicit(&mem->scan_method, HPB_SCAN_BY_PAGEMAP,
                                  memory_order_relaxed);
            break;
        default:
            map->by_ioctl = by_ioctl;
            return ret;
        }
    }
    return -EBUSY;
}

static void extent_of_regions(HpbPagemap *map, uint64_t offset, HpbExtent *ext)
{
    uint64_t host = (uintptr_t)map->mem->host;
    const HpbPageRegion *regions = map->buffer.regions;

    while (map->next < map->n && regions[map->next].end - host <= offset) {
        map->next++;
    }
    ext->flags = 0;
    ext->end = map->end;
    if (map->next == map->n) {
        return;
    }
    if (regions[map->next].start - host > offset) {
        ext->end = regions[map->next].start - host;
    } else {
        ext->end = regions[map->next].end - host;
        ext->flags = flags_of_categories(regions[map->next].categories);
    }
}

static uint32_t flags_of_entry(const HpbMemory *mem, uint64_t entry)
{
    uint32_t flags = 0;

    if (entry & ENTRY_PRESENT) {
        flags = HPB_SCAN_PRESENT | (is_hugetlb(mem) ? HPB_SCAN_HUGE : 0);
    } else if (entry & ENTRY_SWAPPED) {
        flags = HPB_SCAN_SWAPPED;
    }
    return flags;
}

static void extent_of_entries(HpbPagemap *map, uint64_t offset, HpbExtent *ext)
{
    const uint64_t *entries = map->buffer.entries;
    size_t i = (offset - map->start) / map->base;

    ext->flags = flags_of_entry(map->mem, entries[i]);
    do {
        i++;
    } while (i < map->n &&
             flags_of_entry(map->mem, entries[i]) == ext->flags);
    ext->end = map->start + i * map->base;
}

int hpb_pagemap_at(HpbPagemap *map, uint64_t offset, uint64_t end,
                   HpbExtent *ext)
{
    if (offset < map->start || offset >= map->end) {
        int ret = fill(map, offset, end);

        if (ret) {
            return ret;
        }
    }
    if (map->by_ioctl) {
        extent_of_regions(map, offset, ext);
    } else {
        extent_of_entries(map, offset, ext);
    }
    ext->end = MIN(ext->end, end);
    return 0;
}
