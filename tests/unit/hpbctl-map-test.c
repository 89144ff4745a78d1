/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of what is pure in helper/ctl: sizes, the line of progress, and
 * maps from the device's answer to text; and the host's view of this process.
 */
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include "map.h"
#include "resize.h"

#define MIB ((guint64)1 << 20)

/* fontconfig, which draws the text of pictures, keeps its cache until the end */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libfontconfig";
}

static void test_sizes(void)
{
    static const struct {
        const char *text;
        guint64 size;
    } good[] = {
        { "1B", 1 }, { "2M", 2 * MIB }, { "1.5G", 1536 * MIB },
        { "0.25mib", MIB / 4 }, { "3T", 3 * MIB * MIB }, { "0K", 0 },
        { "0.9999999999B", 0 }, { "8388607T", 8388607 * MIB * MIB },
    };
    static const char *const bad[] = {
        "", "G", "-1G", "1", "1X", "1GB", "1.G", "1 G", "8388608T", "1e3M",
        "0x10M", "99999999999999999999999B", "1Mi",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(GError) err = NULL;
        guint64 size = 77;

        g_assert_true(hpbctl_size_parse(good[i].text, &size, &err));
        g_assert_no_error(err);
        g_assert_cmpuint(size, ==, good[i].size);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;
        guint64 size = 77;

        g_assert_false(hpbctl_size_parse(bad[i], &size, &err));
        g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_USAGE);
    }
}

static void test_arguments(void)
{
    static const guint64 sizes[] = { 0, 1, MIB, MIB + 1, 1536 * MIB };

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree char *text = hpbctl_size_argument(sizes[i]);
        guint64 size = 77;

        g_assert_true(hpbctl_size_parse(text, &size, NULL));
        g_assert_cmpuint(size, ==, sizes[i]);
    }
}

static void test_line(void)
{
    HpbctlResize r = { .start = 4096 * MIB, .goal = 2048 * MIB,
                       .size = 3072 * MIB };
    g_autofree char *half = hpbctl_resize_line(&r, 2.0, 4);
    g_autofree char *plain = hpbctl_resize_line(&r, 0, 0);
    g_autofree char *none = NULL;

    g_assert_cmpstr(half, ==, "[##..]  50%  3 GiB -> 2 GiB  0.50 GiB/s");
    g_assert_cmpstr(plain, ==, " 50%  3 GiB -> 2 GiB  0.00 GiB/s");
    r.start = r.goal = r.size;
    none = hpbctl_resize_line(&r, 1, 2);
    g_assert_cmpstr(none, ==, "[##] 100%  3 GiB -> 3 GiB  0.00 GiB/s");
}

static HpbctlMap *map_of(const char *json, GError **err)
{
    g_autoptr(JsonNode) node = json_from_string(json, NULL);

    g_assert_nonnull(node);
    return hpbctl_map_new(node, err);
}

/* Only what backends are behind, whatever the page size and the name */
static void test_blocks(void)
{
    static const char table[] =
        "              Block Name    PSize              Offset               "
        "Used              Total                HVA  RO\r\n"
        "             /objects/m0    2 MiB  0x0000000000000000 "
        "0x0000000020000000 0x0000000020000000 0x00007f2a40000000  rw\r\n"
        "                  a name    4 KiB  0x0000000020000000 "
        "0x0000000000200000 0x0000000000400000 0x00007f2a60000000  rw\r\n"
        "                vga.vram    4 KiB  0x0000000020200000 "
        "0x0000000001000000 0x0000000001000000 0x00007f2a70000000  rw\r\n"
        "                  broken    4 KiB  0x0000000020200000 rw\r\n";
    g_autoptr(JsonNode) backends = json_from_string(
        "[{'id': 'm0'}, {'id': 'a name'}, {'id': 'broken'}, {}, 7]", NULL);
    g_autoptr(JsonNode) node = hpbctl_map_blocks(table,
                                                 json_node_get_array(backends));
    g_autoptr(JsonNode) older = hpbctl_map_blocks(
        "m0 4 KiB 0x0 0x1000 0x1000\nm0\n\n   ",
        json_node_get_array(backends));
    g_autoptr(GError) err = NULL;
    g_autoptr(HpbctlMap) map = hpbctl_map_new(node, &err);
    const HpbctlMapStyle style = { .columns = 64, .lines = 8 };
    g_autofree char *text = NULL;
    HpbctlMapBlock *block;

    g_assert_no_error(err);
    g_assert_cmpuint(map->blocks->len, ==, 2);
    block = g_ptr_array_index(map->blocks, 0);
    g_assert_cmpstr(block->name, ==, "/objects/m0");
    g_assert_cmpuint(block->host, ==, 0x7f2a40000000);
    g_assert_cmpuint(block->size, ==, 512 * MIB);
    g_assert_cmpuint(block->page, ==, 2 * MIB);
    block = g_ptr_array_index(map->blocks, 1);
    g_assert_cmpstr(block->name, ==, "a name");
    g_assert_cmpuint(block->size, ==, 2 * MIB);
    g_assert_cmpuint(json_array_get_length(json_node_get_array(older)), ==, 0);
    map->tells_out = FALSE;
    hpbctl_map_judge(map);
    text = hpbctl_map_text(map, "t", &style);
    g_assert_null(strstr(text, "ballooned"));
    g_assert_nonnull(strstr(text, "does not tell what is in it"));
}

