/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Unit tests of helper/lib/backing.c: what is accepted as what, and what not. */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include "support.h"

typedef struct Expected {
    TestKind kind;
    HpbBacking backing;
    HpbMethod method;
} Expected;

static const Expected accepted[] = {
    { TEST_ANON_THP, HPB_BACKING_ANONYMOUS, HPB_METHOD_DONTNEED },
    { TEST_ANON_4K, HPB_BACKING_ANONYMOUS, HPB_METHOD_DONTNEED },
    { TEST_ANON_SHARED, HPB_BACKING_ANONYMOUS_SHARED, HPB_METHOD_REMOVE },
    { TEST_MEMFD, HPB_BACKING_SHMEM, HPB_METHOD_PUNCH_HOLE },
    { TEST_TMPFS_FILE, HPB_BACKING_SHMEM, HPB_METHOD_PUNCH_HOLE },
    { TEST_DISK_FILE, HPB_BACKING_FILE, HPB_METHOD_PUNCH_HOLE },
};

static gboolean is_on_tmpfs(int fd)
{
    struct statfs fs;

    g_assert_no_errno(fstatfs(fd, &fs));
    return fs.f_type == TMPFS_MAGIC;
}

static void test_accepted(const void *data)
{
    const Expected *expected = data;
    g_autoptr(TestMap) map = test_map_new(expected->kind, 4 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;

    if (!map) {
        return;
    }
    if (expected->kind == TEST_DISK_FILE && is_on_tmpfs(map->desc.fd)) {
        g_test_skip("the current directory is on tmpfs");
        return;
    }
    mem = test_memory_new(map, NULL);
    g_assert_cmpint(hpb_memory_backing(mem), ==, expected->backing);
    g_assert_cmpint(hpb_memory_method(mem), ==, expected->method);
    g_assert_cmpuint(hpb_memory_smallest_range(mem), ==, 4096);
    g_assert_true(hpb_memory_discard_zeroes(mem));

    /* The right page size does no harm */
    map->desc.page_size = 4096;
    hpb_memory_free(mem);
    mem = test_memory_new(map, NULL);
    g_assert_cmpuint(hpb_memory_smallest_range(mem), ==, 4096);
}

/* Refused, and neither the file nor the private copies change. */
static void test_private_file(const void *data)
{
    TestKind kind = *(const TestKind *)data;
    g_autoptr(TestMap) map = test_map_new(kind, 4 * MIB, 0);
    g_autofree char *before = NULL;
    g_autofree char *after = NULL;
    uint64_t bytes;

    if (!map) {
        return;
    }
    before = g_malloc(4 * MIB);
    after = g_malloc(4 * MIB);
    memset(before, 0x5a, 4 * MIB);
    g_assert_cmpint(pwrite(map->desc.fd, before, 4 * MIB, 0), ==, 4 * MIB);
    g_assert_no_errno(fsync(map->desc.fd));
    test_map_fill(map, 0, 2 * MIB);
    bytes = test_map_file_bytes(map);

    test_assert_refused(&map->desc, NULL, HPB_ERROR_PRIVATE_FILE, "share=on");

    g_assert_cmpint(pread(map->desc.fd, after, 4 * MIB, 0), ==, 4 * MIB);
    g_assert_cmpint(memcmp(before, after, 4 * MIB), ==, 0);
    g_assert_cmpuint(test_map_file_bytes(map), ==, bytes);
    test_map_assert_filled(map, 0, 2 * MIB);
    g_assert_cmpint(memcmp(map->host + 2 * MIB, before, 2 * MIB), ==, 0);
}

/* Being accepted does not change a file either: the trial hole is past its end. */
static void test_file_unchanged(const void *data)
{
    const Expected *expected = data;
    g_autoptr(TestMap) map = test_map_new(expected->kind, 4 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;
    struct stat before, after;

    if (!map) {
        return;
    }
    /* An end in the middle of a page: the hole must not begin in it */
    g_assert_no_errno(ftruncate(map->desc.fd, 4 * MIB + 100));
    g_assert_cmpint(pwrite(map->desc.fd, "end", 3, 4 * MIB + 97), ==, 3);
    test_map_fill(map, 0, 4 * MIB);
    g_assert_no_errno(fstat(map->desc.fd, &before));
    mem = test_memory_new(map, NULL);
    g_assert_nonnull(mem);
    g_assert_no_errno(fstat(map->desc.fd, &after));
    g_assert_cmpint(before.st_size, ==, after.st_size);
    g_assert_cmpint(before.st_blocks, ==, after.st_blocks);
    test_map_assert_filled(map, 0, 4 * MIB);
    {
        char end[3];

        g_assert_cmpint(pread(map->desc.fd, end, 3, 4 * MIB + 97), ==, 3);
        g_assert_cmpmem(end, 3, "end", 3);
    }
}

static void test_sealed(const void *data)
{
    int seal = GPOINTER_TO_INT(data);
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, 4 * MIB, 0);

    if (seal == F_SEAL_WRITE) {
        /* Only without writable shared mappings */
        g_assert_no_errno(munmap(map->host, map->length));
    }
    g_assert_no_errno(fcntl(map->desc.fd, F_ADD_SEALS, seal));
    if (seal == F_SEAL_WRITE) {
        g_assert_true(mmap(map->host, map->length, PROT_READ,
                           MAP_PRIVATE | MAP_FIXED, map->desc.fd, 0) ==
                      map->host);
    }
    test_assert_refused(&map->desc, NULL, HPB_ERROR_READ_ONLY, "sealed");
}

/* Seals that do not forbid it are fine: QEMU seals its memfds against resizing. */
static void test_sealed_size(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, 4 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;

    g_assert_no_errno(fcntl(map->desc.fd, F_ADD_SEALS,
                            F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL));
    mem = test_memory_new(map, NULL);
    g_assert_cmpint(hpb_memory_method(mem), ==, HPB_METHOD_PUNCH_HOLE);
}

static void test_not_open_for_writing(const void *data)
{
    int flags = GPOINTER_TO_INT(data);
    g_autoptr(TestMap) map = test_map_new(TEST_TMPFS_FILE, 4 * MIB, 0);
    g_autofree char *path = NULL;
    int fd = map->desc.fd;

    path = g_strdup_printf("/proc/self/fd/%d", fd);
    map->desc.fd = open(path, flags | O_CLOEXEC);
    g_assert_no_errno(map->desc.fd);
    test_assert_refused(&map->desc, NULL, HPB_ERROR_READ_ONLY, "O_RDWR");
    close(fd);
}

static void test_not_a_file(const void *data)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_SHARED, 4 * MIB, 0);

    map->desc.fd = open(data, O_RDONLY | O_CLOEXEC);
    g_assert_no_errno(map->desc.fd);
    test_assert_refused(&map->desc, NULL, HPB_ERROR_UNSUPPORTED,
                        "not a regular file");
}

