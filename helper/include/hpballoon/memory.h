/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: a mapping of guest memory, and what is known about it
 *
 * An HpbMemory is an immutable description of one mapping in this process,
 * checked when it is created: what kind of memory backs it, by which call that
 * is freed, and in which sizes. All questions about "what is this memory" are
 * answered here once; work on ranges (discard.h) only looks the answers up.
 *
 * Threads: an HpbMemory may be used by any number of threads at once without a
 * lock. Only hpb_memory_free() needs all others to be done with it.
 *
 * The library neither logs nor exits, starts no threads, installs no handlers,
 * and allocates nothing whose size depends on the mapping or on a request.
 */
#ifndef HPBALLOON_MEMORY_H
#define HPBALLOON_MEMORY_H

#include <stdint.h>
#include <glib.h>

G_BEGIN_DECLS

typedef struct HpbMemory HpbMemory;

/* HpbMemoryDesc.flags */
#define HPB_MEMORY_SHARED       (1u << 0)   /* mapped MAP_SHARED */
#define HPB_MEMORY_READ_ONLY    (1u << 1)   /* file or mapping is read-only by intent */

/*
 * HpbMemoryDesc.disabled: calls that must not be made, because this kernel has
 * a bug in them or to see what happens without. What takes their place:
 */
#define HPB_NO_PROCESS_MADVISE  (1u << 0)   /* one call for each run */
#define HPB_NO_PUNCH_HOLE       (1u << 1)   /* madvise(MADV_REMOVE) */
#define HPB_NO_DONTNEED_LOCKED  (1u << 2)   /* mlocked memory: -ENOTSUP */
#define HPB_NO_POPULATE_WRITE   (1u << 3)   /* fallocate(), or -ENOTSUP */
#define HPB_NO_PAGEMAP_SCAN     (1u << 4)   /* read /proc/self/pagemap */
#define HPB_NO_SEEK_DATA        (1u << 5)   /* the page table alone */
#define HPB_NO_COLLAPSE         (1u << 6)   /* -ENOTSUP */

/* Transparent huge pages of a mapping. Values are ABI: new ones are appended. */
typedef enum HpbThp {
    HPB_THP_UNKNOWN,        /* as the machine has it; taken as possible */
    HPB_THP_MADVISE,        /* MADV_HUGEPAGE was given */
    HPB_THP_NEVER,          /* MADV_NOHUGEPAGE was given, or they are off */
} HpbThp;

/* NUMA nodes of a mapping. Values are ABI: new ones are appended. */
typedef enum HpbPlacement {
    HPB_PLACEMENT_NONE,     /* leave it as it is: somebody else's, or default */
    HPB_PLACEMENT_BIND,     /* from these nodes or not at all */
    HPB_PLACEMENT_PREFERRED,    /* from this one if it has any */
    HPB_PLACEMENT_INTERLEAVE,   /* from these in turn */
} HpbPlacement;

/* Nodes that HpbMemoryDesc.nodes has bits for */
#define HPB_NODES_MAX 1024

/*
 * A mapping as its owner knows it. Initialise with HPB_MEMORY_DESC_INIT and
 * set what is different, so that fields added later keep their default.
 */
typedef struct HpbMemoryDesc {
    const char *name;       /* for messages ("pc.ram"); NULL: none. Copied. */
    void *host;             /* address, multiple of page_size */
    uint64_t length;        /* bytes, multiple of page_size, not 0 */
    /*
     * The file that is mapped, -1: anonymous. Stays the caller's, and open
     * while the HpbMemory lives.
     */
    int fd;
    uint64_t fd_offset;     /* of host in the file, multiple of page_size */
    /*
     * Of the backing: 4096, 2 MiB, 1 GiB ...; 0: find out. Anonymous hugetlb
     * memory (MAP_HUGETLB) is only known by it, so must set it.
     */
    uint64_t page_size;
    uint32_t flags;         /* HPB_MEMORY_* */
    uint32_t disabled;      /* HPB_NO_*, default 0: use all there is */
    HpbThp thp;             /* what was advised; the library advises nothing */
    /*
     * Policy that hpb_memory_new() sets on the mapping: pages that come later,
     * by whoever touches them, are from these nodes. Default: sets none.
     */
    HpbPlacement placement;
    /* HPB_NODES_MAX bits, node 0 lowest (libnuma: bitmask.maskp); else NULL. Copied. */
    const uint64_t *nodes;
    uint64_t reserved[4];   /* 0 */
} HpbMemoryDesc;

