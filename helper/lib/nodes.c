/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: on which NUMA node memory is
 *
 * Step [5] memory of the data path. A scan tells what is present, and the
 * kernel is asked for the node of samples of that: move_pages() without a
 * destination moves nothing and faults nothing in. A huge page is on one node
 * as a whole, so one sample is exact; of small pages one in 16 is looked at,
 * because a question costs about 0.1 us and a terabyte has many.
 */
#include <errno.h>
#include "scan-int.h"

/* Bytes of small pages that one of them speaks for */
#define SMALL_STEP (64 * (uint64_t)1024)
/* Samples in one system call; on the stack, 20 bytes each */
#define SAMPLES 256

typedef struct Nodes {
    uint64_t *bytes;
    size_t n;
    uint64_t other;
    /* samples that are not asked yet */
    size_t used;
    void *pages[SAMPLES];
    uint64_t lengths[SAMPLES];
} Nodes;

/* Ask for what has been gathered. 0 or a negative errno. */
static int flush(const HpbMemory *mem, Nodes *nodes)
{
    int status[SAMPLES];

    if (!nodes->used) {
        return 0;
    }
    if (mem->ops->page_nodes(nodes->used, nodes->pages, status)) {
        return errno == ENOSYS || errno == EPERM ? -ENOTSUP : -errno;
    }
    for (size_t i = 0; i < nodes->used; i++) {
        if (status[i] >= 0 && (size_t)status[i] < nodes->n) {
            nodes->bytes[status[i]] += nodes->lengths[i];
        } else {
            nodes->other += nodes->lengths[i];
        }
    }
    nodes->used = 0;
    return 0;
}

static int nodes_run(const HpbMemory *mem, const HpbRun *run, void *opaque)
{
    uint64_t step = run->flags & HPB_SCAN_HUGE ? mem->huge_size : SMALL_STEP;
    uint64_t pos = run->offset;
    uint64_t end = run->offset + run->length;
    Nodes *nodes = opaque;

    if (!(run->flags & HPB_SCAN_PRESENT)) {
        return 0;
    }
    while (pos < end) {
        /* Huge pages lie at multiples of their size by address */
        uint64_t stop = MIN(end, pos + step -
                            (((uintptr_t)mem->host + pos) & (step - 1)));

        nodes->pages[nodes->used] = mem->host + pos;
        nodes->lengths[nodes->used] = stop - pos;
        nodes->used++;
        if (nodes->used == SAMPLES) {
            int ret = flush(mem, nodes);

            if (ret) {
                return ret;
            }
        }
        pos = stop;
    }
    return 0;
}

int hpb_memory_nodes(HpbMemory *mem, const HpbRange *range, uint64_t *bytes,
                     size_t n, uint64_t *other, const int *cancel)
{
    Nodes nodes = { .bytes = bytes, .n = n };
    int ret, last;

    for (size_t i = 0; i < n; i++) {
        bytes[i] = 0;
    }
    ret = hpb_memory_each_run(mem, range, cancel, nodes_run, &nodes);
    last = flush(mem, &nodes);
    if (other) {
        *other = nodes.other;
    }
    return ret ? ret : last;
}
