/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/scan.c, pagemap.c and nodes.c: what is held, huge,
 * zero or not there, by each way to find out, and with calls that fail. Huge
 * page pools are in scan-hugetlb-test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "support.h"

#define LENGTH (16 * MIB)

/* The ways to scan: no matter which, where they can tell they tell the same */
static const uint32_t ways[] = { 0, HPB_NO_PAGEMAP_SCAN };

/* Scan all with room for @room runs at a time, and assert what scan.h promises. */
static size_t scan_all(HpbMemory *mem, HpbRun *runs, size_t n, size_t room)
{
    HpbRange rest = { 0, hpb_memory_length(mem) };
    g_autofree HpbRun *some = g_new(HpbRun, room);
    size_t used = 0;

    while (rest.length) {
        ssize_t got = hpb_memory_scan(mem, &rest, some, room);

        g_assert_cmpint(got, >, 0);
        g_assert_cmpuint(got, <=, room);
        for (ssize_t i = 0; i < got; i++) {
            g_assert_cmpuint(some[i].offset, ==, rest.offset);
            g_assert_cmpuint(some[i].length, >, 0);
            g_assert_cmpuint(some[i].length, <=, rest.length);
            g_assert_cmpuint(some[i].reserved, ==, 0);
            g_assert_cmpuint(some[i].flags & ~hpb_memory_scan_flags(mem), ==, 0);
            rest.offset += some[i].length;
            rest.length -= some[i].length;
            if (i) {
                g_assert_cmpuint(some[i].flags, !=, some[i - 1].flags);
            }
            if (used && runs[used - 1].flags == some[i].flags) {
                runs[used - 1].length += some[i].length;
            } else {
                g_assert_cmpuint(used, <, n);
                runs[used++] = some[i];
            }
        }
    }
    return used;
}

static void assert_runs(HpbMemory *mem, const HpbRun *expected, size_t n)
{
    for (size_t room = 1; room < 8; room++) {
        HpbRun runs[64];
        size_t used = scan_all(mem, runs, G_N_ELEMENTS(runs), room);

        for (size_t i = 0; i < MIN(used, n); i++) {
            g_assert_cmpuint(runs[i].offset, ==, expected[i].offset);
            g_assert_cmpuint(runs[i].length, ==, expected[i].length);
            g_assert_cmphex(runs[i].flags, ==,
                            expected[i].flags & hpb_memory_scan_flags(mem));
        }
        g_assert_cmpuint(used, ==, n);
    }
}

static HpbMemory *memory_by(TestMap *map, uint32_t disabled)
{
    map->desc.disabled = disabled;
    return test_memory_new(map, NULL);
}

