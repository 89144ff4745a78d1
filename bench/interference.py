# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program in the guest feels of a resize, in turns (A B A B ...).

hpb-load counts what it gets done in each quantum of time: arithmetic alone, and
going through memory. In its time the guest, which has used all its memory before,
is shrunk and grown back once; and, with our device only, without a pause. The
measure is the first percentile beside that of a guest that is left alone, as
HyperAlloc's evaluation has it; the worst quantum is shown as well.
"""
from __future__ import annotations

import dataclasses
import re
import statistics
import time
from typing import Callable

from hpbtest import settings
from hpbtest.balloon import BalloonError
from hpbtest.guest import OURS, STOCK, Guest
from peers import PEERS, Setting, started
from report import Report, Series, Target, table, verdicts

SETTING = Setting()
LOADS = ("quantum", "stream")
QUANTUM_MS = 10
SECONDS = 20
REST = "left alone"
ALWAYS = "virtio-balloon-hp, without a pause"
SHARE = 97
CASES = [REST, *PEERS, ALWAYS]


@dataclasses.dataclass
class Load:
    """Counts of a quantum: median, first percentile, worst; and how often the guest was resized."""
    median: int
    first: int
    worst: int
    resizes: int


def resizing(case: str, to: Callable[[int], float]) -> int:
    """Resize the guest while it works; how often."""
    if case == REST:
        return 0
    end, done = time.monotonic() + SECONDS - 1, 0
    while not done or (case == ALWAYS and time.monotonic() < end):
        to(SETTING.memory - SETTING.out)
        to(SETTING.memory)
        done += 2
    return done


def worked(guest: Guest, load: str, case: str, to: Callable[[int], float]) -> Load:
    """One load. The console says when it begins and ends: to ask the guest again and again would disturb it more than most resizes."""
    said = len(guest.console.lines)
    guest.run(f"hpb-load {load} {QUANTUM_MS} {SECONDS} >/dev/console 2>&1 &")
    guest.console.wait_line(r"READY", 60, said)
    resizes = resizing(case, to)
    line = guest.console.lines[guest.console.wait_line(r"LOAD quanta", 60 + SECONDS, said)]
    match = re.search(r"median (\d+) first (\d+) worst (\d+)", line)
    if not match:
        raise BalloonError(f"hpb-load in guest {guest.name} says: {line}")
    return Load(*map(int, match.groups()), resizes)


def measure(case: str, number: int) -> dict[str, Load]:
    """One guest, each load."""
    peer = {REST: STOCK, ALWAYS: OURS}.get(case, case)
    with started(peer, f"bench-interference-{CASES.index(case)}-{number}", SETTING) as (guest, to):
        found = {}
        for load in LOADS:
            guest.run(f"hpb-touch {SETTING.fill}", timeout=120)
            found[load] = worked(guest, load, case, to)
        return found


def run(rounds: int) -> Report:
    """All rounds."""
    runs: dict[tuple[str, str], list[Load]] = {(load, case): [] for load in LOADS for case in CASES}
    for number in range(rounds):
        for case in CASES:
            for load, one in measure(case, number).items():
                runs[load, case].append(one)
                print(f"round {number + 1}/{rounds} {case:<36} {load:<8} median {one.median:8,}   1st percentile {one.first:8,}   worst {one.worst:8,}"
                      f"   {one.resizes} resizes", flush=True)

    def middle(load: str, case: str, field: str) -> float:
        return statistics.median(getattr(one, field) for one in runs[load, case])

    def share(load: str, case: str, field: str) -> float:
        return 100 * middle(load, case, field) / middle(load, REST, field)
    rows = [[f"{load}: {case.removesuffix('-pci')}", *(f"{share(load, case, field):.1f}" for field in ("median", "first", "worst")),
             f"{middle(load, case, 'resizes'):.0f}"] for load in LOADS for case in CASES]
    targets = [Target(f"{load}: first percentile, % of a guest left alone", ">=", SHARE, share(load, OURS, "first")) for load in LOADS]
    series = [Series(f"{load}, first percentile", case.removesuffix("-pci"), f"counts in {QUANTUM_MS} ms", [one.first for one in found])
              for (load, case), found in runs.items()]
    text = "\n\n".join([
        table(["% of a guest left alone", "median", "1st percentile", "worst", "resizes"], rows), verdicts(targets),
        f"{rounds} rounds, medians, accelerator {settings.accel()}. {SECONDS} s of work in quanta of {QUANTUM_MS} ms, in which the guest goes {SETTING} and back.\n"
        "\"quantum\" is arithmetic, \"stream\" memory bandwidth. Host and guest have two processors; the bench asks for the guest's size on them, too."])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {f"{load}, {case}": [dataclasses.asdict(one) for one in found] for (load, case), found in runs.items()}}, series)
