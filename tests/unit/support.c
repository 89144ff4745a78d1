/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of libhpballoon: mappings of every kind (see support.h)
 *
 * What the kernel holds is read from /proc/self/pagemap, /proc/self/smaps and
 * fstat(), never by touching pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "support.h"

#define PAGE 4096
#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62)

const char *const test_kind_names[TEST_NR_KINDS] = {
    [TEST_ANON_THP] = "anonymous-thp",
    [TEST_ANON_4K] = "anonymous-4k",
    [TEST_ANON_PLAIN] = "anonymous",
    [TEST_ANON_SHARED] = "anonymous-shared",
    [TEST_MEMFD] = "memfd",
    [TEST_MEMFD_PRIVATE] = "memfd-private",
    [TEST_TMPFS_FILE] = "tmpfs-file",
    [TEST_DISK_FILE] = "disk-file",
    [TEST_DISK_FILE_PRIVATE] = "disk-file-private",
    [TEST_HUGETLB_MEMFD] = "hugetlb-memfd",
    [TEST_HUGETLB_MEMFD_PRIVATE] = "hugetlb-memfd-private",
    [TEST_HUGETLB_ANON] = "hugetlb-anonymous",
    [TEST_HUGETLB_ANON_SHARED] = "hugetlb-anonymous-shared",
};

static gboolean is_hugetlb(TestKind kind)
{
    return kind >= TEST_HUGETLB_MEMFD;
}

static gboolean is_private(TestKind kind)
{
    return kind == TEST_ANON_THP || kind == TEST_ANON_4K ||
           kind == TEST_ANON_PLAIN || kind == TEST_MEMFD_PRIVATE ||
           kind == TEST_DISK_FILE_PRIVATE ||
           kind == TEST_HUGETLB_MEMFD_PRIVATE || kind == TEST_HUGETLB_ANON;
}

static int temporary_file(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "hpb-unit-XXXXXX", NULL);
    int fd = g_mkstemp(path);

    if (fd != -1) {
        unlink(path);
    }
    return fd;
}

/* -1 for anonymous; sets *skip to the reason when there can be none. */
static int open_backing(TestKind kind, size_t page_size, const char **skip)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd;

    switch (kind) {
    case TEST_MEMFD:
    case TEST_MEMFD_PRIVATE:
        fd = memfd_create("hpb-unit", flags);
        *skip = "memfd_create() failed";
        break;
    case TEST_TMPFS_FILE:
        fd = temporary_file("/dev/shm");
        *skip = "no file can be made in /dev/shm";
        break;
    case TEST_DISK_FILE:
    case TEST_DISK_FILE_PRIVATE:
        fd = temporary_file(".");
        *skip = "no file can be made in the current directory";
        break;
    case TEST_HUGETLB_MEMFD:
    case TEST_HUGETLB_MEMFD_PRIVATE:
        flags |= MFD_HUGETLB |
                 (unsigned)__builtin_ctzll(page_size) << MFD_HUGE_SHIFT;
        fd = memfd_create("hpb-unit", flags);
        *skip = "no hugetlb memfd of this page size";
        break;
    case TEST_ANON_THP:
    case TEST_ANON_4K:
    case TEST_ANON_PLAIN:
    case TEST_ANON_SHARED:
    case TEST_HUGETLB_ANON:
    case TEST_HUGETLB_ANON_SHARED:
    case TEST_NR_KINDS:
    default:
        *skip = NULL;
        return -1;
    }
    if (fd != -1) {
        *skip = NULL;
    }
    return fd;
}

