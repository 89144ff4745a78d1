# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program in the guest feels of a resize, in turns (A B A B ...).

hpb-load counts what it gets done in each quantum of time: arithmetic alone, and
going through memory. In its time the guest, which has used all its memory before,
is shrunk and grown back once; and, with our device only, without a pause. Before that
the same guest is left alone for a while: guests differ, and so do moments of a shared host.
So is one guest in that other time, too: that is how much of a difference says nothing.
The measure is the first percentile beside that of the time in which it was left alone,
as HyperAlloc's evaluation has it; the worst quantum is shown as well.
"""
from __future__ import annotations

import dataclasses
import os
import re
import statistics
import time
from typing import Callable

from hpbtest import settings
from hpbtest.balloon import BalloonError
from hpbtest.guest import OURS, Guest
from peers import PEERS, Resizable, Setting, fill, started
from report import Report, Series, Target, how_often, span, table, verdicts

SETTING = Setting()
LOADS = ("quantum", "stream")
QUANTUM_MS = 10
SECONDS = 20
ALONE_SECONDS = 10
# Free page reporting begins two seconds after memory was freed.
REST_SECONDS = 4
# What is measured is the guest, not who asks for its size.
PAUSE = 0.05
ALWAYS = "virtio-balloon-hp, without a pause"
AGAIN = "left alone again"      # how far two times in which nothing is done are apart
SHARE = 97
CASES = [AGAIN, *PEERS, ALWAYS]
FIELDS = ("median", "first", "worst")


@dataclasses.dataclass
class Load:
    """Counts of a quantum: median, first percentile, worst; and how many per thousand have less than nine tenths of the median."""
    median: int
    first: int
    worst: int
    slow: float


@dataclasses.dataclass
class Pair:
    """Left alone, and resized so many times."""
    alone: Load
    resized: Load
    resizes: int

    def share(self, field: str) -> float:
        """What is left of it, in percent. The worst is beside the median: on a shared host nothing may be left of it even alone."""
        alone = self.alone.median if field == "worst" else getattr(self.alone, field)
        return 100 * getattr(self.resized, field) / alone if alone else 100.0


def resizing(case: str, one: Resizable) -> int:
    """Resize the guest while it works, with a long pause between two questions for its size; how often."""
    if case == AGAIN:
        return 0
    end, done = time.monotonic() + SECONDS - 1, 0
    while not done or (case == ALWAYS and time.monotonic() < end):
        for size in (SETTING.memory - SETTING.out, SETTING.memory):
            one.to(size, 0.0 if case == ALWAYS else PAUSE)
            done += 1
    return done


def worked(guest: Guest, load: str, seconds: int, meanwhile: Callable[[], int]) -> tuple[Load, int]:
    """A load, and what is done in its time.

    The console says when it begins and ends: to ask the guest again and again would disturb it more than most resizes.
    """
    said = len(guest.console.lines)
    guest.run(f"hpb-load {load} {QUANTUM_MS} {seconds} >/dev/console 2>&1 &")
    guest.console.wait_line(r"READY", 60, said)
    resizes = meanwhile()
    line = guest.console.lines[guest.console.wait_line(r"LOAD quanta", 60 + seconds, said)]
    match = re.search(r"quanta (\d+) median (\d+) first (\d+) worst (\d+) slow (\d+)", line)
    if not match:
        raise BalloonError(f"hpb-load in guest {guest.name} says: {line}")
    quanta, median, first, worst, slow = map(int, match.groups())
    return Load(median, first, worst, 1000 * slow / quanta), resizes


def measure(case: str, number: int) -> dict[str, Pair]:
    """One guest, each load."""
    with started(OURS if case in (AGAIN, ALWAYS) else case, f"bench-interference-{CASES.index(case)}-{number}", SETTING) as one:
        found = {}
        for load in LOADS:
            fill(one.guest, SETTING)
            time.sleep(REST_SECONDS)
            alone, _ = worked(one.guest, load, ALONE_SECONDS, lambda: 0)
            found[load] = Pair(alone, *worked(one.guest, load, SECONDS, lambda: resizing(case, one)))
        return found


def run(rounds: int) -> Report:
    """All rounds."""
    runs: dict[tuple[str, str], list[Pair]] = {(load, case): [] for load in LOADS for case in CASES}
    for number in range(rounds):
        for case in CASES:
            for load, one in measure(case, number).items():
                runs[load, case].append(one)
                print(f"round {number + 1}/{rounds} {case:<36} {load:<8} " + "   ".join(f"{field} {getattr(one.resized, field):6,} ({one.share(field):5.1f} %)" for field in FIELDS)
                      + f"   slow {one.resized.slow:5.1f} ({one.alone.slow:.1f})   {one.resizes} resizes", flush=True)

    series = [Series(title, case.removesuffix("-pci"), "% of the same guest left alone", [one.share(field) for one in found], load)
              for title, field in (("median", "median"), ("first percentile", "first"), ("worst", "worst")) for (load, case), found in runs.items()]
    rows = [[f"{load}: {case.removesuffix('-pci')}", *(span([one.share(field) for one in found]) for field in FIELDS),
             *(span([getattr(one, when).slow for one in found]) for when in ("alone", "resized")),
             f"{statistics.median(one.resizes for one in found):.0f}"] for (load, case), found in runs.items()]
    targets = [Target(f"{load}: first percentile, % of a guest left alone", ">=", SHARE, statistics.median(one.share("first") for one in runs[load, OURS])) for load in LOADS]
    text = "\n\n".join([
        table(["% of the same guest left alone", "median", "1st percentile", "worst", "slow before", "slow", "resizes"], rows), verdicts(targets),
        f"{how_often(rounds)}, median (lowest-highest), accelerator {settings.accel()}. {SECONDS} s of work in quanta of {QUANTUM_MS} ms, in which the guest goes {SETTING} and back, "
        f"after {ALONE_SECONDS} s without.\n"
        f"\"quantum\" is arithmetic, \"stream\" memory bandwidth; \"worst\" is beside the median of the time without. \"slow\": of 1000 quanta,\n"
        f"those that have less than nine tenths of their median; the first percentile is one of them where they are more than ten. The guest has two processors, the host "
        f"{os.cpu_count()}."])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {f"{load}, {case}": [dataclasses.asdict(one) for one in found] for (load, case), found in runs.items()}}, series)
