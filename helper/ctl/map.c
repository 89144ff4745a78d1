/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: what each 2 MiB range of a guest is
 *
 * Not a step of the data path. Pure: the device's answer goes in, the host's
 * view is added, and each range gets one kind. Out counts before all else, and
 * what the host holds of it all the same is summed up apart: that is what an
 * operator wants to find. Rejected: a kind for each page, which is 512 times the
 * memory for a picture that nobody can look at.
 */
#include <string.h>
#include "map.h"

/* 64 TiB: no machine has more, and the arrays stay below 512 MiB */
#define MAX_BLOCK ((guint64)64 << 40)

static void block_free(gpointer data)
{
    HpbctlMapBlock *block = data;

    g_free(block->name);
    g_free(block->held);
    g_free(block->kinds);
    g_free(block);
}

void hpbctl_map_free(HpbctlMap *map)
{
    if (map) {
        g_ptr_array_unref(map->blocks);
        g_free(map);
    }
}

void hpbctl_map_add(HpbctlMapBlock *block, guint64 offset, guint64 length,
                    gsize at)
{
    if (offset >= block->size) {
        return;
    }
    length = MIN(length, block->size - offset);
    while (length) {
        gsize index = offset / HPBCTL_MAP_RANGE;
        guint64 part = MIN(length, HPBCTL_MAP_RANGE - offset % HPBCTL_MAP_RANGE);
        guint32 *value = (guint32 *)(void *)((char *)&block->held[index] + at);

        *value += (guint32)part;
        offset += part;
        length -= part;
    }
}

/* Ranges: offset and length in turn, ascending, inside the block */
static gboolean add_ranges(HpbctlMapBlock *block, JsonArray *ranges)
{
    guint n = json_array_get_length(ranges);
    guint64 last = 0;

    for (guint i = 0; i + 1 < n; i += 2) {
        gint64 offset = json_array_get_int_element(ranges, i);
        gint64 length = json_array_get_int_element(ranges, i + 1);

        if (offset < 0 || (guint64)offset < last || length <= 0 ||
            (guint64)offset > block->size ||
            (guint64)length > block->size - (guint64)offset) {
            return FALSE;
        }
        last = (guint64)offset + (guint64)length;
        hpbctl_map_add(block, (guint64)offset, (guint64)length,
                       G_STRUCT_OFFSET(HpbctlHeld, out));
    }
    return n % 2 == 0;
}

static gboolean only_numbers(JsonArray *array)
{
    for (guint i = 0; i < json_array_get_length(array); i++) {
        JsonNode *node = json_array_get_element(array, i);

        if (!JSON_NODE_HOLDS_VALUE(node) ||
            json_node_get_value_type(node) != G_TYPE_INT64) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean add_block(HpbctlMap *map, JsonNode *node)
{
    JsonObject *object = JSON_NODE_HOLDS_OBJECT(node)
                         ? json_node_get_object(node) : NULL;
    JsonNode *ranges = object ? json_object_get_member(object, "ranges") : NULL;
    gint64 size = hpbctl_get_int(object, "size", 0);
    HpbctlMapBlock *block;

    if (!ranges || !JSON_NODE_HOLDS_ARRAY(ranges) || size <= 0 ||
        (guint64)size > MAX_BLOCK ||
        !only_numbers(json_node_get_array(ranges))) {
        return FALSE;
    }
    block = g_new0(HpbctlMapBlock, 1);
    block->name = g_strdup(hpbctl_get_string(object, "block", "?"));
    block->node = hpbctl_get_int(object, "node", -1);
    /* An address above 2^63 would come as a negative number: the bits count */
    block->host = (guint64)hpbctl_get_int(object, "host", 0);
    block->page = (guint64)hpbctl_get_int(object, "page-size", 4096);
    block->size = (guint64)size;
    block->n = (block->size + HPBCTL_MAP_RANGE - 1) / HPBCTL_MAP_RANGE;
    block->held = g_new0(HpbctlHeld, block->n);
    block->kinds = g_new0(guint8, block->n);
    g_ptr_array_add(map->blocks, block);
    return add_ranges(block, json_node_get_array(ranges));
}

HpbctlMap *hpbctl_map_new(JsonNode *answer, GError **err)
{
    HpbctlMap *map = g_new0(HpbctlMap, 1);
    JsonArray *array = JSON_NODE_HOLDS_ARRAY(answer)
                       ? json_node_get_array(answer) : NULL;
    gboolean ok = array != NULL;

    map->blocks = g_ptr_array_new_with_free_func(block_free);
    map->tells_out = TRUE;
    for (guint i = 0; ok && i < json_array_get_length(array); i++) {
        ok = add_block(map, json_array_get_element(array, i));
    }
    if (!ok || !map->blocks->len) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL,
                    "what QEMU tells of its RAM makes no sense: %s; QEMU and "
                    "hpbctl are of different versions", ok ? "it names no RAM"
                    : "a block or range is no block or range");
        hpbctl_map_free(map);
        return NULL;
    }
    return map;
}