static gboolean map_backing(TestMap *map)
{
    size_t align = MAX(64 * MIB, map->page_size);
    int flags = MAP_FIXED | MAP_NORESERVE;
    uintptr_t start;

    map->reserved_length = map->length + 2 * align;
    map->reserved = mmap(NULL, map->reserved_length, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g_assert_true(map->reserved != MAP_FAILED);
    start = ((uintptr_t)map->reserved + align) & ~((uintptr_t)align - 1);

    flags |= is_private(map->kind) ? MAP_PRIVATE : MAP_SHARED;
    if (map->desc.fd == -1) {
        flags |= MAP_ANONYMOUS;
        if (is_hugetlb(map->kind)) {
            flags |= MAP_HUGETLB |
                     __builtin_ctzll(map->page_size) << MAP_HUGE_SHIFT;
        }
    }
    map->host = mmap((void *)start, map->length, PROT_READ | PROT_WRITE, flags,
                     map->desc.fd, 0);
    return map->host != MAP_FAILED;
}

TestMap *test_map_new(TestKind kind, size_t length, size_t page_size)
{
    g_autoptr(TestMap) map = g_new0(TestMap, 1);
    const char *skip = NULL;

    map->kind = kind;
    map->length = length;
    map->page_size = is_hugetlb(kind) ? page_size : PAGE;
    map->desc = (HpbMemoryDesc) HPB_MEMORY_DESC_INIT;
    if (is_hugetlb(kind) &&
        test_pool_available(page_size) < length / page_size) {
        g_test_skip("not enough free huge pages of this size in the pool "
                    "(raising it needs root and free memory)");
        return NULL;
    }
    map->desc.fd = open_backing(kind, page_size, &skip);
    if (skip) {
        g_test_skip(skip);
        return NULL;
    }
    if (map->desc.fd != -1) {
        g_assert_no_errno(ftruncate(map->desc.fd, length));
    }
    if (!map_backing(map)) {
        g_assert_true(is_hugetlb(kind));
        g_test_skip("huge pages cannot be mapped");
        return NULL;
    }
    if (kind == TEST_ANON_THP || kind == TEST_ANON_4K) {
        g_assert_no_errno(madvise(map->host, length, kind == TEST_ANON_THP ?
                                  MADV_HUGEPAGE : MADV_NOHUGEPAGE));
    }
    map->desc.name = test_kind_names[kind];
    map->desc.host = map->host;
    map->desc.length = length;
    map->desc.page_size = is_hugetlb(kind) ? page_size : 0;
    map->desc.flags = is_private(kind) ? 0 : HPB_MEMORY_SHARED;
    return g_steal_pointer(&map);
}

void test_map_free(TestMap *map)
{
    if (!map) {
        return;
    }
    if (map->reserved) {
        munmap(map->reserved, map->reserved_length);
    }
    if (map->desc.fd != -1) {
        close(map->desc.fd);
    }
    g_free(map);
}

static uint64_t tag(const TestMap *map, uint64_t offset)
{
    return (offset + 1) * 0x9e3779b97f4a7c15ULL + (uint64_t)map->kind;
}

void test_map_fill(TestMap *map, uint64_t offset, uint64_t length)
{
    for (uint64_t at = offset; at < offset + length; at += PAGE) {
        uint64_t value = tag(map, at);

        memcpy(map->host + at + at / PAGE % (PAGE / 8) * 8, &value, 8);
    }
}

void test_map_assert_filled(TestMap *map, uint64_t offset, uint64_t length)
{
    for (uint64_t at = offset; at < offset + length; at += PAGE) {
        uint64_t value;

        memcpy(&value, map->host + at + at / PAGE % (PAGE / 8) * 8, 8);
        g_assert_cmphex(value, ==, tag(map, at));
    }
}

void test_map_assert_zero(TestMap *map, uint64_t offset, uint64_t length)
{
    static const uint8_t zero[PAGE];

    for (uint64_t at = offset; at < offset + length; at += PAGE) {
        g_assert_cmpint(memcmp(map->host + at, zero, PAGE), ==, 0);
    }
}

size_t test_map_present(TestMap *map, uint64_t offset, uint64_t length)
{
    size_t n = length / PAGE, count = 0;
    g_autofree uint64_t *entries = g_new(uint64_t, n);
    off_t at = ((uintptr_t)map->host + offset) / PAGE * 8;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    size_t got = 0;

    g_assert_no_errno(fd);
    while (got < n * 8) {
        ssize_t bytes = pread(fd, (char *)entries + got, n * 8 - got, at + got);

        g_assert_cmpint(bytes, >, 0);
        got += bytes;
    }
    close(fd);
    for (size_t i = 0; i < n; i++) {
        count += !!(entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED));
    }
    return count;
}

size_t test_map_resident(TestMap *map, uint64_t offset, uint64_t length)
{
    size_t n = length / PAGE, count = 0;
    g_autofree unsigned char *pages = g_malloc(n);

    g_assert_no_errno(mincore(map->host + offset, length, pages));
    for (size_t i = 0; i < n; i++) {
        count += pages[i] & 1;
    }
    return count;
}

uint64_t test_map_anon_huge(TestMap *map)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    uint64_t sum = 0, start = 0, end = 0;

    g_assert_true(g_file_get_contents("/proc/self/smaps", &text, NULL, NULL));
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        unsigned long from, to, kib;

        if (sscanf(*line, "%lx-%lx ", &from, &to) == 2) {
            start = from;
            end = to;
        } else if (start >= (uintptr_t)map->host &&
                   end <= (uintptr_t)map->host + map->length &&
                   sscanf(*line, "AnonHugePages: %lu", &kib) == 1) {
            sum += kib * KIB;
        }
    }
    return sum;
}

uint64_t test_map_file_bytes(TestMap *map)
{
    struct stat st;

    g_assert_no_errno(fstat(map->desc.fd, &st));
    return st.st_blocks * 512ULL;
}

HpbMemory *test_memory_new(TestMap *map, const HpbSysOps *ops)
{
    GError *err = NULL;
    HpbMemory *mem;

    mem = ops ? hpb_memory_new_with_ops(&map->desc, ops, &err)
              : hpb_memory_new(&map->desc, &err);
    g_assert_no_error(err);
    g_assert_nonnull(mem);
    return mem;
}

void test_assert_refused(const HpbMemoryDesc *desc, const HpbSysOps *ops,
                         HpbError code, const char *word)
{
    g_autoptr(GError) err = NULL;
    HpbMemory *mem = hpb_memory_new_with_ops(desc, ops ? ops : &hpb_sysops,
                                             &err);

    g_assert_null(mem);
    g_assert_error(err, HPB_ERROR, (int)code);
    if (!strstr(err->message, word) ||
        !g_str_has_prefix(err->message, "memory")) {
        g_test_message("'%s' is not about '%s'", err->message, word);
        g_test_fail();
    }
}

void test_assert_counters(HpbMemory *mem)
{
    HpbCounters c;

    hpb_memory_discard_counters(mem, &c);
    g_assert_cmpuint(c.ranges, ==, c.ranges_done + c.ranges_failed +
                     c.ranges_invalid + c.ranges_canceled);
    g_assert_cmpuint(c.bytes, ==,
                     c.bytes_done + c.bytes_failed + c.bytes_canceled);
    g_assert_cmpuint(c.retries, <=, c.syscalls);
    g_assert_cmpuint(c.vectored, <=, c.syscalls);
}
