/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: which memory of a guest is what, by 2 MiB range
 *
 * map.c puts two views together and is pure; hostview.c reads the host's, cmd-
 * map.c asks the device for the guest's, or map-blocks.c asks QEMU where its RAM
 * is; map-text.c and map-picture.c show it.
 */
#ifndef HPBCTL_MAP_H
#define HPBCTL_MAP_H

#include "vm.h"

G_BEGIN_DECLS

#define HPBCTL_MAP_RANGE (2u << 20)

/* What a range is. Values are ordered as in the legend. */
typedef enum HpbctlKind {
    HPBCTL_KIND_OUT,            /* in the balloon, all of it */
    HPBCTL_KIND_HUGE,           /* at least half of it in a huge page */
    HPBCTL_KIND_SMALL,          /* in memory, in small pages */
    HPBCTL_KIND_HELD,           /* in memory; the kernel does not tell how */
    HPBCTL_KIND_SWAPPED,        /* more of it in swap than in memory */
    HPBCTL_KIND_UNTOUCHED,      /* QEMU has no page there */
    HPBCTL_KIND_MAX
} HpbctlKind;

/* Of one range, bytes */
typedef struct HpbctlHeld {
    guint32 present;
    guint32 huge;
    guint32 swapped;
    guint32 out;
} HpbctlHeld;

typedef struct HpbctlMapBlock {
    char *name;
    gint64 node;                /* -1: of no NUMA node */
    guint64 host;               /* address in QEMU */
    guint64 size;               /* bytes */
    guint64 page;               /* bytes, of the backing */
    gsize n;                    /* ranges; the last may be a part of one */
    HpbctlHeld *held;           /* @n of them */
    guint8 *kinds;              /* HpbctlKind, written by hpbctl_map_judge() */
} HpbctlMapBlock;

typedef struct HpbctlMap {
    GPtrArray *blocks;          /* HpbctlMapBlock */
    gboolean tells_huge;        /* whether the host tells huge from small */
    gboolean tells_out;         /* whether the balloon tells what is out */
    guint64 count[HPBCTL_KIND_MAX];     /* ranges, written by judge() */
    guint64 out_held;           /* bytes in the balloon, held all the same */
} HpbctlMap;

/*
 * The blocks of @answer (property "out-ranges") with what is out of them.
 * PROTOCOL if it is not what the device says; nothing in it is trusted.
 */
HpbctlMap *hpbctl_map_new(JsonNode *answer, GError **err);
void hpbctl_map_free(HpbctlMap *map);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HpbctlMap, hpbctl_map_free)

/*
 * The same for a balloon that tells nothing, to be given to hpbctl_map_new():
 * RAM blocks without ranges. UNSUPPORTED if QEMU does not tell them.
 */
JsonNode *hpbctl_map_ask_blocks(HpbctlVm *vm, GError **err);
/* What of @table (HMP 'info ramblock') is of @backends ('query-memdev') */
JsonNode *hpbctl_map_blocks(const char *table, JsonArray *backends);

/* Add @length bytes at @offset of @block to the member of HpbctlHeld at @at */
void hpbctl_map_add(HpbctlMapBlock *block, guint64 offset, guint64 length,
                    gsize at);

/* Decide on the kind of each range and count. */
void hpbctl_map_judge(HpbctlMap *map);

/* Most frequent kind of @n ranges from @first on; the first of equals */
HpbctlKind hpbctl_map_most(const HpbctlMapBlock *block, gsize first, gsize n);

/* Ranges for each cell, if all of @block is to fit into @cells */
gsize hpbctl_map_scale(const HpbctlMapBlock *block, gsize cells);

/* Whether a range of that kind would be told, so 0 of them means none */
gboolean hpbctl_map_tells(const HpbctlMap *map, HpbctlKind kind);

/* "ballooned", ...: for people, and as keys of JSON */
const char *hpbctl_kind_name(HpbctlKind kind);
/* 0xRRGGBB, distinct for the colour-blind too */
guint32 hpbctl_kind_colour(HpbctlKind kind);

/*
 * What process @pid holds of each block, into held. CONNECT or UNSUPPORTED
 * with what to do if it may not be read or does not map that memory.
 */
gboolean hpbctl_host_view(HpbctlMap *map, pid_t pid, GError **err);

typedef struct HpbctlMapStyle {
    gboolean unicode;
    gboolean colour;
    unsigned columns;           /* cells a line */
    unsigned lines;             /* at most, each block */
} HpbctlMapStyle;

/* The map with legend, lines of text; to be freed */
char *hpbctl_map_text(const HpbctlMap *map, const char *title,
                      const HpbctlMapStyle *style);

/* Write it as SVG, or as PNG. FAILED with the file's name, and why. */
gboolean hpbctl_map_svg(const HpbctlMap *map, const char *title,
                        const char *file, GError **err);
gboolean hpbctl_map_png(const HpbctlMap *map, const char *title,
                        const char *file, GError **err);

G_END_DECLS

#endif /* HPBCTL_MAP_H */