/* Nothing, small pages, the zero page. */
static void test_small(void)
{
    enum { P = HPB_SCAN_PRESENT, Z = HPB_SCAN_PRESENT | HPB_SCAN_ZERO };
    static const HpbRun by_ioctl[] = {
        { 0, 1 * MIB, 0, 0 }, { 1 * MIB, 8192, P, 0 },
        { 1 * MIB + 8192, 4096, Z, 0 }, { 1 * MIB + 12288, 4096, P, 0 },
        { 1 * MIB + 16384, 3 * MIB - 16384, 0, 0 },
        { 4 * MIB, 4 * MIB, P, 0 }, { 8 * MIB, 8 * MIB, 0, 0 },
    };
    static const HpbRun by_pages[] = {
        { 0, 1 * MIB, 0, 0 }, { 1 * MIB, 16384, P, 0 },
        { 1 * MIB + 16384, 3 * MIB - 16384, 0, 0 },
        { 4 * MIB, 4 * MIB, P, 0 }, { 8 * MIB, 8 * MIB, 0, 0 },
    };

    for (size_t w = 0; w < G_N_ELEMENTS(ways); w++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = memory_by(map, ways[w]);
        HpbRange all = { 0, LENGTH };
        HpbSummary sum;

        test_map_fill(map, 1 * MIB, 8192);
        /* volatile: the read has to happen */
        g_assert_cmpint(*(volatile uint8_t *)(map->host + 1 * MIB + 8192), ==,
                        0);
        test_map_fill(map, 1 * MIB + 12288, 4096);
        test_map_fill(map, 4 * MIB, 4 * MIB);
        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
        if (hpb_memory_scan_method(mem) == HPB_SCAN_BY_IOCTL) {
            assert_runs(mem, by_ioctl, G_N_ELEMENTS(by_ioctl));
            g_assert_cmpuint(sum.zero, ==, 4096);
            g_assert_cmpuint(sum.held, ==, 4 * MIB + 12288);
        } else {
            assert_runs(mem, by_pages, G_N_ELEMENTS(by_pages));
            g_assert_cmpuint(sum.zero, ==, 0);
            g_assert_cmpuint(sum.held, ==, 4 * MIB + 16384);
        }
        g_assert_cmpuint(sum.bytes, ==, LENGTH);
        g_assert_cmpuint(sum.present, ==, 4 * MIB + 16384);
        g_assert_cmpuint(sum.holes, ==, LENGTH - 4 * MIB - 16384);
        g_assert_cmpuint(sum.huge + sum.data + sum.file, ==, 0);
    }
}

static void test_huge(void)
{
    enum { H = HPB_SCAN_PRESENT | HPB_SCAN_HUGE };
    static const HpbRun expected[] = {
        { 0, 2 * MIB, 0, 0 }, { 2 * MIB, 6 * MIB, H, 0 },
        { 8 * MIB, 8 * MIB, 0, 0 },
    };

    for (size_t w = 0; w < G_N_ELEMENTS(ways); w++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_THP, LENGTH, 0);
        g_autoptr(HpbMemory) mem = memory_by(map, ways[w]);

        test_map_fill(map, 2 * MIB, 6 * MIB);
        if (test_map_anon_huge(map) != 6 * MIB) {
            g_test_skip("no transparent huge pages on this machine");
            return;
        }
        assert_runs(mem, expected, G_N_ELEMENTS(expected));
    }
}

/* Written by pwrite(): in the page cache and mapped by nobody. */
static void test_file(const void *data)
{
    TestKind kind = *(const TestKind *)data;
    enum { P = HPB_SCAN_PRESENT, D = HPB_SCAN_DATA };
    static const HpbRun expected[] = {
        { 0, 2 * MIB, 0, 0 }, { 2 * MIB, 1 * MIB, D, 0 },
        { 3 * MIB, 1 * MIB, 0, 0 }, { 4 * MIB, 1 * MIB, P | D, 0 },
        { 5 * MIB, 11 * MIB, 0, 0 },
    };

    for (size_t w = 0; w < G_N_ELEMENTS(ways); w++) {
        g_autoptr(TestMap) map = test_map_new(kind, LENGTH, 0);
        g_autofree char *text = g_malloc0(1 * MIB);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange all = { 0, LENGTH };
        HpbSummary sum;

        if (!map) {
            return;
        }
        mem = memory_by(map, ways[w]);
        g_assert_cmpint(pwrite(map->desc.fd, text, 1 * MIB, 2 * MIB), ==, MIB);
        test_map_fill(map, 4 * MIB, 1 * MIB);
        g_assert_no_errno(fsync(map->desc.fd));
        assert_runs(mem, expected, G_N_ELEMENTS(expected));
        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
        g_assert_cmpuint(sum.data, ==, 2 * MIB);
        g_assert_cmpuint(sum.present, ==, 1 * MIB);
        g_assert_cmpuint(sum.holes, ==, 14 * MIB);
        if (kind == TEST_DISK_FILE) {
            g_assert_cmpuint(sum.file, >=, 2 * MIB);
            g_assert_cmpuint(sum.held, <=, 2 * MIB);
        } else {
            g_assert_cmpuint(sum.file, ==, 2 * MIB);
            g_assert_cmpuint(sum.held, ==, 2 * MIB);
        }

        /* Freed: nothing of it is left, in either view */
        g_assert_true(hpb_memory_discard(mem, &all, 1, NULL, NULL));
        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
        g_assert_cmpuint(sum.holes, ==, LENGTH);
    }
}

