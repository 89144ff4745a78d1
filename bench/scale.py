# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest of a terabyte, of which nothing was ever touched: start, give up half of it, begin to migrate.

What grows with the guest must not be felt: bitmaps, a walk over all RAM, a call for each
range. No guest runs in it (hpbtest.scripted); the bench plays the driver. Beside it stands
the same machine without a balloon: QEMU's own bitmaps of dirty pages, 32 MiB for each
terabyte, are not the balloon's.
"""
from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from hpbtest import hostmem
from hpbtest.guest import MIB
from hpbtest.scripted import GIB, HIGH, INFLATE, Machine
from report import Report, table

MEMORY = 1024 * GIB
OUT = 512 * GIB
UNIT = 2 * MIB
SECONDS_MAX = 1.0
MIB_MAX = 100.0
MIGRATION_SECONDS = 120.0
CASES = ("no balloon", "in one piece", "every second range")
STEPS = ("start", "inflate", "migration setup", "migration")


@dataclasses.dataclass
class Cost:
    """Of one step: seconds, and bytes that QEMU grew by."""
    seconds: float
    growth: int


def pieces(case: str) -> list[tuple[int, int]]:
    """Half of the memory, as ranges."""
    if case == "in one piece":
        return [(HIGH + offset, GIB) for offset in range(0, OUT, GIB)]
    # what is below the hole for devices is left out
    return [(HIGH + offset, UNIT) for offset in range(0, MEMORY - HIGH, 2 * UNIT)]


def inflate(machine: Machine, case: str) -> Cost:
    """Give up half of it."""
    ranges = pieces(case)
    machine.start_driver()
    most = machine.max_ranges()
    held = hostmem.forget_peak(machine.pid)
    start = time.perf_counter()
    for first in range(0, len(ranges), most):
        machine.request(INFLATE, ranges[first:first + most])
    return Cost(time.perf_counter() - start, hostmem.peak(machine.pid) - held)


def migrate(source: Machine, destination: Machine, directory: Path) -> tuple[Cost, Cost]:
    """Setup, and all of it."""
    uri = f"unix:{directory / 'socket'}"
    held = hostmem.forget_peak(source.pid)
    source.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
    source.qmp.execute("migrate-set-parameters", max_bandwidth=1 << 40)
    destination.qmp.execute("migrate-incoming", uri=uri)
    source.qmp.execute("migrate", uri=uri)
    source.qmp.wait_event("MIGRATION", MIGRATION_SECONDS, lambda data: data["status"] in ("completed", "failed"))
    info = source.qmp.execute("query-migrate")
    growth = hostmem.peak(source.pid) - held
    return Cost(info["setup-time"] / 1000, growth), Cost(info["total-time"] / 1000, growth)


def measure(case: str) -> dict[str, Cost]:
    """All steps of a machine."""
    balloon = case != CASES[0]
    costs = {}
    with tempfile.TemporaryDirectory(prefix="hpb-scale-") as directory:
        start = time.perf_counter()
        with Machine(MEMORY, balloon) as source:
            costs["start"] = Cost(time.perf_counter() - start, hostmem.peak(source.pid))
            if balloon:
                costs["inflate"] = inflate(source, case)
            with Machine(MEMORY, balloon, incoming=True) as destination:
                costs["migration setup"], costs["migration"] = migrate(source, destination, Path(directory))
    return costs


def run(rounds: int) -> Report:
    """All rounds."""
    found: dict[str, list[dict[str, Cost]]] = {case: [] for case in CASES}
    for number in range(rounds):
        for case in CASES:
            found[case].append(measure(case))
            print(f"round {number + 1}/{rounds} {case:<20} " + "   ".join(
                f"{step} {cost.seconds * 1000:.0f} ms" for step, cost in found[case][-1].items()), flush=True)

    def middle(case: str, step: str, field: str) -> float:
        return statistics.median(getattr(one[step], field) for one in found[case])
    rows = []
    for step in STEPS:
        for case in CASES:
            if step not in found[case][0]:
                continue
            seconds = middle(case, step, "seconds")
            # a machine's size at its start is compared with one without a balloon
            growth = middle(case, step, "growth") - (middle(CASES[0], "start", "growth") if step == "start" else 0)
            target = case != CASES[0] and step != "migration"
            met = seconds <= SECONDS_MAX and growth / MIB <= MIB_MAX
            rows.append([f"{step}: {case}", f"{seconds * 1000:.0f}", f"{growth / MIB:.1f}",
                         ("met" if met else "MISSED") if target else ""])
    text = "\n\n".join([
        table(["1 TiB, 512 GiB of it out", "ms", "QEMU grows MiB", "target"], rows),
        f"{rounds} rounds, medians. Target: each step with the balloon within {SECONDS_MAX:g} s and {MIB_MAX:g} MiB. Both QEMUs on this host, no guest in them, nothing of the memory\n"
        "touched. \"every second range\": 2 MiB out, 2 MiB not, and so on, the most ranges there can be. \"start\" grows in comparison with the machine without a balloon."])
    return Report(text, {"runs": {case: [{step: dataclasses.asdict(cost) for step, cost in one.items()} for one in runs]
                                  for case, runs in found.items()}})
