/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: the RAM of a guest whose balloon does not tell what is out
 *
 * Not a step of the data path. QEMU tells its RAM blocks, with their addresses,
 * to people only: HMP's 'info ramblock' is a table. Guest RAM is what a memory
 * backend is behind; firmware and video memory, which the table has too, are
 * not. A table that looks otherwise, as that of an older QEMU, is refused.
 */
#include <string.h>
#include "map.h"

/* From the right: RO, address, total, used, offset, page size and its unit */
#define COLUMNS 7

/* Is there a memory backend of that name in @backends ("query-memdev")? */
static gboolean is_backend(JsonArray *backends, const char *block)
{
    static const char path[] = "/objects/";
    const char *id = g_str_has_prefix(block, path) ? block + strlen(path)
                                                   : block;

    for (guint i = 0; i < json_array_get_length(backends); i++) {
        JsonNode *node = json_array_get_element(backends, i);

        if (JSON_NODE_HOLDS_OBJECT(node) &&
            !strcmp(hpbctl_get_string(json_node_get_object(node), "id", ""),
                    id)) {
            return TRUE;
        }
    }
    return FALSE;
}

/* Cut the last word off @line, which is changed. "" if there is none */
static char *last_word(char *line)
{
    char *space;

    g_strchomp(line);
    space = strrchr(line, ' ');
    if (!space) {
        return line + strlen(line);
    }
    *space = '\0';
    return space + 1;
}

/* A line of the table into @block; FALSE: it is none. @line is changed. */
static gboolean parse_line(char *line, JsonObject *block)
{
    char *words[COLUMNS];
    g_autofree char *page = NULL;
    guint64 address, size, bytes;

    for (unsigned i = 0; i < COLUMNS; i++) {
        words[i] = last_word(line);
    }
    g_strstrip(line);
    page = g_strconcat(words[6], words[5], NULL);
    if (!*line || !hpbctl_size_parse(page, &bytes, NULL) ||
        !g_str_has_prefix(words[1], "0x") ||
        !g_ascii_string_to_unsigned(words[1] + 2, 16, 1, G_MAXUINT64, &address,
                                    NULL) ||
        !g_str_has_prefix(words[3], "0x") ||
        !g_ascii_string_to_unsigned(words[3] + 2, 16, 1, G_MAXINT64, &size,
                                    NULL)) {
        return FALSE;
    }
    json_object_set_string_member(block, "block", line);
    json_object_set_int_member(block, "host", (gint64)address);
    json_object_set_int_member(block, "size", (gint64)size);
    json_object_set_int_member(block, "page-size", (gint64)bytes);
    json_object_set_array_member(block, "ranges", json_array_new());
    return TRUE;
}

JsonNode *hpbctl_map_blocks(const char *table, JsonArray *backends)
{
    g_auto(GStrv) lines = g_strsplit(table, "\n", -1);
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    JsonArray *blocks = json_array_new();

    for (char **line = lines; *line; line++) {
        g_autoptr(JsonObject) block = json_object_new();

        g_strdelimit(*line, "\r\t", ' ');
        if (parse_line(*line, block) &&
            is_backend(backends, hpbctl_get_string(block, "block", ""))) {
            json_array_add_object_element(blocks, g_steal_pointer(&block));
        }
    }
    json_node_take_array(node, blocks);
    return node;
}

JsonNode *hpbctl_map_ask_blocks(HpbctlVm *vm, GError **err)
{
    JsonObject *arguments = json_object_new();
    g_autoptr(JsonNode) table = NULL;
    g_autoptr(JsonNode) backends = NULL;
    g_autoptr(JsonNode) blocks = NULL;

    json_object_set_string_member(arguments, "command-line", "info ramblock");
    table = hpbctl_execute(vm->transport, "human-monitor-command", arguments,
                           err);
    if (!table) {
        return NULL;
    }
    backends = hpbctl_execute(vm->transport, "query-memdev", NULL, err);
    if (!backends) {
        return NULL;
    }
    if (JSON_NODE_HOLDS_VALUE(table) && JSON_NODE_HOLDS_ARRAY(backends) &&
        json_node_get_value_type(table) == G_TYPE_STRING) {
        blocks = hpbctl_map_blocks(json_node_get_string(table),
                                   json_node_get_array(backends));
    }
    if (!blocks || !json_array_get_length(json_node_get_array(blocks))) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                    "%s: this QEMU (%s) does not tell where the guest's RAM "
                    "is; a map needs -device virtio-balloon-hp, or a newer "
                    "QEMU", vm->name, vm->version);
        return NULL;
    }
    return g_steal_pointer(&blocks);
}
