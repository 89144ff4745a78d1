/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/collapse.c: small pages become huge ones with their
 * contents, holes stay holes, and what cannot be done is said.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "support.h"

#define LENGTH (16 * MIB)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static uint64_t huge_bytes(HpbMemory *mem)
{
    HpbRange all = { 0, hpb_memory_length(mem) };
    HpbSummary sum;

    g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
    return sum.huge;
}

/* Whether this kernel collapses at all, found out without the library. */
static gboolean kernel_collapses(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 2 * MIB, 0);

    test_map_fill(map, 0, 2 * MIB);
    g_assert_no_errno(madvise(map->host, 2 * MIB, MADV_HUGEPAGE));
    if (!madvise(map->host, 2 * MIB, MADV_COLLAPSE)) {
        return TRUE;
    }
    g_test_skip("this kernel does not collapse (Linux 6.1 with THP does)");
    return FALSE;
}

/* Filled in small pages, with a hole in the middle. */
static void test_kind(const void *data)
{
    TestKind kind = *(const TestKind *)data;
    static const HpbRange ranges[] = {
        { 0, 8 * MIB }, { 8 * MIB, 2 * MIB }, { 12 * MIB, 2 * MIB },
    };
    g_autoptr(TestMap) map = test_map_new(kind, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbResult results[3];
    HpbCounters count;

    if (!map || !kernel_collapses()) {
        return;
    }
    mem = test_memory_new(map, NULL);
    g_assert_no_errno(madvise(map->host, LENGTH, MADV_NOHUGEPAGE));
    test_map_fill(map, 0, 4 * MIB);
    test_map_fill(map, 6 * MIB, 10 * MIB);
    g_assert_cmpuint(huge_bytes(mem), ==, 0);
    g_assert_no_errno(madvise(map->host, LENGTH, MADV_HUGEPAGE));
    if (!hpb_memory_collapse(mem, ranges, 3, results, NULL) &&
        kind != TEST_ANON_4K) {
        g_test_skip("huge pages in the page cache are not to be had here");
        return;
    }
    for (size_t i = 0; i < 3; i++) {
        g_assert_cmpint(results[i].error, ==, 0);
        g_assert_cmpuint(results[i].done, ==, ranges[i].length);
    }
    if (hpb_memory_scan_flags(mem) & HPB_SCAN_HUGE) {
        g_assert_cmpuint(huge_bytes(mem), ==, 10 * MIB);
    }
    g_assert_cmpuint(test_map_present(map, 4 * MIB, 2 * MIB), ==, 0);
    test_map_assert_filled(map, 0, 4 * MIB);
    test_map_assert_filled(map, 6 * MIB, 10 * MIB);

    hpb_memory_collapse_counters(mem, &count);
    g_assert_cmpuint(count.ranges_done, ==, 3);
    g_assert_cmpuint(count.bytes_done, ==, 12 * MIB);
    g_assert_cmpuint(count.bytes, ==, count.bytes_done);
}

/* Nothing is tried where it cannot be, and the answer says so. */
static void test_not_possible(void)
{
    static const struct {
        uint32_t disabled;
        HpbThp thp;
        uint64_t unit;
    } table[] = {
        { HPB_NO_COLLAPSE, HPB_THP_UNKNOWN, 2 * MIB },
        { 0, HPB_THP_NEVER, 4096 },
        { 0, HPB_THP_UNKNOWN, 2 * MIB },    /* MADV_NOHUGEPAGE, not told */
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange ranges[] = { { 0, table[i].unit }, { 2 * MIB, 2 * MIB } };
        HpbResult results[2];
        HpbCounters count;

        map->desc.disabled = table[i].disabled;
        map->desc.thp = table[i].thp;
        mem = test_memory_new(map, NULL);
        test_map_fill(map, 0, LENGTH);
        g_assert_false(hpb_memory_collapse(mem, ranges, 2, results, NULL));
        g_assert_cmpint(results[0].error, ==, -ENOTSUP);
        g_assert_cmpint(results[1].error, ==, -ENOTSUP);
        g_assert_cmpuint(results[0].done, ==, 0);
        hpb_memory_collapse_counters(mem, &count);
        g_assert_cmpuint(count.ranges_failed, ==, 2);
        g_assert_true(!!count.syscalls == (i == 2));
        test_map_assert_filled(map, 0, LENGTH);
    }
}

static void test_bad_ranges(void)
{
    static const HpbRange ranges[] = {
        { 4096, 2 * MIB }, { 0, 4096 }, { LENGTH, 2 * MIB }, { 0, 0 },
    };
    static const int errors[] = { -EINVAL, -EINVAL, -ERANGE, -EINVAL };
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
    HpbResult results[4];

    g_assert_false(hpb_memory_collapse(mem, ranges, 4, results, NULL));
    for (size_t i = 0; i < 4; i++) {
        g_assert_cmpint(results[i].error, ==, errors[i]);
    }
}

/* What the kernel may say to one huge page, and what the range's answer is. */
static void test_failures(void)
{
    static const struct {
        int error, answer;
    } table[] = {
        { ENOMEM, -ENOMEM }, { EBUSY, -EBUSY }, { EAGAIN, -EBUSY },
        { EINTR, -EBUSY }, { EINVAL, -ENOTSUP }, { EIO, -EIO },
    };
    static const HpbRange ranges[] = { { 0, 8 * MIB }, { 8 * MIB, 8 * MIB } };

    for (size_t e = 0; e < G_N_ELEMENTS(table) && kernel_collapses(); e++) {
        for (uint64_t bad = 0; bad < LENGTH; bad += 2 * MIB) {
            g_autoptr(TestMap) map = test_map_new(TEST_ANON_THP, LENGTH, 0);
            g_autoptr(HpbMemory) mem = NULL;
            size_t hit = bad >= 8 * MIB;
            HpbResult results[2];

            test_map_fill(map, 0, LENGTH);
            test_faults_reset(map);
            mem = test_memory_new(map, &test_fault_ops);
            test_faults.bad_range = TRUE;
            test_faults.bad_offset = bad;
            test_faults.bad_error = table[e].error;
            test_faults.bad_only = MADV_COLLAPSE;
            g_assert_false(hpb_memory_collapse(mem, ranges, 2, results, NULL));
            g_assert_cmpint(results[hit].error, ==, table[e].answer);
            g_assert_cmpuint(results[hit].done, ==, bad - ranges[hit].offset);
            g_assert_cmpint(results[!hit].error, ==, 0);
            test_map_assert_filled(map, 0, LENGTH);
        }
    }
}

static void test_cancel(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_THP, LENGTH, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
    HpbRange all = { 0, LENGTH };
    HpbResult result;
    int cancel = 1;

    g_assert_false(hpb_memory_collapse(mem, &all, 1, &result, &cancel));
    g_assert_cmpint(result.error, ==, -ECANCELED);
    g_assert_cmpuint(result.done, ==, 0);
}

int main(int argc, char **argv)
{
    static const TestKind kinds[] = { TEST_ANON_4K, TEST_MEMFD };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strdup_printf("/collapse/kind/%s",
                                                test_kind_names[kinds[i]]);

        g_test_add_data_func(path, &kinds[i], test_kind);
    }
    g_test_add_func("/collapse/not-possible", test_not_possible);
    g_test_add_func("/collapse/bad-ranges", test_bad_ranges);
    g_test_add_func("/collapse/failures", test_failures);
    g_test_add_func("/collapse/cancel", test_cancel);
    return g_test_run();
}
