/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/scan.c on huge page pools. Raises the pool while it
 * runs (see pool.c). Argument "2M" or "1G": which pool.
 */
#include <fcntl.h>
#include <string.h>
#include "support.h"

static size_t page_size = 2 * MIB;
static unsigned pages = 8;

static const TestKind kinds[] = {
    TEST_HUGETLB_MEMFD, TEST_HUGETLB_MEMFD_PRIVATE, TEST_HUGETLB_ANON,
    TEST_HUGETLB_ANON_SHARED,
};

static void test_kind(const void *data)
{
    static const uint32_t ways[] = { 0, HPB_NO_PAGEMAP_SCAN };

    for (size_t w = 0; w < G_N_ELEMENTS(ways); w++) {
        g_autoptr(TestMap) map = test_map_new(*(const TestKind *)data,
                                              pages * page_size, page_size);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange all = { 0, pages * page_size };
        uint64_t nodes[1024], other, on_nodes = 0;
        HpbSummary sum;
        HpbRun runs[4];

        if (!map) {
            return;
        }
        map->desc.disabled = ways[w];
        mem = test_memory_new(map, NULL);
        test_map_fill(map, page_size, page_size);

        g_assert_cmpint(hpb_memory_scan(mem, &all, runs, 4), ==,
                        pages > 2 ? 3 : 2);
        g_assert_cmpuint(runs[0].flags, ==, 0);
        g_assert_cmpuint(runs[0].length, ==, page_size);
        g_assert_cmphex(runs[1].flags, ==, HPB_SCAN_PRESENT | HPB_SCAN_HUGE);
        g_assert_cmpuint(runs[1].length, ==, page_size);
        g_assert_true(pages == 2 || runs[2].flags == 0);

        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
        g_assert_cmpuint(sum.held, ==, page_size);
        g_assert_cmpuint(sum.huge, ==, page_size);
        g_assert_cmpuint(sum.holes, ==, (pages - 1) * page_size);
        g_assert_cmpuint(sum.file, ==,
                         map->kind == TEST_HUGETLB_MEMFD ? page_size : 0);
        g_assert_cmpint(hpb_memory_nodes(mem, &all, nodes, 1024, &other, NULL),
                        ==, 0);
        for (size_t i = 0; i < 1024; i++) {
            on_nodes += nodes[i];
        }
        g_assert_cmpuint(on_nodes, ==, page_size);
        g_assert_cmpuint(other, ==, 0);

        g_assert_true(hpb_memory_discard(mem, &all, 1, NULL, NULL));
        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
        g_assert_cmpuint(sum.holes, ==, all.length);
        g_assert_cmpuint(sum.file, ==, 0);
    }
}

/* Set aside but mapped by nobody: only the file as a whole tells. */
static void test_unmapped(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_HUGETLB_MEMFD,
                                          pages * page_size, page_size);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange all = { 0, pages * page_size };
    HpbSummary sum;

    if (!map) {
        return;
    }
    map->desc.disabled = HPB_NO_POPULATE_WRITE;
    mem = test_memory_new(map, NULL);
    g_assert_true(hpb_memory_populate(mem, &(HpbRange) { 0, page_size }, 1,
                                      page_size, NULL, NULL));
    g_assert_cmpint(hpb_memory_populate_method(mem), ==,
                    HPB_POPULATE_FALLOCATE);
    g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
    g_assert_cmpuint(sum.present, ==, 0);
    g_assert_cmpuint(sum.file, ==, page_size);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc > 1 && !strcmp(argv[1], "1G")) {
        page_size = GIB;
        pages = 2;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strdup_printf("/scan/hugetlb/%s",
                                                test_kind_names[kinds[i]]);

        g_test_add_data_func(path, &kinds[i], test_kind);
    }
    g_test_add_func("/scan/hugetlb/unmapped", test_unmapped);
    return test_run_with_pool(page_size, pages);
}
