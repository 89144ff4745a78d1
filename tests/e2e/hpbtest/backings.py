# SPDX-License-Identifier: GPL-2.0-or-later
"""The kinds of memory that a guest's RAM can be made of, and what the host has of each."""
from __future__ import annotations

import dataclasses
from contextlib import ExitStack, contextmanager
from typing import Callable, Iterator

from . import hostmem, hostsetup
from .guest import MIB, Guest

HUGE = 2 * MIB
GIB = 1024 * MIB


@dataclasses.dataclass
class Backing:
    """A kind of guest memory, set up on the host as long as the context of make() lasts.

    option: -object arguments but for id and size, the type first; machine RAM is all of it, or
    with `second` the first of two equal NUMA nodes. held and huge say for a guest how many
    bytes the host holds for its RAM, and how many of them in huge pages.
    """
    name: str
    option: str
    held: Callable[[Guest], int]
    huge: Callable[[Guest], int]
    second: str = ""

    def guest_options(self, size: int) -> dict[str, object]:
        """What a Guest of `size` bytes has to be called with."""
        mib = size // MIB
        if not self.second:
            return {"memory": mib, "machine": "pc,memory-backend=m",
                    "args": ["-object", f"{self.option},id=m,size={mib}M"]}
        args = []
        for number, option in enumerate((self.option, self.second)):
            args += ["-object", f"{option},id=m{number},size={mib // 2}M", "-numa", f"node,memdev=m{number},cpus={number}"]
        return {"memory": mib, "args": args}


def _anonymous(size: int) -> tuple[Callable[[Guest], int], Callable[[Guest], int]]:
    return (lambda guest: hostmem.guest_ram(guest.pid, size).rss,
            lambda guest: hostmem.guest_ram(guest.pid, size).anon_huge)


def _pool(kib: int) -> Callable[[Guest], int]:
    start = hostmem.pool_free(kib)  # before the guest
    return lambda guest: (start - hostmem.pool_free(kib)) * kib * 1024


@contextmanager
def anonymous(size: int, thp: str) -> Iterator[Backing]:
    """Private memory; QEMU asks for huge pages, the host's switch decides."""
    with hostsetup.thp(thp):
        yield Backing(f"anonymous, THP {thp}", "memory-backend-ram", *_anonymous(size))


@contextmanager
def memfd(size: int) -> Iterator[Backing]:
    """Shared memory as other processes can map it, in small pages (the host's administrator may change that)."""
    del size
    yield Backing("memfd", "memory-backend-memfd,share=on", lambda guest: hostmem.memfd_allocated(guest.pid),
                  lambda guest: hostmem.process(guest.pid).shmem_huge)


@contextmanager
def tmpfs(size: int) -> Iterator[Backing]:
    """Shared memory in transparent huge pages: a file on a tmpfs that has them."""
    del size
    with hostsetup.mounted("tmpfs", "huge=always") as path:
        yield Backing("tmpfs, huge=always", f"memory-backend-file,share=on,align=2M,mem-path={path}",
                      lambda guest: hostmem.memfd_allocated(guest.pid, str(path)),
                      lambda guest: hostmem.process(guest.pid).shmem_huge)


@contextmanager
def hugetlb(size: int, kib: int = 2048) -> Iterator[Backing]:
    """Huge pages of a pool, all taken at the start."""
    with hostsetup.pool(size // 1024 // kib, kib):
        held = _pool(kib)
        unit = f"{kib // 1024}M" if kib < 1024 * 1024 else f"{kib // 1024 // 1024}G"
        yield Backing(f"hugetlb memfd, {unit.replace('M', ' MiB').replace('G', ' GiB')}",
                      f"memory-backend-memfd,hugetlb=on,hugetlbsize={unit},prealloc=on", held, held)


@contextmanager
def hugetlbfs(size: int) -> Iterator[Backing]:
    """The same by a file on a mounted hugetlbfs."""
    with hostsetup.pool(size // HUGE), hostsetup.mounted("hugetlbfs", "pagesize=2M") as path:
        held = _pool(2048)
        yield Backing("hugetlbfs, 2 MiB", f"memory-backend-file,share=on,mem-path={path},prealloc=on", held, held)


@contextmanager
def two_nodes(size: int) -> Iterator[Backing]:
    """One node of anonymous memory, one of huge pages of a pool."""
    with ExitStack() as stack:
        stack.enter_context(hostsetup.pool(size // 2 // HUGE))
        pool = _pool(2048)
        rss, thp = _anonymous(size // 2)
        yield Backing("nodes: anonymous, hugetlb 2 MiB", "memory-backend-ram",
                      lambda guest: rss(guest) + pool(guest), lambda guest: thp(guest) + pool(guest),
                      second="memory-backend-memfd,hugetlb=on,hugetlbsize=2M,prealloc=on")
