/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp: the target, and targets of NUMA nodes
 *
 * Beside the data path: how much memory the driver is asked to have out, of the
 * guest as a whole or of each of its NUMA nodes. Either every node has a
 * target of its own, and the target of the guest is their sum, or none has
 * (DEV-29); vbhp_target_set() is the one place where that is decided.
 *
 * Nodes are offered when there are two or more and every piece of ordinary RAM
 * is of one of them (a memory backend for each -numa node; DIMMs say their
 * node). Rejected: cutting one RAM block in nodes, as -numa node,mem= does; no
 * machine that has this device in mind is made like that any more.
 *
 * A node is asked for like the guest is: a size of N bytes means at least N,
 * what is asked to be given up is RAM of the node - N, rounded down to the
 * unit, and more than there is means all of it. The target is kept as what
 * shall be out, so that a DIMM that is plugged makes its node larger, and an
 * unplugged one makes it smaller again.
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "qapi/qapi-builtin-visit.h"
#include "qapi/visitor.h"
#include "migration/vmstate.h"
#include "system/numa.h"
#include "system/runstate.h"
#include "virtio-balloon-hp-internal.h"
#include "trace.h"

/* Bytes of ordinary RAM by node; @ram has s->nr_nodes entries. */
static void vbhp_nodes_ram(VirtIOBalloonHP *s, uint64_t *ram)
{
    VbhpBlock *blk;

    memset(ram, 0, s->nr_nodes * sizeof(*ram));
    vbhp_blocks_refresh(s);
    QTAILQ_FOREACH(blk, &s->blocks, next) {
        if (blk->node < s->nr_nodes) {
            ram[blk->node] += blk->rb->used_length;
        }
    }
}

/* Bytes that are out by node */
static void vbhp_nodes_out(VirtIOBalloonHP *s, uint64_t *out)
{
    VbhpBlock *blk;

    memset(out, 0, s->nr_nodes * sizeof(*out));
    QTAILQ_FOREACH(blk, &s->blocks, next) {
        if (blk->node < s->nr_nodes) {
            out[blk->node] += blk->nr_out * s->unit;
        }
    }
}

void vbhp_nodes_get_config(VirtIOBalloonHP *s,
                           struct virtio_balloon_hp_node *nodes)
{
    uint64_t out[MAX_NODES];

    vbhp_nodes_out(s, out);
    for (unsigned i = 0; i < s->nr_nodes; i++) {
        /* What is lent may come from anywhere. */
        uint64_t requested = s->node_requested && !s->session.active ?
                             s->node_requested[i] : VIRTIO_BALLOON_HP_NODE_ANY;

        nodes[i].requested = cpu_to_le64(requested);
        nodes[i].actual = cpu_to_le64(out[i]);
    }
}

/* Take it without telling anybody; true if that changed something. */
static bool vbhp_target_take(VirtIOBalloonHP *s, uint64_t requested,
                             const uint64_t *nodes)
{
    size_t size = s->nr_nodes * sizeof(*nodes);
    bool changed = requested != s->requested || !nodes != !s->node_requested;

    if (nodes && s->node_requested) {
        changed |= memcmp(nodes, s->node_requested, size);
    }
    s->requested = requested;
    if (nodes != s->node_requested) {
        g_free(s->node_requested);
        s->node_requested = g_memdup2(nodes, size);
    }
    return changed;
}

void vbhp_target_set(VirtIOBalloonHP *s, uint64_t requested,
                     const uint64_t *nodes)
{
    bool changed = vbhp_session_end(s);

    s->target_is_new = runstate_check(RUN_STATE_INMIGRATE);
    changed |= vbhp_target_take(s, requested, nodes);
    if (timer_pending(s->change_timer) && s->actual == vbhp_requested(s)) {
        vbhp_actual_tell(s);
    }
    if (changed) {
        virtio_notify_config(VIRTIO_DEVICE(s));
    }
}

/* What node @i with @ram bytes is asked to give up, to have @size bytes. */
static uint64_t vbhp_node_requested(VirtIOBalloonHP *s, unsigned i,
                                    uint64_t ram, uint64_t size)
{
    uint64_t requested = QEMU_ALIGN_DOWN(ram - MIN(size, ram), s->unit);

    trace_virtio_balloon_hp_node_target(i, ram, requested);
    return requested;
}

/* Cut @nodes to what the nodes have; returns their sum. */
static uint64_t vbhp_nodes_clamp(VirtIOBalloonHP *s, uint64_t *nodes)
{
    uint64_t ram[MAX_NODES], sum = 0;

    vbhp_nodes_ram(s, ram);
    for (unsigned i = 0; i < s->nr_nodes; i++) {
        nodes[i] = QEMU_ALIGN_DOWN(MIN(nodes[i], ram[i]), s->unit);
        sum += nodes[i];
    }
    return sum;
}

