/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: pools of huge pages and NUMA nodes of this machine
 *
 * Part of step [5] memory of the data path: what its answers are explained by.
 * Which sizes there are and where hugetlbfs is mounted is asked of
 * libhugetlbfs, nodes of libnuma. How full a pool is neither tells (the first
 * had it in a private library that distributions do not ship): that is read
 * from sysfs, which has it by node too.
 *
 * libhugetlbfs acts on HUGETLB_* variables of the environment by itself, such as
 * HUGETLB_MORECORE; without them it only reads mounts when it is loaded.
 */
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <hugetlbfs.h>     /* wants stddef.h before it */
#include <numa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <hpballoon/host.h>

/* Sizes that a kernel may have at once: arm64 has 4, with room for others */
#define SIZES_MAX 32

static int compare_sizes(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return left < right ? -1 : left > right;
}

size_t hpb_pool_sizes(uint64_t *sizes, size_t n)
{
    long found[SIZES_MAX];
    uint64_t sorted[SIZES_MAX];
    int count = gethugepagesizes(found, SIZES_MAX);

    /* -1: no pools at all */
    for (int i = 0; i < count; i++) {
        sorted[i] = (uint64_t)found[i];
    }
    count = MAX(count, 0);
    qsort(sorted, (size_t)count, sizeof(*sorted), compare_sizes);
    for (size_t i = 0; i < MIN((size_t)count, n); i++) {
        sizes[i] = sorted[i];
    }
    return (size_t)count;
}

/* One number of a pool. 0 or a negative errno. */
static int read_pool_file(uint64_t page_size, int node, const char *name,
                          uint64_t *value)
{
    char path[128], text[32];
    char *end;
    FILE *file;
    int len;

    len = node == HPB_ANY_NODE
        ? g_snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages")
        : g_snprintf(path, sizeof(path),
                     "/sys/devices/system/node/node%d/hugepages", node);
    g_snprintf(path + len, sizeof(path) - (size_t)len,
               "/hugepages-%" G_GUINT64_FORMAT "kB/%s", page_size / 1024, name);
    file = fopen(path, "re");
    if (!file) {
        return errno == ENOENT ? -ENOENT : -EIO;
    }
    if (!fgets(text, sizeof(text), file)) {
        text[0] = 0;
    }
    fclose(file);
    *value = g_ascii_strtoull(text, &end, 10);
    return end == text ? -EIO : 0;
}

int hpb_pool_read(uint64_t page_size, int node, HpbPool *pool)
{
    const struct {
        const char *name;
        uint64_t *value;
    } files[] = {
        { "nr_hugepages", &pool->total },
        { "free_hugepages", &pool->free },
        { "surplus_hugepages", &pool->surplus },
        /* The last two are of the machine only */
        { "resv_hugepages", &pool->reserved },
        { "nr_overcommit_hugepages", &pool->overcommit },
    };

    *pool = (HpbPool) { .page_size = page_size };
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        int ret;

        if (node != HPB_ANY_NODE && i >= 3) {
            break;
        }
        ret = read_pool_file(page_size, node, files[i].name, files[i].value);
        if (ret) {
            return ret;
        }
    }
    return 0;
}

uint64_t hpb_pool_available(const HpbPool *pool)
{
    uint64_t pages = pool->free - MIN(pool->free, pool->reserved);

    return pages + pool->overcommit - MIN(pool->overcommit, pool->surplus);
}

const char *hpb_pool_mount(uint64_t page_size)
{
    return page_size > LONG_MAX ? NULL
                                : hugetlbfs_find_path_for_size((long)page_size);
}

int hpb_host_max_node(void)
{
    return numa_available() == -1 ? 0 : MAX(numa_max_node(), 0);
}

/* kB behind @key in meminfo, of a node ("Node 0 MemFree:") or of the machine */
static uint64_t meminfo_kib(const char *line, const char *key)
{
    const char *at = strstr(line, key);

    return at ? g_ascii_strtoull(at + strlen(key), NULL, 10) : 0;
}

uint64_t hpb_host_available(int node)
{
    char path[64], line[256];
    uint64_t kib = 0;
    FILE *file;

    if (node == HPB_ANY_NODE) {
        g_strlcpy(path, "/proc/meminfo", sizeof(path));
    } else {
        g_snprintf(path, sizeof(path),
                   "/sys/devices/system/node/node%d/meminfo", node);
    }
    file = fopen(path, "re");
    if (!file) {
        return 0;
    }
    while (fgets(line, sizeof(line), file)) {
        kib += meminfo_kib(line, "MemFree:") +
               meminfo_kib(line, "Inactive(file):");
    }
    fclose(file);
    return kib * 1024;
}
