# SPDX-License-Identifier: GPL-2.0-or-later
"""What a QEMU process costs the host: resident and huge pages, whole and for guest memory alone."""
from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Mapping:
    """One mapping, or the sum of several; sizes in bytes."""
    size: int = 0
    rss: int = 0
    anon_huge: int = 0
    shmem_huge: int = 0
    name: str = ""


_FIELDS = {"Size": "size", "Rss": "rss", "AnonHugePages": "anon_huge", "ShmemPmdMapped": "shmem_huge"}


def mappings(pid: int) -> list[Mapping]:
    """All mappings of a process, in address order."""
    found: list[Mapping] = []
    with open(f"/proc/{pid}/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            head = re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(.*)$", line)
            if head:
                found.append(Mapping(name=head[1].strip()))
                continue
            key, _, value = line.partition(":")
            if key in _FIELDS:
                setattr(found[-1], _FIELDS[key], int(value.split()[0]) * 1024)
    return found


def guest_ram(pid: int, size: int) -> Mapping:
    """Guest memory of `size` bytes.

    Mappings split where their flags differ, and neighbours may merge: those of at
    least a sixteenth of the size are guest memory, nothing else in QEMU is as large
    in use.
    """
    total = Mapping(name="guest memory")
    for mapping in mappings(pid):
        if mapping.size >= size // 16 and mapping.rss:
            for name in _FIELDS.values():
                setattr(total, name, getattr(total, name) + getattr(mapping, name))
    return total


def process(pid: int) -> Mapping:
    """The whole process."""
    total = Mapping(name="process")
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in _FIELDS:
                setattr(total, _FIELDS[key], int(value.split()[0]) * 1024)
    return total


def peak(pid: int) -> int:
    """The largest resident size since forget_peak(), or ever."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/status has no VmHWM")


def forget_peak(pid: int) -> int:
    """Let the peak start again at the present resident size, which is returned."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="utf-8")
    return peak(pid)


def memfd_allocated(pid: int, name: str = "/memfd:") -> int:
    """Bytes that the process's memfds, or other open files of that name, occupy (the resident size does not show holes at once)."""
    total = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if name in os.readlink(entry):
                total += os.stat(entry).st_blocks * 512
        except OSError:
            continue
    return total


def pool_free(kib: int = 2048) -> int:
    """Free huge pages of that size that nobody has reserved."""
    pool = Path(f"/sys/kernel/mm/hugepages/hugepages-{kib}kB")
    free, reserved = (int((pool / name).read_text(encoding="utf-8")) for name in ("free_hugepages", "resv_hugepages"))
    return free - reserved


def meminfo(field: str) -> int:
    """A field of the host's /proc/meminfo, in bytes."""
    match = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/meminfo").read_text(encoding="utf-8"), re.M)
    assert match, f"/proc/meminfo has no {field}"
    return int(match[1]) * 1024


def context_switches(pid: int) -> dict[str, int]:
    """Voluntary context switches of each thread, by "name-tid": who woke up."""
    result = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        text = (task / "status").read_text(encoding="utf-8", errors="replace")
        name = re.search(r"^Name:\s*(.*)$", text, re.M)
        count = re.search(r"^voluntary_ctxt_switches:\s*(\d+)$", text, re.M)
        if name and count:
            result[f"{name[1]}-{task.name}"] = int(count[1])
    return result
