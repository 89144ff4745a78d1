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
from pathlib import Path
from typing import Any, Callable

from hpbtest import backings, settings
from hpbtest.balloon import POLL_SECONDS, RESIZE_SECONDS, BalloonError, actual, set_target
from hpbtest.guest import MIB, OURS, STOCK, Guest, balloon_device
from hpbtest.hostsetup import HostLacks
from report import Report, Series, Target, spreads, verdicts

SIZE = 4096 * MIB
SMALL = 1024 * MIB
TOUCH = 3584
BLOCKED_MS = 5
LESS = ", less waits for a processor"
REST_SECONDS = 1.0
STEPS = {"at rest": "rest", "shrink": "shrink", "grow": "grow"}

KINDS: list[tuple[str, Callable[[], AbstractContextManager[backings.Backing]]]] = [
    ("anonymous, THP always", lambda: backings.anonymous(SIZE, "always")),
    ("memfd", lambda: backings.memfd(SIZE)),
    ("hugetlb memfd, 2 MiB", lambda: backings.hugetlb(SIZE)),
]


@dataclasses.dataclass
class Longest:
    """Answers, milliseconds: the longest, and the longest less the time in which asker or answerer waited for a processor."""
    answer: float = 0.0
    blocked: float = 0.0


@dataclasses.dataclass
class Silence:
    """Of one guest."""
    rest: Longest
    shrink: Longest
    grow: Longest


class Watch:
    """Asks a guest's monitor, and keeps the longest answers."""

    def __init__(self, guest: Guest):
        self._guest = guest
        self._delays = [Path(f"/proc/{guest.pid}/task/{guest.pid}/schedstat"), Path("/proc/thread-self/schedstat")]
        self.longest = Longest()

    def _waited(self) -> float:
        """Milliseconds in which these threads could have run, but had no processor."""
        return sum(int(path.read_text(encoding="utf-8").split()[1]) for path in self._delays) / 1e6

    def ask(self, question: Callable[[], Any]) -> Any:
        """One question."""
        waited, start = self._waited(), time.perf_counter()
        said = question()
        took = 1000 * (time.perf_counter() - start)
        self.longest.answer = max(self.longest.answer, took)
        self.longest.blocked = max(self.longest.blocked, took - (self._waited() - waited))
        return said

    def until(self, done: Callable[[int], bool]) -> Longest:
        """Ask for the size until that is so. Returns the longest answers since the last time, and forgets them."""
        deadline = time.monotonic() + RESIZE_SECONDS
        while not done(self.ask(lambda: actual(self._guest))):
            if time.monotonic() > deadline:
                raise BalloonError(f"guest {self._guest.name} does not get to its size in {RESIZE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        found, self.longest = self.longest, Longest()
        return found

    def resized(self, size: int) -> Longest:
        """Resize the guest; the command is a question as well."""
        self.ask(lambda: set_target(self._guest, size))
        return self.until(lambda now: now == size)


def measure(backing: backings.Backing, driver: str, number: int) -> Silence:
    """One guest."""
    name = f"bench-monitor-{number}-" + "".join(c if c.isalnum() else "-" for c in f"{backing.name}-{driver}")
    with Guest(name, devices=balloon_device(driver), append=f"init_on_alloc=0 hpb.touch={TOUCH}", **backing.guest_options(SIZE)) as guest:
        watch, end = Watch(guest), time.monotonic() + REST_SECONDS
        return Silence(watch.until(lambda _: time.monotonic() > end), watch.resized(SMALL), watch.resized(SIZE))


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
                print(f"round {number + 1}/{rounds} {name:<22} {driver:<20} " + "   ".join(
                    f"{step} {getattr(one, field).answer:6.2f} ({getattr(one, field).blocked:.2f})" for step, field in STEPS.items()) + " ms", flush=True)
    series = [Series(f"{name}, {step}{LESS if which == 'blocked' else ''}", driver.removesuffix("-pci"), "milliseconds", [getattr(getattr(one, field), which) for one in found])
              for which in ("answer", "blocked") for step, field in STEPS.items() for (name, driver), found in runs.items()]
    targets = [Target(f"{name}: longest that was not a wait for a processor, ms", "<=", BLOCKED_MS,
                      max(step.blocked for one in found for step in (one.shrink, one.grow)))
               for (name, driver), found in runs.items() if driver == OURS]
    text = "\n\n".join([
        spreads(series), verdicts(targets),
        f"{rounds} rounds, accelerator {settings.accel()}. Longest answer to `query-balloon`, asked without a pause, in a resize {SIZE // MIB // 1024} -> {SMALL // MIB // 1024} -> "
        f"{SIZE // MIB // 1024} GiB,\nand in {REST_SECONDS:g} s before. {TOUCH} MiB were used before. With two processors for two vCPUs, "
        "the thread that frees, the monitor and who asks it, an answer also waits for a processor;\nthe kernel says how long (schedstat), and the second part of the table is without that.", *dict.fromkeys(missing)])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {f"{name}, {driver}": [dataclasses.asdict(one) for one in found] for (name, driver), found in runs.items()}}, series)