/* One range of each kind, the last one a part of one */
static void test_kinds(void)
{
    g_autoptr(HpbctlMap) map = map_of(
        "[{'block': 'ram', 'node': 1, 'host': 4096, 'size': 13631488,"
        "  'page-size': 4096, 'ranges': [0, 2097152, 12582912, 1048576]}]",
        NULL);
    static const char expected[] = "ram, node 1, 13 MiB; a character is 2 MiB\n"
        "     0.00 GiB o#+s\n     0.01 GiB ..o\n";
    const HpbctlMapStyle style = { .columns = 4, .lines = 8 };
    g_autofree char *text = NULL;
    HpbctlMapBlock *block;

    g_assert_nonnull(map);
    block = g_ptr_array_index(map->blocks, 0);
    g_assert_cmpuint(block->n, ==, 7);
    map->tells_huge = TRUE;
    /* Held although it is out, by one page */
    hpbctl_map_add(block, 0, 4096, G_STRUCT_OFFSET(HpbctlHeld, present));
    hpbctl_map_add(block, 2 * MIB, 2 * MIB, G_STRUCT_OFFSET(HpbctlHeld, present));
    hpbctl_map_add(block, 2 * MIB, 2 * MIB, G_STRUCT_OFFSET(HpbctlHeld, huge));
    hpbctl_map_add(block, 5 * MIB, 4096, G_STRUCT_OFFSET(HpbctlHeld, present));
    hpbctl_map_add(block, 6 * MIB, 8192, G_STRUCT_OFFSET(HpbctlHeld, swapped));
    hpbctl_map_add(block, 7 * MIB, 4096, G_STRUCT_OFFSET(HpbctlHeld, present));
    /* Beyond its end: cut off */
    hpbctl_map_add(block, 64 * MIB, MIB, G_STRUCT_OFFSET(HpbctlHeld, present));
    hpbctl_map_judge(map);
    g_assert_cmpuint(map->count[HPBCTL_KIND_OUT], ==, 2);
    g_assert_cmpuint(map->count[HPBCTL_KIND_HUGE], ==, 1);
    g_assert_cmpuint(map->count[HPBCTL_KIND_SMALL], ==, 1);
    g_assert_cmpuint(map->count[HPBCTL_KIND_SWAPPED], ==, 1);
    g_assert_cmpuint(map->count[HPBCTL_KIND_UNTOUCHED], ==, 2);
    g_assert_cmpuint(map->out_held, ==, 4096);
    text = hpbctl_map_text(map, "title", &style);
    g_assert_nonnull(strstr(text, expected));
    g_assert_nonnull(strstr(text, "holds 4 KiB that is in the balloon"));
    map->tells_huge = FALSE;
    hpbctl_map_judge(map);
    g_assert_cmpuint(map->count[HPBCTL_KIND_HELD], ==, 1);
}

/* More ranges than cells: the most frequent of each cell is shown */
static void test_scale(void)
{
    g_autoptr(HpbctlMap) map = map_of(
        "[{'block': 'b', 'host': 0, 'size': 20971520,"
        "  'ranges': [0, 4194304, 8388608, 2097152]}]", NULL);
    const HpbctlMapStyle style = { .unicode = TRUE, .columns = 2, .lines = 2 };
    g_autofree char *text = NULL;
    HpbctlMapBlock *block;

    g_assert_nonnull(map);
    hpbctl_map_judge(map);
    block = g_ptr_array_index(map->blocks, 0);
    g_assert_cmpuint(hpbctl_map_scale(block, 4), ==, 3);
    g_assert_cmpint(hpbctl_map_most(block, 0, 3), ==, HPBCTL_KIND_OUT);
    g_assert_cmpint(hpbctl_map_most(block, 3, 3), ==, HPBCTL_KIND_UNTOUCHED);
    g_assert_cmpint(hpbctl_map_most(block, 9, 3), ==, HPBCTL_KIND_UNTOUCHED);
    text = hpbctl_map_text(map, "t", &style);
    g_assert_nonnull(strstr(text, "GiB ░·\n"));
    g_assert_nonnull(strstr(text, "GiB ··\n"));
}

