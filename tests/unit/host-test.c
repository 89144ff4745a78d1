/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/host.c: pools say what is in them, nodes are there.
 * Raises the pool while it runs (see pool.c). Argument "2M" or "1G": which pool.
 *
 * The pool is the machine's, so others may use it at the same moment: a number
 * has to be right in one of a few rounds.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include <numa.h>
#include "support.h"

static size_t page_size = 2 * MIB;
static unsigned pages = 8;

static gboolean has_pool(void)
{
    HpbPool pool;

    if (hpb_pool_read(page_size, HPB_ANY_NODE, &pool)) {
        g_test_skip("this machine has no such pool");
        return FALSE;
    }
    return TRUE;
}

static void test_sizes(void)
{
    uint64_t sizes[8], one = 0;
    size_t n = hpb_pool_sizes(sizes, G_N_ELEMENTS(sizes));
    gboolean found = FALSE;

    if (!has_pool()) {
        return;
    }
    g_assert_cmpuint(n, >=, 1);
    for (size_t i = 0; i < MIN(n, G_N_ELEMENTS(sizes)); i++) {
        HpbPool pool;

        g_assert_true(i == 0 || sizes[i] > sizes[i - 1]);
        g_assert_cmpint(hpb_pool_read(sizes[i], HPB_ANY_NODE, &pool), ==, 0);
        g_assert_cmpuint(pool.page_size, ==, sizes[i]);
        found |= sizes[i] == page_size;
    }
    g_assert_true(found);
    /* No room for all: as many as fit, and still how many there are */
    g_assert_cmpuint(hpb_pool_sizes(&one, 1), ==, n);
    g_assert_cmpuint(one, ==, sizes[0]);
    g_assert_cmpuint(hpb_pool_sizes(NULL, 0), ==, n);
}

/* A page more in the pool is a page more, and then it is not free any longer. */
static void test_numbers(void)
{
    gboolean right = FALSE;

    for (int round = 0; round < 5 && !right; round++) {
        g_autoptr(TestMap) map = NULL;
        HpbPool before, reserved, used;

        if (!has_pool()) {
            return;
        }
        g_assert_cmpint(hpb_pool_read(page_size, HPB_ANY_NODE, &before), ==, 0);
        map = test_map_new(TEST_HUGETLB_MEMFD, page_size, page_size);
        if (!map) {
            return;
        }
        g_assert_cmpuint(before.total, >=, 1);
        g_assert_cmpint(hpb_pool_read(page_size, HPB_ANY_NODE, &reserved), ==,
                        0);
        test_map_fill(map, 0, page_size);
        g_assert_cmpint(hpb_pool_read(page_size, HPB_ANY_NODE, &used), ==, 0);
        right = used.total == before.total && used.free == before.free - 1 &&
                used.reserved == before.reserved &&
                hpb_pool_available(&used) == hpb_pool_available(&before) - 1;
    }
    g_assert_true(right);
}

/* Nodes together are the machine. */
static void test_nodes(void)
{
    gboolean right = FALSE;

    for (int round = 0; round < 5 && !right; round++) {
        HpbPool all, sum = { 0 };

        if (!has_pool()) {
            return;
        }
        g_assert_cmpint(hpb_pool_read(page_size, HPB_ANY_NODE, &all), ==, 0);
        for (int node = 0; node <= hpb_host_max_node(); node++) {
            HpbPool one;
            int ret = hpb_pool_read(page_size, node, &one);

            if (ret == -ENOENT) {
                continue;
            }
            g_assert_cmpint(ret, ==, 0);
            sum.total += one.total;
            sum.free += one.free;
            sum.surplus += one.surplus;
            g_assert_cmpuint(one.reserved + one.overcommit, ==, 0);
        }
        right = sum.total == all.total && sum.free == all.free &&
                sum.surplus == all.surplus;
    }
    g_assert_true(right);
}

static void test_absent(void)
{
    HpbPool pool;

    g_assert_cmpint(hpb_pool_read(12288, HPB_ANY_NODE, &pool), ==, -ENOENT);
    g_assert_cmpint(hpb_pool_read(page_size, 12345, &pool), ==, -ENOENT);
    g_assert_cmpuint(hpb_host_available(12345), ==, 0);
    g_assert_null(hpb_pool_mount(12288));
    g_assert_null(hpb_pool_mount(UINT64_MAX));
}

static void test_available(void)
{
    static const struct {
        HpbPool pool;
        uint64_t available;
    } table[] = {
        { { .free = 5 }, 5 },
        { { .free = 5, .reserved = 3 }, 2 },
        { { .free = 5, .reserved = 5 }, 0 },
        { { .free = 5, .reserved = 6 }, 0 },
        { { .free = 5, .reserved = 3, .overcommit = 4, .surplus = 1 }, 5 },
        { { .free = 1, .overcommit = 1, .surplus = 2 }, 1 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        g_assert_cmpuint(hpb_pool_available(&table[i].pool), ==,
                         table[i].available);
    }
}

/* What libnuma and libc say is free; page cache comes on top. Others work meanwhile. */
static void check_available(uint64_t available, uint64_t free, uint64_t total)
{
    g_assert_cmpuint(available, >, free / 2);
    g_assert_cmpuint(available, <=, free + total);
}

static void test_memory(void)
{
    long page = sysconf(_SC_PAGESIZE);

    check_available(hpb_host_available(HPB_ANY_NODE),
                    (uint64_t)(sysconf(_SC_AVPHYS_PAGES) * page),
                    (uint64_t)(sysconf(_SC_PHYS_PAGES) * page));
    for (int node = 0; node <= hpb_host_max_node(); node++) {
        long long free = 0;
        long long total = numa_available() == -1
                          ? -1 : numa_node_size64(node, &free);

        if (total > 0) {
            check_available(hpb_host_available(node), (uint64_t)free,
                            (uint64_t)total);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc > 1 && !strcmp(argv[1], "1G")) {
        page_size = GIB;
        pages = 1;
    }
    g_test_add_func("/host/pool/sizes", test_sizes);
    g_test_add_func("/host/pool/numbers", test_numbers);
    g_test_add_func("/host/pool/nodes", test_nodes);
    g_test_add_func("/host/pool/absent", test_absent);
    g_test_add_func("/host/pool/available", test_available);
    g_test_add_func("/host/memory", test_memory);
    return test_run_with_pool(page_size, pages);
}
