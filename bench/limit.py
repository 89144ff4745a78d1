# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's own limit: memory of each kind, populated, and freed by bare system calls. No guest, no QEMU."""
from __future__ import annotations

import ctypes
import mmap
import os
import time

from hpbtest.guest import MIB

HUGE = 2 * MIB
MADV_POPULATE_WRITE = 23    # Linux 5.14
PUNCH_HOLE = 3              # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
ANONYMOUS, MEMFD, HUGETLB = "anonymous, THP", "memfd", "hugetlb memfd, 2 MiB"
_libc = ctypes.CDLL(None, use_errno=True)


def free(kind: str, size: int, ranges: list[tuple[int, int]]) -> float:
    """Populate `size` bytes, free these ranges (offset and length), one system call each. Returns its seconds."""
    fd = -1
    if kind != ANONYMOUS:
        fd = os.memfd_create("limit", os.MFD_HUGETLB | os.MFD_HUGE_2MB if kind == HUGETLB else 0)
        os.ftruncate(fd, size + HUGE)
    try:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS if fd < 0 else mmap.MAP_SHARED
        with mmap.mmap(fd, size + HUGE, flags) as memory:
            first = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % HUGE
            if fd < 0:
                memory.madvise(mmap.MADV_HUGEPAGE)
            memory.madvise(MADV_POPULATE_WRITE, first, size)
            start = time.perf_counter()
            for offset, length in ranges:
                if fd < 0:
                    memory.madvise(mmap.MADV_DONTNEED, first + offset, length)
                elif _libc.fallocate(fd, PUNCH_HOLE, ctypes.c_long(first + offset), ctypes.c_long(length)):
                    raise OSError(ctypes.get_errno(), "fallocate")
            return time.perf_counter() - start
    finally:
        if fd >= 0:
            os.close(fd)
