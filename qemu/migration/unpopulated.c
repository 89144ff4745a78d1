/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory that the host never had to provide
 *
 * A guest that has been given more than it has used so far has memory that
 * nobody ever touched. Precopy reads all of it to find out that it is zero, and
 * makes the host provide it by that where it is shared memory. The host knows:
 * page tables tell it for anonymous memory, the holes of the file for memfds.
 * What is not there when dirty logging has begun is taken from the first
 * bitmap. What is written afterwards is in the log; what was swapped out, or is
 * mapped by others only, is there.
 *
 * Where not, each with a reason in the trace:
 *  - postcopy: a destination asks for pages, and the source does not answer
 *    for those that are not dirty;
 *  - background snapshots, which have no dirty log;
 *  - savevm: loadvm goes on with memory as it happens to be, not with zeroes;
 *  - COLO, whose secondary has run meanwhile;
 *  - files with a name: the destination may have the same one, with contents.
 */
#include "qemu/osdep.h"
#include "exec/cpu-common.h"
#include "hpballoon/hpballoon.h"
#include "migration.h"
#include "options.h"
#include "system/runstate.h"
#include "trace.h"
#include "unpopulated.h"

/* Runs of a look; they are on the stack, 24 bytes each */
#define RUNS 128

static const char *why_not(void)
{
    if (!migrate_get_current()->skip_unpopulated) {
        return "migration.skip-unpopulated=off";
    } else if (migrate_postcopy_ram()) {
        return "postcopy";
    } else if (migrate_background_snapshot()) {
        return "background snapshot";
    } else if (migrate_colo()) {
        return "COLO";
    } else if (runstate_check(RUN_STATE_SAVE_VM)) {
        return "savevm";
    }
    return NULL;
}

bool migrate_skips_unpopulated(void)
{
    const char *why = why_not();

    if (why) {
        trace_migrate_unpopulated_off("all", why);
    }
    return !why;
}

static HpbMemory *open_block(RAMBlock *rb)
{
    HpbMemoryDesc desc = HPB_MEMORY_DESC_INIT;
    g_autoptr(GError) err = NULL;
    HpbMemory *mem;

    if (qemu_ram_is_named_file(rb) || (rb->fd >= 0 && !qemu_ram_is_shared(rb))) {
        trace_migrate_unpopulated_off(rb->idstr, "file");
        return NULL;
    }
    desc.name = rb->idstr;
    desc.host = rb->host;
    desc.length = QEMU_ALIGN_UP(rb->used_length, rb->page_size);
    desc.fd = rb->fd;
    desc.fd_offset = rb->fd < 0 ? 0 : rb->fd_offset;
    desc.page_size = rb->page_size;
    desc.flags = qemu_ram_is_shared(rb) ? HPB_MEMORY_SHARED : 0;
    mem = hpb_memory_new(&desc, &err);
    if (!mem) {
        trace_migrate_unpopulated_off(rb->idstr, err->message);
    }
    return mem;
}

/* Returns how many bytes @func was called for. */
static uint64_t replay_runs(RAMBlock *rb, const HpbRun *runs, size_t n,
                            ReplayRamDiscard func, void *opaque)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t end = MIN(runs[i].offset + runs[i].length, rb->used_length);
        MemoryRegionSection section = {
            .mr = rb->mr,
            .offset_within_region = runs[i].offset,
            .size = int128_make64(end - MIN(end, runs[i].offset)),
        };

        /* The page of zeroes was read, never written. */
        if ((!runs[i].flags || runs[i].flags & HPB_SCAN_ZERO) &&
            end > runs[i].offset) {
            func(&section, opaque);
            bytes += end - runs[i].offset;
        }
    }
    return bytes;
}

void ram_block_replay_unpopulated(RAMBlock *rb, ReplayRamDiscard func,
                                  void *opaque)
{
    g_autoptr(HpbMemory) mem = open_block(rb);
    HpbRange rest = { .length = QEMU_ALIGN_UP(rb->used_length, rb->page_size) };
    uint64_t bytes = 0;

    while (mem && rest.length) {
        HpbRun runs[RUNS];
        ssize_t n = hpb_memory_scan_contents(mem, &rest, runs, RUNS);
        uint64_t end;

        if (n <= 0) {
            trace_migrate_unpopulated_off(rb->idstr, strerror(-n));
            break;
        }
        bytes += replay_runs(rb, runs, n, func, opaque);
        end = runs[n - 1].offset + runs[n - 1].length;
        rest.length -= end - rest.offset;
        rest.offset = end;
    }
    trace_migrate_unpopulated(rb->idstr, bytes);
}