/* Contents of shmem are told by the file alone; of the rest, by a full scan. */
static void test_contents(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, LENGTH, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, &test_fault_ops);
    g_autoptr(HpbMemory) no_seek = memory_by(map, HPB_NO_SEEK_DATA);
    g_autoptr(TestMap) anon_map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) anon = memory_by(anon_map, 0);
    HpbRange all = { 0, LENGTH };
    HpbRange bad = { 1, 4096 };
    HpbRun runs[4] = { 0 };

    test_faults_reset(map);
    g_assert_cmpint(hpb_memory_scan_contents(mem, &all, runs, 4), ==, 1);
    g_assert_cmpuint(runs[0].length, ==, LENGTH);
    g_assert_cmphex(runs[0].flags, ==, 0);

    /* One page in this page table, one in the page cache only */
    test_map_fill(map, 0, 4096);
    g_assert_cmpint(pwrite(map->desc.fd, "x", 1, 2 * MIB), ==, 1);
    g_assert_cmpint(hpb_memory_scan_contents(mem, &all, runs, 4), ==, 4);
    g_assert_cmphex(runs[0].flags, ==, HPB_SCAN_DATA);
    g_assert_cmpuint(runs[0].length, ==, 4096);
    g_assert_cmphex(runs[1].flags, ==, 0);
    g_assert_cmpuint(runs[2].offset, ==, 2 * MIB);
    g_assert_cmphex(runs[2].flags, ==, HPB_SCAN_DATA);
    g_assert_cmphex(runs[3].flags, ==, 0);
    g_assert_cmpint(hpb_memory_scan_contents(mem, &all, runs, 0), ==, -EINVAL);
    g_assert_cmpint(hpb_memory_scan_contents(mem, &bad, runs, 4), ==, -EINVAL);

    g_assert_cmpuint(test_faults.calls[TEST_CALL_OPEN_PAGEMAP], ==, 0);

    g_assert_cmpint(hpb_memory_scan_contents(no_seek, &all, runs, 4), ==, 2);
    g_assert_true(runs[0].flags & HPB_SCAN_PRESENT);

    test_map_fill(anon_map, 0, 4096);
    g_assert_cmpint(hpb_memory_scan_contents(anon, &all, runs, 4), ==, 2);
    g_assert_true(runs[0].flags & HPB_SCAN_PRESENT);
    g_assert_cmphex(runs[1].flags, ==, 0);
}

/* The file is not asked: the page table is all there is. */
static void test_no_seek(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, LENGTH, 0);
    g_autoptr(HpbMemory) mem = memory_by(map, HPB_NO_SEEK_DATA);
    HpbRange all = { 0, LENGTH };
    HpbSummary sum;

    g_assert_cmpint(pwrite(map->desc.fd, "x", 1, 2 * MIB), ==, 1);
    g_assert_false(hpb_memory_scan_flags(mem) & HPB_SCAN_DATA);
    g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
    g_assert_cmpuint(sum.holes, ==, LENGTH);
    g_assert_cmpuint(sum.file, ==, 4096);
}

