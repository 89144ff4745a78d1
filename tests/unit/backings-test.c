/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of libhpballoon: every kind of memory, under every setting of the
 * machine that matters to it, provided, looked at, freed, provided again.
 * Changes settings while it runs (see settings.c); pools of huge pages are in
 * the *-hugetlb-test.c.
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

#define LENGTH (32 * MIB)
#define N (LENGTH / (4 * MIB))

typedef struct Row {
    const char *name;
    TestKind kind;
    const char *setting;    /* of transparent_hugepage/, or NULL */
    const char *value;
    gboolean huge;          /* what is provided is huge */
    gboolean locked;        /* all of it is mlocked */
} Row;

static const Row rows[] = {
    { "anonymous/always", TEST_ANON_PLAIN, "enabled", "always", TRUE, FALSE },
    { "anonymous/madvise", TEST_ANON_PLAIN, "enabled", "madvise", FALSE, FALSE },
    { "anonymous/madvise/advised", TEST_ANON_THP, "enabled", "madvise", TRUE,
      FALSE },
    { "anonymous/never", TEST_ANON_THP, "enabled", "never", FALSE, FALSE },
    { "anonymous/locked", TEST_ANON_THP, "enabled", "madvise", TRUE, TRUE },
    { "anonymous/locked/small", TEST_ANON_4K, NULL, NULL, FALSE, TRUE },
    { "memfd/always", TEST_MEMFD, "shmem_enabled", "always", TRUE, FALSE },
    { "memfd/never", TEST_MEMFD, "shmem_enabled", "never", FALSE, FALSE },
    { "memfd/locked", TEST_MEMFD, "shmem_enabled", "never", FALSE, TRUE },
    { "anonymous-shared/always", TEST_ANON_SHARED, "shmem_enabled", "always",
      TRUE, FALSE },
    { "anonymous-shared/never", TEST_ANON_SHARED, "shmem_enabled", "never",
      FALSE, FALSE },
    { "tmpfs/small", TEST_TMPFS_FILE, "shmem_enabled", "never", FALSE, FALSE },
    { "disk", TEST_DISK_FILE, NULL, NULL, FALSE, FALSE },
};

/* All of it is provided, and huge if this machine has huge pages left. */
static gboolean provide(const Row *row, HpbMemory *mem)
{
    HpbRange all = { 0, LENGTH };
    HpbSummary sum;

    g_assert_true(hpb_memory_populate(mem, &all, 1, 2 * MIB, NULL, NULL));
    g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
    g_assert_cmpuint(sum.present, ==, LENGTH);
    g_assert_cmpuint(sum.zero, ==, 0);
    g_assert_cmpuint(sum.holes, ==, 0);
    if (row->huge && (hpb_memory_scan_flags(mem) & HPB_SCAN_HUGE) &&
        sum.huge != LENGTH) {
        g_test_skip("the kernel had not enough free huge pages, or has none of "
                    "this kind");
        return FALSE;
    }
    g_assert_true(row->huge || sum.huge == 0);
    return TRUE;
}

