# SPDX-License-Identifier: GPL-2.0-or-later
"""How long QEMU's monitor is silent while a guest is resized. All that holds the big QEMU lock delays its answers.

It is asked for the guest's size again and again until the guest has it; the
longest answer of a resize counts. "at rest" is as many questions while nothing is
resized: the part of it that is the machine's own.
"""
from __future__ import annotations

import dataclasses
import os
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Callable

from hpbtest import backings, settings
from hpbtest.balloon import POLL_SECONDS, RESIZE_SECONDS, BalloonError
from hpbtest.guest import MIB, OURS
from hpbtest.hostsetup import HostLacks
from peers import PEERS, Resizable, Setting, fill, started, warm_up
from report import Report, Series, Target, grid, verdicts

SETTING = Setting()
SIZE = SETTING.memory * MIB
BLOCKED_MS = 5
MONITOR_THREAD = "IO mon_iothread"   # QEMU's, which reads from monitors
FIGURES = {"longest answer": "answer", "less waits for a processor": "blocked"}
REST_SECONDS = 1.0
STEPS = {"at rest": "rest", "shrink": "shrink", "grow": "grow"}

KINDS: list[tuple[str, Callable[[], AbstractContextManager[backings.Backing]]]] = [
    ("anonymous, THP always", lambda: backings.anonymous(SIZE, "always")),
    ("anonymous, THP never", lambda: backings.anonymous(SIZE, "never")),
    ("memfd", lambda: backings.memfd(SIZE)),
    ("tmpfs, huge=always", lambda: backings.tmpfs(SIZE)),
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

    def __init__(self, one: Resizable):
        self._one = one
        tasks = Path(f"/proc/{one.guest.pid}/task")
        # Who reads the question, who answers it, and who asks.
        readers = [task for task in tasks.iterdir() if (task / "comm").read_text(encoding="utf-8").strip() == MONITOR_THREAD]
        if len(readers) != 1:
            raise BalloonError(f"guest {one.guest.name} has {len(readers)} threads named {MONITOR_THREAD}, which QEMU has for its monitor with -name debug-threads=on")
        self._delays = [task / "schedstat" for task in (readers[0], tasks / str(one.guest.pid), Path("/proc/thread-self"))]
        self.longest = Longest()

    def _waited(self) -> list[int]:
        """Nanoseconds in which each of these threads could have run, but had no processor."""
        return [int(path.read_text(encoding="utf-8").split()[1]) for path in self._delays]

    def ask(self, question: Callable[[], Any]) -> Any:
        """One question. Of who waited only the longest counts, for two may have waited at once: what is left is rather too long."""
        waited, start = self._waited(), time.perf_counter()
        said = question()
        took = 1000 * (time.perf_counter() - start)
        self.longest.answer = max(self.longest.answer, took)
        self.longest.blocked = max(self.longest.blocked, took - max(now - before for before, now in zip(waited, self._waited())) / 1e6)
        return said

    def until(self, done: Callable[[int], bool]) -> Longest:
        """Ask for the size until that is so. Returns the longest answers since the last time, and forgets them."""
        deadline = time.monotonic() + RESIZE_SECONDS
        while not done(self.ask(self._one.size)):
            if time.monotonic() > deadline:
                raise BalloonError(f"guest {self._one.guest.name} does not get to its size in {RESIZE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        found, self.longest = self.longest, Longest()
        return found

    def resized(self, mib: int) -> Longest:
        """Resize the guest; the command is a question as well."""
        self.ask(lambda: self._one.ask(mib))
        return self.until(lambda now: now == mib * MIB)


def measure(backing: backings.Backing, peer: str, number: int) -> Silence:
    """One guest."""
    name = f"bench-monitor-{number}-" + "".join(c if c.isalnum() else "-" for c in f"{backing.name}-{peer}")
    with started(peer, name, SETTING, backing) as one:
        fill(one.guest, SETTING)
        warm_up(SETTING, one)
        watch, end = Watch(one), time.monotonic() + REST_SECONDS
        return Silence(watch.until(lambda _: time.monotonic() > end), watch.resized(SETTING.memory - SETTING.out), watch.resized(SETTING.memory))


def run(rounds: int) -> Report:
    """All backings, all peers in turns."""
    runs: dict[tuple[str, str], list[Silence]] = {}
    missing: list[str] = []
    for number in range(rounds):
        for name, make in KINDS:
            for peer in PEERS:
                try:
                    with make() as backing:
                        one = measure(backing, peer, number)
                except HostLacks as error:
                    missing.append(f"{name} was left out: {error}.")
                    break
                runs.setdefault((name, peer), []).append(one)
                print(f"round {number + 1}/{rounds} {name:<22} {peer:<26} " + "   ".join(
                    f"{step} {getattr(one, field).answer:6.2f} ({getattr(one, field).blocked:.2f})" for step, field in STEPS.items()) + " ms", flush=True)
    series = {title: [Series(f"{name}, {step}", peer.removesuffix("-pci"), "milliseconds", [getattr(getattr(one, field), which) for one in found], title)
                      for step, field in STEPS.items() for (name, peer), found in runs.items()] for title, which in FIGURES.items()}
    targets = [Target(f"{name}: longest that was not a wait for a processor, ms", "<=", BLOCKED_MS,
                      max(step.blocked for one in found for step in (one.shrink, one.grow)))
               for (name, peer), found in runs.items() if peer == OURS]
    text = "\n\n".join([
        *(grid(f"{title}, milliseconds", found) for title, found in series.items()), verdicts(targets),
        f"{rounds} rounds, median (lowest-highest) and how many times ours it is, accelerator {settings.accel()}. "
        "Longest answer to a question for the guest's size,\n"
        f"asked thousands of times a second, when it goes {SETTING} and back, and in {REST_SECONDS:g} s before. With {os.cpu_count()} processors for two vCPUs, "
        "the thread that frees, the monitor and who asks it,\nan answer also waits for a processor; the kernel says how long who reads, who answers and who asks did (schedstat), "
        "and the second table is without the longest of these.", *dict.fromkeys(missing)])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {f"{name}, {peer}": [dataclasses.asdict(one) for one in found] for (name, peer), found in runs.items()}}, sum(series.values(), []))