/* fd_offset counts: the mapping is the second half of the file. */
static void test_file_offset(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, LENGTH, 0);
    g_autoptr(HpbMemory) mem = NULL;
    static const HpbRun expected[] = {
        { 0, 4096, HPB_SCAN_DATA, 0 }, { 4096, 4 * MIB - 4096, 0, 0 },
        { 4 * MIB, 4096, HPB_SCAN_DATA, 0 },
        { 4 * MIB + 4096, 12 * MIB - 4096, 0, 0 },
    };

    g_assert_no_errno(ftruncate(map->desc.fd, 3 * LENGTH));
    g_assert_true(mmap(map->host, LENGTH, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_FIXED, map->desc.fd, LENGTH) ==
                  map->host);
    map->desc.fd_offset = LENGTH;
    g_assert_cmpint(pwrite(map->desc.fd, "x", 1, LENGTH - 1), ==, 1);
    g_assert_cmpint(pwrite(map->desc.fd, "x", 1, LENGTH), ==, 1);
    g_assert_cmpint(pwrite(map->desc.fd, "x", 1, LENGTH + 4 * MIB), ==, 1);
    g_assert_cmpint(pwrite(map->desc.fd, "x", 1, 2 * LENGTH), ==, 1);
    mem = test_memory_new(map, NULL);
    assert_runs(mem, expected, G_N_ELEMENTS(expected));
}

/* More extents than one look ahead has room for, each way. */
static void test_many(void)
{
    for (size_t w = 0; w < G_N_ELEMENTS(ways); w++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = memory_by(map, ways[w]);
        g_autofree HpbRun *runs = g_new(HpbRun, LENGTH / 4096);
        static const size_t rooms[] = { 1, 100, 255, 256, 257, 5000 };
        HpbRange all = { 0, LENGTH };
        HpbSummary sum;

        for (uint64_t at = 4096; at < LENGTH; at += 8192) {
            test_map_fill(map, at, 4096);
        }
        for (size_t r = 0; r < G_N_ELEMENTS(rooms); r++) {
            g_assert_cmpuint(scan_all(mem, runs, LENGTH / 4096, rooms[r]), ==,
                             LENGTH / 4096);
            for (size_t i = 0; i < LENGTH / 4096; i++) {
                g_assert_cmpuint(runs[i].offset, ==, i * 4096);
                g_assert_cmphex(runs[i].flags, ==, i % 2 ? HPB_SCAN_PRESENT : 0);
            }
        }
        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
        g_assert_cmpuint(sum.present, ==, LENGTH / 2);
        g_assert_cmpuint(sum.holes, ==, LENGTH / 2);
    }
}

static void test_bad_range(void)
{
    static const struct {
        HpbRange range;
        int error;
    } table[] = {
        { { 0, 0 }, -EINVAL }, { { 1, 4096 }, -EINVAL }, { { 0, 1 }, -EINVAL },
        { { LENGTH, 4096 }, -ERANGE }, { { 0, LENGTH + 4096 }, -ERANGE },
        { { 4096, UINT64_MAX - 4095 }, -ERANGE },
    };
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
    HpbRange good = { 0, 4096 };
    HpbSummary sum;
    uint64_t node;
    HpbRun run;

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        g_assert_cmpint(hpb_memory_scan(mem, &table[i].range, &run, 1), ==,
                        table[i].error);
        g_assert_cmpint(hpb_memory_summary(mem, &table[i].range, &sum, NULL),
                        ==, table[i].error);
        g_assert_cmpint(hpb_memory_nodes(mem, &table[i].range, &node, 1, NULL,
                                         NULL), ==, table[i].error);
    }
    g_assert_cmpint(hpb_memory_scan(mem, &good, &run, 0), ==, -EINVAL);
}

