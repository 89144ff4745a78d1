/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: HpbMemory, a checked description of a mapping
 *
 * Part of step [5] memory of the data path: what the device asks before it
 * offers range sizes to the guest. Validation happens here, once; discard.c
 * trusts every field.
 *
 * Invariants of an HpbMemory: host, length and fd_offset are multiples of
 * page_size, host + length and fd_offset + length do not overflow, page_size,
 * preferred and the slices are powers of two and none is below page_size.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "memory-int.h"

/*
 * Bytes between two looks at the cancel flag. Unit: bytes, power of two.
 * Freeing 4 KiB shmem pages, the slowest kind to free, runs at about 13 GiB/s:
 * 5 ms; providing them takes up to three times that. Larger ones make a device
 * reset wait.
 */
#define HPB_SLICE (64 * 1024ULL * 1024)
/*
 * The same to free memory that is freed faster: private memory, where a slice of
 * huge pages takes 0.4 ms and one of 4 KiB pages 8 ms, and huge pages of a pool
 * (0.2 ms). Each slice ends in a flush of the TLBs of all processors that the
 * process runs on: with 64 MiB and a thread that faults meanwhile these cost a
 * fifth.
 */
#define HPB_SLICE_FAST (256 * 1024ULL * 1024)

#define HPB_KNOWN_FLAGS (HPB_MEMORY_SHARED | HPB_MEMORY_READ_ONLY)
#define HPB_KNOWN_DISABLED (HPB_NO_PROCESS_MADVISE | HPB_NO_PUNCH_HOLE | \
                            HPB_NO_DONTNEED_LOCKED | HPB_NO_POPULATE_WRITE | \
                            HPB_NO_PAGEMAP_SCAN | HPB_NO_SEEK_DATA | \
                            HPB_NO_COLLAPSE)

static gboolean is_power_of_two(uint64_t value)
{
    return value && !(value & (value - 1));
}

/* Checks that need neither page size nor kernel. */
static gboolean check_desc(const HpbMemoryDesc *desc, const char *name,
                           GError **errp)
{
    const char *wrong = NULL;

    if (!desc->host || !desc->length) {
        wrong = "has no address or no length";
    } else if (desc->length > UINTPTR_MAX - (uintptr_t)desc->host ||
               desc->length > SIZE_MAX) {
        wrong = "ends beyond the address space";
    } else if (desc->fd < -1) {
        wrong = "has a negative fd other than -1 (anonymous)";
    } else if (desc->fd == -1 && desc->fd_offset) {
        wrong = "has a file offset but no file";
    } else if (desc->fd_offset > G_MAXINT64 ||
               desc->length > G_MAXINT64 - desc->fd_offset) {
        wrong = "ends beyond the largest file offset";
    } else if (desc->page_size && !is_power_of_two(desc->page_size)) {
        wrong = "has a page size that is not a power of two";
    } else if (desc->flags & ~HPB_KNOWN_FLAGS) {
        wrong = "has flags that this version of the library does not know";
    } else if (desc->disabled & ~HPB_KNOWN_DISABLED) {
        wrong = "disables calls that this version of the library does not know";
    } else if ((unsigned int)desc->thp > HPB_THP_NEVER ||
               (unsigned int)desc->placement > HPB_PLACEMENT_INTERLEAVE) {
        wrong = "has a policy that this version of the library does not know";
    } else if ((desc->placement != HPB_PLACEMENT_NONE) != !!desc->nodes) {
        wrong = "has NUMA nodes without a placement, or the other way round";
    }
    for (size_t i = 0; !wrong && i < G_N_ELEMENTS(desc->reserved); i++) {
        if (desc->reserved[i]) {
            wrong = "has reserved fields that are not 0 (start from "
                    "HPB_MEMORY_DESC_INIT)";
        }
    }
    if (wrong) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_INVALID,
                    "%s: description %s", name, wrong);
        return FALSE;
    }
    if (desc->flags & HPB_MEMORY_READ_ONLY) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_READ_ONLY,
                    "%s: is read-only, its contents must not be dropped", name);
        return FALSE;
    }
    return TRUE;
}

/* Checks that need the page size that was found. */
static gboolean check_aligned(const HpbMemory *mem, GError **errp)
{
    uint64_t mask = mem->page_size - 1;

    if (((uintptr_t)mem->host | mem->length | mem->fd_offset) & mask) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_INVALID,
                    "%s: address %p, length %" G_GUINT64_FORMAT " or file "
                    "offset %" G_GUINT64_FORMAT " is not a multiple of the page"
                    " size %" G_GUINT64_FORMAT, mem->name, (void *)mem->host,
                    mem->length, mem->fd_offset, mem->page_size);
        return FALSE;
    }
    return TRUE;
}

/*
 * Ask whether all of it is mapped. msync(MS_ASYNC) has started no I/O since
 * Linux 2.6.19 but still walks the mappings and finds holes, by their number
 * and not by the length.
 */
