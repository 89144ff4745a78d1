/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/discard.c on real memory: exactly the ranges are
 * freed, neighbours keep their contents and stay huge. Huge page pools are in
 * discard-hugetlb-test.c, failing system calls in discard-faults-test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "support.h"

#define LENGTH (64 * MIB)

static const TestKind kinds[] = {
    TEST_ANON_THP, TEST_ANON_4K, TEST_ANON_SHARED, TEST_MEMFD, TEST_TMPFS_FILE,
    TEST_DISK_FILE,
};

static gboolean thp_available(void)
{
    g_autofree char *text = NULL;

    return g_file_get_contents("/sys/kernel/mm/transparent_hugepage/enabled",
                               &text, NULL, NULL) && !strstr(text, "[never]");
}

static void assert_all_done(const HpbRange *ranges, const HpbResult *results,
                            size_t n)
{
    for (size_t i = 0; i < n; i++) {
        g_assert_cmpint(results[i].error, ==, 0);
        g_assert_cmpuint(results[i].done, ==, ranges[i].length);
        g_assert_cmpuint(results[i].reserved, ==, 0);
    }
}

/*
 * Every second @size bytes are still held, by the mapping or by its file. Page
 * tables tell nothing about files: the kernel unmaps pages when it splits
 * large ones in the page cache.
 */
static void assert_half_left(TestMap *map, uint64_t size)
{
    if (map->kind == TEST_DISK_FILE) {
        /* Indirect blocks count too */
        g_assert_cmpuint(test_map_file_bytes(map), >=, LENGTH / 2);
        g_assert_cmpuint(test_map_file_bytes(map), <, LENGTH / 2 + 1 * MIB);
    } else if (map->desc.fd != -1) {
        g_assert_cmpuint(test_map_file_bytes(map), ==, LENGTH / 2);
    } else if (map->kind == TEST_ANON_SHARED) {
        g_assert_cmpuint(test_map_resident(map, 0, LENGTH), ==,
                         LENGTH / 2 / 4096);
    } else {
        for (uint64_t at = size; at < LENGTH; at += 2 * size) {
            g_assert_cmpuint(test_map_present(map, at, size), ==, size / 4096);
        }
    }
}

/*
 * Discard every second range of @size and look at all of them: what was freed
 * is gone and reads zero, what was not is there with its contents.
 */
