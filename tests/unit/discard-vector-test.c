/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of many ranges in one call (helper/lib/discard.c, work.c): the
 * same answers as one by one, whatever the call refuses, breaks off or lacks.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "support.h"

#define SLICE (256 * MIB)
#define LENGTH (1 * GIB)
#define N 256

/* Every second 2 MiB. */
static void every_second(HpbRange *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ranges[i] = (HpbRange) { i * 4 * MIB, 2 * MIB };
    }
}

/* Answers, memory and sums agree; @bad: index of the range that fails, or N. */
static void assert_freed(TestMap *map, HpbMemory *mem, const HpbRange *ranges,
                         const HpbResult *results, size_t n, size_t bad,
                         int error)
{
    HpbCounters count;
    uint64_t bytes = 0;

    for (size_t i = 0; i < n; i++) {
        gboolean good = i != bad;

        g_assert_cmpint(results[i].error, ==, good ? 0 : error);
        g_assert_cmpuint(results[i].done, ==, good ? ranges[i].length : 0);
        g_assert_cmpuint(test_map_present(map, ranges[i].offset, 4096), ==,
                         good ? 0 : 1);
        test_map_assert_filled(map, ranges[i].offset + ranges[i].length, 4096);
        bytes += results[i].done;
    }
    hpb_memory_discard_counters(mem, &count);
    g_assert_cmpuint(count.ranges_done, ==, n - (bad < n));
    g_assert_cmpuint(count.bytes_done, ==, bytes);
    test_assert_counters(mem);
}

/* First and next page of each range; the next is not in it. */
static void fill(TestMap *map, const HpbRange *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        test_map_fill(map, ranges[i].offset, 4096);
        test_map_fill(map, ranges[i].offset + ranges[i].length, 4096);
    }
}

/* The kernel's own call, where it has one, and without it. */
static void test_real(void)
{
    for (uint32_t disabled = 0; disabled <= HPB_NO_PROCESS_MADVISE; disabled++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange ranges[N];
        HpbResult results[N];
        HpbCounters count;

        map->desc.disabled = disabled;
        mem = test_memory_new(map, NULL);
        every_second(ranges, N);
        fill(map, ranges, N);
        g_assert_true(hpb_memory_discard(mem, ranges, N, results, NULL));
        assert_freed(map, mem, ranges, results, N, N, 0);
        hpb_memory_discard_counters(mem, &count);
        if (disabled) {
            g_assert_false(hpb_memory_vectored(mem));
        }
        if (hpb_memory_vectored(mem)) {
            /* 128 ranges of 2 MiB fill a slice */
            g_assert_cmpuint(count.syscalls, ==, N / 128);
            g_assert_cmpuint(count.vectored, ==, N / 128);
        } else {
            g_test_message("one by one: %s", disabled ? "as asked"
                           : "this kernel has no vectored call");
            g_assert_cmpuint(count.syscalls, ==, N);
            g_assert_cmpuint(count.vectored, ==, 0);
        }
        g_assert_cmpuint(count.retries, ==, 0);
    }
}

/* Shared memory has no such call; it is not even looked for. */
static void test_shared(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, 4 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;

    test_faults_reset(map);
    test_faults.vector = TRUE;
    mem = test_memory_new(map, &test_fault_ops);
    g_assert_false(hpb_memory_vectored(mem));
    g_assert_cmpuint(test_faults.calls[TEST_CALL_PIDFD], ==, 0);
}

static HpbMemory *vector_memory(TestMap *map)
{
    HpbMemory *mem;

    test_faults_reset(map);
    test_faults.vector = TRUE;
    mem = test_memory_new(map, &test_fault_ops);
    g_assert_true(hpb_memory_vectored(mem));
    memset(test_faults.calls, 0, sizeof(test_faults.calls));
    return mem;
}

/* What the kernel lacks or forbids is found at creation. */
static void test_probe(void)
{
    static const TestCall calls[] = { TEST_CALL_PIDFD,
                                      TEST_CALL_PROCESS_MADVISE };
    static const int errors[] = { ENOSYS, EPERM, EINVAL, EMFILE };

    for (size_t c = 0; c < G_N_ELEMENTS(calls); c++) {
        for (size_t e = 0; e < G_N_ELEMENTS(errors); e++) {
            g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 4 * MIB, 0);
            g_autoptr(HpbMemory) mem = NULL;

            test_faults_reset(map);
            test_faults.vector = TRUE;
            test_faults.call = calls[c];
            test_faults.first = test_faults.times = 1;
            test_faults.error = errors[e];
            mem = test_memory_new(map, &test_fault_ops);
            g_assert_false(hpb_memory_vectored(mem));
        }
    }
}