/* In the middle of a change of the memory map, so the driver is told later. */
void vbhp_nodes_shrunk(VirtIOBalloonHP *s)
{
    if (s->node_requested) {
        g_autofree uint64_t *nodes = g_memdup2(s->node_requested,
                                               s->nr_nodes * sizeof(*nodes));
        uint64_t sum = vbhp_nodes_clamp(s, nodes);

        if (vbhp_target_take(s, sum, nodes)) {
            s->config_pending = true;
            vbhp_queue_kick(s);
        }
    }
}

/* Properties */

static bool vbhp_visit_node(Visitor *v, int64_t node, uint64_t ram,
                            uint64_t out, const uint64_t *requested,
                            Error **errp)
{
    uint64_t actual = ram - MIN(ram, out);
    bool ok = visit_start_struct(v, NULL, NULL, 0, errp);

    if (ok) {
        ok = visit_type_int(v, "node", &node, errp) &&
             visit_type_uint64(v, "ram-size", &ram, errp);
        if (ok && requested) {
            uint64_t size = ram - MIN(ram, *requested);

            ok = visit_type_uint64(v, "requested-size", &size, errp);
        }
        ok = ok && visit_type_uint64(v, "actual-size", &actual, errp) &&
             visit_check_struct(v, errp);
        visit_end_struct(v, NULL);
    }
    return ok;
}

static void vbhp_nodes_get(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);
    uint64_t ram[MAX_NODES], out[MAX_NODES];
    bool ok = true;

    if (!visit_start_list(v, name, NULL, 0, errp)) {
        return;
    }
    if (s->nr_nodes) {
        vbhp_nodes_ram(s, ram);
        vbhp_nodes_out(s, out);
    }
    for (unsigned i = 0; ok && i < s->nr_nodes; i++) {
        ok = vbhp_visit_node(v, i, ram[i], out[i], s->node_requested ?
                             &s->node_requested[i] : NULL, errp);
    }
    if (ok) {
        visit_check_list(v, errp);
    }
    visit_end_list(v, NULL);
}

static void vbhp_node_sizes_get(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);
    g_autoptr(int64List) list = NULL;
    int64List **tail = &list, *sizes;
    uint64_t ram[MAX_NODES];

    if (s->node_requested) {
        vbhp_nodes_ram(s, ram);
        for (unsigned i = 0; i < s->nr_nodes; i++) {
            QAPI_LIST_APPEND(tail, ram[i] - MIN(ram[i], s->node_requested[i]));
        }
    }
    sizes = list;
    visit_type_int64List(v, name, &sizes, errp);
}

/* Whether nodes can have targets now. */
static bool vbhp_nodes_check(VirtIOBalloonHP *s, const char *name, Error **errp)
{
    VirtIODevice *vdev = VIRTIO_DEVICE(s);

    if (!DEVICE(s)->realized) {
        error_setg(errp, "%s is set by qom-set when the device is there; leave "
                   "it out of -device", name);
        return false;
    }
    if (!s->nr_nodes) {
        error_setg(errp, "%s: %s", name,
                   vbhp_ram_nodes() ? "the device has node-targets=off; set "
                   "the size of the guest by the command balloon" :
                   "not every piece of the guest's memory is of one of two or "
                   "more NUMA nodes; give each node a memory backend (-numa "
                   "node,memdev=ID), or set the size of the guest by the "
                   "command balloon");
        return false;
    }
    if ((vdev->status & VIRTIO_CONFIG_S_FEATURES_OK) &&
        !virtio_vdev_has_feature(vdev, VIRTIO_BALLOON_HP_F_NODES)) {
        error_setg(errp, "%s: the guest's driver did not accept targets of "
                   "NUMA nodes (VIRTIO_BALLOON_HP_F_NODES); use a newer driver, "
                   "or set the size of the guest by the command balloon", name);
        return false;
    }
    return true;
}

static void vbhp_node_sizes_set(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    VirtIOBalloonHP *s = VIRTIO_BALLOON_HP(obj);
    g_autoptr(int64List) sizes = NULL;
    uint64_t ram[MAX_NODES], nodes[MAX_NODES], sum = 0;
    bool all_zero = true;
    unsigned n = 0;

    /* Signed, as in the command balloon: the visitor takes -1 for 2^64 - 1 */
    if (!visit_type_int64List(v, name, &sizes, errp) ||
        !vbhp_nodes_check(s, name, errp)) {
        return;
    }
    for (int64List *e = sizes; e; e = e->next) {
        if (e->value < 0) {
            error_setg(errp, "%s: %" PRId64 " is not a size; node %u needs one "
                       "of at least 0 bytes", name, e->value, n);
            return;
        }
        all_zero &= !e->value;
        n++;
    }
    if (n != s->nr_nodes) {
        error_setg(errp, "%s has %u sizes, but the guest has %u NUMA nodes; "
                   "give the size of each, in bytes", name, n, s->nr_nodes);
        return;
    }
    if (all_zero) {
        error_setg(errp, "%s leaves the guest nothing; at least one node needs "
                   "a size of more than 0 bytes", name);
        return;
    }
    vbhp_nodes_ram(s, ram);
    n = 0;
    for (int64List *e = sizes; e; e = e->next, n++) {
        nodes[n] = vbhp_node_requested(s, n, ram[n], e->value);
        sum += nodes[n];
    }
    vbhp_target_set(s, sum, nodes);
}