static void check_every_second(const void *data, uint64_t size)
{
    TestKind kind = *(const TestKind *)data;
    g_autoptr(TestMap) map = test_map_new(kind, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    size_t n = LENGTH / size / 2;
    g_autofree HpbRange *ranges = g_new(HpbRange, n);
    g_autofree HpbResult *results = g_new(HpbResult, n);
    HpbCounters count;

    if (!map) {
        return;
    }
    mem = test_memory_new(map, NULL);
    test_map_fill(map, 0, LENGTH);
    g_assert_cmpuint(test_map_present(map, 0, LENGTH), ==, LENGTH / 4096);
    for (size_t i = 0; i < n; i++) {
        ranges[i] = (HpbRange) { .offset = i * 2 * size, .length = size };
    }
    memset(results, 0xff, n * sizeof(*results));
    g_assert_true(hpb_memory_discard(mem, ranges, n, results, NULL));
    assert_all_done(ranges, results, n);

    for (size_t i = 0; i < n; i++) {
        g_assert_cmpuint(test_map_present(map, ranges[i].offset, size), ==, 0);
    }
    assert_half_left(map, size);
    for (size_t i = 0; i < n; i++) {
        test_map_assert_zero(map, ranges[i].offset, size);
        test_map_assert_filled(map, ranges[i].offset + size, size);
    }

    hpb_memory_discard_counters(mem, &count);
    test_assert_counters(mem);
    g_assert_cmpuint(count.ranges_done, ==, n);
    g_assert_cmpuint(count.bytes_done, ==, LENGTH / 2);
    if (hpb_memory_vectored(mem)) {
        g_assert_cmpuint(count.vectored, ==, count.syscalls);
    } else {
        g_assert_cmpuint(count.syscalls, ==, n);
    }
    g_assert_cmpuint(count.retries, ==, 0);
}

static void test_exact_2m(const void *data)
{
    check_every_second(data, 2 * MIB);
}

static void test_exact_4k(const void *data)
{
    check_every_second(data, 4 * KIB);
}

/* Neighbours in a list become few calls; what lies around them stays. */
static void test_run(const void *data)
{
    TestKind kind = *(const TestKind *)data;
    g_autoptr(TestMap) map = test_map_new(kind, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange ranges[24];
    HpbResult results[24];
    HpbCounters count;

    if (!map) {
        return;
    }
    mem = test_memory_new(map, NULL);
    test_map_fill(map, 0, LENGTH);
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        ranges[i] = (HpbRange) { .offset = (4 + i) * 2 * MIB,
                                 .length = 2 * MIB };
    }
    g_assert_true(hpb_memory_discard(mem, ranges, G_N_ELEMENTS(ranges), results,
                                     NULL));
    assert_all_done(ranges, results, G_N_ELEMENTS(ranges));
    g_assert_cmpuint(test_map_present(map, 8 * MIB, 48 * MIB), ==, 0);
    test_map_assert_filled(map, 0, 8 * MIB);
    test_map_assert_filled(map, 56 * MIB, 8 * MIB);
    test_map_assert_zero(map, 8 * MIB, 48 * MIB);
    hpb_memory_discard_counters(mem, &count);
    g_assert_cmpuint(count.syscalls, ==, 1);
    test_assert_counters(mem);
}

/* Freed, filled, freed again: memory comes back and goes again. */
static void test_again(const void *data)
{
    TestKind kind = *(const TestKind *)data;
    g_autoptr(TestMap) map = test_map_new(kind, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange all = { .offset = 0, .length = LENGTH };

    if (!map) {
        return;
    }
    mem = test_memory_new(map, NULL);
    for (int i = 0; i < 3; i++) {
        test_map_fill(map, 0, LENGTH);
        g_assert_true(hpb_memory_discard(mem, &all, 1, NULL, NULL));
        g_assert_cmpuint(test_map_present(map, 0, LENGTH), ==, 0);
        /* What is not there can be freed all the same */
        g_assert_true(hpb_memory_discard(mem, &all, 1, NULL, NULL));
    }
    test_map_assert_zero(map, 0, LENGTH);
}

/* Huge pages: those in the ranges go, all others stay huge. */
static void test_thp_whole(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_THP, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange ranges[] = {
        { .offset = 2 * MIB, .length = 2 * MIB },
        { .offset = 6 * MIB, .length = 10 * MIB },
        { .offset = 40 * MIB, .length = 24 * MIB },
    };
    uint64_t huge;

    if (!thp_available()) {
        g_test_skip("transparent huge pages are off on this machine");
        return;
    }
    mem = test_memory_new(map, NULL);
    g_assert_cmpuint(hpb_memory_preferred_range(mem), ==, THP_SIZE);
    test_map_fill(map, 0, LENGTH);
    huge = test_map_anon_huge(map);
    if (huge != LENGTH) {
        g_test_skip("the kernel had not enough free huge pages");
        return;
    }
    g_assert_true(hpb_memory_discard(mem, ranges, G_N_ELEMENTS(ranges), NULL,
                                     NULL));
    g_assert_cmpuint(test_map_anon_huge(map), ==, LENGTH - 36 * MIB);
    g_assert_cmpuint(test_map_present(map, 0, LENGTH), ==,
                     (LENGTH - 36 * MIB) / 4096);
    test_map_assert_filled(map, 0, 2 * MIB);
    test_map_assert_filled(map, 4 * MIB, 2 * MIB);
    test_map_assert_filled(map, 16 * MIB, 24 * MIB);
    g_assert_cmpuint(test_map_anon_huge(map), ==, LENGTH - 36 * MIB);
}

/* fd_offset counts: the mapping is the second half of the file. */
static void test_file_offset(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange range = { .offset = 2 * MIB, .length = 4 * MIB };
    g_autofree char *text = g_malloc0(LENGTH);

    memset(text, 'x', LENGTH);
    g_assert_no_errno(ftruncate(map->desc.fd, 2 * LENGTH));
    g_assert_cmpint(pwrite(map->desc.fd, text, LENGTH, 0), ==, LENGTH);
    g_assert_true(mmap(map->host, LENGTH, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_FIXED, map->desc.fd, LENGTH) ==
                  map->host);
    map->desc.fd_offset = LENGTH;
    test_map_fill(map, 0, LENGTH);
    mem = test_memory_new(map, NULL);
    g_assert_true(hpb_memory_discard(mem, &range, 1, NULL, NULL));
    g_assert_cmpuint(test_map_file_bytes(map), ==, 2 * LENGTH - 4 * MIB);
    test_map_assert_zero(map, 2 * MIB, 4 * MIB);
    test_map_assert_filled(map, 0, 2 * MIB);
    test_map_assert_filled(map, 6 * MIB, LENGTH - 6 * MIB);
    memset(text, 0, LENGTH);
    g_assert_cmpint(pread(map->desc.fd, text, LENGTH, 0), ==, LENGTH);
    for (size_t i = 0; i < LENGTH; i++) {
        g_assert_cmpint(text[i], ==, 'x');
    }
}

/* Not mlock(): address sanitizers make that do nothing. */
static int lock_memory(void *addr, size_t length)
{
    return (int)syscall(SYS_mlock, addr, length);
}

static void test_mlocked(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 8 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange range = { .offset = 0, .length = 4 * MIB };
    HpbCounters count;

    if (lock_memory(map->host + 2 * MIB, 4 * MIB)) {
        g_test_skip("memory cannot be locked (limit too low)");
        return;
    }
    test_map_fill(map, 0, 8 * MIB);
    mem = test_memory_new(map, NULL);
    g_assert_true(hpb_memory_discard(mem, &range, 1, NULL, NULL));
    g_assert_cmpuint(test_map_present(map, 0, 4 * MIB), ==, 0);
    test_map_assert_filled(map, 4 * MIB, 4 * MIB);
    g_assert_cmpint(hpb_memory_method(mem), ==, HPB_METHOD_DONTNEED_LOCKED);

    /* It is the method now, also where nothing is locked */
    range.offset = 4 * MIB;
    g_assert_true(hpb_memory_discard(mem, &range, 1, NULL, NULL));
    g_assert_cmpuint(test_map_present(map, 4 * MIB, 4 * MIB), ==, 0);
    hpb_memory_discard_counters(mem, &count);
    g_assert_cmpuint(count.syscalls, ==, 3);
    test_assert_counters(mem);
}

/* MADV_REMOVE has no variant for locked memory: said so, not hidden. */
static void test_mlocked_shared(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_SHARED, 8 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange ranges[] = { { 0, 2 * MIB }, { 2 * MIB, 2 * MIB } };
    HpbResult results[2];

    if (lock_memory(map->host + 2 * MIB, 2 * MIB)) {
        g_test_skip("memory cannot be locked (limit too low)");
        return;
    }
    test_map_fill(map, 0, 8 * MIB);
    mem = test_memory_new(map, NULL);
    g_assert_false(hpb_memory_discard(mem, ranges, 2, results, NULL));
    g_assert_cmpint(results[0].error, ==, 0);
    g_assert_cmpint(results[1].error, ==, -ENOTSUP);
    g_assert_cmpuint(results[1].done, ==, 0);
    g_assert_cmpint(hpb_memory_method(mem), ==, HPB_METHOD_REMOVE);
    g_assert_cmpuint(test_map_present(map, 0, 2 * MIB), ==, 0);
    test_map_assert_filled(map, 2 * MIB, 6 * MIB);
    test_assert_counters(mem);
}

/* Registered with userfaultfd, as QEMU does for postcopy and snapshots. */
static void test_userfaultfd(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 8 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange range = { .offset = 2 * MIB, .length = 2 * MIB };
    struct uffdio_api api = { .api = UFFD_API };
    struct uffdio_register reg = {
        .range = { .start = (uintptr_t)map->host, .len = 8 * MIB },
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    struct uffdio_zeropage zero = {
        .range = { .start = (uintptr_t)map->host + 2 * MIB, .len = 2 * MIB },
    };
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

    if (fd == -1) {
        g_test_skip("no userfaultfd (kernel without it, or not root)");
        return;
    }
    test_map_fill(map, 0, 8 * MIB);
    g_assert_no_errno(ioctl(fd, UFFDIO_API, &api));
    g_assert_no_errno(ioctl(fd, UFFDIO_REGISTER, &reg));
    mem = test_memory_new(map, NULL);
    g_assert_true(hpb_memory_discard(mem, &range, 1, NULL, NULL));
    g_assert_cmpuint(test_map_present(map, 2 * MIB, 2 * MIB), ==, 0);
    /* Only a missing page can be placed */
    g_assert_no_errno(ioctl(fd, UFFDIO_ZEROPAGE, &zero));
    close(fd);
    test_map_assert_zero(map, 2 * MIB, 2 * MIB);
    test_map_assert_filled(map, 0, 2 * MIB);
    test_map_assert_filled(map, 4 * MIB, 4 * MIB);
}

/* Bad ranges between good ones are answered and cost these nothing. */
static void test_bad_ranges(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    static const struct {
        HpbRange range;
        int error;
    } table[] = {
        { { 0, 4096 }, 0 },
        { { 4096, 100 }, -EINVAL },
        { { 4096, 0 }, -EINVAL },
        { { 4097, 4096 }, -EINVAL },
        { { 8192, 4096 }, 0 },
        { { LENGTH, 4096 }, -ERANGE },
        { { LENGTH - 4096, 8192 }, -ERANGE },
        { { LENGTH + 4096, 4096 }, -ERANGE },
        { { 0, LENGTH + 4096 }, -ERANGE },
        { { UINT64_MAX - 4095, 4096 }, -ERANGE },
        { { 4096, UINT64_MAX - 4095 }, -ERANGE },
        { { UINT64_MAX - 4095, 8192 }, -ERANGE },
        { { UINT64_MAX, UINT64_MAX }, -EINVAL },
        { { LENGTH - 4096, 4096 }, 0 },
        { { 12288, 4096 }, 0 },
    };
    HpbRange ranges[G_N_ELEMENTS(table)];
    HpbResult results[G_N_ELEMENTS(table)];
    HpbCounters count;

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        ranges[i] = table[i].range;
    }
    mem = test_memory_new(map, NULL);
    test_map_fill(map, 0, LENGTH);
    g_assert_false(hpb_memory_discard(mem, ranges, G_N_ELEMENTS(table), results,
                                      NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        g_assert_cmpint(results[i].error, ==, table[i].error);
        g_assert_cmpuint(results[i].done, ==,
                         table[i].error ? 0 : table[i].range.length);
    }
    g_assert_cmpuint(test_map_file_bytes(map), ==, LENGTH - 16 * KIB);
    test_map_assert_filled(map, 4096, 4096);
    test_map_assert_filled(map, 16384, LENGTH - 16384 - 4096);
    hpb_memory_discard_counters(mem, &count);
    g_assert_cmpuint(count.ranges_invalid, ==, G_N_ELEMENTS(table) - 4);
    g_assert_cmpuint(count.ranges_done, ==, 4);
    g_assert_cmpuint(count.bytes, ==, 16 * KIB);
    test_assert_counters(mem);
}

/* Nothing to do is done; overlaps and any order are allowed. */
static void test_odd_lists(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange ranges[] = {
        { 8 * MIB, 4 * MIB }, { 4 * MIB, 4 * MIB }, { 10 * MIB, 4 * MIB },
        { 8 * MIB, 4 * MIB },
    };
    HpbResult results[4];

    mem = test_memory_new(map, NULL);
    test_map_fill(map, 0, LENGTH);
    g_assert_true(hpb_memory_discard(mem, NULL, 0, NULL, NULL));
    g_assert_true(hpb_memory_discard(mem, ranges, 4, results, NULL));
    assert_all_done(ranges, results, 4);
    g_assert_cmpuint(test_map_present(map, 0, LENGTH), ==,
                     (LENGTH - 10 * MIB) / 4096);
    test_map_assert_filled(map, 0, 4 * MIB);
    test_map_assert_filled(map, 14 * MIB, LENGTH - 14 * MIB);
    test_assert_counters(mem);
}

/* What the owner of the file forbids later is answered, not hidden. */
static void test_sealed_later(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, 4 * MIB, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
    HpbRange range = { 0, 2 * MIB };
    HpbResult result;

    test_map_fill(map, 0, 4 * MIB);
    g_assert_no_errno(fcntl(map->desc.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    g_assert_false(hpb_memory_discard(mem, &range, 1, &result, NULL));
    g_assert_cmpint(result.error, ==, -EPERM);
    g_assert_cmpint(hpb_outcome_from_error(result.error), ==,
                    HPB_OUTCOME_DENIED);
    test_map_assert_filled(map, 0, 4 * MIB);
    test_assert_counters(mem);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        GTestDataFunc func;
    } each[] = {
        { "exact-2m", test_exact_2m },
        { "exact-4k", test_exact_4k },
        { "run", test_run },
        { "again", test_again },
    };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(each); i++) {
        for (size_t k = 0; k < G_N_ELEMENTS(kinds); k++) {
            g_autofree char *path =
                g_strdup_printf("/discard/%s/%s", each[i].name,
                                test_kind_names[kinds[k]]);

            g_test_add_data_func(path, &kinds[k], each[i].func);
        }
    }
    g_test_add_func("/discard/thp-whole", test_thp_whole);
    g_test_add_func("/discard/file-offset", test_file_offset);
    g_test_add_func("/discard/mlocked/private", test_mlocked);
    g_test_add_func("/discard/mlocked/shared", test_mlocked_shared);
    g_test_add_func("/discard/userfaultfd", test_userfaultfd);
    g_test_add_func("/discard/bad-ranges", test_bad_ranges);
    g_test_add_func("/discard/odd-lists", test_odd_lists);
    g_test_add_func("/discard/sealed-later", test_sealed_later);
    return g_test_run();
}
