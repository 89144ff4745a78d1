/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl host: is there memory for what guests want back?
 *
 * Beside the data path. Free memory and pools by node come from the library,
 * which asks for them before it gives a guest memory: what is shown here is what
 * decides there. The rest is the kernel's text, passed on.
 */
#include <string.h>
#include <hpballoon/host.h>
#include "ctl.h"

#define MAX_POOLS 8

/* Text of a small file without the newline; NULL if it is not there */
static char *read_file(const char *path)
{
    char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return NULL;
    }
    return g_strstrip(text);
}

/* The word in brackets of a setting like "always [madvise] never" */
static char *read_choice(const char *path)
{
    g_autofree char *text = read_file(path);
    char *from = text ? strchr(text, '[') : NULL;
    char *to = from ? strchr(from, ']') : NULL;

    return to ? g_strndup(from + 1, (gsize)(to - from - 1)) : NULL;
}

/* A line of /proc/meminfo in bytes, -1 if it is not there */
static gint64 meminfo(const char *text, const char *name)
{
    g_autofree char *key = g_strconcat("\n", name, ":", NULL);
    const char *at = text ? strstr(text, key) : NULL;

    return at ? (gint64)g_ascii_strtoull(at + strlen(key), NULL, 10) * 1024
              : -1;
}

static void show_size(JsonBuilder *b, const char *key, const char *label,
                      gint64 size)
{
    if (b) {
        hpbctl_json_int(b, key, size);
    } else if (size >= 0) {
        g_autofree char *text = hpbctl_size_format((guint64)size);

        hpbctl_row(label, "%s", text);
    }
}

static void show_string(JsonBuilder *b, const char *key, const char *label,
                        const char *text)
{
    if (b) {
        hpbctl_json_string(b, key, text);
    } else {
        hpbctl_row(label, "%s", text ? text : "this kernel does not tell");
    }
}

static void show_pool(JsonBuilder *b, const HpbPool *pool)
{
    g_autofree char *page = hpbctl_size_format(pool->page_size);
    g_autofree char *label = g_strdup_printf("  pages of %s", page);

    if (!b) {
        hpbctl_row(label, "%" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
                   " free, %" G_GUINT64_FORMAT " reserved, %" G_GUINT64_FORMAT
                   " surplus", (guint64)pool->free, (guint64)pool->total,
                   (guint64)pool->reserved, (guint64)pool->surplus);
        return;
    }
    json_builder_begin_object(b);
    hpbctl_json_int(b, "page-size", (gint64)pool->page_size);
    hpbctl_json_int(b, "total", (gint64)pool->total);
    hpbctl_json_int(b, "free", (gint64)pool->free);
    hpbctl_json_int(b, "reserved", (gint64)pool->reserved);
    hpbctl_json_int(b, "surplus", (gint64)pool->surplus);
    json_builder_end_object(b);
}

static void show_pools(JsonBuilder *b, int node)
{
    uint64_t sizes[MAX_POOLS];
    size_t n = MIN(hpb_pool_sizes(sizes, MAX_POOLS), MAX_POOLS);

    if (b) {
        json_builder_set_member_name(b, "pools");
        json_builder_begin_array(b);
    }
    for (size_t i = 0; i < n; i++) {
        HpbPool pool;

        if (!hpb_pool_read(sizes[i], node, &pool)) {
            show_pool(b, &pool);
        }
    }
    if (b) {
        json_builder_end_array(b);
    }
}

static void show_nodes(JsonBuilder *b)
{
    if (b) {
        json_builder_set_member_name(b, "nodes");
        json_builder_begin_array(b);
    }
    for (int node = 0; node <= hpb_host_max_node(); node++) {
        g_autofree char *path = g_strdup_printf("/sys/devices/system/node/"
                                                "node%d", node);
        g_autofree char *label = g_strdup_printf("node %d", node);

        /* Numbers have gaps; without NUMA there is one node and no directory */
        if (node && !g_file_test(path, G_FILE_TEST_EXISTS)) {
            continue;
        }
        if (b) {
            json_builder_begin_object(b);
            hpbctl_json_int(b, "node", node);
        }
        show_size(b, "available", label, (gint64)hpb_host_available(node));
        show_pools(b, node);
        if (b) {
            json_builder_end_object(b);
        }
    }
    if (b) {
        json_builder_end_array(b);
    }
}

HpbctlExit hpbctl_cmd_host(const HpbctlContext *ctx, int argc, char **argv)
{
    static const GOptionEntry entries[] = { G_OPTION_ENTRY_NULL };
    g_autofree char *memory = read_file("/proc/meminfo");
    g_autofree char *pressure = read_file("/proc/pressure/memory");
    g_autofree char *thp = read_choice(
        "/sys/kernel/mm/transparent_hugepage/enabled");
    g_autofree char *shmem = read_choice(
        "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    g_autofree char *defrag = read_choice(
        "/sys/kernel/mm/transparent_hugepage/defrag");
    JsonBuilder *b;

    if (!hpbctl_parse(entries, "host", 0, &argc, &argv)) {
        return HPBCTL_EXIT_USAGE;
    }
    b = ctx->json ? json_builder_new() : NULL;
    if (b) {
        json_builder_begin_object(b);
    }
    show_size(b, "free", "free", meminfo(memory, "MemFree"));
    show_size(b, "available", "available", meminfo(memory, "MemAvailable"));
    show_size(b, "swap-free", "swap free", meminfo(memory, "SwapFree"));
    show_size(b, "huge-anonymous", "THP, anonymous",
              meminfo(memory, "AnonHugePages"));
    show_size(b, "huge-shared", "THP, shared",
              meminfo(memory, "ShmemHugePages"));
    show_string(b, "thp", "THP enabled", thp);
    show_string(b, "thp-shared", "THP for shared", shmem);
    show_string(b, "thp-defrag", "THP defrag", defrag);
    if (!b) {
        puts("huge page pools");
    }
    show_pools(b, HPB_ANY_NODE);
    show_nodes(b);
    if (!b) {
        puts("pressure (percent of time tasks waited for memory)");
    }
    show_string(b, "pressure", "  memory", pressure ? g_strdelimit(pressure,
                "\n", ';') : NULL);
    if (b) {
        json_builder_end_object(b);
        return hpbctl_print_json(b);
    }
    return hpbctl_finish();
}
