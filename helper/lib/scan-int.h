/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: what the files of a scan know of each other
 *
 *   pagemap.c  the page table of this process
 *   scan.c     the file's view, both put together, sums
 *   nodes.c    NUMA nodes of what is there
 */
#ifndef HPB_SCAN_INT_H
#define HPB_SCAN_INT_H

#include "memory-int.h"

/* The same from where it was asked for to @end */
typedef struct HpbExtent {
    uint64_t end;           /* offset into the mapping */
    uint32_t flags;         /* HPB_SCAN_* */
} HpbExtent;

/* struct page_region of linux/fs.h, Linux 6.7 */
typedef struct HpbPageRegion {
    uint64_t start;         /* addresses */
    uint64_t end;
    uint64_t categories;
} HpbPageRegion;

/* One walk through the page table; on the stack of who walks */
typedef struct HpbPagemap {
    HpbMemory *mem;
    int fd;
    uint64_t base;          /* bytes of the smallest page */
    gboolean by_ioctl;      /* what the buffer has */
    uint64_t start;         /* offsets into the mapping that it covers */
    uint64_t end;
    size_t n;               /* entries in it */
    size_t next;            /* regions: the first that may still matter */
    union {
        HpbPageRegion regions[256];
        uint64_t entries[768];
    } buffer;
} HpbPagemap;

/* 0 or a negative errno. hpb_pagemap_close() only after success. */
int hpb_pagemap_open(HpbPagemap *map, HpbMemory *mem);
void hpb_pagemap_close(HpbPagemap *map);

/*
 * What is at @offset, and how far is it the same? Knows nothing from @end on.
 * Offsets are multiples of the page size and go upwards. 0 or a negative errno.
 */
int hpb_pagemap_at(HpbPagemap *map, uint64_t offset, uint64_t end,
                   HpbExtent *ext);

/* Flags that it can tell of @mem. */
uint32_t hpb_pagemap_flags(const HpbMemory *mem);

#endif /* HPB_SCAN_INT_H */
