/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/discard.c with system calls that fail: no range is
 * lost, no answer is wrong, sums add up, and a cancel stops between slices.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "support.h"

#define SLICE (256 * MIB)     /* private memory */

/* Kinds by which every method is used, and the call that does it. */
static const struct {
    TestKind kind;
    TestCall call;
} methods[] = {
    { TEST_ANON_THP, TEST_CALL_MADVISE },
    { TEST_ANON_SHARED, TEST_CALL_MADVISE },
    { TEST_MEMFD, TEST_CALL_FALLOCATE },
};

/* What the kernel may say, and what the range's answer is. */
static const struct {
    int error;
    int answer;
} errors[] = {
    { ENOMEM, -ENOMEM }, { EPERM, -EPERM }, { EIO, -EIO }, { EBADF, -EBADF },
    { ENOSPC, -ENOSPC }, { EINVAL, -ENOTSUP }, { EOPNOTSUPP, -EOPNOTSUPP },
    { EAGAIN, -EBUSY }, { EINTR, -EBUSY },
};

/*
 * Answers fit together: done ranges are freed (as far as the kernel was
 * called), failed ones say how far they got, the return value and the sums
 * agree with them.
 */
static void assert_consistent(TestMap *map, HpbMemory *mem,
                              const HpbRange *ranges, const HpbResult *results,
                              size_t n, gboolean ok)
{
    HpbCounters count;
    uint64_t done = 0;
    size_t whole = 0;

    for (size_t i = 0; i < n; i++) {
        g_assert_cmpint(results[i].error, <=, 0);
        g_assert_cmpuint(results[i].done, <=, ranges[i].length);
        g_assert_cmpuint(results[i].done % map->page_size, ==, 0);
        g_assert_true((results[i].done == ranges[i].length) ==
                      (results[i].error == 0));
        if (!test_faults.fake) {
            g_assert_cmpuint(test_map_present(map, ranges[i].offset,
                                              results[i].done), ==, 0);
        }
        done += results[i].done;
        whole += results[i].error == 0;
    }
    g_assert_true(ok == (whole == n));
    test_assert_counters(mem);
    hpb_memory_discard_counters(mem, &count);
    g_assert_cmpuint(count.requests, ==, 1);
    g_assert_cmpuint(count.ranges, ==, n);
    g_assert_cmpuint(count.ranges_done, ==, whole);
    g_assert_cmpuint(count.bytes_done, ==, done);
    g_assert_cmpuint(count.syscalls, ==, test_faults.frees);
}

/*
 * Calls of one kind fail one by one: the first, the second, ... once each,
 * until a request gets through without meeting the failure. A single failure
 * of a run is repaired by the second try; EINTR and EAGAIN are always.
 */
static void check_each_call(size_t method, int error)
{
    static const HpbRange ranges[] = {
        { 0, 2 * MIB }, { 2 * MIB, 2 * MIB }, { 4 * MIB, 2 * MIB },
        { 8 * MIB, 4096 }, { 8192 + 8 * MIB, 4096 }, { 62 * MIB, 4 * MIB },
    };
    gboolean met = TRUE;

    for (unsigned first = 1; met; first++) {
        g_autoptr(TestMap) map = test_map_new(methods[method].kind, 66 * MIB, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbResult results[G_N_ELEMENTS(ranges)];
        gboolean ok;

        test_faults_reset(map);
        mem = test_memory_new(map, &test_fault_ops);
        test_faults_reset(map);
        test_faults.call = methods[method].call;
        test_faults.first = first;
        test_faults.times = 1;
        test_faults.error = error;
        for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
            test_map_fill(map, ranges[i].offset, ranges[i].length);
        }
        ok = hpb_memory_discard(mem, ranges, G_N_ELEMENTS(ranges), results,
                                NULL);
        met = first <= test_faults.frees;
        assert_consistent(map, mem, ranges, results, G_N_ELEMENTS(ranges), ok);
        if (error == EINTR || error == EAGAIN || !met ||
            first == 1 /* the run of three */) {
            g_assert_true(ok);
        }
        g_assert_cmpuint(first, <, 20);
    }
}