static void test_bad_fd(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_SHARED, 4 * MIB, 0);

    map->desc.fd = 1 << 20;
    test_assert_refused(&map->desc, NULL, HPB_ERROR_SYSTEM, g_strerror(EBADF));
    map->desc.fd = -1;
}

/* A file system that cannot make holes, in a mount namespace that goes with it. */
static void test_no_holes(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_SHARED, 4 * MIB, 0);
    g_autofree char *dir = g_dir_make_tmp("hpb-unit-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "file", NULL);

    if (unshare(CLONE_NEWNS) ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("hpb-unit", dir, "ramfs", 0, NULL)) {
        g_test_skip("ramfs cannot be mounted (needs root)");
        g_rmdir(dir);
        return;
    }
    map->desc.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_no_errno(map->desc.fd);
    g_assert_no_errno(ftruncate(map->desc.fd, 4 * MIB));
    test_assert_refused(&map->desc, NULL, HPB_ERROR_UNSUPPORTED,
                        "cannot free parts of a file");
    close(map->desc.fd);
    map->desc.fd = -1;
    g_assert_no_errno(umount(dir));
    g_rmdir(dir);
}

/* Every system call of the detection fails once, in every way that has a meaning. */
static void test_faults_detect(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, 4 * MIB, 0);
    static const struct {
        TestCall call;
        int error;
        HpbError code;
    } table[] = {
        { TEST_CALL_FSTAT, EIO, HPB_ERROR_SYSTEM },
        { TEST_CALL_FSTATFS, EIO, HPB_ERROR_SYSTEM },
        { TEST_CALL_FCNTL_GET, EBADF, HPB_ERROR_SYSTEM },
        { TEST_CALL_FALLOCATE, EPERM, HPB_ERROR_READ_ONLY },
        { TEST_CALL_FALLOCATE, EROFS, HPB_ERROR_READ_ONLY },
        { TEST_CALL_FALLOCATE, ETXTBSY, HPB_ERROR_READ_ONLY },
        { TEST_CALL_FALLOCATE, EOPNOTSUPP, HPB_ERROR_UNSUPPORTED },
        { TEST_CALL_FALLOCATE, ENOSYS, HPB_ERROR_UNSUPPORTED },
        { TEST_CALL_FALLOCATE, EIO, HPB_ERROR_SYSTEM },
        { TEST_CALL_FALLOCATE, ENOMEM, HPB_ERROR_SYSTEM },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        test_faults_reset(map);
        test_faults.call = table[i].call;
        test_faults.first = test_faults.times = 1;
        test_faults.error = table[i].error;
        test_assert_refused(&map->desc, &test_fault_ops, table[i].code,
                            g_strerror(table[i].error));
    }
}

