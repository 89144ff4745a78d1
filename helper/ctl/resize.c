/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: one change of size
 *
 * Steps [1] and [7] of the data path, seen from outside: the target goes in,
 * the size comes out. The goal is read back from the device, which rounds what
 * it was asked for by rules of its own; repeating them here would be a second
 * truth. The traditional balloon does not tell its target, so that one is
 * computed: pages of 4 KiB, the part of one is not taken.
 */
#include "resize.h"

#define STOCK_PAGE 4096

static gboolean get_bytes(HpbctlVm *vm, const char *property, guint64 *bytes,
                          GError **err)
{
    g_autoptr(JsonNode) node = hpbctl_vm_get(vm, property, err);

    if (!node) {
        return FALSE;
    }
    if (!JSON_NODE_HOLDS_VALUE(node) ||
        json_node_get_value_type(node) != G_TYPE_INT64) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL,
                    "%s: '%s' of the balloon is no number", vm->name, property);
        return FALSE;
    }
    *bytes = (guint64)json_node_get_int(node);
    return TRUE;
}

static gboolean look_node(HpbctlVm *vm, HpbctlResize *r, GError **err)
{
    g_autoptr(JsonNode) nodes = hpbctl_vm_get(vm, "nodes", err);
    JsonObject *entry = nodes ? hpbctl_node_entry(nodes, r->node) : NULL;
    gint64 size = hpbctl_get_int(entry, "actual-size", -1);
    gint64 goal = hpbctl_get_int(entry, "requested-size", size);

    if (!nodes) {
        return FALSE;
    }
    if (size < 0) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                    "%s has no NUMA node %d that can be resized; 'hpbctl "
                    "status' lists them, and there are none unless each node "
                    "of the VM has a memory backend of its own", vm->name,
                    r->node);
        return FALSE;
    }
    r->size = (guint64)size;
    r->goal = (guint64)goal;
    r->reached = size == goal;
    return TRUE;
}

gboolean hpbctl_resize_look(HpbctlVm *vm, HpbctlResize *r, GError **err)
{
    guint64 out, wanted;

    if (r->node >= 0) {
        return look_node(vm, r, err);
    }
    if (vm->balloon != HPBCTL_BALLOON_HP) {
        if (!hpbctl_vm_size(vm, -1, &r->size, err)) {
            return FALSE;
        }
        r->reached = r->size == r->goal;
        return TRUE;
    }
    /* Size last: it is what is shown, and never older than the decision */
    if (!get_bytes(vm, "requested-size", &wanted, err) ||
        !get_bytes(vm, "actual-size", &out, err) ||
        !hpbctl_vm_size(vm, -1, &r->size, err)) {
        return FALSE;
    }
    r->reached = out == wanted;
    if (r->reached) {
        r->goal = r->size;
    }
    return TRUE;
}

/* All targets have to be set together; the other nodes keep theirs. */
static JsonNode *node_sizes(JsonNode *nodes, const HpbctlResize *r)
{
    JsonArray *from = json_node_get_array(nodes);
    JsonArray *sizes = json_array_new();
    JsonNode *value = json_node_new(JSON_NODE_ARRAY);

    for (guint i = 0; i < json_array_get_length(from); i++) {
        JsonObject *entry = hpbctl_node_entry(nodes, i);
        gint64 size = hpbctl_get_int(entry, "requested-size",
                                     hpbctl_get_int(entry, "actual-size", 0));

        json_array_add_int_element(sizes, (gint64)i == r->node
                                   ? (gint64)r->asked : size);
    }
    json_node_take_array(value, sizes);
    return value;
}

static gboolean start_node(HpbctlVm *vm, HpbctlResize *r, GError **err)
{
    g_autoptr(JsonNode) nodes = NULL;

    if (!look_node(vm, r, err)) {
        return FALSE;
    }
    r->start = r->size;
    nodes = hpbctl_vm_get(vm, "nodes", err);
    if (!nodes || !JSON_NODE_HOLDS_ARRAY(nodes)) {
        return FALSE;
    }
    return hpbctl_vm_set(vm, "node-sizes", node_sizes(nodes, r), err) &&
           look_node(vm, r, err);
}