static void test_each_call(void)
{
    for (size_t m = 0; m < G_N_ELEMENTS(methods); m++) {
        for (size_t e = 0; e < G_N_ELEMENTS(errors); e++) {
            check_each_call(m, errors[e].error);
        }
    }
}

/*
 * One page cannot be freed, whatever is tried: exactly its range fails, with
 * the right answer, all others are done.
 */
static void check_bad_range(size_t method, size_t e, size_t bad)
{
    g_autoptr(TestMap) map = test_map_new(methods[method].kind, 32 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange ranges[16];
    HpbResult results[16];
    gboolean ok;

    test_faults_reset(map);
    mem = test_memory_new(map, &test_fault_ops);
    test_faults_reset(map);
    test_faults.bad_range = TRUE;
    test_faults.bad_offset = bad * 2 * MIB + 4096;
    test_faults.bad_error = errors[e].error;
    for (size_t i = 0; i < 16; i++) {
        ranges[i] = (HpbRange) { i * 2 * MIB, 2 * MIB };
        test_map_fill(map, ranges[i].offset, 4096);
    }
    ok = hpb_memory_discard(mem, ranges, 16, results, NULL);
    g_assert_false(ok);
    for (size_t i = 0; i < 16; i++) {
        g_assert_cmpint(results[i].error, ==, i == bad ? errors[e].answer : 0);
    }
    assert_consistent(map, mem, ranges, results, 16, ok);
    test_map_assert_filled(map, ranges[bad].offset, 4096);
}

static void test_bad_range(void)
{
    static const size_t bad[] = { 0, 7, 15 };

    for (size_t m = 0; m < G_N_ELEMENTS(methods); m++) {
        for (size_t e = 0; e < G_N_ELEMENTS(errors); e++) {
            for (size_t b = 0; b < G_N_ELEMENTS(bad); b++) {
                check_bad_range(m, e, bad[b]);
            }
        }
    }
}

/* A mapping too large to exist: 1 TiB reserved, never touched, never freed. */
#define HUGE_LENGTH (1024 * GIB)

typedef struct FakeMemory {
    TestMap map;
    HpbMemory *mem;
} FakeMemory;

static void fake_memory_new(FakeMemory *fake)
{
    memset(fake, 0, sizeof(*fake));
    fake->map.page_size = 4096;
    fake->map.host = (uint8_t *)(uintptr_t)(1024 * GIB);
    fake->map.length = HUGE_LENGTH;
    fake->map.desc = (HpbMemoryDesc) HPB_MEMORY_DESC_INIT;
    fake->map.desc.host = fake->map.host;
    fake->map.desc.length = HUGE_LENGTH;
    test_faults_reset(&fake->map);
    test_faults.fake = TRUE;
    fake->mem = test_memory_new(&fake->map, &test_fault_ops);
}

/* No call is longer than a slice, and cuts are at multiples of it. */
static void test_slices(void)
{
    FakeMemory fake;
    HpbRange range = { 2 * MIB, HUGE_LENGTH - 4 * MIB };
    HpbResult result;

    fake_memory_new(&fake);
    g_assert_true(hpb_memory_discard(fake.mem, &range, 1, &result, NULL));
    g_assert_cmpuint(test_faults.longest, ==, SLICE);
    g_assert_cmpuint(test_faults.frees, ==, HUGE_LENGTH / SLICE);
    assert_consistent(&fake.map, fake.mem, &range, &result, 1, TRUE);
    hpb_memory_free(fake.mem);
}

/* A long range fails in its third slice: what came before is done for certain. */
static void test_partial(void)
{
    FakeMemory fake;
    HpbRange ranges[] = {
        { 32 * MIB, 4 * SLICE }, { 32 * MIB + 4 * SLICE, 2 * MIB },
    };
    HpbResult results[2];

    fake_memory_new(&fake);
    test_faults.bad_range = TRUE;
    test_faults.bad_offset = 2 * SLICE + 5 * MIB;
    test_faults.bad_error = EIO;
    g_assert_false(hpb_memory_discard(fake.mem, ranges, 2, results, NULL));
    g_assert_cmpint(results[0].error, ==, -EIO);
    g_assert_cmpuint(results[0].done, ==, 2 * SLICE - 32 * MIB);
    g_assert_cmpint(results[1].error, ==, 0);
    assert_consistent(&fake.map, fake.mem, ranges, results, 2, FALSE);
    hpb_memory_free(fake.mem);
}

/* One by one, after a failure, no call is longer than a slice either. */
static void test_slices_one_by_one(void)
{
    FakeMemory fake;
    HpbRange ranges[] = { { SLICE - 2 * MIB, 2 * MIB }, { SLICE, 2 * MIB },
                          { SLICE + 2 * MIB, 3 * SLICE } };
    HpbResult results[3];

    fake_memory_new(&fake);
    test_faults.bad_range = TRUE;
    test_faults.bad_offset = SLICE;
    test_faults.bad_error = EIO;
    g_assert_false(hpb_memory_discard(fake.mem, ranges, 3, results, NULL));
    g_assert_cmpint(results[0].error, ==, 0);
    g_assert_cmpint(results[1].error, ==, -EIO);
    g_assert_cmpint(results[2].error, ==, 0);
    g_assert_cmpuint(test_faults.longest, ==, SLICE);
    /* before; the two, failing; the bad one; rest of its slice; three more */
    g_assert_cmpuint(test_faults.frees, ==, 7);
    assert_consistent(&fake.map, fake.mem, ranges, results, 3, FALSE);
    hpb_memory_free(fake.mem);
}

/* Pages larger than a slice are freed whole. */
static void test_slices_huge_pages(void)
{
    FakeMemory fake;
    HpbRange range = { 2 * GIB, 3 * GIB };

    fake_memory_new(&fake);
    hpb_memory_free(fake.mem);
    fake.map.desc.page_size = fake.map.page_size = GIB;
    fake.mem = test_memory_new(&fake.map, &test_fault_ops);
    g_assert_true(hpb_memory_discard(fake.mem, &range, 1, NULL, NULL));
    g_assert_cmpuint(test_faults.longest, ==, GIB);
    g_assert_cmpuint(test_faults.frees, ==, 3);
    hpb_memory_free(fake.mem);
}

/* Cancelled during call @at of a request: that slice counts, nothing later. */
static void check_cancel(unsigned at)
{
    static const HpbRange ranges[] = {
        { 0, SLICE }, { SLICE, 3 * SLICE }, { 8 * SLICE, SLICE },
        { 1, 1 }, { 10 * SLICE, 2 * SLICE },
    };
    static const size_t n = G_N_ELEMENTS(ranges);
    HpbCounters count;
    HpbResult results[G_N_ELEMENTS(ranges)];
    FakeMemory fake;
    uint64_t left = at * SLICE;

    fake_memory_new(&fake);
    test_faults.cancel_at = at;
    test_faults.cancel = at == 0;
    g_assert_false(hpb_memory_discard(fake.mem, ranges, n, results,
                                      &test_faults.cancel));
    g_assert_cmpuint(test_faults.frees, ==, at);
    for (size_t i = 0; i < n; i++) {
        uint64_t done = i == 3 ? 0 : MIN(left, ranges[i].length);

        g_assert_cmpuint(results[i].done, ==, done);
        g_assert_cmpint(results[i].error, ==, i == 3 ? -EINVAL :
                        done == ranges[i].length ? 0 : -ECANCELED);
        left -= done;
    }
    hpb_memory_discard_counters(fake.mem, &count);
    g_assert_cmpuint(count.bytes_done, ==, at * SLICE);
    g_assert_cmpuint(count.bytes_failed, ==, 0);
    assert_consistent(&fake.map, fake.mem, ranges, results, n, FALSE);
    hpb_memory_free(fake.mem);
}

static void test_cancel(void)
{
    for (unsigned at = 0; at < 7; at++) {
        check_cancel(at);
    }
}

/* Each retry looks at the flag, so a kernel that always says EINTR is left. */
static void test_cancel_while_retrying(void)
{
    FakeMemory fake;
    HpbRange ranges[] = { { 0, 2 * MIB }, { 2 * MIB, 2 * MIB } };
    HpbResult results[2];

    fake_memory_new(&fake);
    test_faults.call = TEST_CALL_MADVISE;
    test_faults.first = 1;
    test_faults.times = 1000;
    test_faults.error = EINTR;
    test_faults.cancel_at = 0;
    test_faults.cancel = 1;
    g_assert_false(hpb_memory_discard(fake.mem, ranges, 2, results,
                                      &test_faults.cancel));
    g_assert_cmpuint(test_faults.calls[TEST_CALL_MADVISE], ==, 0);
    hpb_memory_free(fake.mem);

    /* The flag comes up in the third try */
    fake_memory_new(&fake);
    test_faults.bad_range = TRUE;
    test_faults.bad_offset = 0;
    test_faults.bad_error = EAGAIN;
    test_faults.cancel_at = 3;
    g_assert_false(hpb_memory_discard(fake.mem, ranges, 2, results,
                                      &test_faults.cancel));
    g_assert_cmpuint(test_faults.frees, ==, 3);
    g_assert_cmpint(results[0].error, ==, -ECANCELED);
    g_assert_cmpint(results[1].error, ==, -ECANCELED);
    assert_consistent(&fake.map, fake.mem, ranges, results, 2, FALSE);
    hpb_memory_free(fake.mem);
}

/* Bursts of EINTR and EAGAIN are sat out, 16 in a row; a 17th is too many. */
static void test_retry_limit(void)
{
    static const int repeat[] = { EINTR, EAGAIN };

    for (size_t i = 0; i < G_N_ELEMENTS(repeat); i++) {
        for (unsigned times = 16; times <= 17; times++) {
            HpbRange range = { 0, 2 * MIB };
            HpbCounters count;
            HpbResult result;
            FakeMemory fake;
            gboolean ok;

            fake_memory_new(&fake);
            test_faults.call = TEST_CALL_MADVISE;
            test_faults.first = 1;
            test_faults.times = times;
            test_faults.error = repeat[i];
            ok = hpb_memory_discard(fake.mem, &range, 1, &result, NULL);
            g_assert_true(ok == (times == 16));
            g_assert_cmpint(result.error, ==, ok ? 0 : -EBUSY);
            hpb_memory_discard_counters(fake.mem, &count);
            g_assert_cmpuint(count.syscalls, ==, 17);
            g_assert_cmpuint(count.retries, ==, 16);
            test_assert_counters(fake.mem);
            hpb_memory_free(fake.mem);
        }
    }
}

/* Old kernel: MADV_DONTNEED refuses locked memory, the other advice is unknown. */
static void test_no_dontneed_locked(void)
{
    FakeMemory fake;
    HpbRange range = { 0, 2 * MIB };
    HpbResult result;

    fake_memory_new(&fake);
    test_faults.bad_range = TRUE;
    test_faults.bad_offset = 0;
    test_faults.bad_error = EINVAL;
    g_assert_false(hpb_memory_discard(fake.mem, &range, 1, &result, NULL));
    g_assert_cmpint(result.error, ==, -ENOTSUP);
    g_assert_cmpuint(test_faults.frees, ==, 2);
    g_assert_cmpint(hpb_memory_method(fake.mem), ==, HPB_METHOD_DONTNEED);
    hpb_memory_free(fake.mem);
}

/* Locked memory and a kernel that can: found out once, remembered. */
static void test_dontneed_locked(void)
{
    FakeMemory fake;
    HpbRange range = { 0, 2 * MIB };

    fake_memory_new(&fake);
    test_faults.bad_advice = MADV_DONTNEED;
    g_assert_true(hpb_memory_discard(fake.mem, &range, 1, NULL, NULL));
    g_assert_cmpuint(test_faults.frees, ==, 2);
    g_assert_cmpint(hpb_memory_method(fake.mem), ==,
                    HPB_METHOD_DONTNEED_LOCKED);
    g_assert_true(hpb_memory_discard(fake.mem, &range, 1, NULL, NULL));
    g_assert_cmpuint(test_faults.frees, ==, 3);
    hpb_memory_free(fake.mem);
}

/* Thousands of ranges: neighbours in one call, others in one each. */
static void test_many_ranges(void)
{
    enum { N = 4096 };
    g_autofree HpbRange *ranges = g_new(HpbRange, N);
    g_autofree HpbResult *results = g_new(HpbResult, N);
    FakeMemory fake;

    for (int step = 1; step <= 2; step++) {
        fake_memory_new(&fake);
        for (uint64_t i = 0; i < N; i++) {
            ranges[i] = (HpbRange) { i * step * 2 * MIB, 2 * MIB };
        }
        g_assert_true(hpb_memory_discard(fake.mem, ranges, N, results, NULL));
        g_assert_cmpuint(test_faults.frees, ==,
                         step == 1 ? N / (SLICE / (2 * MIB)) : N);
        assert_consistent(&fake.map, fake.mem, ranges, results, N, TRUE);
        hpb_memory_free(fake.mem);
    }
}

/*
 * All ranges of a long run fail: each is tried once more, not the rest of the
 * run for each, which would be quadratic.
 */
static void test_all_bad(void)
{
    enum { N = 4096 };
    g_autofree HpbRange *ranges = g_new(HpbRange, N);
    g_autofree HpbResult *results = g_new(HpbResult, N);
    FakeMemory fake;

    fake_memory_new(&fake);
    for (uint64_t i = 0; i < N; i++) {
        ranges[i] = (HpbRange) { i * 4096, 4096 };
    }
    test_faults.call = TEST_CALL_MADVISE;
    test_faults.first = 1;
    test_faults.times = UINT_MAX;
    test_faults.error = EPERM;
    g_assert_false(hpb_memory_discard(fake.mem, ranges, N, results, NULL));
    g_assert_cmpuint(test_faults.calls[TEST_CALL_MADVISE], ==, N + 1);
    for (size_t i = 0; i < N; i++) {
        g_assert_cmpint(results[i].error, ==, -EPERM);
    }
    test_assert_counters(fake.mem);
    hpb_memory_free(fake.mem);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/discard/faults/each-call", test_each_call);
    g_test_add_func("/discard/faults/bad-range", test_bad_range);
    g_test_add_func("/discard/faults/partial", test_partial);
    g_test_add_func("/discard/faults/retry-limit", test_retry_limit);
    g_test_add_func("/discard/faults/no-dontneed-locked",
                    test_no_dontneed_locked);
    g_test_add_func("/discard/faults/dontneed-locked", test_dontneed_locked);
    g_test_add_func("/discard/faults/all-bad", test_all_bad);
    g_test_add_func("/discard/cancel/slices", test_slices);
    g_test_add_func("/discard/cancel/slices-one-by-one",
                    test_slices_one_by_one);
    g_test_add_func("/discard/cancel/slices-huge-pages",
                    test_slices_huge_pages);
    g_test_add_func("/discard/cancel/each-slice", test_cancel);
    g_test_add_func("/discard/cancel/retrying", test_cancel_while_retrying);
    g_test_add_func("/discard/many-ranges", test_many_ranges);
    return g_test_run();
}