/* Interrupted trial: tried again. No seals at all (second fcntl): fine. */
static void test_faults_harmless(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, 4 * MIB, 0);
    HpbMemory *mem;

    test_faults_reset(map);
    test_faults.call = TEST_CALL_FALLOCATE;
    test_faults.first = 1;
    test_faults.times = 3;
    test_faults.error = EINTR;
    mem = test_memory_new(map, &test_fault_ops);
    g_assert_cmpuint(test_faults.calls[TEST_CALL_FALLOCATE], ==, 4);
    hpb_memory_free(mem);

    test_faults_reset(map);
    test_faults.call = TEST_CALL_FCNTL_GET;
    test_faults.first = 2;
    test_faults.times = 1;
    test_faults.error = EINVAL;
    mem = test_memory_new(map, &test_fault_ops);
    g_assert_cmpuint(test_faults.calls[TEST_CALL_FCNTL_GET], ==, 2);
    hpb_memory_free(mem);
}

static void add(const char *group, TestKind kind, GTestDataFunc func,
                const void *data)
{
    g_autofree char *path = g_strdup_printf("/backing/%s/%s", group,
                                            test_kind_names[kind]);

    g_test_add_data_func(path, data, func);
}

int main(int argc, char **argv)
{
    static const TestKind private_kinds[] = { TEST_MEMFD_PRIVATE,
                                              TEST_DISK_FILE_PRIVATE };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(accepted); i++) {
        add("accepted", accepted[i].kind, test_accepted, &accepted[i]);
        if (accepted[i].method == HPB_METHOD_PUNCH_HOLE) {
            add("unchanged", accepted[i].kind, test_file_unchanged,
                &accepted[i]);
        }
    }
    for (size_t i = 0; i < G_N_ELEMENTS(private_kinds); i++) {
        add("private", private_kinds[i], test_private_file, &private_kinds[i]);
    }
    g_test_add_data_func("/backing/sealed/write",
                         GINT_TO_POINTER(F_SEAL_WRITE), test_sealed);
    g_test_add_data_func("/backing/sealed/future-write",
                         GINT_TO_POINTER(F_SEAL_FUTURE_WRITE), test_sealed);
    g_test_add_func("/backing/sealed/size", test_sealed_size);
    g_test_add_data_func("/backing/fd/read-only", GINT_TO_POINTER(O_RDONLY),
                         test_not_open_for_writing);
    g_test_add_data_func("/backing/fd/path", GINT_TO_POINTER(O_PATH),
                         test_not_open_for_writing);
    g_test_add_data_func("/backing/fd/device", "/dev/zero", test_not_a_file);
    g_test_add_data_func("/backing/fd/directory", "/", test_not_a_file);
    g_test_add_func("/backing/fd/bad", test_bad_fd);
    g_test_add_func("/backing/fd/no-holes", test_no_holes);
    g_test_add_func("/backing/faults/each-call", test_faults_detect);
    g_test_add_func("/backing/faults/harmless", test_faults_harmless);
    return g_test_run();
}
