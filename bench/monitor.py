# SPDX-License-Identifier: GPL-2.0-or-later
"""How long QEMU's monitor is silent while a guest is resized. All that holds the big QEMU lock delays its answers.

It is asked for the guest's size again and again until the guest has it; the
longest answer of a resize counts. "at rest" is a second of questions while nothing
is resized: the part of it that is the machine's own.

With few processors an answer would wait for one, too. So who asks, the thread of
QEMU that reads the question and the one that answers it have real-time priority
here: what is left is what they wait for.
"""
from __future__ import annotations

import dataclasses
import os
import time
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

from hpbtest import backings, settings
from hpbtest.balloon import POLL_SECONDS, RESIZE_SECONDS, BalloonError
from hpbtest.guest import MIB, OURS
from hpbtest.hostsetup import HostLacks
from peers import PEERS, Resizable, Setting, fill, started, warm_up
from report import Report, Series, Target, grid, how_often, verdicts

SETTING = Setting()
SIZE = SETTING.memory * MIB
BLOCKED_MS = 5
MONITOR_THREAD = "IO mon_iothread"   # QEMU's, which reads from monitors
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
class Silence:
    """Of one guest: the longest answers, milliseconds."""
    rest: float
    shrink: float
    grow: float


@contextmanager
def first_in_line(one: Resizable) -> Iterator[None]:
    """Who asks that guest's monitor, reads the question and answers it gets a processor at once."""
    tasks = Path(f"/proc/{one.guest.pid}/task")
    readers = [int(task.name) for task in tasks.iterdir() if (task / "comm").read_text(encoding="utf-8").strip() == MONITOR_THREAD]
    if len(readers) != 1:
        raise BalloonError(f"guest {one.guest.name} has {len(readers)} threads named {MONITOR_THREAD}, which QEMU has for its monitor with -name debug-threads=on")
    try:
        for thread in (*readers, one.guest.pid, 0):
            # Threads that these start, as those that free memory, have what is usual.
            os.sched_setscheduler(thread, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError as error:
        raise HostLacks(f"needs the right to real-time priorities (root): {error}") from None
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Watch:
    """Asks a guest's monitor, and keeps the longest answer."""

    def __init__(self, one: Resizable):
        self._one = one
        self._longest = 0.0

    def ask(self, question: Callable[[], Any]) -> Any:
        """One question."""
        start = time.perf_counter()
        said = question()
        self._longest = max(self._longest, 1000 * (time.perf_counter() - start))
        return said

    def until(self, done: Callable[[int], bool]) -> float:
        """Ask for the size until that is so. Returns the longest answer since the last time, and forgets it."""
        deadline = time.monotonic() + RESIZE_SECONDS
        while not done(self.ask(self._one.size)):
            if time.monotonic() > deadline:
                raise BalloonError(f"guest {self._one.guest.name} does not get to its size in {RESIZE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        found, self._longest = self._longest, 0.0
        return found

    def resized(self, mib: int) -> float:
        """Resize the guest; the command is a question as well."""
        self.ask(lambda: self._one.ask(mib))
        return self.until(lambda now: now == mib * MIB)


def measure(backing: backings.Backing, peer: str, number: int) -> Silence:
    """One guest."""
    name = f"bench-monitor-{number}-" + "".join(c if c.isalnum() else "-" for c in f"{backing.name}-{peer}")
    with started(peer, name, SETTING, backing) as one:
        fill(one.guest, SETTING)
        warm_up(SETTING, one)
        with first_in_line(one):
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
                    f"{step} {getattr(one, field):6.2f}" for step, field in STEPS.items()) + " ms", flush=True)
    series = [Series(f"{name}, {step}", peer.removesuffix("-pci"), "milliseconds", [getattr(one, field) for one in found])
              for step, field in STEPS.items() for (name, peer), found in runs.items()]
    targets = [Target(f"{name}: longest answer, ms", "<=", BLOCKED_MS, max(max(one.shrink, one.grow) for one in found))
               for (name, peer), found in runs.items() if peer == OURS]
    text = "\n\n".join([
        grid("longest answer, milliseconds", series), verdicts(targets),
        f"{how_often(rounds)}, median (lowest-highest) and how many times ours it is, accelerator {settings.accel()}. "
        f"Longest answer to a question for the guest's size,\nasked again {1000 * POLL_SECONDS:g} ms after each answer, "
        f"when it goes {SETTING} and back, and in {REST_SECONDS:g} s before; a resize that takes longer has more questions to be late with.\n"
        "Who asks, reads and answers has real-time priority, so that it does not wait for one of "
        f"{os.cpu_count()} processors behind vCPUs and the thread that frees.", *dict.fromkeys(missing)])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {f"{name}, {peer}": [dataclasses.asdict(one) for one in found] for (name, peer), found in runs.items()}}, series)
