/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: what the host holds for another process
 *
 * Step [5] memory of the data path, looked at from outside. The library scans
 * the process it is part of, by mappings it was given; this is the same look at
 * QEMU by /proc/PID/pagemap, which needs the right to trace that process: its
 * own user, or CAP_SYS_PTRACE. Extents by the ioctl PAGEMAP_SCAN (Linux 6.7);
 * before, pages by reading, which does not tell THP from small pages.
 *
 * Only QEMU's page table is seen: shared memory that another process filled
 * and QEMU never touched counts as untouched.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "map.h"

/* linux/fs.h of 6.7; headers of Debian 12 do not have it */
typedef struct Region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
} Region;

typedef struct Request {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t inverted, mask, anyof, ret;
} Request;

G_STATIC_ASSERT(sizeof(Region) == 24 && sizeof(Request) == 96);

#define PAGEMAP_REQUEST _IOWR('f', 16, Request)
#define IS_PRESENT      (1u << 3)
#define IS_SWAPPED      (1u << 4)
#define IS_ZERO         (1u << 5)
#define IS_HUGE         (1u << 6)

#define ENTRY_PRESENT   (1ULL << 63)
#define ENTRY_SWAPPED   (1ULL << 62)

#define ENTRIES 1024
#define REGIONS 512

static void add_flags(HpbctlMapBlock *block, uint64_t start, uint64_t end,
                      uint64_t categories)
{
    uint64_t offset = start - block->host, length = end - start;

    if (categories & IS_SWAPPED) {
        hpbctl_map_add(block, offset, length,
                       G_STRUCT_OFFSET(HpbctlHeld, swapped));
    } else if (categories & IS_PRESENT && !(categories & IS_ZERO)) {
        hpbctl_map_add(block, offset, length,
                       G_STRUCT_OFFSET(HpbctlHeld, present));
        if (categories & IS_HUGE) {
            hpbctl_map_add(block, offset, length,
                           G_STRUCT_OFFSET(HpbctlHeld, huge));
        }
    }
}

/* 0 or a negative errno */
static int view_by_ioctl(int fd, HpbctlMapBlock *block)
{
    Region regions[REGIONS];
    Request arg = {
        .size = sizeof(arg),
        .start = block->host,
        .end = block->host + block->size,
        .vec = (uintptr_t)regions,
        .vec_len = REGIONS,
        .anyof = IS_PRESENT | IS_SWAPPED,
        .ret = IS_PRESENT | IS_SWAPPED | IS_ZERO | IS_HUGE,
    };

    while (arg.start < arg.end) {
        int n = ioctl(fd, PAGEMAP_REQUEST, &arg);

        if (n < 0) {
            return -errno;
        }
        for (int i = 0; i < n; i++) {
            add_flags(block, regions[i].start, regions[i].end,
                      regions[i].categories);
        }
        if (arg.walk_end <= arg.start) {
            return -EIO;
        }
        arg.start = arg.walk_end;
    }
    return 0;
}

/* 0 or a negative errno */
static int view_by_reading(int fd, HpbctlMapBlock *block)
{
    uint64_t entries[ENTRIES];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t huge = block->page > page ? IS_HUGE : 0;
    uint64_t at = block->host, end = block->host + block->size;

    while (at < end) {
        size_t want = MIN(ENTRIES, (end - at) / page) * sizeof(*entries);
        ssize_t got = pread(fd, entries, want,
                            (off_t)(at / page * sizeof(*entries)));

        if (got < (ssize_t)sizeof(*entries)) {
            return got < 0 ? -errno : -EIO;
        }
        for (size_t i = 0; i < (size_t)got / sizeof(*entries); i++) {
            add_flags(block, at, at + page,
                      entries[i] & ENTRY_PRESENT ? IS_PRESENT | huge :
                      entries[i] & ENTRY_SWAPPED ? IS_SWAPPED : 0);
            at += page;
        }
    }
    return 0;
}

/* Is all of @block mapped there? @maps: text of /proc/PID/maps */
static gboolean is_mapped(const char *maps, const HpbctlMapBlock *block)
{
    uint64_t at = block->host, end = block->host + block->size;
    const char *line = maps;

    while (line && *line && at < end) {
        char *rest;
        uint64_t from = g_ascii_strtoull(line, &rest, 16);
        uint64_t to = *rest == '-' ? g_ascii_strtoull(rest + 1, NULL, 16) : 0;

        if (from <= at && at < to) {
            at = to;
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return at >= end;
}

static gboolean check_mapped(const HpbctlMap *map, pid_t pid, GError **err)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/maps", (int)pid);
    g_autofree char *maps = NULL;

    if (!g_file_get_contents(path, &maps, NULL, err)) {
        g_prefix_error(err, "cannot see what QEMU (pid %d) has mapped; run this "
                       "as root or as QEMU's user: ", (int)pid);
        return FALSE;
    }
    for (guint i = 0; i < map->blocks->len; i++) {
        HpbctlMapBlock *block = g_ptr_array_index(map->blocks, i);

        if (!is_mapped(maps, block)) {
            g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                        "process %d does not have the guest's memory '%s'; "
                        "either it is not this VM's QEMU (say which is by "
                        "--pid), or it may not be looked at: run this as root "
                        "or as QEMU's user", (int)pid, block->name);
            return FALSE;
        }
    }
    return TRUE;
}

static int view_block(HpbctlMap *map, int fd, HpbctlMapBlock *block)
{
    if (map->tells_huge) {
        int ret = view_by_ioctl(fd, block);

        if (ret != -ENOTTY && ret != -EPERM && ret != -ENOSYS &&
            ret != -EINVAL) {
            return ret;
        }
        map->tells_huge = FALSE;
    }
    return view_by_reading(fd, block);
}

gboolean hpbctl_host_view(HpbctlMap *map, pid_t pid, GError **err)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/pagemap", (int)pid);
    int fd, ret = 0;

    if (!check_mapped(map, pid, err)) {
        return FALSE;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT,
                    "cannot open %s: %s; run this as root or as QEMU's user",
                    path, g_strerror(errno));
        return FALSE;
    }
    map->tells_huge = TRUE;
    for (guint i = 0; !ret && i < map->blocks->len; i++) {
        ret = view_block(map, fd, g_ptr_array_index(map->blocks, i));
    }
    close(fd);
    if (ret) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_GONE,
                    "cannot read %s: %s; the VM may have ended", path,
                    g_strerror(-ret));
    }
    return !ret;
}
