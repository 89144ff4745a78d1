/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/headroom.c: which limit counts, and what is said
 *
 * The files of /proc, /sys and control groups are made in a directory of the
 * test's own, so that hosts of both versions, containers and broken hosts are
 * all tried on any machine. One test looks at the machine itself.
 */
#include <errno.h>
#include <stdio.h>
#include "support.h"

#define ALL G_MAXUINT64

typedef struct Host {
    char *root;
    HpbMemory mem;
    char text[HPB_HEADROOM_TEXT];
} Host;

static uint64_t blocks_free;

static int fake_fstatfs(int fd, struct statfs *fs)
{
    if (fd < 0) {
        errno = EBADF;
        return -1;
    }
    *fs = (struct statfs) { .f_blocks = fd, .f_bavail = blocks_free,
                            .f_bsize = 4096 };
    return 0;
}

static const HpbSysOps fake_ops = { .fstatfs = fake_fstatfs };

static void put(Host *host, const char *path, const char *text)
{
    g_autofree char *full = g_strconcat(host->root, path, NULL);
    g_autofree char *dir = g_path_get_dirname(full);

    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
}

/* A host of version 2, 1 GiB available, the process in /vm/one */
static void host_new(Host *host)
{
    *host = (Host) { .mem = { .ops = &fake_ops, .fd = -1, .page_size = 4096,
                              .backing = HPB_BACKING_ANONYMOUS } };
    host->root = g_dir_make_tmp("hpb-headroom-XXXXXX", NULL);
    g_assert_nonnull(host->root);
    put(host, "/proc/meminfo", "MemTotal: 4000 kB\nMemAvailable: 1048576 kB\n");
    put(host, "/proc/self/cgroup", "0::/vm/one\n");
    put(host, "/proc/self/mountinfo",
        "21 1 8:1 / / rw,relatime - ext4 /dev/root rw\n"
        "24 21 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
}

static void remove_tree(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *full = g_build_filename(path, name, NULL);

        remove_tree(full);
    }
    if (dir) {
        g_dir_close(dir);
    }
    g_assert_cmpint(remove(path), ==, 0);
}

static void host_free(Host *host)
{
    remove_tree(host->root);
    g_free(host->root);
}

static void expect(Host *host, uint64_t bytes, const char *words)
{
    uint64_t got = hpb_headroom_at(host->root, &host->mem, host->text,
                                   sizeof(host->text));

    g_test_message("%" G_GUINT64_FORMAT ": %s", got, host->text);
    g_assert_cmpuint(got, ==, bytes);
    g_assert_nonnull(strstr(host->text, words));
    g_assert_cmpuint(hpb_headroom_at(host->root, &host->mem, NULL, 0), ==,
                     bytes);
}

static void put_group(Host *host, const char *dir, const char *max,
                      const char *current, const char *stat)
{
    g_autofree char *a = g_strconcat(dir, "/memory.max", NULL);
    g_autofree char *b = g_strconcat(dir, "/memory.current", NULL);
    g_autofree char *c = g_strconcat(dir, "/memory.stat", NULL);

    put(host, a, max);
    put(host, b, current);
    put(host, c, stat);
}

static void test_v2(void)
{
    Host host;

    host_new(&host);
    expect(&host, GIB, "MemAvailable");
    put_group(&host, "/sys/fs/cgroup/vm/one", "max\n", "1048576\n", "");
    expect(&host, GIB, "MemAvailable");
    put_group(&host, "/sys/fs/cgroup/vm/one", "268435456\n", "67108864\n",
              "anon 1\ninactive_file 0\n");
    expect(&host, 192 * MIB, "group /vm/one: 64 of 256 MiB used (memory.max)");
    /* page cache that can go is not in the way */
    put_group(&host, "/sys/fs/cgroup/vm/one", "268435456\n", "67108864\n",
              "total_inactive_file 7\ninactive_file 33554432\n");
    expect(&host, 224 * MIB, "32 of 256");
    /* a group above has less, and more is used than allowed */
    put_group(&host, "/sys/fs/cgroup/vm", "1048576\n", "2097152\n", "");
    expect(&host, 0, "group /vm:");
    put_group(&host, "/sys/fs/cgroup/vm", "max\n", "2097152\n", "");
    expect(&host, 224 * MIB, "/vm/one");
    host.mem.backing = HPB_BACKING_ANONYMOUS_SHARED;
    expect(&host, 224 * MIB, "/vm/one");
    host_free(&host);
}

