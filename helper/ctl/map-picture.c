/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: a map as a picture
 *
 * Not a step of the data path. Drawn once, on whatever surface, so SVG and PNG
 * show the same. Cells of a line that are alike are one rectangle: an SVG of a
 * guest of a TiB has some thousand shapes, not half a million.
 */
#include <cairo.h>
#include <cairo-svg.h>
#include "map.h"

#define COLUMNS ((gsize)128)
#define LINES 128           /* at most, each block */
#define CELL 7.0
#define MARGIN 16.0
#define TEXT 18.0           /* height of a line of text */
#define OFFSETS 84.0        /* width of the column of offsets */

static double block_height(const HpbctlMapBlock *block)
{
    gsize line = hpbctl_map_scale(block, COLUMNS * LINES) * COLUMNS;
    gsize lines = (block->n + line - 1) / line;

    return TEXT + CELL * (double)lines + CELL;
}

static void picture_size(const HpbctlMap *map, double *width, double *height)
{
    *width = 2 * MARGIN + OFFSETS + CELL * (double)COLUMNS;
    *height = 2 * MARGIN + TEXT * (HPBCTL_KIND_MAX + 2);
    for (guint i = 0; i < map->blocks->len; i++) {
        *height += block_height(g_ptr_array_index(map->blocks, i));
    }
}

static void set_colour(cairo_t *cr, guint32 colour)
{
    cairo_set_source_rgb(cr, (colour >> 16) / 255.0,
                         (colour >> 8 & 255) / 255.0, (colour & 255) / 255.0);
}

static void draw_text(cairo_t *cr, double x, double y, const char *text)
{
    set_colour(cr, 0x202020);
    cairo_move_to(cr, x, y + TEXT * 0.75);
    cairo_show_text(cr, text);
}

static void draw_cells(cairo_t *cr, double x, double y, gsize cells,
                       HpbctlKind kind)
{
    set_colour(cr, hpbctl_kind_colour(kind));
    cairo_rectangle(cr, x, y, CELL * (double)cells, CELL - 1);
    cairo_fill(cr);
}

static void draw_line(cairo_t *cr, const HpbctlMapBlock *block, gsize at,
                      gsize scale, double y)
{
    HpbctlKind last = hpbctl_map_most(block, at, scale);
    gsize cells = 0;
    double x = MARGIN + OFFSETS;

    for (gsize i = 0; i < COLUMNS && at + i * scale < block->n; i++) {
        HpbctlKind kind = hpbctl_map_most(block, at + i * scale, scale);

        if (kind != last) {
            draw_cells(cr, x, y, cells, last);
            x += CELL * (double)cells;
            last = kind;
            cells = 0;
        }
        cells++;
    }
    draw_cells(cr, x, y, cells, last);
}

static double draw_block(cairo_t *cr, const HpbctlMapBlock *block, double y)
{
    gsize scale = hpbctl_map_scale(block, COLUMNS * LINES);
    g_autofree char *size = hpbctl_size_format(block->size);
    g_autofree char *cell = hpbctl_size_format((guint64)scale *
                                               HPBCTL_MAP_RANGE);
    g_autofree char *node = block->node < 0 ? g_strdup("no node")
                          : g_strdup_printf("node %d", (int)block->node);
    g_autofree char *title = g_strdup_printf("%s, %s, %s; a cell is %s",
                                             block->name, node, size, cell);
    unsigned line = 0;

    draw_text(cr, MARGIN, y, title);
    y += TEXT;
    for (gsize at = 0; at < block->n; at += scale * COLUMNS) {
        /* Every fourth line has room for its offset */
        if (line++ % 4 == 0) {
            g_autofree char *offset = g_strdup_printf("%.2f GiB", (double)at *
                                                      HPBCTL_MAP_RANGE /
                                                      (1 << 30));

            draw_text(cr, MARGIN, y - TEXT / 4, offset);
        }
        draw_line(cr, block, at, scale, y);
        y += CELL;
    }
    return y + CELL;
}

static void draw(cairo_t *cr, const HpbctlMap *map, const char *title)
{
    double y = MARGIN;

    cairo_set_source_rgb(cr, 1, 1, 1);
    cairo_paint(cr);
    cairo_select_font_face(cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, 13);
    draw_text(cr, MARGIN, y, title);
    y += TEXT;
    for (guint i = 0; i < map->blocks->len; i++) {
        y = draw_block(cr, g_ptr_array_index(map->blocks, i), y);
    }
    for (unsigned kind = 0; kind < HPBCTL_KIND_MAX; kind++) {
        g_autofree char *size = hpbctl_size_format(map->count[kind] *
                                                   HPBCTL_MAP_RANGE);
        g_autofree char *text = g_strdup_printf(
            "%s: %" G_GUINT64_FORMAT " ranges, %s",
            hpbctl_kind_name((HpbctlKind)kind), map->count[kind], size);

        if (!hpbctl_map_tells(map, (HpbctlKind)kind)) {
            continue;
        }
        draw_cells(cr, MARGIN, y + TEXT / 3, 2, (HpbctlKind)kind);
        draw_text(cr, MARGIN + 3 * CELL, y, text);
        y += TEXT;
    }
}

/* Draw on @surface; takes no reference. */
static cairo_status_t draw_on(cairo_surface_t *surface, const HpbctlMap *map,
                              const char *title)
{
    cairo_t *cr = cairo_create(surface);
    cairo_status_t status;

    draw(cr, map, title);
    status = cairo_status(cr);
    cairo_destroy(cr);
    return status;
}

static gboolean check(cairo_status_t status, const char *file, GError **err)
{
    if (status != CAIRO_STATUS_SUCCESS) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                    "cannot write the picture %s: %s; is its directory there, "
                    "writable, and not full?", file,
                    cairo_status_to_string(status));
        return FALSE;
    }
    return TRUE;
}

/*
 * The surface with the picture on it, an image unless @svg names a file; in
 * *@status whether all went well.
 */
static cairo_surface_t *picture(const HpbctlMap *map, const char *title,
                                const char *svg, cairo_status_t *status)
{
    cairo_surface_t *surface;
    double width, height;

    picture_size(map, &width, &height);
    surface = svg ? cairo_svg_surface_create(svg, width, height)
                  : cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)width,
                                               (int)height);
    *status = draw_on(surface, map, title);
    return surface;
}

gboolean hpbctl_map_svg(const HpbctlMap *map, const char *title,
                        const char *file, GError **err)
{
    cairo_status_t status;
    cairo_surface_t *surface = picture(map, title, file, &status);

    cairo_surface_finish(surface);
    if (status == CAIRO_STATUS_SUCCESS) {
        status = cairo_surface_status(surface);
    }
    cairo_surface_destroy(surface);
    return check(status, file, err);
}

gboolean hpbctl_map_png(const HpbctlMap *map, const char *title,
                        const char *file, GError **err)
{
    cairo_status_t status;
    cairo_surface_t *surface = picture(map, title, NULL, &status);

    if (status == CAIRO_STATUS_SUCCESS) {
        status = cairo_surface_write_to_png(surface, file);
    }
    cairo_surface_destroy(surface);
    return check(status, file, err);
}
