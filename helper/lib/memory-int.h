/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: what the library's own files know of each other
 *
 *   backing.c   which kind of memory a description is, and what may be done
 *   memory.c    HpbMemory: creation, checks that need no kernel, questions
 *   discard.c   free ranges
 *   headroom.c  what the host can provide
 *   names.c     words and outcomes
 *   sysops.c    the real system calls
 *
 * Calls go from discard.c and memory.c to the others only.
 *
 * System calls go through a table so that tests make each of them fail, one by
 * one, in the process that runs the test. Rejected: LD_PRELOAD (does not reach
 * static builds and sanitizers), weak symbols (one fault for all threads).
 */
#ifndef HPB_MEMORY_INT_H
#define HPB_MEMORY_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <hpballoon/hpballoon.h>

/* As the functions of the same name: -1 and errno on failure. */
typedef struct HpbSysOps {
    int (*madvise)(void *addr, size_t length, int advice);
    int (*fallocate)(int fd, int mode, off_t offset, off_t length);
    int (*msync)(void *addr, size_t length, int flags);
    int (*fstat)(int fd, struct stat *st);
    int (*fstatfs)(int fd, struct statfs *fs);
    int (*fcntl_get)(int fd, int cmd);  /* fcntl() for commands without argument */
    uint64_t (*thp_size)(void);         /* bytes, 0: kernel has none */
} HpbSysOps;

extern const HpbSysOps hpb_sysops;

/*
 * Everything but method and the counters is constant after creation. method
 * only ever goes from DONTNEED to DONTNEED_LOCKED: a reader that sees the old
 * value merely makes one call more. lock protects counters; it is not a GMutex
 * because the thread sanitizer cannot see those.
 */
struct HpbMemory {
    const HpbSysOps *ops;
    char *name;             /* "memory 'NAME'" or "memory", for messages */
    uint8_t *host;
    uint64_t length;
    int fd;
    uint64_t fd_offset;
    uint64_t page_size;     /* of the backing */
    uint64_t preferred;
    uint64_t slice;         /* most bytes between two looks at cancel; power of two */
    gboolean shared;
    HpbBacking backing;
    gboolean discard_zeroes;
    _Atomic int method;     /* HpbMethod */

    pthread_mutex_t lock;
    HpbDiscardCounters counters;
};

/* hpb_memory_new() with other system calls. @ops outlives the result. */
HpbMemory *hpb_memory_new_with_ops(const HpbMemoryDesc *desc,
                                   const HpbSysOps *ops, GError **errp);

/*
 * Find out what backs @mem and set page_size, backing, method and
 * discard_zeroes, or refuse. Needs all fields that come from the description;
 * page_size is what that says, 0 for unknown.
 */
gboolean hpb_backing_detect(HpbMemory *mem, GError **errp);

/* hpb_memory_headroom() with @root in front of the paths that are read. */
uint64_t hpb_headroom_at(const char *root, const HpbMemory *mem, char *text,
                         size_t size);

#endif /* HPB_MEMORY_INT_H */
