/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of libhpballoon: system calls that fail on demand
 *
 * Each call is counted, then asked whether it has to fail, then done for real
 * (unless "fake", for mappings that are too large to exist).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "support.h"

TestFaults test_faults;

void test_faults_reset(TestMap *map)
{
    memset(&test_faults, 0, sizeof(test_faults));
    test_faults.thp_size = THP_SIZE;
    if (map) {
        test_faults.host = map->host;
        test_faults.fd_offset = map->desc.fd_offset;
    }
}

/* Count a call; TRUE, with errno set, if it has to fail. */
static gboolean fails(TestCall call)
{
    TestFaults *f = &test_faults;
    unsigned number = ++f->calls[call];

    if (f->times && call == f->call && number >= f->first &&
        number - f->first < f->times) {
        errno = f->error;
        return TRUE;
    }
    return FALSE;
}

/* The same for a call that frees. */
static gboolean free_fails(TestCall call, uint64_t offset, uint64_t length,
                           int advice)
{
    TestFaults *f = &test_faults;

    f->frees++;
    f->longest = MAX(f->longest, length);
    if (f->cancel_at == f->frees) {
        __atomic_store_n(&f->cancel, 1, __ATOMIC_RELEASE);
    }
    if (fails(call)) {
        return TRUE;
    }
    if (f->bad_range && (!f->bad_only || f->bad_only == advice) &&
        offset <= f->bad_offset && f->bad_offset - offset < length) {
        errno = f->bad_error;
        return TRUE;
    }
    return FALSE;
}

static int fault_madvise(void *addr, size_t length, int advice)
{
    if (free_fails(TEST_CALL_MADVISE, (uint8_t *)addr - test_faults.host,
                   length, advice)) {
        return -1;
    }
    if (advice == test_faults.bad_advice) {
        errno = EINVAL;
        return -1;
    }
    return test_faults.fake ? 0 : hpb_sysops.madvise(addr, length, advice);
}

static int fault_fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (free_fails(TEST_CALL_FALLOCATE, offset - test_faults.fd_offset,
                   length, 0)) {
        return -1;
    }
    return test_faults.fake ? 0 : hpb_sysops.fallocate(fd, mode, offset, length);
}

static int fault_msync(void *addr, size_t length, int flags)
{
    if (fails(TEST_CALL_MSYNC)) {
        return -1;
    }
    return test_faults.fake ? 0 : hpb_sysops.msync(addr, length, flags);
}

static int fault_fstat(int fd, struct stat *st)
{
    return fails(TEST_CALL_FSTAT) ? -1 : hpb_sysops.fstat(fd, st);
}

static int fault_fstatfs(int fd, struct statfs *fs)
{
    return fails(TEST_CALL_FSTATFS) ? -1 : hpb_sysops.fstatfs(fd, fs);
}

static int fault_fcntl_get(int fd, int cmd)
{
    return fails(TEST_CALL_FCNTL_GET) ? -1 : hpb_sysops.fcntl_get(fd, cmd);
}

static uint64_t fault_thp_size(void)
{
    return fails(TEST_CALL_THP_SIZE) ? 0 : test_faults.thp_size;
}

static int fault_pidfd_self(void)
{
    if (fails(TEST_CALL_PIDFD)) {
        return -1;
    }
    if (!test_faults.vector) {
        errno = ENOSYS;
        return -1;
    }
    return hpb_sysops.pidfd_self();
}

/*
 * As the kernel does it, by whole runs: stops at the first that fails, which
 * is an error only if it is the first of all. Built from madvise(), so that
 * it works on kernels that do not have it.
 */
static ssize_t fault_process_madvise(int pidfd, const struct iovec *iov,
                                     size_t n, int advice)
{
    TestFaults *f = &test_faults;
    size_t done = 0;

    g_assert_cmpint(pidfd, >=, 0);
    if (fails(TEST_CALL_PROCESS_MADVISE)) {
        return -1;
    }
    if (!n) {
        return 0;
    }
    f->vectors++;
    for (size_t i = 0; i < n; i++) {
        if (f->short_after && done >= f->short_after) {
            return (ssize_t)done;
        }
        if (fault_madvise(iov[i].iov_base, iov[i].iov_len, advice)) {
            return done ? (ssize_t)done : -1;
        }
        done += iov[i].iov_len;
    }
    f->longest_vector = MAX(f->longest_vector, done);
    return (ssize_t)done;
}

static int fault_open_pagemap(void)
{
    return fails(TEST_CALL_OPEN_PAGEMAP) ? -1 : hpb_sysops.open_pagemap();
}

static int fault_ioctl(int fd, unsigned long request, void *arg)
{
    return fails(TEST_CALL_IOCTL) ? -1 : hpb_sysops.ioctl(fd, request, arg);
}

static ssize_t fault_pread(int fd, void *buffer, size_t length, off_t offset)
{
    ssize_t most = test_faults.short_read ? test_faults.short_read : length;
    ssize_t got;

    if (fails(TEST_CALL_PREAD)) {
        return -1;
    }
    got = hpb_sysops.pread(fd, buffer, length, offset);
    return MIN(got, most);
}

static off_t fault_lseek(int fd, off_t offset, int whence)
{
    return fails(TEST_CALL_LSEEK) ? -1 : hpb_sysops.lseek(fd, offset, whence);
}

static int fault_page_nodes(size_t n, void **pages, int *status)
{
    return fails(TEST_CALL_PAGE_NODES)
        ? -1 : hpb_sysops.page_nodes(n, pages, status);
}

static int fault_mbind(void *addr, size_t length, int mode,
                       const unsigned long *mask, unsigned long max_node)
{
    return fails(TEST_CALL_MBIND)
        ? -1 : hpb_sysops.mbind(addr, length, mode, mask, max_node);
}

static uint64_t fault_node_available(int node)
{
    return test_faults.node_available ? test_faults.node_available
                                      : hpb_sysops.node_available(node);
}

const HpbSysOps test_fault_ops = {
    .madvise = fault_madvise,
    .fallocate = fault_fallocate,
    .msync = fault_msync,
    .fstat = fault_fstat,
    .fstatfs = fault_fstatfs,
    .fcntl_get = fault_fcntl_get,
    .thp_size = fault_thp_size,
    .pidfd_self = fault_pidfd_self,
    .process_madvise = fault_process_madvise,
    .open_pagemap = fault_open_pagemap,
    .ioctl = fault_ioctl,
    .pread = fault_pread,
    .lseek = fault_lseek,
    .page_nodes = fault_page_nodes,
    .mbind = fault_mbind,
    .node_available = fault_node_available,
};