static void test_row(const void *data)
{
    const Row *row = data;
    g_autoptr(TestMap) map = test_map_new(row->kind, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange ranges[N], all = { 0, LENGTH };
    HpbSummary sum;

    if (!map) {
        return;
    }
    if (row->setting && !test_setting(row->setting, row->value)) {
        g_test_skip("setting cannot be changed (needs root and THP)");
        return;
    }
    /* Not mlock(): address sanitizers make that do nothing */
    if (row->locked && syscall(SYS_mlock2, map->host, LENGTH, MLOCK_ONFAULT)) {
        g_test_skip("memory cannot be locked (limit too low)");
        return;
    }
    mem = test_memory_new(map, NULL);
    if (!provide(row, mem)) {
        return;
    }
    test_map_fill(map, 0, LENGTH);
    for (uint64_t i = 0; i < N; i++) {
        ranges[i] = (HpbRange) { i * 4 * MIB, 2 * MIB };
    }
    g_assert_true(hpb_memory_discard(mem, ranges, N, NULL, NULL));
    g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
    if (row->kind != TEST_ANON_SHARED && row->kind != TEST_DISK_FILE) {
        /* Page tables alone do not know of these two's page cache */
        g_assert_cmpuint(sum.held, ==, LENGTH / 2);
    }
    if (row->huge && sum.present == LENGTH / 2) {
        g_assert_cmpuint(sum.huge, ==, LENGTH / 2);
    }
    for (size_t i = 0; i < N; i++) {
        test_map_assert_filled(map, ranges[i].offset + 2 * MIB, 2 * MIB);
    }
    /* Again and whole; what was kept is still there */
    if (!provide(row, mem)) {
        return;
    }
    for (size_t i = 0; i < N; i++) {
        test_map_assert_zero(map, ranges[i].offset, 2 * MIB);
        test_map_assert_filled(map, ranges[i].offset + 2 * MIB, 2 * MIB);
    }
    g_assert_true(hpb_memory_discard(mem, &all, 1, NULL, NULL));
    g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
    g_assert_cmpuint(sum.holes, ==, LENGTH);
    test_assert_counters(mem);
}

/*
 * Registered with userfaultfd by somebody who wants no signal and is not asked:
 * populate is answered instead of waiting for ever, and frees work.
 */
static void test_userfaultfd(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
    struct uffdio_api api = { .api = UFFD_API,
                              .features = UFFD_FEATURE_SIGBUS };
    struct uffdio_register reg = {
        .range = { .start = (uintptr_t)map->host, .len = LENGTH },
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    HpbRange ranges[] = { { 0, 2 * MIB }, { 4 * MIB, 2 * MIB } };
    HpbRange all = { 0, LENGTH };
    HpbResult results[2];
    HpbSummary sum;
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

    if (fd == -1 || ioctl(fd, UFFDIO_API, &api)) {
        g_test_skip("no userfaultfd (kernel without it, or not root)");
        return;
    }
    test_map_fill(map, 4 * MIB, 2 * MIB);
    g_assert_no_errno(ioctl(fd, UFFDIO_REGISTER, &reg));
    g_assert_false(hpb_memory_populate(mem, ranges, 2, 2 * MIB, results, NULL));
    g_assert_cmpint(results[0].error, ==, -ENOMEM);
    g_assert_cmpint(results[1].error, ==, 0);
    g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
    g_assert_cmpuint(sum.held, ==, 2 * MIB);
    g_assert_true(hpb_memory_discard(mem, ranges, 2, results, NULL));
    close(fd);
    g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
    g_assert_cmpuint(sum.holes, ==, LENGTH);
}

/* Without a call that may be missing on other kernels: the same result. */
static void test_disabled(void)
{
    static const TestKind kinds[] = { TEST_ANON_4K, TEST_MEMFD,
                                      TEST_ANON_SHARED, TEST_DISK_FILE };

    for (uint32_t disabled = 1; disabled < 2 * HPB_NO_COLLAPSE; disabled <<= 1) {
        for (size_t k = 0; k < G_N_ELEMENTS(kinds); k++) {
            g_autoptr(TestMap) map = test_map_new(kinds[k], LENGTH, 0);
            g_autoptr(HpbMemory) mem = NULL;
            HpbRange ranges[] = { { 0, 2 * MIB }, { 4 * MIB, 2 * MIB },
                                  { 8 * MIB, 8 * MIB } };

            if (!map) {
                continue;
            }
            map->desc.disabled = disabled;
            mem = test_memory_new(map, NULL);
            test_map_fill(map, 0, LENGTH);
            g_assert_true(hpb_memory_discard(mem, ranges, 3, NULL, NULL));
            for (size_t i = 0; i < 3; i++) {
                g_assert_cmpuint(test_map_present(map, ranges[i].offset,
                                                  ranges[i].length), ==, 0);
                test_map_assert_zero(map, ranges[i].offset, ranges[i].length);
            }
            test_map_assert_filled(map, 2 * MIB, 2 * MIB);
            test_map_assert_filled(map, 6 * MIB, 2 * MIB);
            test_map_assert_filled(map, 16 * MIB, 16 * MIB);
            if (disabled == HPB_NO_PUNCH_HOLE && map->desc.fd != -1) {
                g_assert_cmpint(hpb_memory_method(mem), ==, HPB_METHOD_REMOVE);
            }
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *path = g_strdup_printf("/backings/%s", rows[i].name);

        g_test_add_data_func(path, &rows[i], test_row);
    }
    g_test_add_func("/backings/userfaultfd", test_userfaultfd);
    g_test_add_func("/backings/disabled", test_disabled);
    return test_run_with_settings();
}
