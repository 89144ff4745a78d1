/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/discard.c and backing.c on huge page pools: the
 * pool gets back exactly what was freed. Raises the pool while it runs (see
 * pool.c). Argument "2M" or "1G": which pool.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include "support.h"

static size_t page_size = 2 * MIB;
static unsigned pages = 16;

typedef struct Expected {
    TestKind kind;
    HpbBacking backing;
    HpbMethod method;
} Expected;

static const Expected accepted[] = {
    { TEST_HUGETLB_MEMFD, HPB_BACKING_HUGETLB, HPB_METHOD_PUNCH_HOLE },
    { TEST_HUGETLB_MEMFD_PRIVATE, HPB_BACKING_HUGETLB_PRIVATE,
      HPB_METHOD_DONTNEED },
    { TEST_HUGETLB_ANON, HPB_BACKING_HUGETLB_ANONYMOUS, HPB_METHOD_DONTNEED },
    { TEST_HUGETLB_ANON_SHARED, HPB_BACKING_HUGETLB_ANONYMOUS,
      HPB_METHOD_REMOVE },
};

static void test_accepted(const void *data)
{
    const Expected *expected = data;
    g_autoptr(TestMap) map = test_map_new(expected->kind, pages * page_size,
                                          page_size);
    g_autoptr(HpbMemory) mem = NULL;

    if (!map) {
        return;
    }
    mem = test_memory_new(map, NULL);
    g_assert_cmpint(hpb_memory_backing(mem), ==, expected->backing);
    g_assert_cmpint(hpb_memory_method(mem), ==, expected->method);
    g_assert_cmpuint(hpb_memory_smallest_range(mem), ==, page_size);
    g_assert_cmpuint(hpb_memory_preferred_range(mem), ==, page_size);
    g_assert_true(hpb_memory_discard_zeroes(mem));

    map->desc.length -= 4096;
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID, "multiple");
    map->desc.length += 4096;
    if (map->desc.fd != -1) {
        map->desc.page_size = 4096;
        test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID, "but the file");
        map->desc.page_size = 0;
        hpb_memory_free(g_steal_pointer(&mem));
        mem = test_memory_new(map, NULL);
        g_assert_cmpuint(hpb_memory_smallest_range(mem), ==, page_size);
    }
}

/*
 * Free every second page and a run at the end. The pool is the machine's, so
 * others may use it at the same moment: the count has to be right in one of a
 * few rounds, everything else in each.
 */
static void test_exact(const void *data)
{
    const Expected *expected = data;
    g_autoptr(TestMap) map = test_map_new(expected->kind, pages * page_size,
                                          page_size);
    g_autoptr(HpbMemory) mem = NULL;
    g_autofree HpbRange *ranges = g_new(HpbRange, pages);
    gboolean pool_right = FALSE;
    unsigned n = 0;

    if (!map) {
        return;
    }
    mem = test_memory_new(map, NULL);
    for (unsigned i = 0; i < pages; i += i < pages / 2 ? 2 : 1) {
        ranges[n++] = (HpbRange) { i * page_size, page_size };
    }
    for (int round = 0; round < 5 && !pool_right; round++) {
        unsigned before;

        test_map_fill(map, 0, map->length);
        before = test_pool_free(page_size);
        g_assert_true(hpb_memory_discard(mem, ranges, n, NULL, NULL));
        pool_right = test_pool_free(page_size) == before + n;

        g_assert_cmpuint(test_map_present(map, 0, map->length), ==,
                         (pages - n) * (page_size / 4096));
        for (unsigned i = 0; i < n; i++) {
            g_assert_cmpuint(test_map_present(map, ranges[i].offset, page_size),
                             ==, 0);
        }
        for (unsigned i = 1; i < pages / 2; i += 2) {
            test_map_assert_filled(map, i * page_size, page_size);
        }
        test_map_assert_zero(map, 0, page_size);
    }
    g_assert_true(pool_right);
    test_assert_counters(mem);
}

