/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl status: what a VM has, what it was asked for, and what stands between
 *
 * Says in words what a VM cannot tell (traditional balloon, no driver), so that
 * a missing line is never mistaken for a zero.
 */
#include "vm.h"

static const char *driver_name(HpbctlDriver driver)
{
    return driver == HPBCTL_DRIVER_RUNNING ? "running" :
           driver == HPBCTL_DRIVER_ABSENT ? "absent" : "unknown";
}

static const char *cannot(const HpbctlVm *vm)
{
    switch (vm->balloon) {
    case HPBCTL_BALLOON_NONE:
        return "no balloon device: the VM cannot be resized";
    case HPBCTL_BALLOON_STOCK:
        return "the traditional virtio-balloon does not tell target, NUMA "
               "nodes, backings, counters or refusals";
    case HPBCTL_BALLOON_HP:
    default:
        return NULL;
    }
}

static HpbctlExit print_json(const HpbctlVm *vm, const HpbctlStatus *status)
{
    JsonBuilder *b = json_builder_new();

    json_builder_begin_object(b);
    hpbctl_json_string(b, "name", vm->name);
    if (vm->transport->uri) {
        hpbctl_json_string(b, "connection", vm->transport->uri);
        hpbctl_json_string(b, "uuid", vm->transport->uuid);
    } else {
        hpbctl_json_string(b, "socket", vm->transport->where);
    }
    hpbctl_json_int(b, "pid", vm->transport->pid);
    hpbctl_json_string(b, "qemu", vm->version);
    hpbctl_json_string(b, "state", status->state);
    hpbctl_json_string(b, "balloon", hpbctl_balloon_name(vm->balloon));
    hpbctl_json_string(b, "device", vm->device);
    hpbctl_json_string(b, "type", vm->type);
    hpbctl_json_string(b, "driver", driver_name(status->driver));
    hpbctl_json_int(b, "ram", (gint64)status->ram);
    hpbctl_json_int(b, "size", (gint64)status->size);
    json_builder_set_member_name(b, "target");
    if (status->has_target) {
        json_builder_add_int_value(b, (gint64)status->target);
    } else {
        json_builder_add_null_value(b);
    }
    json_builder_set_member_name(b, "unit");
    if (vm->device) {
        json_builder_add_int_value(b, (gint64)vm->unit);
    } else {
        json_builder_add_null_value(b);
    }
    hpbctl_json_node(b, "nodes", status->nodes);
    hpbctl_json_node(b, "memory", status->memory);
    hpbctl_json_node(b, "grow-refused", status->refused);
    hpbctl_json_node(b, "counters", status->counters);
    hpbctl_json_string(b, "cannot", cannot(vm));
    json_builder_end_object(b);
    return hpbctl_print_json(b);
}

static void print_nodes(JsonNode *nodes)
{
    JsonArray *array = nodes && JSON_NODE_HOLDS_ARRAY(nodes)
                       ? json_node_get_array(nodes) : NULL;

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *node = hpbctl_node_entry(nodes, i);
        gint64 target = hpbctl_get_int(node, "requested-size", -1);
        g_autofree char *label = g_strdup_printf("node %u", i);
        g_autofree char *size = hpbctl_size_format(
            (guint64)hpbctl_get_int(node, "actual-size", 0));
        g_autofree char *ram = hpbctl_size_format(
            (guint64)hpbctl_get_int(node, "ram-size", 0));
        g_autofree char *asked = target < 0 ? g_strdup("none of its own")
                                            : hpbctl_size_format((guint64)target);

        if (node) {
            hpbctl_row(label, "%s of %s, target %s", size, ram, asked);
        }
    }
}

static void print_memory(JsonNode *memory)
{
    JsonArray *array = memory && JSON_NODE_HOLDS_ARRAY(memory)
                       ? json_node_get_array(memory) : NULL;

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonNode *node = json_array_get_element(array, i);
        JsonObject *block = JSON_NODE_HOLDS_OBJECT(node)
                            ? json_node_get_object(node) : NULL;
        g_autofree char *page = hpbctl_size_format(
            (guint64)hpbctl_get_int(block, "page-size", 0));
        g_autofree char *out = hpbctl_size_format(
            (guint64)hpbctl_get_int(block, "out-size", 0));
        g_autofree char *size = hpbctl_size_format(
            (guint64)hpbctl_get_int(block, "size", 0));
        g_autofree char *label = g_strdup_printf(
            "memory %s", hpbctl_get_string(block, "block", "?"));

        hpbctl_row(label, "%s, pages of %s, %s of %s out, freed by %s",
                   hpbctl_get_string(block, "backing", "?"), page, out, size,
                   hpbctl_get_string(block, "method", "nothing"));
    }
}

static void print_refusal(JsonNode *refused)
{
    JsonObject *object = refused && JSON_NODE_HOLDS_OBJECT(refused)
                         ? json_node_get_object(refused) : NULL;

    if (hpbctl_get_bool(object, "active", FALSE)) {
        g_autofree char *bytes = hpbctl_size_format(
            (guint64)hpbctl_get_int(object, "bytes", 0));
        g_autoptr(GDateTime) since = g_date_time_new_from_unix_local(
            hpbctl_get_int(object, "since", 0));
        g_autofree char *when = since ? g_date_time_format(since, "%F %T")
                                      : g_strdup("?");

        hpbctl_row("grow refused", "%s of %s since %s: %s", bytes,
                   hpbctl_get_string(object, "block", "?"), when,
                   hpbctl_get_string(object, "reason", "no reason given"));
    }
}

static HpbctlExit print_text(const HpbctlVm *vm, const HpbctlStatus *status)
{
    g_autofree char *size = hpbctl_size_format(status->size);
    g_autofree char *ram = hpbctl_size_format(status->ram);
    g_autofree char *target = hpbctl_size_format(status->target);
    g_autofree char *unit = hpbctl_size_format(vm->unit);

    hpbctl_row("name", "%s", vm->name);
    hpbctl_row("state", "%s (QEMU %s, pid %d)", status->state, vm->version,
               (int)vm->transport->pid);
    hpbctl_row("size", "%s of %s", size, ram);
    if (status->has_target) {
        hpbctl_row("target", "%s%s", target,
                   status->target == status->size ? ", reached" : "");
    }
    if (vm->device) {
        hpbctl_row("balloon", "%s at %s, unit %s", vm->type, vm->device, unit);
        hpbctl_row("guest driver", "%s", driver_name(status->driver));
    }
    print_nodes(status->nodes);
    print_memory(status->memory);
    print_refusal(status->refused);
    if (cannot(vm)) {
        hpbctl_row("cannot", "%s", cannot(vm));
    }
    return hpbctl_finish();
}

HpbctlExit hpbctl_cmd_status(const HpbctlContext *ctx, int argc, char **argv)
{
    static const GOptionEntry entries[] = { G_OPTION_ENTRY_NULL };
    g_autoptr(GError) err = NULL;
    g_autoptr(HpbctlVm) vm = NULL;
    g_auto(HpbctlStatus) status = { 0 };

    if (!hpbctl_parse(entries, "status VM", 1, &argc, &argv)) {
        return HPBCTL_EXIT_USAGE;
    }
    vm = hpbctl_vm_open(ctx, argv[1], &err);
    if (!vm || !hpbctl_vm_status(vm, &status, &err)) {
        return hpbctl_fail(err);
    }
    return ctx->json ? print_json(vm, &status) : print_text(vm, &status);
}