gboolean hpbctl_resize_start(HpbctlVm *vm, HpbctlResize *r, GError **err)
{
    g_auto(HpbctlStatus) status = { 0 };

    if (!hpbctl_vm_need_balloon(vm, r->node >= 0, r->node >= 0
                                ? "sizes of NUMA nodes" : "other size", err)) {
        return FALSE;
    }
    if (r->node >= 0) {
        return start_node(vm, r, err);
    }
    if (!hpbctl_vm_status(vm, &status, err)) {
        return FALSE;
    }
    r->start = status.size;
    if (!hpbctl_balloon(vm->transport, r->asked, err)) {
        return FALSE;
    }
    hpbctl_status_clear(&status);
    if (!hpbctl_vm_status(vm, &status, err)) {
        return FALSE;
    }
    r->goal = status.has_target ? status.target :
              status.ram - (status.ram - MIN(status.ram, r->asked)) /
              STOCK_PAGE * STOCK_PAGE;
    return hpbctl_resize_look(vm, r, err);
}

static char *refusal(const HpbctlStatus *status)
{
    JsonObject *object = status->refused &&
                         JSON_NODE_HOLDS_OBJECT(status->refused)
                         ? json_node_get_object(status->refused) : NULL;
    g_autofree char *bytes = NULL;

    if (!hpbctl_get_bool(object, "active", FALSE)) {
        return NULL;
    }
    bytes = hpbctl_size_format((guint64)hpbctl_get_int(object, "bytes", 0));
    return g_strdup_printf("the host has no memory for %s of %s: %s; free some "
                           "('hpbctl host' shows it), the guest asks again",
                           bytes, hpbctl_get_string(object, "block", "?"),
                           hpbctl_get_string(object, "reason", "no reason"));
}

char *hpbctl_resize_reason(HpbctlVm *vm, const HpbctlResize *r, GError **err)
{
    g_auto(HpbctlStatus) status = { 0 };
    char *refused;

    if (!hpbctl_vm_status(vm, &status, err)) {
        return NULL;
    }
    if (g_strcmp0(status.state, "running")) {
        return g_strdup_printf("the VM is not running but '%s'; it goes on "
                               "when the VM does", status.state);
    }
    if (status.driver == HPBCTL_DRIVER_ABSENT) {
        return g_strdup_printf("no driver in the guest serves the balloon; "
                               "load %s there", vm->balloon ==
                               HPBCTL_BALLOON_HP ? "virtio_balloon_hp"
                                                 : "virtio_balloon");
    }
    refused = r->goal > r->size ? refusal(&status) : NULL;
    if (refused) {
        return refused;
    }
    if (r->goal > r->size) {
        return g_strdup("the guest has not taken the rest back; look at its "
                        "kernel's log");
    }
    return g_strdup("the guest has no more memory that it can give; 'hpbctl "
                    "stats' shows what it uses, or ask for a larger size");
}

char *hpbctl_resize_line(const HpbctlResize *r, double seconds,
                         unsigned columns)
{
    guint64 way = r->goal > r->start ? r->goal - r->start : r->start - r->goal;
    guint64 done = r->size > r->start ? r->size - r->start
                                      : r->start - r->size;
    double part = way ? MIN((double)done / (double)way, 1.0) : 1.0;
    double speed = seconds > 0 ? (double)done / seconds / (1 << 30) : 0;
    g_autofree char *size = hpbctl_size_format(r->size);
    g_autofree char *goal = hpbctl_size_format(r->goal);
    g_autoptr(GString) bar = g_string_new(NULL);

    for (unsigned i = 0; i < columns; i++) {
        g_string_append(bar, i + 0.5 < part * columns ? "#" : ".");
    }
    return g_strdup_printf("%s%s%s%3.0f%%  %s -> %s  %.2f GiB/s",
                           columns ? "[" : "", bar->str, columns ? "] " : "",
                           part * 100, size, goal, speed);
}

char *hpbctl_size_argument(guint64 size)
{
    return size & ((1 << 20) - 1)
           ? g_strdup_printf("%" G_GUINT64_FORMAT "B", size)
           : g_strdup_printf("%" G_GUINT64_FORMAT "M", size >> 20);
}
