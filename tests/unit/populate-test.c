/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/populate.c: memory is there before anybody touches
 * it, what was there stays, and what cannot be had is an answer.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "support.h"

#define LENGTH (16 * MIB)
#define PAGES (LENGTH / 4096)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Kinds that are accepted without huge page pools */
static const TestKind kinds[] = {
    TEST_ANON_THP, TEST_ANON_4K, TEST_ANON_SHARED, TEST_MEMFD,
    TEST_TMPFS_FILE, TEST_DISK_FILE,
};

static void assert_counters(HpbMemory *mem, size_t ranges, uint64_t done)
{
    HpbCounters c;

    hpb_memory_populate_counters(mem, &c);
    g_assert_cmpuint(c.requests, ==, 1);
    g_assert_cmpuint(c.ranges, ==, ranges);
    g_assert_cmpuint(c.ranges, ==, c.ranges_done + c.ranges_failed +
                     c.ranges_invalid + c.ranges_canceled);
    g_assert_cmpuint(c.bytes, ==,
                     c.bytes_done + c.bytes_failed + c.bytes_canceled);
    g_assert_cmpuint(c.bytes_done, ==, done);
    hpb_memory_discard_counters(mem, &c);
    g_assert_cmpuint(c.requests, ==, 0);
}

/* Everything but a gap, over pages that are there already. */
static void test_kind(const void *data)
{
    static const HpbRange ranges[] = {
        { 0, 4 * MIB }, { 4 * MIB, 2 * MIB }, { 8 * MIB, 8 * MIB },
    };
    TestKind kind = *(const TestKind *)data;
    g_autoptr(TestMap) map = test_map_new(kind, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbResult results[3];

    if (!map) {
        return;
    }
    mem = test_memory_new(map, NULL);
    test_map_fill(map, 2 * MIB, 1 * MIB);
    g_assert_cmpuint(test_map_present(map, 8 * MIB, 8 * MIB), ==, 0);
    g_assert_true(hpb_memory_populate(mem, ranges, 3, 2 * MIB, results, NULL));
    for (size_t i = 0; i < 3; i++) {
        g_assert_cmpint(results[i].error, ==, 0);
        g_assert_cmpuint(results[i].done, ==, ranges[i].length);
        g_assert_cmpuint(test_map_present(map, ranges[i].offset,
                                          ranges[i].length), ==,
                         ranges[i].length / 4096);
    }
    g_assert_cmpuint(test_map_present(map, 6 * MIB, 2 * MIB), ==, 0);
    g_assert_cmpint(hpb_memory_populate_method(mem), ==, HPB_POPULATE_WRITE);
    test_map_assert_filled(map, 2 * MIB, 1 * MIB);
    test_map_assert_zero(map, 8 * MIB, 8 * MIB);
    assert_counters(mem, 3, 14 * MIB);
    if (kind == TEST_ANON_THP) {
        g_assert_cmpuint(test_map_anon_huge(map), ==, 14 * MIB);
    }
}

static void test_bad_ranges(void)
{
    static const HpbRange ranges[] = {
        { 4096, 2 * MIB }, { 0, 0 }, { 0, 2 * MIB + 4096 }, { LENGTH, 2 * MIB },
        { LENGTH - 2 * MIB, 4 * MIB }, { 2 * MIB, UINT64_MAX - 2 * MIB + 1 },
        { 6 * MIB, 2 * MIB },
    };
    static const int errors[] = {
        -EINVAL, -EINVAL, -EINVAL, -ERANGE, -ERANGE, -ERANGE, 0,
    };
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
    HpbResult results[G_N_ELEMENTS(ranges)];

    g_assert_false(hpb_memory_populate(mem, ranges, G_N_ELEMENTS(ranges),
                                       2 * MIB, results, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        g_assert_cmpint(results[i].error, ==, errors[i]);
        g_assert_cmpuint(results[i].done, ==, errors[i] ? 0 : 2 * MIB);
    }
    g_assert_cmpuint(test_map_present(map, 0, LENGTH), ==, 512);
    assert_counters(mem, G_N_ELEMENTS(ranges), 2 * MIB);
}

/* The kernel does not know the advice: files are asked, others cannot be. */
static void test_old_kernel(void)
{
    static const HpbRange range = { 2 * MIB, 4 * MIB };

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autoptr(TestMap) map = test_map_new(kinds[i], LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbResult result;

        if (!map) {
            continue;
        }
        test_faults_reset(map);
        mem = test_memory_new(map, &test_fault_ops);
        test_faults.bad_advice = MADV_POPULATE_WRITE;
        if (map->desc.fd == -1) {
            g_assert_false(hpb_memory_populate(mem, &range, 1, 2 * MIB,
                                               &result, NULL));
            g_assert_cmpint(result.error, ==, -ENOTSUP);
            g_assert_cmpint(hpb_memory_populate_method(mem), ==,
                            HPB_POPULATE_NONE);
            g_assert_cmpuint(test_map_present(map, 0, LENGTH), ==, 0);
        } else {
            uint64_t before = test_map_file_bytes(map);

            g_assert_true(hpb_memory_populate(mem, &range, 1, 2 * MIB, &result,
                                              NULL));
            g_assert_cmpint(hpb_memory_populate_method(mem), ==,
                            HPB_POPULATE_FALLOCATE);
            g_assert_cmpuint(test_map_file_bytes(map), >=,
                             MAX(before, range.length));
        }
        test_map_assert_zero(map, 0, LENGTH);
    }
}

/* What the kernel may say to a step, and what the range's answer is. */
static const struct {
    int error;
    int answer;
} errors[] = {
    { ENOMEM, -ENOMEM }, { EFAULT, -ENOMEM }, { ENOSPC, -ENOMEM },
    { 133 /* EHWPOISON */, -EIO }, { EPERM, -EPERM }, { EAGAIN, -EBUSY },
    { EINTR, -EBUSY },
};

/*
 * From some offset on nothing can be had: the steps before it stay, in a range
 * that begins before and in all ranges before; nothing else is there.
 */
static void check_failure(size_t e, uint64_t bad, uint64_t step)
{
    static const HpbRange ranges[] = {
        { 0, 4 * MIB }, { 4 * MIB, 8 * MIB }, { 12 * MIB, 4 * MIB },
    };
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbResult results[3];
    uint64_t done = 0;

    test_faults_reset(map);
    mem = test_memory_new(map, &test_fault_ops);
    test_faults.bad_range = TRUE;
    test_faults.bad_offset = bad;
    test_faults.bad_error = errors[e].error;
    test_faults.bad_only = MADV_POPULATE_WRITE;
    g_assert_false(hpb_memory_populate(mem, ranges, 3, step, results, NULL));
    for (size_t i = 0; i < 3; i++) {
        const HpbRange *r = &ranges[i];
        gboolean hit = bad >= r->offset && bad - r->offset < r->length;
        uint64_t expected = hit ? (bad - r->offset) / step * step : r->length;

        g_assert_cmpint(results[i].error, ==, hit ? errors[e].answer : 0);
        g_assert_cmpuint(results[i].done, ==, expected);
        g_assert_cmpuint(test_map_present(map, r->offset, r->length), ==,
                         expected / 4096);
        done += expected;
    }
    assert_counters(mem, 3, done);
}

static void test_failures(void)
{
    static const uint64_t bad[] = {
        0, 4096, 2 * MIB, 4 * MIB - 4096, 4 * MIB, 7 * MIB, 12 * MIB - 4096,
        LENGTH - 4096,
    };

    for (size_t e = 0; e < G_N_ELEMENTS(errors); e++) {
        for (size_t b = 0; b < G_N_ELEMENTS(bad); b++) {
            check_failure(e, bad[b], 2 * MIB);
            check_failure(e, bad[b], 4 * MIB);
            check_failure(e, bad[b], 256 * KIB);
        }
    }
}

/*
 * Calls fail one by one, the first, the second, ... until a request does not
 * meet the failure: whatever is answered is what is there.
 */
static void check_each_call(TestKind kind, uint32_t disabled, size_t e)
{
    static const HpbRange ranges[] = {
        { 0, 4 * MIB }, { 4 * MIB, 2 * MIB }, { 8 * MIB, 4 * MIB },
    };
    gboolean met = TRUE;

    for (unsigned first = 1; met; first++) {
        g_autoptr(TestMap) map = test_map_new(kind, LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbResult results[3];
        uint64_t done = 0;
        gboolean ok;

        test_faults_reset(map);
        map->desc.disabled = disabled;
        mem = test_memory_new(map, &test_fault_ops);
        test_faults_reset(map);
        test_faults.call = disabled ? TEST_CALL_FALLOCATE : TEST_CALL_MADVISE;
        test_faults.first = first;
        test_faults.times = 1;
        test_faults.error = errors[e].error;
        ok = hpb_memory_populate(mem, ranges, 3, 2 * MIB, results, NULL);
        met = first <= test_faults.calls[test_faults.call];
        for (size_t i = 0; i < 3; i++) {
            g_assert_true((results[i].error == 0) ==
                          (results[i].done == ranges[i].length));
            g_assert_true(!results[i].error ||
                          results[i].error == errors[e].answer);
            g_assert_cmpuint(results[i].done % (2 * MIB), ==, 0);
            done += results[i].done;
        }
        g_assert_true(ok == (done == 10 * MIB));
        g_assert_true(met || ok);
        g_assert_cmpuint(map->desc.fd == -1
                         ? test_map_present(map, 0, LENGTH) * 4096
                         : test_map_file_bytes(map), ==, done);
        assert_counters(mem, 3, done);
        g_assert_cmpuint(first, <, 20);
    }
}

static void test_each_call(void)
{
    for (size_t e = 0; e < G_N_ELEMENTS(errors); e++) {
        check_each_call(TEST_ANON_4K, 0, e);
        check_each_call(TEST_MEMFD, 0, e);
        check_each_call(TEST_MEMFD, HPB_NO_POPULATE_WRITE, e);
    }
}

/* A range longer than a slice, a step longer than a slice: still whole steps. */
static void test_long_step(void)
{
    static const HpbRange range = { 0, 512 * MIB };
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, 512 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbResult result;

    test_faults_reset(map);
    mem = test_memory_new(map, &test_fault_ops);
    test_faults.fake = TRUE;
    test_faults.bad_range = TRUE;
    test_faults.bad_offset = 400 * MIB;
    test_faults.bad_error = ENOMEM;
    test_faults.bad_only = MADV_POPULATE_WRITE;
    g_assert_false(hpb_memory_populate(mem, &range, 1, 256 * MIB, &result, NULL));
    g_assert_cmpint(result.error, ==, -ENOMEM);
    g_assert_cmpuint(result.done, ==, 256 * MIB);
    assert_counters(mem, 1, 256 * MIB);
}

static void test_cancel(void)
{
    static const HpbRange ranges[] = { { 0, 192 * MIB }, { 256 * MIB, 64 * MIB } };
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, 512 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbResult results[2];

    test_faults_reset(map);
    mem = test_memory_new(map, &test_fault_ops);
    test_faults_reset(map);
    test_faults.fake = TRUE;
    test_faults.cancel_at = 2;
    g_assert_false(hpb_memory_populate(mem, ranges, 2, 2 * MIB, results,
                                       &test_faults.cancel));
    g_assert_cmpint(results[0].error, ==, -ECANCELED);
    g_assert_cmpuint(results[0].done, ==, 128 * MIB);
    g_assert_cmpint(results[1].error, ==, -ECANCELED);
    g_assert_cmpuint(results[1].done, ==, 0);
    assert_counters(mem, 2, 128 * MIB);
}

static void test_names(void)
{
    g_assert_cmpstr(hpb_populate_method_name(HPB_POPULATE_WRITE), ==,
                    "populate-write");
    g_assert_cmpstr(hpb_populate_method_name(HPB_POPULATE_FALLOCATE), ==,
                    "fallocate");
    g_assert_cmpstr(hpb_populate_method_name(HPB_POPULATE_NONE), ==, "none");
    g_assert_cmpstr(hpb_populate_method_name((HpbPopulateMethod)99), ==,
                    "unknown");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strdup_printf("/populate/kind/%s",
                                                test_kind_names[kinds[i]]);

        g_test_add_data_func(path, &kinds[i], test_kind);
    }
    g_test_add_func("/populate/bad-ranges", test_bad_ranges);
    g_test_add_func("/populate/old-kernel", test_old_kernel);
    g_test_add_func("/populate/failures", test_failures);
    g_test_add_func("/populate/each-call", test_each_call);
    g_test_add_func("/populate/long-step", test_long_step);
    g_test_add_func("/populate/cancel", test_cancel);
    g_test_add_func("/populate/names", test_names);
    return g_test_run();
}
