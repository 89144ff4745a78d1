/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: free ranges of a mapping
 *
 * Step [5] memory of the data path: which call frees a slice. How a request
 * becomes slices is in work.c. Trying again is harmless because the contents
 * are given up anyway.
 *
 * Private memory is freed by process_madvise() where the list has gaps: one
 * call, and one flush of other processors' TLBs, for many runs. The kernel has
 * it for the calling process' own memory since 6.13; before that the probe at
 * creation says no. One call is capped just below 2 GiB, which a slice never
 * reaches unless it is a single run, and may stop short, in front of the run
 * that it did not like: that one is then freed by itself, to learn why.
 * Shared memory has no such call.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include "memory-int.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24     /* Linux 5.18 */
#endif

/* One call. 0 or a negative errno. */
static int discard_once(HpbWork *work, HpbMethod method, uint64_t offset,
                        uint64_t length)
{
    const HpbMemory *mem = work->mem;
    int ret = -1;

    work->count.syscalls++;
    switch (method) {
    case HPB_METHOD_DONTNEED:
        ret = mem->ops->madvise(mem->host + offset, length, MADV_DONTNEED);
        break;
    case HPB_METHOD_DONTNEED_LOCKED:
        ret = mem->ops->madvise(mem->host + offset, length,
                                MADV_DONTNEED_LOCKED);
        break;
    case HPB_METHOD_REMOVE:
        ret = mem->ops->madvise(mem->host + offset, length, MADV_REMOVE);
        break;
    case HPB_METHOD_PUNCH_HOLE:
        ret = mem->ops->fallocate(mem->fd,
                                  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                  (off_t)(mem->fd_offset + offset),
                                  (off_t)length);
        break;
    }
    return ret ? -errno : 0;
}

/*
 * One try with the method in use. The kernel says EINVAL to MADV_DONTNEED of
 * mlocked memory: what the guest gives up needs no lock, and is locked again
 * when it is next touched. From then on the call that worked is the method.
 */
int hpb_discard_call(HpbWork *work, uint64_t offset, uint64_t length)
{
    HpbMethod method = hpb_memory_method(work->mem);
    int ret = discard_once(work, method, offset, length);

    if (ret == -EINVAL && method == HPB_METHOD_DONTNEED &&
        !(work->mem->disabled & HPB_NO_DONTNEED_LOCKED)) {
        method = HPB_METHOD_DONTNEED_LOCKED;
        ret = discard_once(work, method, offset, length);
        if (!ret) {
            atomic_store_explicit(&work->mem->method, method,
                                  memory_order_relaxed);
        }
    }
    return ret;
}

static ssize_t discard_many(HpbWork *work, const struct iovec *iov, size_t n)
{
    HpbMemory *mem = work->mem;
    int advice = hpb_memory_method(mem) == HPB_METHOD_DONTNEED
        ? MADV_DONTNEED : MADV_DONTNEED_LOCKED;
    ssize_t ret;

    work->count.syscalls++;
    work->count.vectored++;
    ret = mem->ops->process_madvise(mem->pidfd, iov, n, advice);
    if (ret >= 0) {
        return ret;
    }
    switch (errno) {
    case EBADF:
    case EPERM:
    case ESRCH:
    case ENOSYS:
        /* Not about this memory: a sandbox since, or a child of fork() */
        work->call_many = NULL;
        atomic_store_explicit(&mem->vectored, FALSE, memory_order_relaxed);
        break;
    default:
        break;
    }
    return -errno;
}

void hpb_discard_probe(HpbMemory *mem)
{
    HpbMethod method = hpb_memory_method(mem);

    if ((mem->disabled & HPB_NO_PROCESS_MADVISE) ||
        (method != HPB_METHOD_DONTNEED && method != HPB_METHOD_DONTNEED_LOCKED)) {
        return;
    }
    mem->pidfd = mem->ops->pidfd_self();
    if (mem->pidfd != -1) {
        /* Nothing to do is refused too where the advice is */
        mem->vectored = !mem->ops->process_madvise(mem->pidfd, NULL, 0,
                                                   MADV_DONTNEED);
    }
}

gboolean hpb_memory_discard(HpbMemory *mem, const HpbRange *ranges, size_t n,
                            HpbResult *results, const int *cancel)
{
    HpbWork work = {
        .mem = mem,
        .ranges = ranges,
        .n = n,
        .results = results,
        .cancel = cancel,
        .slice = mem->discard_slice,
        .call = hpb_discard_call,
        .call_many = hpb_memory_vectored(mem) ? discard_many : NULL,
    };

    return hpb_work_run(&work, &mem->discarded);
}

void hpb_memory_discard_counters(HpbMemory *mem, HpbCounters *counters)
{
    pthread_mutex_lock(&mem->lock);
    *counters = mem->discarded;
    pthread_mutex_unlock(&mem->lock);
}
