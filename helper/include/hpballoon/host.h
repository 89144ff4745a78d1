/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: pools of huge pages and NUMA nodes of this machine
 *
 * What an operator asks before giving a guest memory, and after a guest could
 * not have it. Numbers are the kernel's at the moment of the call; others use
 * the same pools, so they are no promise.
 */
#ifndef HPBALLOON_HOST_H
#define HPBALLOON_HOST_H

#include <stddef.h>
#include <stdint.h>
#include <glib.h>

G_BEGIN_DECLS

/* For hpb_pool_read() and hpb_host_available(): the whole machine */
#define HPB_ANY_NODE (-1)

/* One pool. All but page_size are in pages. */
typedef struct HpbPool {
    uint64_t page_size;     /* bytes */
    uint64_t total;         /* in the pool, surplus ones too */
    uint64_t free;
    uint64_t reserved;      /* free ones that are promised; 0 for a node */
    uint64_t surplus;       /* above the size the operator set */
    uint64_t overcommit;    /* most that surplus may become; 0 for a node */
    uint64_t space[4];      /* 0 */
} HpbPool;

/*
 * Sizes of huge pages that this machine has pools for, in bytes, ascending.
 * Returns how many there are, which may be more than the @n that were written.
 */
size_t hpb_pool_sizes(uint64_t *sizes, size_t n);

/*
 * Read the pool of @page_size, as a whole or its part on @node (HPB_ANY_NODE
 * or a number). 0, -ENOENT when there is none, -EIO when it is unreadable.
 */
int hpb_pool_read(uint64_t page_size, int node, HpbPool *pool);

/*
 * Pages of @pool that somebody who has reserved none may take: free and not
 * promised, and those by which the pool may grow. Limits of control groups and
 * a kernel that has no memory for the growth are not in it.
 */
uint64_t hpb_pool_available(const HpbPool *pool);

/*
 * Where a hugetlbfs with pages of @page_size is mounted, that this user may
 * write to, as of the start of the program; NULL if nowhere. Not to be freed.
 */
const char *hpb_pool_mount(uint64_t page_size);

/* Highest number of a NUMA node of the machine; 0 without NUMA. */
int hpb_host_max_node(void);

/*
 * Bytes of ordinary memory that are free, or page cache that can be dropped
 * (inactive), on @node. 0 for a node that is not there or has no memory.
 */
uint64_t hpb_host_available(int node);

G_END_DECLS

#endif /* HPBALLOON_HOST_H */