static void test_v1(void)
{
    Host host;

    host_new(&host);
    put(&host, "/proc/self/cgroup",
        "9:name=systemd:/\n4:cpu,memory:/a/b\n3:memory_other:/\n0::/\n");
    put(&host, "/proc/self/mountinfo",
        "30 21 0:25 / /cg/cpu rw - cgroup cgroup rw,cpuset\n"
        "31 21 0:26 / /cg/mem rw - cgroup cgroup rw,cpu,memory\n"
        "32 21 0:27 / /cg/unified rw - cgroup2 cgroup2 rw\n");
    put(&host, "/cg/mem/a/b/memory.limit_in_bytes", "9223372036854771712\n");
    put(&host, "/cg/mem/a/b/memory.usage_in_bytes", "1048576\n");
    put(&host, "/cg/mem/a/b/memory.stat", "inactive_file 5\n");
    expect(&host, GIB, "MemAvailable");
    put(&host, "/cg/mem/a/memory.limit_in_bytes", "104857600\n");
    put(&host, "/cg/mem/a/memory.usage_in_bytes", "62914560\n");
    put(&host, "/cg/mem/a/memory.stat",
        "inactive_file 9\ntotal_inactive_file 20971520\n");
    expect(&host, 60 * MIB, "/a: 40 of 100 MiB used (memory.limit_in_bytes)");
    host_free(&host);
}