void vbhp_nodes_instance_init(Object *obj)
{
    object_property_add(obj, "nodes", "sizes by NUMA node", vbhp_nodes_get,
                        NULL, NULL, NULL);
    object_property_add(obj, "node-sizes", "int64List", vbhp_node_sizes_get,
                        vbhp_node_sizes_set, NULL, NULL);
}

/* Saved state */

void vbhp_nodes_pre_load(VirtIOBalloonHP *s)
{
    s->saved_nr_nodes = 0;
    g_clear_pointer(&s->saved_node_requested, g_free);
}

bool vbhp_nodes_check_loaded(VirtIOBalloonHP *s)
{
    if (!s->saved_nr_nodes || s->saved_nr_nodes == s->nr_nodes) {
        return true;
    }
    error_report("virtio-balloon-hp: the saved state has targets of %" PRIu32
                 " NUMA nodes, and this device has %u nodes; give this machine "
                 "the nodes of the source, each with a memory backend, and "
                 "node-targets=on, or send 'balloon' to the source before",
                 s->saved_nr_nodes, s->nr_nodes);
    return false;
}

bool vbhp_target_loaded(VirtIOBalloonHP *s)
{
    g_autofree uint64_t *nodes = g_steal_pointer(&s->saved_node_requested);
    bool changed = false;

    /* A target that was set while we waited is newer than the state's. */
    if (s->target_is_new) {
        changed = s->requested != s->saved_requested ||
                  s->node_requested || nodes;
    } else if (nodes) {
        g_autofree uint64_t *sent = g_memdup2(nodes,
                                              s->nr_nodes * sizeof(*nodes));
        uint64_t sum = vbhp_nodes_clamp(s, nodes);

        vbhp_target_take(s, sum, nodes);
        changed = sum != s->saved_requested ||
                  memcmp(sent, nodes, s->nr_nodes * sizeof(*nodes));
    } else {
        uint64_t sum = QEMU_ALIGN_DOWN(s->saved_requested, s->unit);

        vbhp_target_take(s, sum, NULL);
        changed = sum != s->saved_requested;
    }
    s->saved_nr_nodes = 0;
    return changed;
}

static bool vbhp_nodes_needed(void *opaque)
{
    VirtIOBalloonHP *s = opaque;

    return s->node_requested;
}

static int vbhp_nodes_pre_save(void *opaque)
{
    VirtIOBalloonHP *s = opaque;

    s->saved_nr_nodes = s->nr_nodes;
    s->saved_node_requested = g_memdup2(s->node_requested, s->nr_nodes *
                                        sizeof(*s->node_requested));
    return 0;
}

static int vbhp_nodes_post_save(void *opaque)
{
    vbhp_nodes_pre_load(opaque);
    return 0;
}

static bool vbhp_saved_nr_nodes_valid(void *opaque, int version_id)
{
    VirtIOBalloonHP *s = opaque;

    return s->saved_nr_nodes >= 1 && s->saved_nr_nodes <= MAX_NODES;
}

const VMStateDescription vmstate_vbhp_nodes = {
    .name = "virtio-balloon-hp-device/nodes",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = vbhp_nodes_needed,
    .pre_save = vbhp_nodes_pre_save,
    .post_save = vbhp_nodes_post_save,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT32(saved_nr_nodes, VirtIOBalloonHP),
        VMSTATE_VALIDATE("number of nodes", vbhp_saved_nr_nodes_valid),
        VMSTATE_VARRAY_UINT32_ALLOC(saved_node_requested, VirtIOBalloonHP,
                                    saved_nr_nodes, 1, vmstate_info_uint64,
                                    uint64_t),
        VMSTATE_END_OF_LIST()
    }
};

/* Life cycle */

void vbhp_nodes_realize(VirtIOBalloonHP *s)
{
    bool wanted = virtio_has_feature(s->host_features,
                                     VIRTIO_BALLOON_HP_F_NODES);

    s->nr_nodes = wanted ? vbhp_ram_nodes() : 0;
}

void vbhp_nodes_unrealize(VirtIOBalloonHP *s)
{
    g_clear_pointer(&s->node_requested, g_free);
    vbhp_nodes_pre_load(s);
    s->nr_nodes = 0;
}
