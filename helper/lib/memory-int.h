/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: what the library's own files know of each other
 *
 *   backing.c   which kind of memory a description is, and what may be done
 *   memory.c    HpbMemory: creation, checks that need no kernel, questions
 *   discard.c   free ranges
 *   place.c     NUMA nodes to take memory from
 *   host.c      pools and nodes of the machine (public only)
 *   scan.c      what is held; pagemap.c, nodes.c: see scan-int.h
 *   headroom.c  what the host can provide
 *   populate.c  provide memory for ranges
 *   work.c      go through the ranges of a request, slice by slice
 *   names.c     words and outcomes
 *   sysops.c    the real system calls
 *
 * Calls go down from memory.c, discard.c and populate.c; populate.c frees what
 * it cannot use.
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
#include <sys/uio.h>
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
    int (*pidfd_self)(void);            /* pidfd_open() of this process */
    ssize_t (*process_madvise)(int pidfd, const struct iovec *iov, size_t n,
                               int advice);
    int (*open_pagemap)(void);          /* /proc/self/pagemap, for reading */
    int (*ioctl)(int fd, unsigned long request, void *arg);
    ssize_t (*pread)(int fd, void *buffer, size_t length, off_t offset);
    off_t (*lseek)(int fd, off_t offset, int whence);
    /* move_pages() of this process without destination: tells nodes */
    int (*page_nodes)(size_t n, void **pages, int *status);
    int (*mbind)(void *addr, size_t length, int mode, const unsigned long *mask,
                 unsigned long max_node);
    uint64_t (*node_available)(int node);   /* hpb_host_available() */
} HpbSysOps;

extern const HpbSysOps hpb_sysops;

/*
 * Consecutive failures with EINTR or EAGAIN after which a call is given up as
 * busy. Unit: calls. Neither is known to repeat for memory; the number only
 * has to be finite, for a caller that waits, and more than a burst of signals.
 */
#define HPB_RETRY_MAX 16

/*
 * Everything but the methods and the counters is constant after creation. They
 * only ever go one way, DONTNEED to DONTNEED_LOCKED, POPULATE_WRITE to
 * FALLOCATE, vectored to not, ioctl to pagemap: a reader that sees the old value
 * merely makes one call more. lock protects the counters; it is not a GMutex
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
    uint64_t huge_size;     /* of a huge page that may be there, power of two */
    uint64_t slice;         /* most bytes between two looks at cancel; power of two */
    uint64_t discard_slice; /* the same for discard */
    gboolean shared;
    uint32_t disabled;      /* HPB_NO_* */
    HpbThp thp;
    HpbPlacement placement;
    uint64_t nodes[HPB_NODES_MAX / 64];
    int pidfd;              /* of this process, -1: not vectored from the start */
    HpbBacking backing;
    gboolean discard_zeroes;
    _Atomic int method;     /* HpbMethod */
    _Atomic int populate_method;    /* HpbPopulateMethod */
    _Atomic int vectored;   /* gboolean */
    _Atomic int scan_method;    /* HpbScanMethod */

    pthread_mutex_t lock;
    HpbCounters discarded;
    HpbCounters populated;
    HpbCounters collapsed;
};

/* One request: a list of ranges, and what to do with them (work.c) */
typedef struct HpbWork HpbWork;
struct HpbWork {
    HpbMemory *mem;
    const HpbRange *ranges;
    size_t n;
    HpbResult *results;         /* or NULL */
    const int *cancel;          /* or NULL */
    uint64_t slice;             /* of the memory */
    /*
     * Ranges are multiples of it, and so is what counts as done of a range that
     * fails. 0: of the page size, and a range is tried as a whole.
     */
    uint64_t step;
    /* One try at a slice: 0 or a negative errno. Counts its system calls. */
    int (*call)(HpbWork *work, uint64_t offset, uint64_t length);
    /*
     * One try at several runs, together no longer than a slice: how many bytes
     * from their start are done, or a negative errno. NULL: one by one.
     */
    ssize_t (*call_many)(HpbWork *work, const struct iovec *iov, size_t n);
    /* What to do with the part of a range that failed, or NULL */
    void (*undo)(HpbWork *work, uint64_t offset, uint64_t length);
    gboolean stopped;           /* cancel was seen once */
    HpbCounters count;
};

/* Answer all ranges, and add to @sum, under the lock. True: all were done. */
gboolean hpb_work_run(HpbWork *work, HpbCounters *sum);
gboolean hpb_work_canceled(HpbWork *work);

/* 0, or -EINVAL or -ERANGE that answers @range. @unit: power of two. */
int hpb_range_check(const HpbMemory *mem, const HpbRange *range, uint64_t unit);

/*
 * Scan @range and call @func for each run, until it returns other than 0.
 * Returns that, -ECANCELED, or what the scan failed with. Long runs of the same
 * flags may come in pieces.
 */
int hpb_memory_each_run(HpbMemory *mem, const HpbRange *range,
                        const int *cancel,
                        int (*func)(const HpbMemory *mem, const HpbRun *run,
                                    void *opaque), void *opaque);

/* HpbWork.call that frees */
int hpb_discard_call(HpbWork *work, uint64_t offset, uint64_t length);
/* What takes the place of MADV_POPULATE_WRITE for @mem. */
HpbPopulateMethod hpb_populate_fallback(const HpbMemory *mem);
/* Find out whether the kernel frees many ranges in one call, and remember. */
void hpb_discard_probe(HpbMemory *mem);

/* hpb_memory_new() with other system calls. @ops outlives the result. */
HpbMemory *hpb_memory_new_with_ops(const HpbMemoryDesc *desc,
                                   const HpbSysOps *ops, GError **errp);

/*
 * Find out what backs @mem and set page_size, backing, method and
 * discard_zeroes, or refuse. Needs all fields that come from the description;
 * page_size is what that says, 0 for unknown.
 */
gboolean hpb_backing_detect(HpbMemory *mem, GError **errp);

/* Set the placement of the description. */
gboolean hpb_place_apply(HpbMemory *mem, GError **errp);
/* Whether @length bytes may be taken without the kernel killing for it. */
gboolean hpb_place_has_room(const HpbMemory *mem, uint64_t length);

/* hpb_memory_headroom() with @root in front of the paths that are read. */
uint64_t hpb_headroom_at(const char *root, const HpbMemory *mem, char *text,
                         size_t size);

#endif /* HPB_MEMORY_INT_H */
