/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: calls that any transport can do, and what all make of a command and
 * of QEMU's answer. See transport.h.
 */
#include "transport.h"

JsonNode *hpbctl_execute(HpbctlTransport *t, const char *command,
                         JsonObject *arguments, GError **err)
{
    return t->ops->execute(t, command, arguments, err);
}

gboolean hpbctl_balloon(HpbctlTransport *t, guint64 size, GError **err)
{
    g_autoptr(JsonNode) done = NULL;
    JsonObject *arguments;

    if (t->ops->balloon) {
        return t->ops->balloon(t, size, err);
    }
    arguments = json_object_new();
    json_object_set_int_member(arguments, "value", (gint64)size);
    done = hpbctl_execute(t, "balloon", arguments, err);
    return done != NULL;
}

gboolean hpbctl_wait(HpbctlTransport *t, unsigned ms, GError **err)
{
    return t->ops->wait(t, ms, err);
}

void hpbctl_transport_free(HpbctlTransport *t)
{
    if (t) {
        t->ops->free(t);
    }
}

char *hpbctl_command_text(const char *command, JsonObject *arguments, gint64 id)
{
    g_autoptr(JsonObject) object = json_object_new();
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);

    json_object_set_string_member(object, "execute", command);
    if (id) {
        json_object_set_int_member(object, "id", id);
    }
    if (arguments) {
        json_object_set_object_member(object, "arguments", arguments);
    }
    json_node_set_object(node, object);
    return json_to_string(node, FALSE);
}

JsonNode *hpbctl_answer_result(const HpbctlTransport *t, const char *command,
                               JsonObject *answer, GError **err)
{
    JsonObject *error = hpbctl_get_object(answer, "error");

    if (error) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_COMMAND, "%s: %s: %s",
                    t->where, command,
                    hpbctl_get_string(error, "desc", "failed without a reason"));
        return NULL;
    }
    if (!json_object_has_member(answer, "return")) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL,
                    "%s: %s: an answer with neither result nor error; this is "
                    "no QMP of QEMU", t->where, command);
        return NULL;
    }
    return json_object_dup_member(answer, "return");
}