/* The call fails once, then for good: run by run, all is freed. */
static void test_refused(void)
{
    static const struct {
        int error;
        gboolean stays;     /* not a reason to stop using the call */
    } table[] = {
        { EINVAL, TRUE }, { EAGAIN, TRUE }, { EINTR, TRUE }, { ENOMEM, TRUE },
        { EIO, TRUE }, { EPERM, FALSE }, { ENOSYS, FALSE }, { ESRCH, FALSE },
        { EBADF, FALSE },
    };

    for (size_t e = 0; e < G_N_ELEMENTS(table); e++) {
        for (unsigned times = 1; times <= 1000; times += 999) {
            g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
            g_autoptr(HpbMemory) mem = vector_memory(map);
            HpbRange ranges[N];
            HpbResult results[N];

            every_second(ranges, N);
            fill(map, ranges, N);
            test_faults.call = TEST_CALL_PROCESS_MADVISE;
            test_faults.first = 1;
            test_faults.times = times;
            test_faults.error = table[e].error;
            g_assert_true(hpb_memory_discard(mem, ranges, N, results, NULL));
            assert_freed(map, mem, ranges, results, N, N, 0);
            g_assert_true(hpb_memory_vectored(mem) == table[e].stays);
            if (!table[e].stays) {
                g_assert_cmpuint(test_faults.calls[TEST_CALL_PROCESS_MADVISE],
                                 ==, 1);
            }
        }
    }
}

/* It returns early, in the middle of anything: nothing is lost or done twice. */
static void test_short(void)
{
    static const uint64_t after[] = { 4096, 2 * MIB, 6 * MIB, 254 * MIB };

    for (size_t a = 0; a < G_N_ELEMENTS(after); a++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = vector_memory(map);
        HpbRange ranges[N];
        HpbResult results[N];
        uint64_t each = MAX(after[a] / (2 * MIB), 1);

        every_second(ranges, N);
        fill(map, ranges, N);
        test_faults.short_after = after[a];
        g_assert_true(hpb_memory_discard(mem, ranges, N, results, NULL));
        assert_freed(map, mem, ranges, results, N, N, 0);
        /* The last run is never one of several */
        g_assert_cmpuint(test_faults.vectors, >=, (N - 1) / each);
        g_assert_cmpuint(test_faults.vectors, <=, N / each + 2);
    }
}

/* Runs of several ranges; the call stops between two ranges of a run. */
static void test_short_in_run(void)
{
    static const HpbRange ranges[] = {
        { 0, 4096 }, { 4096, 4096 }, { 8192, 4096 }, { 1 * MIB, 4096 },
        { 1 * MIB + 4096, 4096 }, { 2 * MIB, 8192 },
    };
    static const size_t n = G_N_ELEMENTS(ranges);
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 4 * MIB, 0);
    g_autoptr(HpbMemory) mem = vector_memory(map);
    HpbResult results[G_N_ELEMENTS(ranges)];

    test_map_fill(map, 0, 4 * MIB);
    test_faults.bad_range = TRUE;
    test_faults.bad_offset = 4096;
    test_faults.bad_error = EIO;
    g_assert_false(hpb_memory_discard(mem, ranges, n, results, NULL));
    for (size_t i = 0; i < n; i++) {
        g_assert_cmpint(results[i].error, ==, i == 1 ? -EIO : 0);
        g_assert_cmpuint(test_map_present(map, ranges[i].offset,
                                          ranges[i].length), ==,
                         i == 1 ? 1 : 0);
    }
    test_assert_counters(mem);
}

/* One range cannot be freed: it alone is answered so, wherever it is. */
static void test_bad_range(void)
{
    static const size_t bad[] = { 0, 1, 127, 128, 255 };
    static const struct {
        int error, answer;
    } table[] = {
        { ENOMEM, -ENOMEM }, { EINVAL, -ENOTSUP }, { EAGAIN, -EBUSY },
        { EINTR, -EBUSY }, { EPERM, -EPERM },
    };

    for (size_t b = 0; b < G_N_ELEMENTS(bad); b++) {
        for (size_t e = 0; e < G_N_ELEMENTS(table); e++) {
            g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
            g_autoptr(HpbMemory) mem = vector_memory(map);
            HpbRange ranges[N];
            HpbResult results[N];

            every_second(ranges, N);
            fill(map, ranges, N);
            test_faults.bad_range = TRUE;
            test_faults.bad_offset = ranges[bad[b]].offset;
            test_faults.bad_error = table[e].error;
            g_assert_false(hpb_memory_discard(mem, ranges, N, results, NULL));
            assert_freed(map, mem, ranges, results, N, bad[b],
                         table[e].answer);
        }
    }
}