static HpbctlKind judge(const HpbctlMap *map, const HpbctlHeld *held,
                        guint64 bytes)
{
    if (held->out == bytes) {
        return HPBCTL_KIND_OUT;
    }
    if (held->swapped > held->present) {
        return HPBCTL_KIND_SWAPPED;
    }
    if (!held->present) {
        return held->out ? HPBCTL_KIND_OUT : HPBCTL_KIND_UNTOUCHED;
    }
    if ((guint64)held->huge * 2 >= bytes) {
        return HPBCTL_KIND_HUGE;
    }
    return map->tells_huge ? HPBCTL_KIND_SMALL : HPBCTL_KIND_HELD;
}

void hpbctl_map_judge(HpbctlMap *map)
{
    memset(map->count, 0, sizeof(map->count));
    map->out_held = 0;
    for (guint b = 0; b < map->blocks->len; b++) {
        HpbctlMapBlock *block = g_ptr_array_index(map->blocks, b);

        for (gsize i = 0; i < block->n; i++) {
            guint64 bytes = MIN(HPBCTL_MAP_RANGE,
                                block->size - i * HPBCTL_MAP_RANGE);
            HpbctlKind kind = judge(map, &block->held[i], bytes);

            block->kinds[i] = kind;
            map->count[kind]++;
            if (block->held[i].out == bytes) {
                map->out_held += block->held[i].present;
            }
        }
    }
}

HpbctlKind hpbctl_map_most(const HpbctlMapBlock *block, gsize first, gsize n)
{
    gsize count[HPBCTL_KIND_MAX] = { 0 };
    HpbctlKind most = HPBCTL_KIND_OUT;

    for (gsize i = first; i < block->n && i - first < n; i++) {
        count[block->kinds[i]]++;
    }
    for (unsigned kind = 0; kind < HPBCTL_KIND_MAX; kind++) {
        if (count[kind] > count[most]) {
            most = (HpbctlKind)kind;
        }
    }
    return most;
}

gsize hpbctl_map_scale(const HpbctlMapBlock *block, gsize cells)
{
    return (block->n + cells - 1) / cells;
}

gboolean hpbctl_map_tells(const HpbctlMap *map, HpbctlKind kind)
{
    if (kind == HPBCTL_KIND_OUT) {
        return map->tells_out;
    }
    return kind != (map->tells_huge ? HPBCTL_KIND_HELD : HPBCTL_KIND_SMALL);
}

const char *hpbctl_kind_name(HpbctlKind kind)
{
    static const char *const names[HPBCTL_KIND_MAX] = {
        "ballooned", "huge", "small", "held", "swapped", "untouched",
    };

    return (unsigned)kind < HPBCTL_KIND_MAX ? names[kind] : "unknown";
}

guint32 hpbctl_kind_colour(HpbctlKind kind)
{
    static const guint32 colours[HPBCTL_KIND_MAX] = {
        0x56b4e9, 0x009e73, 0xe69f00, 0xf0e442, 0xd55e00, 0xdddddd,
    };

    return (unsigned)kind < HPBCTL_KIND_MAX ? colours[kind] : 0;
}
