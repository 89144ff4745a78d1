# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a program waits for its memory while the guest moves and grows, in turns (A B A B ...).

A precopy at 32 MiB/s; in the middle the guest takes 1 GiB back and uses it; then it is
switched to postcopy. Beside it the same without a balloon, and a guest that does not move:
what an access takes at worst where nothing but the host's scheduler is in its way.
"""
from __future__ import annotations

import dataclasses
import re
import statistics

from hpbtest import settings
from hpbtest.balloon import BalloonError, resize
from hpbtest.guest import MIB, OURS, Guest, balloon_device
from hpbtest.migrate import Migration
from report import Report, Series, Target, how_often, span, table, verdicts

SIZE = 2048
SMALL = 900
GROW = 1024
HELD = 512
SLOW = 32 * MIB
STALL_MS = 200.0
CASES = ("at rest", "no balloon", "virtio-balloon-hp")


@dataclasses.dataclass
class Sample:
    """Longest wait, milliseconds, and how many accesses there were."""
    longest: float
    accesses: int


def ask(guest: Guest) -> Sample:
    """What hpb-stall has seen since it was asked last."""
    guest.run(": >/tmp/stall; killall -USR1 hpb-stall; until grep -q STALL /tmp/stall; do sleep 0.1; done", timeout=60)
    match = re.search(r"STALL longest (\d+) accesses (\d+)", guest.run("cat /tmp/stall").output)
    if not match:
        raise BalloonError(f"hpb-stall in guest {guest.name} gives no answer")
    return Sample(int(match[1]) / 1000, int(match[2]))


def measure(case: str, number: int) -> Sample:
    """One guest."""
    name = f"bench-stalls-{CASES.index(case)}-{number}"
    devices = balloon_device(OURS) if case == "virtio-balloon-hp" else []
    source = Guest(name, memory=SIZE, devices=devices, append="init_on_alloc=0")
    destination = Guest(f"{name}-to", memory=SIZE, devices=devices, incoming=True)
    with source, destination:
        source.run(f"hpb-stall {HELD} >>/tmp/stall 2>&1 & until grep -q READY /tmp/stall; do sleep 0.1; done", timeout=60)
        if devices:
            resize(source, SMALL * MIB)
        ask(source)
        if case == "at rest":
            source.run("hpb-touch -p random 800", timeout=60)
            return ask(source)
        migration = Migration(source, destination, {"postcopy-ram": True}, bandwidth=SLOW)
        migration.wait_active()
        if devices:
            resize(source, (SMALL + GROW) * MIB)
        source.run("hpb-touch -p random 800", timeout=60)
        migration.start_postcopy()
        migration.finish()
        return ask(destination)


def run(rounds: int) -> Report:
    """All rounds."""
    runs: dict[str, list[Sample]] = {case: [] for case in CASES}
    for number in range(rounds):
        for case in CASES:
            one = measure(case, number)
            runs[case].append(one)
            print(f"round {number + 1}/{rounds} {case:<18} longest {one.longest:8.1f} ms of {one.accesses:,} accesses", flush=True)
    targets = [Target("longest wait while it moves and grows, ms", "<=", STALL_MS, max(one.longest for one in runs["virtio-balloon-hp"]))]
    series = [Series("a program's longest wait", case, "milliseconds", [one.longest for one in found]) for case, found in runs.items()]
    text = "\n\n".join([
        table(["", "a program's longest wait for its memory, ms", "accesses"],
              [[case, span([one.longest for one in found]), f"{statistics.median(one.accesses for one in found):,.0f}"] for case, found in runs.items()]),
        verdicts(targets),
        f"{how_often(rounds)}, median (lowest-highest), accelerator {settings.accel()}. A guest of {SIZE // 1024} GiB, a program that reads here and there in {HELD} MiB; precopy at "
        f"{SLOW // MIB} MiB/s, {GROW // 1024} GiB taken back\nand 800 MiB used meanwhile, then postcopy without a limit. The time in which the guest stands still is part of it."])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {case: [dataclasses.asdict(one) for one in found] for case, found in runs.items()}}, series)
