# SPDX-License-Identifier: GPL-2.0-or-later
"""What a program in the guest feels of a resize, in turns (A B A B ...).

hpb-load counts what it gets done in each quantum of time: arithmetic alone, and going
through memory. It is on the CPU that gets the device's interrupts, where a driver works: a
program on another, where one is idle, would hardly feel any balloon. Every other second the
guest, which has used all its memory before, is left alone; in the others it is shrunk once
and grown back once and, with our device only, without a pause. The measure is the first
percentile of these beside that of those, as HyperAlloc's evaluation has it (which has one
shrink and one grow in 140 seconds); the worst quantum is shown as well. Guests differ, and a
shared host's memory has more bandwidth now than ten seconds later: so both are seconds of one
program that take turns. A guest in which nothing is done in the others either shows how much
of a difference says nothing.
"""
from __future__ import annotations

import dataclasses
import os
import statistics
import time

from hpbtest import settings
from hpbtest.balloon import BalloonError
from hpbtest.guest import OURS, Guest
from peers import PEERS, Resizable, Setting, fill, started
from report import Report, Series, Target, how_often, span, table, verdicts

SETTING = Setting()
CPU = 0                         # of two: emulated interrupts go there
LOADS = ("quantum", "stream")
QUANTUM_MS = 10
A_SECOND = 1000 // QUANTUM_MS
WARM_UP = 2                     # seconds that do not count; even, for the others are counted from here
SECONDS = 80                    # that do
SHRINK_AT, GROW_AT = 21, 61     # odd: one of the others
BUSY = 0.9                      # of a second, without a pause: the last resize ends before the next second
LATE = 0.05                     # seconds that the guest may be heard late: a second is a second of the guest
REST_SECONDS = 4                # free page reporting begins two seconds after memory was freed
# What is measured is the guest, not who asks for its size.
PAUSE = 0.05
ALWAYS = "virtio-balloon-hp, without a pause"
NEVER = "left alone"            # how far seconds in which nothing is done are apart
SHARE = 97
CASES = [NEVER, *PEERS, ALWAYS]
FIELDS = ("median", "first", "worst")


@dataclasses.dataclass
class Load:
    """Counts of a quantum: median, first percentile, worst; and how many per thousand have less than nine tenths of the median."""
    median: int
    first: int
    worst: int
    slow: float

    @classmethod
    def of(cls, counts: list[int]) -> "Load":
        """Of all quanta."""
        counts = sorted(counts)
        median = counts[len(counts) // 2]
        return cls(median, counts[len(counts) // 100], counts[0], 1000 * sum(count < 0.9 * median for count in counts) / len(counts))


@dataclasses.dataclass
class Pair:
    """Seconds in which the guest is left alone, and the others, in which it was resized so many times."""
    alone: Load
    resized: Load
    resizes: int

    def share(self, field: str) -> float:
        """What is left of it, in percent; nothing of nothing. The worst is beside the median: on a shared host nothing may be left of it even alone."""
        alone = self.alone.median if field == "worst" else getattr(self.alone, field)
        return 100 * getattr(self.resized, field) / alone if alone else 0.0


def resizing(case: str, one: Resizable, start: float) -> list[range]:
    """Resize the guest at its times, with a long pause between two questions for its size. For each resize the seconds that it took part of, from the start of those that count."""
    there, back = SETTING.memory - SETTING.out, SETTING.memory
    done: list[range] = []

    def wait(second: int) -> None:
        time.sleep(max(0.0, start + second - time.monotonic()))

    def resize(size: int, pause: float) -> None:
        begin = int(time.monotonic() - start)
        one.to(size, pause)
        done.append(range(begin, int(time.monotonic() - start) + 1))

    if case in PEERS:
        for second, size in ((SHRINK_AT, there), (GROW_AT, back)):
            wait(second)
            resize(size, PAUSE)
    elif case == ALWAYS:
        for second in range(1, SECONDS, 2):
            wait(second)
            while time.monotonic() < start + second + BUSY:
                resize(there, 0.0)
                resize(back, 0.0)
    return done


def worked(guest: Guest, load: str, case: str, one: Resizable) -> Pair:
    """A load, and what is done in its time.

    The console says when it begins and ends: to ask the guest again and again would disturb it more than most resizes.
    """
    said = len(guest.console.lines)
    guest.run(f"{{ hpb-load {load} {QUANTUM_MS} {WARM_UP + SECONDS} {CPU} >/tmp/load 2>/dev/console; echo ENDED >/dev/console; }} >/dev/null 2>&1 &")
    guest.console.wait_line(r"READY", 60, said)
    start = time.monotonic() + WARM_UP
    done = resizing(case, one, start)
    guest.console.wait_line(r"ENDED", 60 + SECONDS, said)
    took = time.monotonic() - start
    counts = [int(line) for line in guest.run("cat /tmp/load").output.split()][WARM_UP * A_SECOND:]
    if len(counts) != SECONDS * A_SECOND:
        raise BalloonError(f"hpb-load {load} in guest {guest.name} ended early, {len(counts)} quanta instead of {SECONDS * A_SECOND}; it said:\n{guest.console.tail()}")
    if took < SECONDS - LATE:
        raise BalloonError(f"guest {guest.name} was heard {SECONDS - took:.2f} s after hpb-load {load} had begun: which second is which cannot be told; "
                           "measure once more on a quiet machine")
    seconds = [counts[at:at + A_SECOND] for at in range(0, len(counts), A_SECOND)]
    others = set(range(1, SECONDS, 2)).union(*done)

    def of(wanted: bool) -> Load:
        return Load.of([count for number, second in enumerate(seconds) if (number in others) == wanted for count in second])
    return Pair(of(False), of(True), len(done))


def measure(case: str, number: int) -> dict[str, Pair]:
    """One guest, each load."""
    with started(case if case in PEERS else OURS, f"bench-interference-{CASES.index(case)}-{number}", SETTING) as one:
        found = {}
        for load in LOADS:
            fill(one.guest, SETTING)
            time.sleep(REST_SECONDS)
            found[load] = worked(one.guest, load, case, one)
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
        table(["% of the same guest left alone", "median", "1st percentile", "worst", "slow, alone", "slow", "resizes"], rows), verdicts(targets),
        f"{how_often(rounds)}, median (lowest-highest), accelerator {settings.accel()}. {SECONDS} s of work in quanta of {QUANTUM_MS} ms: every other second the guest is left alone, and in the\n"
        f"others it goes {SETTING} and back.\n"
        f"\"quantum\" is arithmetic, \"stream\" memory bandwidth; \"worst\" is beside the median of the seconds alone. \"slow\": of 1000 quanta,\n"
        f"those that have less than nine tenths of their median; the first percentile is one of them where they are more than ten.\n"
        f"The guest has two processors, the load is on the one where drivers work; the host has {os.cpu_count()}."])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {f"{load}, {case}": [dataclasses.asdict(one) for one in found] for (load, case), found in runs.items()}}, series)
