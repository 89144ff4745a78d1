/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: find the balloon of a VM and read what it says
 *
 * Not a step of the data path, but looks at all of them from outside. The
 * balloon is found by its QOM type below /machine/peripheral, and is ours if it
 * has the property "requested-size", whatever the type is called: a
 * compatibility type for libvirt has another name. The traditional balloon has
 * a size and statistics; what else it cannot tell stays NULL or unknown.
 */
#include <string.h>
#include "vm.h"

static JsonObject *path_arguments(const char *path)
{
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "path", path);
    return arguments;
}

JsonNode *hpbctl_vm_get(HpbctlVm *vm, const char *property, GError **err)
{
    JsonObject *arguments = path_arguments(vm->device);

    json_object_set_string_member(arguments, "property", property);
    return hpbctl_execute(vm->transport, "qom-get", arguments, err);
}

gboolean hpbctl_vm_set(HpbctlVm *vm, const char *property, JsonNode *value,
                       GError **err)
{
    JsonObject *arguments = path_arguments(vm->device);
    g_autoptr(JsonNode) done = NULL;

    json_object_set_string_member(arguments, "property", property);
    json_object_set_member(arguments, "value", value);
    done = hpbctl_execute(vm->transport, "qom-set", arguments, err);
    return done != NULL;
}

/* Entries of the QOM object at @path: [{name, type}]; NULL if there is none */
static JsonNode *list_object(HpbctlVm *vm, const char *path, GError **err)
{
    g_autoptr(GError) local = NULL;
    JsonNode *list = hpbctl_execute(vm->transport, "qom-list",
                                    path_arguments(path), &local);

    if (list && !JSON_NODE_HOLDS_ARRAY(list)) {
        json_node_unref(list);
        list = NULL;
    }
    if (local && !g_error_matches(local, HPBCTL_ERROR, HPBCTL_ERROR_COMMAND)) {
        g_propagate_error(err, g_steal_pointer(&local));
    }
    return list;
}

static JsonObject *list_entry(JsonArray *array, guint i)
{
    JsonNode *node = json_array_get_element(array, i);

    return JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

/* Look for a balloon among the children of @path. FALSE: QEMU failed. */
static gboolean find_device(HpbctlVm *vm, const char *path, GError **err)
{
    static const char prefix[] = "child<virtio-balloon";
    GError *local = NULL;
    g_autoptr(JsonNode) list = list_object(vm, path, &local);
    JsonArray *array = list ? json_node_get_array(list) : NULL;

    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        JsonObject *entry = list_entry(array, i);
        const char *type = hpbctl_get_string(entry, "type", "");
        const char *name = hpbctl_get_string(entry, "name", NULL);

        if (name && g_str_has_prefix(type, prefix) && !vm->device) {
            vm->device = g_strdup_printf("%s/%s", path, name);
            vm->type = g_strndup(type + strlen("child<"),
                                 strlen(type) - strlen("child<>"));
        }
    }
    if (local) {
        g_propagate_error(err, local);
        return FALSE;
    }
    return TRUE;
}

/* Ours or the traditional one? And where is the virtio device behind it? */
static gboolean look_at_device(HpbctlVm *vm, GError **err)
{
    GError *local = NULL;
    g_autoptr(JsonNode) list = list_object(vm, vm->device, &local);
    g_autoptr(JsonNode) unit = NULL;
    JsonArray *array = list ? json_node_get_array(list) : NULL;

    vm->balloon = HPBCTL_BALLOON_STOCK;
    vm->unit = 4096;
    vm->backend = g_strdup(vm->device);
    for (guint i = 0; array && i < json_array_get_length(array); i++) {
        const char *name = hpbctl_get_string(list_entry(array, i), "name", "");

        if (!strcmp(name, "requested-size")) {
            vm->balloon = HPBCTL_BALLOON_HP;
        } else if (!strcmp(name, "virtio-backend")) {
            g_free(vm->backend);
            vm->backend = g_strconcat(vm->device, "/virtio-backend", NULL);
        }
    }
    if (!local && vm->balloon == HPBCTL_BALLOON_HP) {
        unit = hpbctl_vm_get(vm, "unit", &local);
        if (unit && JSON_NODE_HOLDS_VALUE(unit) && json_node_get_int(unit) > 0) {
            vm->unit = (guint64)json_node_get_int(unit);
        }
    }
    if (local) {
        g_propagate_error(err, local);
        return FALSE;
    }
    return TRUE;
}

/* A member of what a command returns that has no arguments */
static gboolean ask_string(HpbctlVm *vm, const char *command,
                           const char *member, char **value, GError **err)
{
    g_autoptr(JsonNode) node = hpbctl_execute(vm->transport, command, NULL, err);

    if (!node) {
        return FALSE;
    }
    if (JSON_NODE_HOLDS_OBJECT(node)) {
        *value = g_strdup(hpbctl_get_string(json_node_get_object(node), member,
                                            NULL));
    }
    return TRUE;
}

static gboolean read_version(HpbctlVm *vm, GError **err)
{
    g_autoptr(JsonNode) node = hpbctl_execute(vm->transport, "query-version",
                                              NULL, err);
    JsonObject *qemu;

    if (!node) {
        return FALSE;
    }
    qemu = JSON_NODE_HOLDS_OBJECT(node)
           ? hpbctl_get_object(json_node_get_object(node), "qemu") : NULL;
    vm->version = g_strdup_printf("%d.%d.%d",
                                  (int)hpbctl_get_int(qemu, "major", 0),
                                  (int)hpbctl_get_int(qemu, "minor", 0),
                                  (int)hpbctl_get_int(qemu, "micro", 0));
    return TRUE;
}

HpbctlVm *hpbctl_vm_new(HpbctlTransport *t, const char *name, GError **err)
{
    HpbctlVm *vm = g_new0(HpbctlVm, 1);

    vm->transport = t;
    if (!ask_string(vm, "query-name", "name", &vm->name, err) ||
        !read_version(vm, err) ||
        !find_device(vm, "/machine/peripheral", err) ||
        (!vm->device && !find_device(vm, "/machine/peripheral-anon", err)) ||
        (vm->device && !look_at_device(vm, err))) {
        hpbctl_vm_free(vm);
        return NULL;
    }
    if (!vm->name) {
        vm->name = g_path_get_basename(name);
    }
    return vm;
}

void hpbctl_vm_free(HpbctlVm *vm)
{
    if (vm) {
        hpbctl_transport_free(vm->transport);
        g_free(vm->name);
        g_free(vm->version);
        g_free(vm->device);
        g_free(vm->backend);
        g_free(vm->type);
        g_free(vm);
    }
}

const char *hpbctl_balloon_name(HpbctlBalloon balloon)
{
    return balloon == HPBCTL_BALLOON_HP ? "virtio-balloon-hp" :
           balloon == HPBCTL_BALLOON_STOCK ? "virtio-balloon" : "none";
}

gboolean hpbctl_vm_need_balloon(const HpbctlVm *vm, gboolean hp,
                                const char *what, GError **err)
{
    const char *hint = vm->transport->uri
                       ? "'hpbctl libvirt enable' changes that from its next "
                         "start on" : "start it with -device virtio-balloon-hp";

    if (vm->balloon == HPBCTL_BALLOON_NONE) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                    "%s has no balloon device, so no %s; %s", vm->name, what,
                    hint);
        return FALSE;
    }
    if (hp && vm->balloon != HPBCTL_BALLOON_HP) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                    "%s has the traditional virtio-balloon, which knows no %s; "
                    "%s", vm->name, what, hint);
        return FALSE;
    }
    return TRUE;
}
