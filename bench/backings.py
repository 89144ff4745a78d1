# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host has of a guest's memory, for every kind of backing, with the traditional balloon and with this one.

The guest touches memory, shrinks, grows back, and touches as much again. Each
time the host is asked what it holds for the guest's RAM, and how much of that in
huge pages. Nothing here is a time, so once is enough.
"""
from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from typing import Callable

from hpbtest import backings, settings
from hpbtest.balloon import resize
from hpbtest.guest import MIB, OURS, STOCK, Guest, balloon_device
from hpbtest.hostsetup import HostLacks
from report import Report, Series, table

SIZE = 1024 * MIB
SMALL = 400 * MIB
TOUCH = 700

KINDS: list[tuple[str, Callable[[], AbstractContextManager[backings.Backing]]]] = [
    ("anonymous, THP always", lambda: backings.anonymous(SIZE, "always")),
    ("anonymous, THP madvise", lambda: backings.anonymous(SIZE, "madvise")),
    ("anonymous, THP never", lambda: backings.anonymous(SIZE, "never")),
    ("memfd", lambda: backings.memfd(SIZE)),
    ("tmpfs, huge=always", lambda: backings.tmpfs(SIZE)),
    ("hugetlbfs, 2 MiB", lambda: backings.hugetlbfs(SIZE)),
    ("hugetlb memfd, 2 MiB", lambda: backings.hugetlb(SIZE)),
    ("nodes: anonymous, hugetlb 2 MiB", lambda: backings.two_nodes(SIZE)),
]


@dataclasses.dataclass
class Row:
    """Bytes (held, of these in huge pages) at each moment."""
    backing: str
    driver: str
    before: tuple[int, int]
    ballooned: tuple[int, int]
    regrown: tuple[int, int]
    used: tuple[int, int]


def measure(backing: backings.Backing, driver: str) -> Row:
    """One guest."""
    options = backing.guest_options(SIZE)
    name = "bench-" + "".join(c if c.isalnum() else "-" for c in backing.name) + f"-{driver}"
    guest = Guest(name, devices=balloon_device(driver), append=f"init_on_alloc=0 hpb.touch={TOUCH}", **options)

    def look() -> tuple[int, int]:
        return backing.held(guest), backing.huge(guest)
    with guest:
        before = look()
        resize(guest, SMALL)
        ballooned = look()
        resize(guest, SIZE)
        regrown = look()
        guest.run(f"hpb-touch {TOUCH}")
        return Row(backing.name, driver, before, ballooned, regrown, look())


def run(rounds: int) -> Report:
    """All kinds, both balloons."""
    del rounds
    rows, missing = [], []
    for name, make in KINDS:
        for driver in (STOCK, OURS):
            try:
                with make() as backing:
                    rows.append(measure(backing, driver))
            except HostLacks as error:
                missing.append(f"{name} is not in the table: {error}.")
                break
            print(f"{name}, {driver}: done", flush=True)

    def cell(view: tuple[int, int]) -> str:
        return f"{view[0] // MIB} ({view[1] // MIB})"
    text = table(["guest memory", "device", "before", "ballooned", "grown back", "used again"],
                 [[row.backing, row.driver.removesuffix("-pci"), *map(cell, (row.before, row.ballooned, row.regrown, row.used))]
                  for row in rows])
    text = (f"MiB that the host holds for the RAM of a guest of {SIZE // MIB} MiB, and in brackets how many of them in huge pages. "
            f"The guest touches {TOUCH} MiB,\nis shrunk to {SMALL // MIB} MiB, grown back, and touches {TOUCH} MiB again. "
            f"Accelerator: {settings.accel()}.\n\n{text}")
    series = [Series(f"{row.backing}: {moment}", row.driver.removesuffix("-pci"), "MiB", [view[0] / MIB])
              for row in rows for moment, view in (("before", row.before), ("ballooned", row.ballooned), ("grown back", row.regrown), ("used again", row.used))]
    return Report("\n\n".join([text, *missing]), {"rows": [dataclasses.asdict(row) for row in rows], "missing": missing}, series)
