/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: on which NUMA nodes memory is to be taken
 *
 * Part of step [5] memory of the data path. The policy is set once, on the
 * whole mapping, when it is described: on parts it would split the kernel's
 * mapping into as many. From then on every page of it comes from these nodes,
 * also those that a guest touches by itself. Nothing moves that is there.
 *
 * A bound mapping whose nodes are full is not answered by the kernel: it kills
 * a process that is bound like that, most likely this one. So before ordinary
 * memory is provided it is looked whether the nodes have it; pools of huge pages
 * say no by themselves.
 */
#include <errno.h>
#include <numaif.h>
#include "memory-int.h"

/*
 * What a node keeps for its own needs. Unit: bytes. Above the watermarks of any
 * node, at which the kernel begins to reclaim and then to kill.
 */
#define NODE_KEEPS (128 * (uint64_t)1024 * 1024)

static int mode_of(HpbPlacement placement)
{
    switch (placement) {
    case HPB_PLACEMENT_BIND:
        return MPOL_BIND;
    case HPB_PLACEMENT_PREFERRED:
        return MPOL_PREFERRED;
    case HPB_PLACEMENT_INTERLEAVE:
        return MPOL_INTERLEAVE;
    case HPB_PLACEMENT_NONE:
        break;
    }
    return MPOL_DEFAULT;
}

static gboolean node_is_set(const HpbMemory *mem, unsigned int node)
{
    return (mem->nodes[node / 64] & 1ULL << node % 64) != 0;
}

gboolean hpb_place_apply(HpbMemory *mem, GError **errp)
{
    unsigned long mask[HPB_NODES_MAX / 64];

    if (mem->placement == HPB_PLACEMENT_NONE) {
        return TRUE;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(mask); i++) {
        mask[i] = mem->nodes[i];
    }
    /* The kernel takes one bit less than it is told */
    if (!mem->ops->mbind(mem->host, mem->length, mode_of(mem->placement), mask,
                         HPB_NODES_MAX + 1)) {
        return TRUE;
    }
    if (errno == ENOSYS || errno == EPERM) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_UNSUPPORTED,
                    "%s: its NUMA nodes cannot be set here: mbind: %s; describe "
                    "it without a placement", mem->name, g_strerror(errno));
    } else if (errno == EINVAL) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_INVALID,
                    "%s: the NUMA nodes of its placement are not there, have no "
                    "memory, or are not allowed to this process; name others",
                    mem->name);
    } else {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_SYSTEM, "%s: mbind failed: %s",
                    mem->name, g_strerror(errno));
    }
    return FALSE;
}

gboolean hpb_place_has_room(const HpbMemory *mem, uint64_t length)
{
    uint64_t room = 0;

    if (mem->placement != HPB_PLACEMENT_BIND ||
        mem->backing == HPB_BACKING_HUGETLB ||
        mem->backing == HPB_BACKING_HUGETLB_PRIVATE ||
        mem->backing == HPB_BACKING_HUGETLB_ANONYMOUS) {
        return TRUE;
    }
    for (unsigned int node = 0; node < HPB_NODES_MAX; node++) {
        if (node_is_set(mem, node)) {
            uint64_t available = mem->ops->node_available((int)node);

            room += available - MIN(available, NODE_KEEPS);
        }
    }
    return room >= length;
}
