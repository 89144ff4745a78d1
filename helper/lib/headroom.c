/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: how much memory the host can provide for a mapping
 *
 * Part of step [5] memory of the data path. Every limit is looked at, the
 * smallest one is the answer. A limit that cannot be read (no such controller,
 * another mount, no permission) is none: refusing a guest its memory because a
 * file is missing would be worse than the kernel's own answer.
 *
 * Where control groups are mounted is read from mountinfo, because hosts have
 * version 1, version 2 and both at a time, and containers see parts of a tree.
 *
 * Rejected: sysinfo() and get_avphys_pages(), which do not know of groups nor
 * of reclaimable memory; libcgroup, which knows version 1 or brings a daemon.
 */
#include <stdarg.h>
#include <string.h>
#include "memory-int.h"

#define MIB ((uint64_t)1024 * 1024)

/* The smallest limit seen so far */
typedef struct Room {
    const char *root;           /* in front of all paths; "" but for tests */
    uint64_t bytes;
    char text[HPB_HEADROOM_TEXT];
} Room;

/* Where the limits of a controller stand, for one version of control groups */
typedef struct Limit {
    const char *limit;          /* file names, in the group's directory */
    const char *usage;
    const char *unused_key;     /* of memory.stat: used, but not needed; NULL */
    const char *what;           /* for people */
} Limit;

static const Limit memory_v1 = {
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
    "memory control group",
};
static const Limit memory_v2 = {
    "memory.max", "memory.current", "inactive_file", "memory control group",
};

G_GNUC_PRINTF(3, 4)
static void room_limit(Room *room, uint64_t bytes, const char *fmt, ...)
{
    va_list ap;

    if (bytes < room->bytes) {
        room->bytes = bytes;
        va_start(ap, fmt);
        g_vsnprintf(room->text, sizeof(room->text), fmt, ap);
        va_end(ap);
    }
}

static char *read_file(const Room *room, const char *dir, const char *name)
{
    g_autofree char *path = g_strconcat(room->root, dir, "/", name, NULL);
    char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? text : NULL;
}

/* A file that is one number. FALSE for anything else, such as "max". */
static gboolean read_number(const Room *room, const char *dir, const char *name,
                            uint64_t *value)
{
    g_autofree char *text = read_file(room, dir, name);

    return text && g_ascii_string_to_unsigned(g_strchomp(text), 10, 0,
                                              G_MAXUINT64, value, NULL);
}

/* The number behind @key and blanks at the start of a line of @text, or 0 */
static uint64_t number_of(const char *text, const char *key)
{
    size_t len = strlen(key);

    while (text && *text) {
        if (!strncmp(text, key, len) && strchr(" \t", text[len])) {
            return g_ascii_strtoull(text + len, NULL, 10);
        }
        text = strchr(text, '\n');
        text = text ? text + 1 : NULL;
    }
    return 0;
}

/* Control groups */

/* Limit of the group at @dir, which its users know as @name */
static void group_limit(Room *room, const Limit *files, const char *dir,
                        const char *name)
{
    uint64_t limit, usage, unused = 0;

    if (!read_number(room, dir, files->limit, &limit) ||
        !read_number(room, dir, files->usage, &usage)) {
        return;
    }
    if (files->unused_key) {
        g_autofree char *stat = read_file(room, dir, "memory.stat");

        unused = number_of(stat, files->unused_key);
    }
    usage -= MIN(usage, unused);
    room_limit(room, limit - MIN(limit, usage),
               "%s %s: %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT
               " MiB used (%s)", files->what, *name ? name : "/", usage / MIB,
               limit / MIB, files->limit);
}

/* The group @path of the tree that is mounted at @mount, and all above it */
static void walk_groups(Room *room, const Limit *files, const char *mount,
                        const char *path)
{
    g_autofree char *name = g_strdup(path);

    for (;;) {
        g_autofree char *dir = NULL;
        char *slash;

        while (*name && g_str_has_suffix(name, "/")) {
            name[strlen(name) - 1] = 0;
        }
        dir = g_strconcat(mount, name, NULL);
        group_limit(room, files, dir, name);
        slash = strrchr(name, '/');
        if (!slash) {
            return;
        }
        *slash = 0;
    }
}

static gboolean in_list(const char *list, const char *word)
{
    g_auto(GStrv) words = g_strsplit(list, ",", 0);

    return g_strv_contains((const char *const *)words, word);
}

/*
 * The process' group in the tree of @controller (version 1), or in the one of
 * version 2 if @controller is NULL. Returns NULL if there is none.
 */
static char *group_path(const char *groups, const char *controller)
{
    g_auto(GStrv) lines = g_strsplit(groups, "\n", 0);

    for (char **line = lines; *line; line++) {
        g_auto(GStrv) field = g_strsplit(*line, ":", 3);

        if (g_strv_length(field) == 3 &&
            (controller ? in_list(field[1], controller) : !*field[1])) {
            return g_strdup(field[2]);
        }
    }
    return NULL;
}

/* Whether @line of mountinfo is the tree of @controller, see group_path(). */
static gboolean is_tree(const char *line, const char *controller)
{
    const char *rest = strstr(line, " - ");
    g_auto(GStrv) field = rest ? g_strsplit(rest + 3, " ", 0) : NULL;

    if (!field || g_strv_length(field) < 3) {
        return FALSE;
    }
    return controller ? !strcmp(field[0], "cgroup") &&
                        in_list(field[2], controller)
                      : !strcmp(field[0], "cgroup2");
}

