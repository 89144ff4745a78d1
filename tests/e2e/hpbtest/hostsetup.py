# SPDX-License-Identifier: GPL-2.0-or-later
"""Settings of the host for a while: huge page pools, transparent huge pages, mounted file systems.

Each is a context manager that puts back what it found. What this machine does
not have or does not permit is a HostLacks error with the reason: a test is
skipped by it, a benchmark leaves the line out and says why.
"""
from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Callable, Iterator

from . import hostmem

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


class HostLacks(Exception):
    """This host cannot do it."""


class Ending:
    """From now on SIGTERM and SIGHUP end this program as Ctrl-C does: by KeyboardInterrupt, so that all is put back that a context manager holds.

    began: one of the three has come. What goes wrong while things are put back may hide the KeyboardInterrupt, and is no reason to go on.
    A signal that was ignored (nohup) stays so. Only Ctrl-C can end it again, and at once.
    """

    def __init__(self) -> None:
        self.began = False
        self._signals = [one for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT) if signal.getsignal(one) is not signal.SIG_IGN]
        for one in self._signals:
            signal.signal(one, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.began = True
        for one in self._signals:
            signal.signal(one, signal.default_int_handler if one == signal.SIGINT else signal.SIG_IGN)
        signal.default_int_handler(number, frame)


@contextmanager
def pool(pages: int, kib: int = 2048) -> Iterator[None]:
    """At least that many free huge pages in the host's pool of that size; what lacks is added."""
    path = Path(f"/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages")
    if not path.exists():
        raise HostLacks(f"this host has no huge pages of {kib} KiB")
    missing = pages - hostmem.pool_free(kib)
    if missing <= 0:
        yield
        return
    before = int(path.read_text(encoding="utf-8"))
    try:
        try:
            path.write_text(str(before + missing), encoding="utf-8")
        except OSError as error:
            raise HostLacks(f"needs the right to write {path} (root): {error}") from None
        got = int(path.read_text(encoding="utf-8")) - before
        if got < missing:
            raise HostLacks(f"needs {pages} free huge pages of {kib} KiB, this host has memory for {pages - missing + got}")
        yield
    finally:
        # Others may have changed it meanwhile. A signal may have ended the write early, with some of the pages.
        now = int(path.read_text(encoding="utf-8"))
        if now > before:
            path.write_text(str(max(before, now - missing)), encoding="utf-8")


@contextmanager
def mounted(kind: str, options: str) -> Iterator[Path]:
    """A file system of that type is mounted; the value is where."""
    with tempfile.TemporaryDirectory(prefix="hpb-") as path:
        try:
            run = subprocess.run(["mount", "-t", kind, "-o", options, "hpb", path], capture_output=True, text=True, check=False)
            if run.returncode:
                raise HostLacks(f"needs the right to mount {kind} with {options} (root): {run.stderr.strip()}")
            yield Path(path)
        finally:
            if os.path.ismount(path):
                subprocess.run(["umount", "-l", path], check=True)


def thp_setting() -> str:
    """The host's switch for transparent huge pages of anonymous memory."""
    match = re.search(r"\[(\w+)\]", THP.read_text(encoding="utf-8"))
    assert match, f"{THP} names no setting"
    return match[1]


@contextmanager
def setting(path: Path, value: str, read: Callable[[], str]) -> Iterator[None]:
    """A setting of the kernel, as read() says it, has that value."""
    before = read()
    try:
        try:
            if before != value:
                path.write_text(value, encoding="utf-8")
        except OSError as error:
            raise HostLacks(f"needs {value} in {path}, and the right to write it (root): {error}") from None
        yield
    finally:
        if read() != before:
            path.write_text(before, encoding="utf-8")


def thp(value: str) -> AbstractContextManager[None]:
    """The host's switch for transparent huge pages is always, madvise or never."""
    return setting(THP, value, thp_setting)


def sysctl(name: str, value: str) -> AbstractContextManager[None]:
    """A sysctl has that value."""
    path = Path("/proc/sys") / name.replace(".", "/")
    return setting(path, value, lambda: path.read_text(encoding="utf-8").strip())


@contextmanager
def hog(left: int, kib: int = 2048) -> Iterator[None]:
    """Another program has all free huge pages of that pool but `left`."""
    fd = os.memfd_create("hog", os.MFD_HUGETLB | (os.MFD_HUGE_1GB if kib > 2048 else os.MFD_HUGE_2MB))
    try:
        os.posix_fallocate(fd, 0, (hostmem.pool_free(kib) - left) * kib * 1024)
        assert hostmem.pool_free(kib) == left
        yield
    finally:
        os.close(fd)


@contextmanager
def memory_group(pid: int) -> Iterator[Callable[[int], None]]:
    """A process is in a control group of its own for memory; the value sets how many bytes it can have, 0 for no limit.

    What the process had before is charged to its former group and stays there.
    """
    base, limit, none = next(((Path(base), limit, none) for base, limit, none in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "-1"), ("/sys/fs/cgroup", "memory.max", "max"))
        if (Path(base) / "cgroup.procs").exists()), (None, "", ""))
    if not base:
        raise HostLacks("needs control groups below /sys/fs/cgroup")
    group = base / f"hpb-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        raise HostLacks(f"needs the right to make a control group (root): {error}") from None
    try:
        if not (group / limit).exists():
            raise HostLacks(f"needs the memory controller in control groups below {base}")
        (group / "cgroup.procs").write_text(str(pid), encoding="utf-8")
        yield lambda size: (group / limit).write_text(str(size) if size else none, encoding="utf-8") and None
    finally:
        for line in (group / "cgroup.procs").read_text(encoding="utf-8").split():
            (base / "cgroup.procs").write_text(line, encoding="utf-8")
        group.rmdir()
