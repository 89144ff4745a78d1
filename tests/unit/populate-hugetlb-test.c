/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/populate.c on huge page pools: an empty pool is an
 * answer, not a signal; half a step goes back; it works when pages are back.
 * Raises the pool while it runs (see pool.c). Argument "2M" or "1G": which pool.
 */
#include <errno.h>
#include <string.h>
#include "support.h"

static size_t page_size = 2 * MIB;
static unsigned pages = 16;

static const TestKind kinds[] = {
    TEST_HUGETLB_MEMFD, TEST_HUGETLB_MEMFD_PRIVATE, TEST_HUGETLB_ANON,
    TEST_HUGETLB_ANON_SHARED,
};

/* Take pages until @left are left in the pool. Owned by the result. */
static TestMap *hog_new(unsigned left)
{
    unsigned available = test_pool_available(page_size);
    TestMap *hog;

    if (available <= left) {
        g_test_skip("the pool has too few pages");
        return NULL;
    }
    hog = test_map_new(TEST_HUGETLB_MEMFD, (available - left) * page_size,
                       page_size);
    if (hog) {
        g_autoptr(HpbMemory) mem = test_memory_new(hog, NULL);
        HpbRange all = { 0, hog->length };

        g_assert_true(hpb_memory_populate(mem, &all, 1, page_size, NULL, NULL));
        g_assert_cmpuint(test_pool_available(page_size), ==, left);
    }
    return hog;
}

static void test_empty_pool(const void *data)
{
    TestKind kind = *(const TestKind *)data;
    size_t half = pages / 2, steps = page_size == GIB ? 1 : 2;
    unsigned left = page_size == GIB ? 1 : 5;
    g_autoptr(TestMap) map = test_map_new(kind, half * page_size, page_size);
    g_autoptr(HpbMemory) mem = NULL;
    g_autoptr(TestMap) hog = NULL;
    HpbRange all = { 0, half * page_size };
    HpbResult result;

    if (!map) {
        return;
    }
    mem = test_memory_new(map, NULL);
    test_map_fill(map, 0, all.length);
    g_assert_true(hpb_memory_discard(mem, &all, 1, NULL, NULL));
    hog = hog_new(left);
    if (!hog) {
        return;
    }
    g_assert_false(hpb_memory_populate(mem, &all, 1, steps * page_size, &result,
                                       NULL));
    g_assert_cmpint(result.error, ==, -ENOMEM);
    g_assert_cmpint(hpb_outcome_from_error(result.error), ==,
                    HPB_OUTCOME_NO_MEMORY);
    g_assert_cmpuint(result.done, ==, left / steps * steps * page_size);
    g_assert_cmpuint(test_pool_available(page_size), ==, left % steps);
    /* what was given can be used */
    test_map_fill(map, 0, result.done);
    test_map_assert_filled(map, 0, result.done);

    test_map_free(g_steal_pointer(&hog));
    g_assert_true(hpb_memory_populate(mem, &all, 1, steps * page_size, &result,
                                      NULL));
    g_assert_cmpuint(result.done, ==, all.length);
    test_map_assert_filled(map, 0, left / steps * steps * page_size);
    test_map_fill(map, 0, all.length);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc > 1 && !strcmp(argv[1], "1G")) {
        page_size = GIB;
        pages = 4;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strdup_printf("/populate/empty-pool/%s",
                                                test_kind_names[kinds[i]]);

        g_test_add_data_func(path, &kinds[i], test_empty_pool);
    }
    return test_run_with_pool(page_size, pages);
}
