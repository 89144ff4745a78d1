/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: the real system calls (see HpbSysOps)
 *
 * Part of step [5] memory of the data path. Nothing is decided here.
 */
#include <fcntl.h>
#include <numaif.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "memory-int.h"

#define THP_SIZE_FILE "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"

static int sys_fcntl_get(int fd, int cmd)
{
    return fcntl(fd, cmd);
}

static uint64_t sys_thp_size(void)
{
    g_autofree char *text = NULL;
    guint64 size = 0;

    /* Absent in kernels and containers without it: not an error */
    if (g_file_get_contents(THP_SIZE_FILE, &text, NULL, NULL)) {
        g_strchomp(text);
        if (!g_ascii_string_to_unsigned(text, 10, 0, G_MAXUINT64, &size,
                                        NULL)) {
            size = 0;
        }
    }
    return size;
}

static int sys_pidfd_self(void)
{
    return (int)syscall(SYS_pidfd_open, getpid(), 0);
}

static ssize_t sys_process_madvise(int pidfd, const struct iovec *iov, size_t n,
                                   int advice)
{
    return syscall(SYS_process_madvise, pidfd, iov, n, advice, 0);
}

static int sys_open_pagemap(void)
{
    return open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
}

static int sys_ioctl(int fd, unsigned long request, void *arg)
{
    return ioctl(fd, request, arg);
}

static int sys_page_nodes(size_t n, void **pages, int *status)
{
    return (int)move_pages(0, n, pages, NULL, status, 0);
}

static int sys_mbind(void *addr, size_t length, int mode,
                     const unsigned long *mask, unsigned long max_node)
{
    return (int)mbind(addr, length, mode, mask, max_node, 0);
}

const HpbSysOps hpb_sysops = {
    .madvise = madvise,
    .fallocate = fallocate,
    .msync = msync,
    .fstat = fstat,
    .fstatfs = fstatfs,
    .fcntl_get = sys_fcntl_get,
    .thp_size = sys_thp_size,
    .pidfd_self = sys_pidfd_self,
    .process_madvise = sys_process_madvise,
    .open_pagemap = sys_open_pagemap,
    .ioctl = sys_ioctl,
    .pread = pread,
    .lseek = lseek,
    .page_nodes = sys_page_nodes,
    .mbind = sys_mbind,
    .node_available = hpb_host_available,
};