/* Invalid ranges and runs too long for a batch, between others. */
static void test_mixed(void)
{
    enum { length = 512 * MIB };
    static const HpbRange ranges[] = {
        { 0, 2 * MIB }, { 4 * MIB, 2 * MIB }, { 1, 4096 }, { 8 * MIB, 2 * MIB },
        { 12 * MIB, SLICE + 2 * MIB }, { length, 4096 },
        { 300 * MIB, 2 * MIB }, { 304 * MIB, 0 }, { 308 * MIB, 80 * MIB },
        { 390 * MIB, 80 * MIB }, { 472 * MIB, 2 * MIB },
    };
    static const int errors[] = { 0, 0, -EINVAL, 0, 0, -ERANGE, 0, -EINVAL };
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_THP, length, 0);
    g_autoptr(HpbMemory) mem = vector_memory(map);
    HpbResult results[G_N_ELEMENTS(ranges)];
    uint64_t freed = 0;

    g_assert_true(hpb_memory_populate(mem, &(HpbRange) { 0, length }, 1,
                                      2 * MIB, NULL, NULL));
    g_assert_false(hpb_memory_discard(mem, ranges, G_N_ELEMENTS(ranges),
                                      results, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        int error = i < G_N_ELEMENTS(errors) ? errors[i] : 0;

        g_assert_cmpint(results[i].error, ==, error);
        if (!error) {
            g_assert_cmpuint(test_map_present(map, ranges[i].offset,
                                              ranges[i].length), ==, 0);
            freed += ranges[i].length;
        }
    }
    g_assert_cmpuint(test_map_present(map, 0, length), ==,
                     (length - freed) / 4096);
    g_assert_cmpuint(test_faults.longest_vector, <=, SLICE);
    test_assert_counters(mem);
}

/* A cancel is seen between batches. */
static void test_cancel(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) mem = vector_memory(map);
    HpbRange ranges[N];
    HpbResult results[N];

    every_second(ranges, N);
    test_faults.frees = 0;
    test_faults.cancel_at = 1;
    g_assert_false(hpb_memory_discard(mem, ranges, N, results,
                                      &test_faults.cancel));
    for (size_t i = 0; i < N; i++) {
        g_assert_cmpint(results[i].error, ==, i < 128 ? 0 : -ECANCELED);
        g_assert_cmpuint(results[i].done, ==, i < 128 ? 2 * MIB : 0);
    }
    test_assert_counters(mem);
}

/* Locked memory among it: found, answered by the call for it, then batched. */
static void test_mlocked(void)
{
    for (uint32_t disabled = 0; disabled <= HPB_NO_DONTNEED_LOCKED;
         disabled += HPB_NO_DONTNEED_LOCKED) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange ranges[N];
        HpbResult results[N];

        map->desc.disabled = disabled;
        mem = test_memory_new(map, NULL);
        every_second(ranges, N);
        fill(map, ranges, N);
        /* Not mlock(): address sanitizers make that do nothing */
        if (syscall(SYS_mlock, map->host + ranges[5].offset, 4096)) {
            g_test_skip("memory cannot be locked (limit too low)");
            return;
        }
        g_assert_true(hpb_memory_discard(mem, ranges, N, results, NULL) ==
                      !disabled);
        assert_freed(map, mem, ranges, results, N, disabled ? 5 : N, -ENOTSUP);
        g_assert_cmpint(hpb_memory_method(mem), ==, disabled
                        ? HPB_METHOD_DONTNEED : HPB_METHOD_DONTNEED_LOCKED);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/discard/vector/real", test_real);
    g_test_add_func("/discard/vector/shared", test_shared);
    g_test_add_func("/discard/vector/probe", test_probe);
    g_test_add_func("/discard/vector/refused", test_refused);
    g_test_add_func("/discard/vector/short", test_short);
    g_test_add_func("/discard/vector/short-in-run", test_short_in_run);
    g_test_add_func("/discard/vector/bad-range", test_bad_range);
    g_test_add_func("/discard/vector/mixed", test_mixed);
    g_test_add_func("/discard/vector/cancel", test_cancel);
    g_test_add_func("/discard/vector/mlocked", test_mlocked);
    return g_test_run();
}