static gboolean check_mapped(const HpbMemory *mem, GError **errp)
{
    if (!mem->ops->msync(mem->host, mem->length, MS_ASYNC)) {
        return TRUE;
    }
    if (errno == ENOMEM) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_INVALID,
                    "%s: not all of the %" G_GUINT64_FORMAT " bytes at %p are "
                    "mapped", mem->name, mem->length, (void *)mem->host);
    } else {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_SYSTEM,
                    "%s: msync of %" G_GUINT64_FORMAT " bytes at %p failed: %s",
                    mem->name, mem->length, (void *)mem->host,
                    g_strerror(errno));
    }
    return FALSE;
}

static uint64_t huge_size(const HpbMemory *mem)
{
    uint64_t base = sysconf(_SC_PAGESIZE);
    uint64_t thp;

    if (mem->page_size > base) {
        return mem->page_size;
    }
    thp = mem->ops->thp_size();
    if (!is_power_of_two(thp) || thp < base) {
        /* What one page of page table entries of 8 bytes maps */
        thp = base * (base / 8);
    }
    return thp;
}

/*
 * Huge pages are aligned by address and, in the page cache, by file offset;
 * ranges are aligned by offset into the mapping.
 */
static uint64_t preferred_range(const HpbMemory *mem)
{
    uint64_t place = (uintptr_t)mem->host | mem->fd_offset;

    if (mem->page_size < mem->huge_size && mem->thp == HPB_THP_NEVER) {
        return mem->page_size;
    }
    return place & (mem->huge_size - 1) ? mem->page_size : mem->huge_size;
}

HpbMemory *hpb_memory_new_with_ops(const HpbMemoryDesc *desc,
                                   const HpbSysOps *ops, GError **errp)
{
    g_autofree char *name = desc->name
        ? g_strdup_printf("memory '%s'", desc->name) : g_strdup("memory");
    g_autoptr(HpbMemory) mem = NULL;
    gboolean small;     /* shared pages of the smallest size: slow to free */

    if (!check_desc(desc, name, errp)) {
        return NULL;
    }

    mem = g_new0(HpbMemory, 1);
    pthread_mutex_init(&mem->lock, NULL);
    mem->ops = ops;
    mem->name = g_steal_pointer(&name);
    mem->host = desc->host;
    mem->length = desc->length;
    mem->fd = desc->fd;
    mem->fd_offset = desc->fd_offset;
    mem->page_size = desc->page_size;
    mem->shared = !!(desc->flags & HPB_MEMORY_SHARED);
    mem->disabled = desc->disabled;
    mem->thp = desc->thp;
    mem->placement = desc->placement;
    if (desc->nodes) {
        memcpy(mem->nodes, desc->nodes, sizeof(mem->nodes));
    }
    mem->pidfd = -1;

    if (!hpb_backing_detect(mem, errp) || !check_aligned(mem, errp) ||
        !check_mapped(mem, errp) || !hpb_place_apply(mem, errp)) {
        return NULL;
    }
    mem->huge_size = huge_size(mem);
    mem->preferred = preferred_range(mem);
    mem->slice = MAX(HPB_SLICE, mem->page_size);
    small = mem->shared && mem->page_size == (uint64_t)sysconf(_SC_PAGESIZE);
    mem->discard_slice = MAX(small ? HPB_SLICE : HPB_SLICE_FAST,
                             mem->page_size);
    mem->populate_method = mem->disabled & HPB_NO_POPULATE_WRITE
        ? hpb_populate_fallback(mem) : HPB_POPULATE_WRITE;
    mem->scan_method = mem->disabled & HPB_NO_PAGEMAP_SCAN
        ? HPB_SCAN_BY_PAGEMAP : HPB_SCAN_BY_IOCTL;
    hpb_discard_probe(mem);
    return g_steal_pointer(&mem);
}

HpbMemory *hpb_memory_new(const HpbMemoryDesc *desc, GError **errp)
{
    return hpb_memory_new_with_ops(desc, &hpb_sysops, errp);
}

void hpb_memory_free(HpbMemory *mem)
{
    if (mem) {
        if (mem->pidfd != -1) {
            close(mem->pidfd);
        }
        pthread_mutex_destroy(&mem->lock);
        g_free(mem->name);
        g_free(mem);
    }
}

uint64_t hpb_memory_length(const HpbMemory *mem)
{
    return mem->length;
}

uint64_t hpb_memory_smallest_range(const HpbMemory *mem)
{
    return mem->page_size;
}

uint64_t hpb_memory_preferred_range(const HpbMemory *mem)
{
    return mem->preferred;
}

HpbBacking hpb_memory_backing(const HpbMemory *mem)
{
    return mem->backing;
}

HpbMethod hpb_memory_method(const HpbMemory *mem)
{
    return atomic_load_explicit(&mem->method, memory_order_relaxed);
}

gboolean hpb_memory_vectored(const HpbMemory *mem)
{
    return atomic_load_explicit(&mem->vectored, memory_order_relaxed);
}

gboolean hpb_memory_discard_zeroes(const HpbMemory *mem)
{
    return mem->discard_zeroes;
}
