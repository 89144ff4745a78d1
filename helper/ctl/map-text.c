/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: a map in a terminal
 *
 * Not a step of the data path. One cell for so many ranges that a block fits
 * into the lines; it shows the most frequent kind. Kinds differ by character
 * too, so a map means the same without colour, in a pipe and on paper.
 */
#include "map.h"

static const char *glyph(HpbctlKind kind, gboolean unicode)
{
    static const char *const block[HPBCTL_KIND_MAX] = {
        "░", "█", "▒", "▓", "▼", "·",
    };
    static const char *const ascii[HPBCTL_KIND_MAX] = {
        "o", "#", "+", "=", "s", ".",
    };

    return unicode ? block[kind] : ascii[kind];
}

static void add_glyphs(GString *text, HpbctlKind kind, gsize n,
                       const HpbctlMapStyle *style)
{
    guint32 colour = hpbctl_kind_colour(kind);

    if (style->colour) {
        g_string_append_printf(text, "\033[38;2;%u;%u;%um", colour >> 16,
                               colour >> 8 & 255, colour & 255);
    }
    for (gsize i = 0; i < n; i++) {
        g_string_append(text, glyph(kind, style->unicode));
    }
    if (style->colour) {
        g_string_append(text, "\033[0m");
    }
}

static void add_block(GString *text, const HpbctlMapBlock *block,
                      const HpbctlMapStyle *style)
{
    gsize scale = hpbctl_map_scale(block,
                                   (gsize)style->columns * style->lines);
    gsize line = scale * style->columns;
    g_autofree char *size = hpbctl_size_format(block->size);
    g_autofree char *cell = hpbctl_size_format((guint64)scale *
                                               HPBCTL_MAP_RANGE);
    g_autofree char *node = block->node < 0 ? g_strdup("no node")
                          : g_strdup_printf("node %d", (int)block->node);

    g_string_append_printf(text, "%s, %s, %s; a character is %s\n",
                           block->name, node, size, cell);
    for (gsize at = 0; at < block->n; at += line) {
        gsize end = MIN(at + line, block->n), cells = 0;
        HpbctlKind last = hpbctl_map_most(block, at, scale);

        g_string_append_printf(text, "%9.2f GiB ", (double)at *
                               HPBCTL_MAP_RANGE / (1 << 30));
        for (gsize i = at; i < end; i += scale) {
            HpbctlKind kind = hpbctl_map_most(block, i, scale);

            if (kind != last) {
                add_glyphs(text, last, cells, style);
                last = kind;
                cells = 0;
            }
            cells++;
        }
        add_glyphs(text, last, cells, style);
        g_string_append_c(text, '\n');
    }
}

char *hpbctl_map_text(const HpbctlMap *map, const char *title,
                      const HpbctlMapStyle *style)
{
    GString *text = g_string_new(NULL);

    g_string_append_printf(text, "%s\n", title);
    for (guint i = 0; i < map->blocks->len; i++) {
        add_block(text, g_ptr_array_index(map->blocks, i), style);
    }
    for (unsigned kind = 0; kind < HPBCTL_KIND_MAX; kind++) {
        g_autofree char *size = hpbctl_size_format(map->count[kind] *
                                                   HPBCTL_MAP_RANGE);

        if (!hpbctl_map_tells(map, (HpbctlKind)kind)) {
            continue;
        }
        add_glyphs(text, (HpbctlKind)kind, 1, style);
        g_string_append_printf(text, " %-10s %8" G_GUINT64_FORMAT
                               " ranges  %s\n", hpbctl_kind_name(
                               (HpbctlKind)kind), map->count[kind], size);
    }
    if (map->out_held) {
        g_autofree char *held = hpbctl_size_format(map->out_held);

        g_string_append_printf(text, "The host holds %s that is in the "
                               "balloon.\n", held);
    }
    if (!map->tells_out) {
        g_string_append(text, "The traditional balloon does not tell what is "
                        "in it; what it gave back is untouched.\n");
    }
    if (!map->tells_huge) {
        g_string_append(text, "This kernel (before 6.7) does not tell "
                        "transparent huge pages from small ones.\n");
    }
    return g_string_free(text, FALSE);
}