/* Each call of a scan fails once, in every way that has a meaning. */
static void test_faults_each(void)
{
    static const struct {
        uint32_t disabled;
        TestCall call;
        int error;
        int answer;             /* 0: found another way, or tried again */
    } table[] = {
        { 0, TEST_CALL_OPEN_PAGEMAP, ENOENT, -ENOTSUP },
        { 0, TEST_CALL_OPEN_PAGEMAP, EACCES, -ENOTSUP },
        { 0, TEST_CALL_OPEN_PAGEMAP, EMFILE, -EMFILE },
        { 0, TEST_CALL_IOCTL, ENOTTY, 0 },
        { 0, TEST_CALL_IOCTL, ENOSYS, 0 },
        { 0, TEST_CALL_IOCTL, EPERM, 0 },
        { 0, TEST_CALL_IOCTL, EINTR, 0 },
        { 0, TEST_CALL_IOCTL, EAGAIN, 0 },
        { 0, TEST_CALL_IOCTL, ENOMEM, -ENOMEM },
        { 0, TEST_CALL_IOCTL, EFAULT, -EFAULT },
        { HPB_NO_PAGEMAP_SCAN, TEST_CALL_PREAD, EINTR, 0 },
        { HPB_NO_PAGEMAP_SCAN, TEST_CALL_PREAD, EIO, -EIO },
        { HPB_NO_PAGEMAP_SCAN, TEST_CALL_PREAD, EINVAL, -EINVAL },
        { 0, TEST_CALL_LSEEK, EIO, -EIO },
        { 0, TEST_CALL_LSEEK, EBADF, -EBADF },
        { 0, TEST_CALL_FSTAT, EIO, -EIO },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange all = { 0, LENGTH };
        HpbSummary sum;
        int ret;

        test_map_fill(map, 4 * MIB, 4 * MIB);
        test_faults_reset(map);
        map->desc.disabled = table[i].disabled;
        mem = test_memory_new(map, &test_fault_ops);
        memset(test_faults.calls, 0, sizeof(test_faults.calls));
        test_faults.call = table[i].call;
        test_faults.first = test_faults.times = 1;
        test_faults.error = table[i].error;
        ret = hpb_memory_summary(mem, &all, &sum, NULL);
        if (hpb_memory_scan_method(mem) == HPB_SCAN_BY_PAGEMAP &&
            table[i].call == TEST_CALL_IOCTL && table[i].answer) {
            g_test_message("this kernel has no PAGEMAP_SCAN");
            continue;
        }
        g_assert_cmpint(ret, ==, table[i].answer);
        if (!ret) {
            g_assert_cmpuint(sum.present, ==, 4 * MIB);
            g_assert_cmpuint(sum.held, ==, 4 * MIB);
        }
        if (table[i].error == ENOTTY) {
            g_assert_cmpint(hpb_memory_scan_method(mem), ==,
                            HPB_SCAN_BY_PAGEMAP);
        }
        /* The next one, without a failure, is right */
        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
        g_assert_cmpuint(sum.held, ==, 4 * MIB);
    }
}

/* Interrupted for ever: given up, and no file is left open. */
static void test_faults_busy(void)
{
    for (size_t w = 0; w < G_N_ELEMENTS(ways); w++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange all = { 0, LENGTH };
        HpbSummary sum;
        int before, after;

        test_faults_reset(map);
        map->desc.disabled = ways[w];
        mem = test_memory_new(map, &test_fault_ops);
        test_faults.call = w ? TEST_CALL_PREAD : TEST_CALL_IOCTL;
        test_faults.first = 1;
        test_faults.times = 1000;
        test_faults.error = EINTR;
        before = dup(0);
        close(before);
        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, -EBUSY);
        after = dup(0);
        close(after);
        g_assert_cmpint(before, ==, after);
    }
}

/* Short reads, of whole entries or parts of one, lose nothing. */
static void test_faults_short(void)
{
    static const size_t lengths[] = { 8, 12, 800, 4095 };

    for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange all = { 0, LENGTH };
        HpbSummary sum;

        test_map_fill(map, 4 * MIB, 4 * MIB);
        test_faults_reset(map);
        map->desc.disabled = HPB_NO_PAGEMAP_SCAN;
        mem = test_memory_new(map, &test_fault_ops);
        test_faults.short_read = lengths[i];
        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, 0);
        g_assert_cmpuint(sum.present, ==, 4 * MIB);
        /* Nothing at all is no progress */
        test_faults.short_read = 7;
        g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, NULL), ==, -EIO);
    }
}