/* Only a part of the tree is mounted, as in a container */
static void test_part(void)
{
    Host host;

    host_new(&host);
    put(&host, "/proc/self/mountinfo",
        "24 21 0:22 /vm /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    put_group(&host, "/sys/fs/cgroup/one", "4194304\n", "0\n", "");
    expect(&host, 4 * MIB, "/one");
    put_group(&host, "/sys/fs/cgroup", "2097152\n", "0\n", "");
    expect(&host, 2 * MIB, "group /:");
    host_free(&host);
}

/* What cannot be read or makes no sense limits nothing */
static void test_broken(void)
{
    Host host;

    host_new(&host);
    put_group(&host, "/sys/fs/cgroup/vm/one", "much\n", "1\n", "");
    expect(&host, GIB, "MemAvailable");
    put(&host, "/proc/self/cgroup", ":\n::\n\nnonsense\n0::");
    put(&host, "/proc/self/mountinfo", "\n - cgroup2\n1 2 3 4 5 - cgroup2 x\n");
    expect(&host, GIB, "MemAvailable");
    put(&host, "/proc/meminfo", "MemAvailable");
    expect(&host, ALL, "");
    g_assert_cmpstr(host.text, ==, "");
    host.mem.backing = HPB_BACKING_HUGETLB;
    host.mem.page_size = 2 * MIB;
    expect(&host, ALL, "");
    host.mem.backing = HPB_BACKING_SHMEM;
    expect(&host, ALL, "");
    host_free(&host);
}

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"

static void test_hugetlb(void)
{
    Host host;

    host_new(&host);
    host.mem.backing = HPB_BACKING_HUGETLB;
    host.mem.page_size = 2 * MIB;
    put(&host, POOL "free_hugepages", "0\n");
    expect(&host, 0, "2 MiB huge pages: 0 free in the pool");
    put(&host, POOL "free_hugepages", "10\n");
    expect(&host, 20 * MIB, "10 free");
    put(&host, POOL "resv_hugepages", "4\n");
    put(&host, POOL "nr_overcommit_hugepages", "5\n");
    put(&host, POOL "surplus_hugepages", "3\n");
    expect(&host, 16 * MIB, "6 free in the pool, 2 more allowed");
    put(&host, POOL "resv_hugepages", "40\n");
    put(&host, POOL "surplus_hugepages", "30\n");
    expect(&host, 0, "0 free in the pool, 0 more allowed");
    put(&host, POOL "resv_hugepages", "0\n");
    put(&host, "/sys/fs/cgroup/vm/one/hugetlb.2MB.max", "8388608\n");
    put(&host, "/sys/fs/cgroup/vm/one/hugetlb.2MB.current", "4194304\n");
    expect(&host, 4 * MIB, "hugetlb control group /vm/one: 4 of 8 MiB");
    /* pools are apart by size, and memory's limit is not for them */
    put_group(&host, "/sys/fs/cgroup/vm", "0\n", "0\n", "");
    host.mem.page_size = GIB;
    expect(&host, ALL, "");
    put(&host, "/sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages",
        "1\n");
    host.mem.backing = HPB_BACKING_HUGETLB_ANONYMOUS;
    expect(&host, GIB, "1 GiB huge pages: 1 free");
    put(&host, "/sys/fs/cgroup/vm/hugetlb.1GB.max", "0\n");
    put(&host, "/sys/fs/cgroup/vm/hugetlb.1GB.current", "0\n");
    expect(&host, 0, "0 of 0 MiB used (hugetlb.1GB.max)");
    host_free(&host);
}

static void test_file_system(void)
{
    Host host;

    host_new(&host);
    host.mem.backing = HPB_BACKING_SHMEM;
    host.mem.fd = 100;
    blocks_free = 256;
    expect(&host, MIB, "file system");
    blocks_free = 0;
    expect(&host, 0, "0 MiB free");
    blocks_free = GIB;
    expect(&host, GIB, "MemAvailable");
    /* of unlimited size */
    host.mem.fd = 0;
    blocks_free = 0;
    expect(&host, GIB, "MemAvailable");
    host.mem.backing = HPB_BACKING_ANONYMOUS;
    host.mem.fd = 100;
    expect(&host, GIB, "MemAvailable");
    host_free(&host);
}

/* Text never runs over; a long path is cut */
static void test_text(void)
{
    g_autofree char *name = g_strnfill(200, 'x');
    g_autofree char *dir = g_strconcat("/sys/fs/cgroup/", name, "/", name, NULL);
    g_autofree char *line = g_strconcat("0::/", name, "/", name, "\n", NULL);
    char text[8];
    Host host;

    host_new(&host);
    put(&host, "/proc/self/cgroup", line);
    put_group(&host, dir, "4096\n", "0\n", "");
    expect(&host, 4096, "memory control group /xxx");
    g_assert_cmpuint(hpb_headroom_at(host.root, &host.mem, text, 8), ==, 4096);
    g_assert_cmpstr(text, ==, "memory ");
    host_free(&host);
}

/* This machine: whatever it is, a page can be had */
static void test_here(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_THP, 64 * MIB, 0);
    g_autoptr(HpbMemory) mem = hpb_memory_new(&map->desc, NULL);
    char text[HPB_HEADROOM_TEXT];
    uint64_t bytes;

    g_assert_nonnull(mem);
    bytes = hpb_memory_headroom(mem, text, sizeof(text));
    g_test_message("%" G_GUINT64_FORMAT " bytes: %s", bytes, text);
    g_assert_cmpuint(bytes, >, 4096);
    g_assert_cmpuint(bytes, <, ALL);
    g_assert_cmpstr(text, !=, "");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/headroom/v2", test_v2);
    g_test_add_func("/headroom/v1", test_v1);
    g_test_add_func("/headroom/part", test_part);
    g_test_add_func("/headroom/broken", test_broken);
    g_test_add_func("/headroom/hugetlb", test_hugetlb);
    g_test_add_func("/headroom/file-system", test_file_system);
    g_test_add_func("/headroom/text", test_text);
    g_test_add_func("/headroom/here", test_here);
    return g_test_run();
}