static void tree_limits(Room *room, const Limit *files, const char *mounts,
                        const char *groups, const char *controller)
{
    g_autofree char *path = group_path(groups, controller);
    g_auto(GStrv) lines = g_strsplit(mounts, "\n", 0);

    for (char **line = lines; path && *line; line++) {
        g_auto(GStrv) field = g_strsplit(*line, " ", 6);
        const char *name = path;

        if (g_strv_length(field) < 6 || !is_tree(*line, controller)) {
            continue;
        }
        /* Only a part of the tree may be mounted */
        if (strcmp(field[3], "/") != 0 && g_str_has_prefix(path, field[3])) {
            name += strlen(field[3]);
        }
        walk_groups(room, files, field[4], name);
        return;
    }
}

static void group_limits(Room *room, const Limit *v1, const Limit *v2,
                         const char *controller)
{
    g_autofree char *groups = read_file(room, "/proc/self", "cgroup");
    g_autofree char *mounts = read_file(room, "/proc/self", "mountinfo");

    if (groups && mounts) {
        tree_limits(room, v1, mounts, groups, controller);
        tree_limits(room, v2, mounts, groups, NULL);
    }
}

/* Limits by kind of memory */

static void ordinary_limits(Room *room)
{
    g_autofree char *meminfo = read_file(room, "/proc", "meminfo");
    uint64_t available = number_of(meminfo, "MemAvailable:");

    if (available) {
        room_limit(room, available * 1024, "host memory: %" G_GUINT64_FORMAT
                   " MiB available (MemAvailable)", available / 1024);
    }
    group_limits(room, &memory_v1, &memory_v2, "memory");
}

static void file_limits(Room *room, const HpbMemory *mem)
{
    struct statfs fs;

    /* The memory file system of memfd has no size: 0 blocks */
    if (!mem->ops->fstatfs(mem->fd, &fs) && fs.f_blocks) {
        uint64_t bytes = (uint64_t)fs.f_bavail * fs.f_bsize;

        room_limit(room, bytes, "file system of the memory's file: %"
                   G_GUINT64_FORMAT " MiB free", bytes / MIB);
    }
}

/* "2 MiB", "1 GiB"; "2MB", "1GB" as groups have it */
static char *size_words(uint64_t size, gboolean group)
{
    static const char units[] = "KMGT";
    unsigned int i = 0;

    size /= 1024;
    while (size >= 1024 && size % 1024 == 0 && units[i + 1]) {
        size /= 1024;
        i++;
    }
    return g_strdup_printf(group ? "%" G_GUINT64_FORMAT "%cB"
                                 : "%" G_GUINT64_FORMAT " %ciB",
                           size, units[i]);
}

static void pool_limit(Room *room, uint64_t page_size)
{
    g_autofree char *words = size_words(page_size, FALSE);
    g_autofree char *dir = g_strdup_printf(
        "/sys/kernel/mm/hugepages/hugepages-%" G_GUINT64_FORMAT "kB",
        page_size / 1024);
    uint64_t free_pages, reserved = 0, extra = 0, surplus = 0;

    if (!read_number(room, dir, "free_hugepages", &free_pages)) {
        return;
    }
    read_number(room, dir, "resv_hugepages", &reserved);
    read_number(room, dir, "nr_overcommit_hugepages", &extra);
    read_number(room, dir, "surplus_hugepages", &surplus);
    free_pages -= MIN(free_pages, reserved);
    extra -= MIN(extra, surplus);
    room_limit(room, (free_pages + extra) * page_size,
               "%s huge pages: %" G_GUINT64_FORMAT " free in the pool, %"
               G_GUINT64_FORMAT " more allowed (vm.nr_hugepages)", words,
               free_pages, extra);
}

static void hugetlb_limits(Room *room, uint64_t page_size)
{
    g_autofree char *size = size_words(page_size, TRUE);
    g_autofree char *v1_limit = g_strdup_printf("hugetlb.%s.limit_in_bytes",
                                                size);
    g_autofree char *v1_usage = g_strdup_printf("hugetlb.%s.usage_in_bytes",
                                                size);
    g_autofree char *v2_limit = g_strdup_printf("hugetlb.%s.max", size);
    g_autofree char *v2_usage = g_strdup_printf("hugetlb.%s.current", size);
    Limit v1 = { .what = "hugetlb control group" }, v2 = v1;

    pool_limit(room, page_size);
    v1.limit = v1_limit;
    v1.usage = v1_usage;
    v2.limit = v2_limit;
    v2.usage = v2_usage;
    group_limits(room, &v1, &v2, "hugetlb");
}

uint64_t hpb_headroom_at(const char *root, const HpbMemory *mem, char *text,
                         size_t size)
{
    Room room = { .root = root, .bytes = G_MAXUINT64 };

    switch (mem->backing) {
    case HPB_BACKING_HUGETLB:
    case HPB_BACKING_HUGETLB_PRIVATE:
    case HPB_BACKING_HUGETLB_ANONYMOUS:
        hugetlb_limits(&room, mem->page_size);
        break;
    case HPB_BACKING_SHMEM:
    case HPB_BACKING_FILE:
        file_limits(&room, mem);
        ordinary_limits(&room);
        break;
    case HPB_BACKING_ANONYMOUS:
    case HPB_BACKING_ANONYMOUS_SHARED:
    default:
        ordinary_limits(&room);
        break;
    }
    if (size) {
        g_strlcpy(text, room.text, size);
    }
    return room.bytes;
}

uint64_t hpb_memory_headroom(const HpbMemory *mem, char *text, size_t size)
{
    return hpb_headroom_at("", mem, text, size);
}