#define HPB_MEMORY_DESC_INIT { .fd = -1 }

/* What backs a mapping. Values are ABI: new ones are appended. */
typedef enum HpbBacking {
    HPB_BACKING_ANONYMOUS,          /* private anonymous, with or without THP */
    HPB_BACKING_ANONYMOUS_SHARED,   /* MAP_SHARED | MAP_ANONYMOUS */
    HPB_BACKING_SHMEM,              /* memfd or tmpfs file, shared */
    HPB_BACKING_FILE,               /* file of any other file system, shared */
    HPB_BACKING_HUGETLB,            /* hugetlbfs file or hugetlb memfd, shared */
    /* the same mapped private: the guest's pages are the mapping's own */
    HPB_BACKING_HUGETLB_PRIVATE,
    HPB_BACKING_HUGETLB_ANONYMOUS,  /* MAP_HUGETLB, private or shared */
} HpbBacking;

/* The call that frees ranges of a mapping. Values are ABI: new ones are appended. */
typedef enum HpbMethod {
    HPB_METHOD_DONTNEED,            /* madvise(MADV_DONTNEED) */
    /* madvise(MADV_DONTNEED_LOCKED): some is mlocked, Linux 5.18 or later */
    HPB_METHOD_DONTNEED_LOCKED,
    HPB_METHOD_REMOVE,              /* madvise(MADV_REMOVE) */
    HPB_METHOD_PUNCH_HOLE,          /* fallocate(PUNCH_HOLE | KEEP_SIZE) */
} HpbMethod;

/*
 * Check @desc against the kernel's own view and take it. Nothing is freed, no
 * page touched and no file contents changed (holes are tried past its end). A
 * placement is set on the mapping.
 *
 * Refused, with the reason in @errp: descriptions that contradict themselves
 * or the file; unmapped addresses; memory that is read-only or sealed; private
 * mappings of files other than hugetlb; anything but regular files; file
 * systems and kernels that cannot free parts of a file.
 *
 * Returns NULL and sets @errp (domain HPB_ERROR) when refused.
 */
HpbMemory *hpb_memory_new(const HpbMemoryDesc *desc, GError **errp);

/* No thread may use @mem any more. The mapping and fd stay. NULL is allowed. */
void hpb_memory_free(HpbMemory *mem);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(HpbMemory, hpb_memory_free)

/* Bytes in the mapping. */
uint64_t hpb_memory_length(const HpbMemory *mem);

/*
 * Smallest range in bytes, a power of two: offset and length of every range
 * are multiples of it. The page size of the backing.
 */
uint64_t hpb_memory_smallest_range(const HpbMemory *mem);

/*
 * Range size in bytes, a power of two, at least the smallest, in which memory
 * is best freed: ranges whose offset and length are multiples of it split no
 * huge page. For hugetlb its page size. For other memory the size of a
 * transparent huge page (or what that would be on a kernel without), unless
 * host address or file offset are so that huge pages and ranges cannot
 * coincide, or the description says that there are none (HPB_THP_NEVER): then
 * the smallest range size.
 */
uint64_t hpb_memory_preferred_range(const HpbMemory *mem);

HpbBacking hpb_memory_backing(const HpbMemory *mem);

/* May change from DONTNEED to DONTNEED_LOCKED by a discard that needs it. */
HpbMethod hpb_memory_method(const HpbMemory *mem);

/*
 * Whether that call is made for many ranges at once, by process_madvise(): for
 * private memory, from Linux 6.13. Turns false when the kernel refuses later.
 */
gboolean hpb_memory_vectored(const HpbMemory *mem);

/*
 * Whether a discarded range reads as zeroes until somebody writes to it. False
 * only for a private mapping of a hugetlbfs file that has contents: these
 * show up again.
 */
gboolean hpb_memory_discard_zeroes(const HpbMemory *mem);

/*
 * Stable lower-case words for traces and messages ("anonymous", "shmem", ...;
 * "dontneed", "punch-hole", ...); "unknown" outside the enum. Never NULL,
 * never freed.
 */
const char *hpb_backing_name(HpbBacking backing);
const char *hpb_method_name(HpbMethod method);

G_END_DECLS

#endif /* HPBALLOON_MEMORY_H */
