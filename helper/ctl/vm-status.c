/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: the state of a VM at a moment
 *
 * Not a step of the data path. Several commands one after the other, so the
 * numbers are of moments a few hundred microseconds apart. What a VM does not
 * have is no error; what QEMU fails to say of something it has is one.
 */
#include <string.h>
#include "vm.h"

/* Run @command; TRUE with NULL in @node if QEMU answered with an error. */
static gboolean try(HpbctlVm *vm, const char *command, JsonObject *arguments,
                    JsonNode **node, GError **err)
{
    GError *local = NULL;

    *node = hpbctl_execute(vm->transport, command, arguments, &local);
    if (local && !g_error_matches(local, HPBCTL_ERROR, HPBCTL_ERROR_COMMAND)) {
        g_propagate_error(err, local);
        return FALSE;
    }
    g_clear_error(&local);
    return TRUE;
}

static JsonObject *object_of(JsonNode *node)
{
    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node)
                                                : NULL;
}

static gboolean read_state(HpbctlVm *vm, HpbctlStatus *status, GError **err)
{
    g_autoptr(JsonNode) state = NULL;
    g_autoptr(JsonNode) sizes = NULL;

    if (!try(vm, "query-status", NULL, &state, err) ||
        !try(vm, "query-memory-size-summary", NULL, &sizes, err)) {
        return FALSE;
    }
    status->state = g_strdup(hpbctl_get_string(object_of(state), "status",
                                               "unknown"));
    status->ram = (guint64)(hpbctl_get_int(object_of(sizes), "base-memory", 0) +
                            hpbctl_get_int(object_of(sizes), "plugged-memory",
                                           0));
    status->size = status->ram;
    return TRUE;
}

static gboolean starts_with_word(JsonArray *words, const char *start)
{
    for (guint i = 0; words && i < json_array_get_length(words); i++) {
        JsonNode *node = json_array_get_element(words, i);

        if (JSON_NODE_HOLDS_VALUE(node) &&
            json_node_get_value_type(node) == G_TYPE_STRING &&
            g_str_has_prefix(json_node_get_string(node), start)) {
            return TRUE;
        }
    }
    return FALSE;
}

/* Has the guest's driver said DRIVER_OK? QEMU's command is not a stable one. */
static gboolean read_driver(HpbctlVm *vm, HpbctlStatus *status, GError **err)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) node = NULL;
    JsonObject *bits;
    JsonNode *words;

    json_object_set_string_member(arguments, "path", vm->backend);
    if (!try(vm, "x-query-virtio-status", arguments, &node, err)) {
        return FALSE;
    }
    bits = hpbctl_get_object(object_of(node), "status");
    words = bits ? json_object_get_member(bits, "statuses") : NULL;
    if (words && JSON_NODE_HOLDS_ARRAY(words)) {
        status->driver = starts_with_word(json_node_get_array(words),
                                          "VIRTIO_CONFIG_S_DRIVER_OK")
                         ? HPBCTL_DRIVER_RUNNING : HPBCTL_DRIVER_ABSENT;
    }
    return TRUE;
}

/* An optional property of our device */
static gboolean read_property(HpbctlVm *vm, const char *name, JsonNode **node,
                              GError **err)
{
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "path", vm->device);
    json_object_set_string_member(arguments, "property", name);
    return try(vm, "qom-get", arguments, node, err);
}

static gboolean read_hp(HpbctlVm *vm, HpbctlStatus *status, GError **err)
{
    g_autoptr(JsonNode) requested = NULL;
    g_autoptr(JsonNode) out = NULL;

    if (!read_property(vm, "requested-size", &requested, err) ||
        !read_property(vm, "actual-size", &out, err) ||
        !read_property(vm, "nodes", &status->nodes, err) ||
        !read_property(vm, "memory", &status->memory, err) ||
        !read_property(vm, "grow-refused", &status->refused, err) ||
        !read_property(vm, "counters", &status->counters, err)) {
        return FALSE;
    }
    if (requested && out && JSON_NODE_HOLDS_VALUE(requested) &&
        JSON_NODE_HOLDS_VALUE(out)) {
        /* What targets refer to; QEMU's summary has virtio-mem in it too */
        status->ram = status->size + (guint64)json_node_get_int(out);
        status->has_target = TRUE;
        status->target = status->ram - MIN((guint64)json_node_get_int(requested),
                                           status->ram);
    }
    return TRUE;
}

gboolean hpbctl_vm_size(HpbctlVm *vm, int node, guint64 *size, GError **err)
{
    g_autoptr(JsonNode) answer = NULL;
    JsonObject *object;

    if (node < 0) {
        answer = hpbctl_execute(vm->transport, "query-balloon", NULL, err);
        object = object_of(answer);
    } else {
        answer = hpbctl_vm_get(vm, "nodes", err);
        object = answer ? hpbctl_node_entry(answer, node) : NULL;
    }
    if (!answer) {
        return FALSE;
    }
    if (hpbctl_get_int(object, node < 0 ? "actual" : "actual-size", -1) < 0) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL,
                    "%s: QEMU's answer has no size", vm->name);
        return FALSE;
    }
    *size = (guint64)hpbctl_get_int(object, node < 0 ? "actual" : "actual-size",
                                    0);
    return TRUE;
}

gboolean hpbctl_vm_status(HpbctlVm *vm, HpbctlStatus *status, GError **err)
{
    memset(status, 0, sizeof(*status));
    if (!read_state(vm, status, err)) {
        return FALSE;
    }
    if (vm->balloon == HPBCTL_BALLOON_NONE) {
        return TRUE;
    }
    return hpbctl_vm_size(vm, -1, &status->size, err) &&
           read_driver(vm, status, err) &&
           (vm->balloon != HPBCTL_BALLOON_HP || read_hp(vm, status, err));
}

static void drop(JsonNode **node)
{
    if (*node) {
        json_node_unref(*node);
        *node = NULL;
    }
}

void hpbctl_status_clear(HpbctlStatus *status)
{
    g_clear_pointer(&status->state, g_free);
    drop(&status->nodes);
    drop(&status->memory);
    drop(&status->refused);
    drop(&status->counters);
}

JsonObject *hpbctl_node_entry(JsonNode *nodes, gint64 node)
{
    JsonArray *array = nodes && JSON_NODE_HOLDS_ARRAY(nodes)
                       ? json_node_get_array(nodes) : NULL;

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *entry = object_of(json_array_get_element(array, i));

        if (hpbctl_get_int(entry, "node", -1) == node) {
            return entry;
        }
    }
    return NULL;
}