static void test_nonsense(void)
{
    static const char *const answers[] = {
        "1", "[]", "[1]", "[{}]", "[{'size': 0, 'ranges': []}]",
        "[{'size': 4096, 'ranges': 1}]", "[{'size': 4096, 'ranges': [0]}]",
        "[{'size': 4096, 'ranges': ['0', '4096']}]",
        "[{'size': 4096, 'ranges': [0, 8192]}]",
        "[{'size': 4096, 'ranges': [-4096, 4096]}]",
        "[{'size': 4096, 'ranges': [4096, 9223372036854775807]}]",
        "[{'size': 8192, 'ranges': [4096, 4096, 0, 4096]}]",
        "[{'size': 9223372036854775807, 'ranges': []}]",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(answers); i++) {
        g_autoptr(GError) err = NULL;

        g_assert_null(map_of(answers[i], &err));
        g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL);
    }
}

/* This process is looked at as QEMU would be. */
static void test_host_view(void)
{
    char *area = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_autofree char *json = g_strdup_printf(
        "[{'block': 'b', 'host': %" G_GUINT64_FORMAT ", 'size': 8388608,"
        "  'page-size': 4096, 'ranges': []}]", (guint64)(gsize)area);
    g_autoptr(HpbctlMap) map = map_of(json, NULL);
    g_autoptr(GError) err = NULL;
    HpbctlMapBlock *block;

    g_assert_true(area != MAP_FAILED && map);
    g_assert_cmpint(madvise(area, 8 * MIB, MADV_NOHUGEPAGE), ==, 0);
    block = g_ptr_array_index(map->blocks, 0);
    memset(area + 2 * MIB, 1, 3 * 4096);
    hpbctl_host_view(map, getpid(), &err);
    g_assert_no_error(err);
    g_assert_cmpuint(block->held[0].present, ==, 0);
    g_assert_cmpuint(block->held[1].present + block->held[1].swapped, ==,
                     3 * 4096);
    g_assert_cmpuint(block->held[1].huge, ==, 0);
    g_assert_cmpuint(block->held[2].present, ==, 0);
    munmap(area, 8 * MIB);
    g_assert_false(hpbctl_host_view(map, getpid(), &err));
    g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED);
}

static void test_pictures(void)
{
    g_autoptr(HpbctlMap) map = map_of(
        "[{'block': 'b', 'size': 8388608, 'ranges': [0, 4194304]}]", NULL);
    g_autofree char *dir = g_dir_make_tmp("hpbctl-XXXXXX", NULL);
    g_autofree char *svg = g_build_filename(dir, "a.svg", NULL);
    g_autofree char *png = g_build_filename(dir, "a.png", NULL);
    g_autofree char *text = NULL;
    g_autoptr(GError) err = NULL;

    g_assert_nonnull(map);
    hpbctl_map_judge(map);
    g_assert_true(hpbctl_map_svg(map, "<&>", svg, &err));
    g_assert_no_error(err);
    g_assert_true(hpbctl_map_png(map, "t", png, &err));
    g_assert_no_error(err);
    g_assert_true(g_file_get_contents(png, &text, NULL, NULL));
    g_assert_true(g_str_has_prefix(text, "\211PNG"));
    g_unlink(svg);
    g_unlink(png);
    g_rmdir(dir);
    g_assert_false(hpbctl_map_svg(map, "t", svg, &err));
    g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED);
    g_clear_error(&err);
    g_assert_false(hpbctl_map_png(map, "t", png, &err));
    g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hpbctl/sizes", test_sizes);
    g_test_add_func("/hpbctl/arguments", test_arguments);
    g_test_add_func("/hpbctl/line", test_line);
    g_test_add_func("/hpbctl/map/blocks", test_blocks);
    g_test_add_func("/hpbctl/map/kinds", test_kinds);
    g_test_add_func("/hpbctl/map/scale", test_scale);
    g_test_add_func("/hpbctl/map/nonsense", test_nonsense);
    g_test_add_func("/hpbctl/map/host-view", test_host_view);
    g_test_add_func("/hpbctl/map/pictures", test_pictures);
    return g_test_run();
}
