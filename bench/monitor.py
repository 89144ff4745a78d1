# SPDX-License-Identifier: GPL-2.0-or-later
"""How long QEMU's monitor is silent while a guest is resized. All that holds the big QEMU lock delays its answers.

It is asked for the guest's size again and again until the guest has it; the
longest answer of a resize counts. "at rest" is as many questions while nothing is
resized: the part of it that is the machine's own.
"""
from __future__ import annotations

import dataclasses
import time
from contextlib import AbstractContextManager
from typing import Callable

from hpbtest import backings, settings
from hpbtest.balloon import POLL_SECONDS, RESIZE_SECONDS, BalloonError, actual, set_target
from hpbtest.guest import MIB, OURS, STOCK, Guest, balloon_device
from hpbtest.hostsetup import HostLacks
from report import Report, Series, Target, spreads, verdicts

SIZE = 4096 * MIB
SMALL = 1024 * MIB
TOUCH = 3584
BLOCKED_MS = 5
REST_SECONDS = 1.0

KINDS: list[tuple[str, Callable[[], AbstractContextManager[backings.Backing]]]] = [
    ("anonymous, THP always", lambda: backings.anonymous(SIZE, "always")),
    ("memfd", lambda: backings.memfd(SIZE)),
    ("hugetlb memfd, 2 MiB", lambda: backings.hugetlb(SIZE)),
]


@dataclasses.dataclass
class Silence:
    """Longest answers of one guest, milliseconds."""
    rest: float
    shrink: float
    grow: float


def longest(question: Callable[[], bool], limit: float) -> float:
    """Ask until the answer is true; the longest time it took."""
    worst, deadline = 0.0, time.monotonic() + limit
    while time.monotonic() < deadline:
        start = time.perf_counter()
        done = question()
        worst = max(worst, time.perf_counter() - start)
        if done:
            return 1000 * worst
        time.sleep(POLL_SECONDS)
    raise BalloonError(f"the guest does not get to its size in {limit:g} s")


def resized(guest: Guest, size: int) -> float:
    """Resize it; the command itself is a question as well."""
    start = time.perf_counter()
    set_target(guest, size)
    return max(1000 * (time.perf_counter() - start), longest(lambda: actual(guest) == size, RESIZE_SECONDS))


def measure(backing: backings.Backing, driver: str, number: int) -> Silence:
    """One guest."""
    name = f"bench-monitor-{number}-" + "".join(c if c.isalnum() else "-" for c in f"{backing.name}-{driver}")
    with Guest(name, devices=balloon_device(driver), append=f"init_on_alloc=0 hpb.touch={TOUCH}", **backing.guest_options(SIZE)) as guest:
        end = time.monotonic() + REST_SECONDS

        def rested() -> bool:
            actual(guest)
            return time.monotonic() > end
        return Silence(longest(rested, RESIZE_SECONDS), resized(guest, SMALL), resized(guest, SIZE))


def run(rounds: int) -> Report:
    """All backings, both balloons in turns."""
    runs: dict[tuple[str, str], list[Silence]] = {}
    missing: list[str] = []
    for number in range(rounds):
        for name, make in KINDS:
            for driver in (STOCK, OURS):
                try:
                    with make() as backing:
                        one = measure(backing, driver, number)
                except HostLacks as error:
                    missing.append(f"{name} was left out: {error}.")
                    break
                runs.setdefault((name, driver), []).append(one)
                print(f"round {number + 1}/{rounds} {name:<22} {driver:<20} at rest {one.rest:6.2f}   shrink {one.shrink:7.2f}"
                      f"   grow {one.grow:7.2f} ms", flush=True)
    series = [Series(f"{name}, {step}", driver.removesuffix("-pci"), "milliseconds", [getattr(one, field) for one in found])
              for step, field in (("at rest", "rest"), ("shrink", "shrink"), ("grow", "grow")) for (name, driver), found in runs.items()]
    targets = [Target(f"{name}: longest while it shrinks or grows, ms", "<=", BLOCKED_MS, max(max(one.shrink, one.grow) for one in found))
               for (name, driver), found in runs.items() if driver == OURS]
    text = "\n\n".join([
        spreads(series), verdicts(targets),
        f"{rounds} rounds, accelerator {settings.accel()}. Longest answer to `query-balloon`, asked without a pause, in a resize {SIZE // MIB // 1024} -> {SMALL // MIB // 1024} -> "
        f"{SIZE // MIB // 1024} GiB,\nand in {REST_SECONDS:g} s before. {TOUCH} MiB were used before.", *dict.fromkeys(missing)])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {f"{name}, {driver}": [dataclasses.asdict(one) for one in found] for (name, driver), found in runs.items()}}, series)