/* Parts of a huge page are refused before the kernel rounds them somewhere. */
static void test_part_of_page(const void *data)
{
    const Expected *expected = data;
    g_autoptr(TestMap) map = test_map_new(expected->kind, 2 * page_size,
                                          page_size);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange ranges[] = {
        { 0, 4096 }, { 4096, page_size }, { page_size, page_size + 4096 },
        { page_size / 2, page_size / 2 },
    };
    HpbResult results[G_N_ELEMENTS(ranges)];

    if (!map) {
        return;
    }
    mem = test_memory_new(map, NULL);
    test_map_fill(map, 0, map->length);
    g_assert_false(hpb_memory_discard(mem, ranges, G_N_ELEMENTS(ranges), results,
                                      NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        g_assert_cmpint(results[i].error, ==, -EINVAL);
    }
    test_map_assert_filled(map, 0, map->length);
}

/*
 * Private mapping of a hugetlb file with contents: the mapping's own pages go,
 * the file stays as it is, and the promise of zeroes is not made.
 */
static void test_private_contents(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_HUGETLB_MEMFD_PRIVATE,
                                          2 * page_size, page_size);
    g_autoptr(HpbMemory) mem = NULL;
    HpbRange range = { 0, page_size };
    uint64_t bytes;
    char *file;

    if (!map) {
        return;
    }
    file = mmap(NULL, page_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                map->desc.fd, 0);
    if (file == MAP_FAILED || test_pool_available(page_size) < 1) {
        g_test_skip("not enough huge pages for a second mapping");
        return;
    }
    memset(file, 'f', page_size);
    bytes = test_map_file_bytes(map);
    g_assert_cmpuint(bytes, ==, page_size);
    mem = test_memory_new(map, NULL);
    g_assert_false(hpb_memory_discard_zeroes(mem));
    test_map_fill(map, 0, page_size);
    g_assert_true(hpb_memory_discard(mem, &range, 1, NULL, NULL));
    g_assert_cmpuint(test_map_file_bytes(map), ==, bytes);
    /* All bytes are the same as the one beside them, and the first is right */
    g_assert_cmpint(file[0], ==, 'f');
    g_assert_cmpint(memcmp(file, file + 1, page_size - 1), ==, 0);
    g_assert_cmpint(map->host[0], ==, 'f');
    munmap(file, page_size);
}

/* A file on a mounted hugetlbfs, in a mount namespace that goes with it. */
static void test_hugetlbfs(void)
{
    g_autofree char *dir = g_dir_make_tmp("hpb-unit-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "file", NULL);
    g_autofree char *options = g_strdup_printf("pagesize=%zu", page_size);
    g_autoptr(GError) err = NULL;
    HpbMemoryDesc desc = HPB_MEMORY_DESC_INIT;
    HpbRange range = { page_size, page_size };
    HpbMemory *mem;
    struct stat st;

    if (test_pool_available(page_size) < 2 || unshare(CLONE_NEWNS) ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("hpb-unit", dir, "hugetlbfs", 0, options)) {
        g_test_skip("hugetlbfs cannot be mounted (needs root), or no pages");
        g_rmdir(dir);
        return;
    }
    desc.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_no_errno(desc.fd);
    desc.length = 2 * page_size;
    desc.flags = HPB_MEMORY_SHARED;
    g_assert_no_errno(ftruncate(desc.fd, desc.length));
    desc.host = mmap(NULL, desc.length, PROT_READ | PROT_WRITE, MAP_SHARED,
                     desc.fd, 0);
    g_assert_true(desc.host != MAP_FAILED);
    memset(desc.host, 'x', desc.length);

    mem = hpb_memory_new(&desc, &err);
    g_assert_no_error(err);
    g_assert_cmpint(hpb_memory_backing(mem), ==, HPB_BACKING_HUGETLB);
    g_assert_true(hpb_memory_discard(mem, &range, 1, NULL, NULL));
    g_assert_no_errno(fstat(desc.fd, &st));
    g_assert_cmpint(st.st_blocks * 512, ==, page_size);
    g_assert_cmpint(((char *)desc.host)[page_size - 1], ==, 'x');

    hpb_memory_free(mem);
    munmap(desc.host, desc.length);
    close(desc.fd);
    g_assert_no_errno(umount(dir));
    g_rmdir(dir);
}

static void add_each(const char *group, GTestDataFunc func)
{
    for (size_t i = 0; i < G_N_ELEMENTS(accepted); i++) {
        g_autofree char *path =
            g_strdup_printf("/hugetlb/%s/%s", group,
                            test_kind_names[accepted[i].kind]);

        g_test_add_data_func(path, &accepted[i], func);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc == 2 && g_str_equal(argv[1], "1G")) {
        page_size = 1 * GIB;
        pages = 2;
    } else if (argc != 2 || !g_str_equal(argv[1], "2M")) {
        g_printerr("usage: %s 2M|1G\n", argv[0]);
        return 2;
    }
    add_each("accepted", test_accepted);
    add_each("exact", test_exact);
    add_each("part-of-page", test_part_of_page);
    g_test_add_func("/hugetlb/private-contents", test_private_contents);
    g_test_add_func("/hugetlb/hugetlbfs", test_hugetlbfs);
    return test_run_with_pool(page_size, pages + pages / 2);
}