static void test_cancel(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
    HpbRange all = { 0, LENGTH };
    HpbSummary sum;
    uint64_t node;
    int cancel = 1;

    g_assert_cmpint(hpb_memory_summary(mem, &all, &sum, &cancel), ==,
                    -ECANCELED);
    g_assert_cmpuint(sum.bytes, ==, 0);
    g_assert_cmpint(hpb_memory_nodes(mem, &all, &node, 1, NULL, &cancel), ==,
                    -ECANCELED);
}

/* Everything present is on some node, counted once. */
static void test_nodes(void)
{
    static const TestKind kinds[] = { TEST_ANON_THP, TEST_ANON_4K, TEST_MEMFD };

    for (size_t k = 0; k < G_N_ELEMENTS(kinds); k++) {
        g_autoptr(TestMap) map = test_map_new(kinds[k], LENGTH, 0);
        g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
        HpbRange all = { 0, LENGTH };
        uint64_t bytes[1024], other, sum = 0;
        int ret;

        test_map_fill(map, 2 * MIB, 4 * MIB);
        test_map_fill(map, 8 * MIB, 8 * MIB);
        ret = hpb_memory_nodes(mem, &all, bytes, 1024, &other, NULL);
        if (ret == -ENOTSUP) {
            g_test_skip("this kernel has no NUMA calls");
            return;
        }
        g_assert_cmpint(ret, ==, 0);
        for (size_t i = 0; i < 1024; i++) {
            sum += bytes[i];
        }
        g_assert_cmpuint(sum, ==, 12 * MIB);
        g_assert_cmpuint(other, ==, 0);
        /* Without room for them all is elsewhere */
        g_assert_cmpint(hpb_memory_nodes(mem, &all, NULL, 0, &other, NULL), ==,
                        0);
        g_assert_cmpuint(other, ==, 12 * MIB);
    }
}

static void test_nodes_faults(void)
{
    static const int errors[][2] = {
        { ENOSYS, -ENOTSUP }, { EPERM, -ENOTSUP }, { ENOMEM, -ENOMEM },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(errors); i++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange all = { 0, LENGTH };
        uint64_t bytes[4];

        test_map_fill(map, 0, 2 * MIB);
        test_faults_reset(map);
        mem = test_memory_new(map, &test_fault_ops);
        test_faults.call = TEST_CALL_PAGE_NODES;
        test_faults.first = test_faults.times = 1;
        test_faults.error = errors[i][0];
        g_assert_cmpint(hpb_memory_nodes(mem, &all, bytes, 4, NULL, NULL), ==,
                        errors[i][1]);
    }
}

int main(int argc, char **argv)
{
    static const TestKind files[] = { TEST_MEMFD, TEST_TMPFS_FILE,
                                      TEST_DISK_FILE };

    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/scan/small", test_small);
    g_test_add_func("/scan/huge", test_huge);
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *path = g_strdup_printf("/scan/file/%s",
                                                test_kind_names[files[i]]);

        g_test_add_data_func(path, &files[i], test_file);
    }
    g_test_add_func("/scan/contents", test_contents);
    g_test_add_func("/scan/no-seek", test_no_seek);
    g_test_add_func("/scan/file-offset", test_file_offset);
    g_test_add_func("/scan/many", test_many);
    g_test_add_func("/scan/bad-range", test_bad_range);
    g_test_add_func("/scan/faults/each", test_faults_each);
    g_test_add_func("/scan/faults/busy", test_faults_busy);
    g_test_add_func("/scan/faults/short", test_faults_short);
    g_test_add_func("/scan/cancel", test_cancel);
    g_test_add_func("/scan/nodes", test_nodes);
    g_test_add_func("/scan/nodes-faults", test_nodes_faults);
    return g_test_run();
}
