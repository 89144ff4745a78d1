# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests of up to a terabyte, of which nothing was ever touched: start, give up half of it, begin to migrate; and more and more ranges.

What grows with the guest must not be felt: bitmaps, a walk over all RAM. What grows with the
number of ranges grows in proportion. No guest runs in it (hpbtest.scripted); the bench plays the driver. Beside it stands
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
from hpbtest.guest import MIB, OURS
from hpbtest.scripted import GIB, HIGH, INFLATE, Machine
from report import Report, Series, Target, grid, how_often, span, table, verdicts

SIZES = [64 * GIB, 256 * GIB, 1024 * GIB]
UNIT = 2 * MIB
SECONDS_MAX = 1.0
MIB_MAX = 100.0
MIGRATION_SECONDS = 120.0
CASES = ("no balloon", "in one piece", "every second range")
STEPS = ("start", "inflate", "migration setup", "migration")
# The last is nearly as many as a terabyte can have if each has a neighbour that stays.
COUNTS = [1 << 12, 1 << 14, 1 << 16, 1 << 17, (1 << 18) - (1 << 12)]
BENT = 1.5      # what a range among many may cost, beside one among few


@dataclasses.dataclass
class Cost:
    """Of one step: seconds, and bytes that QEMU grew by."""
    seconds: float
    growth: int


def apart(count: int) -> list[tuple[int, int]]:
    """So many ranges that do not touch. What is below the hole for devices is left out."""
    return [(HIGH + number * 2 * UNIT, UNIT) for number in range(count)]


def pieces(case: str, memory: int) -> list[tuple[int, int]]:
    """Half of the memory, as ranges."""
    if case == "in one piece":
        return [(HIGH + offset, GIB) for offset in range(0, memory // 2, GIB)]
    return apart((memory - HIGH) // (2 * UNIT))


def inflate(machine: Machine, ranges: list[tuple[int, int]]) -> Cost:
    """Give up these. The device's time: what the bench needs to write its requests is not in it."""
    machine.start_driver()
    most = machine.max_ranges()
    held = hostmem.forget_peak(machine.pid)
    seconds = sum(machine.request(INFLATE, ranges[first:first + most]) for first in range(0, len(ranges), most))
    return Cost(seconds, hostmem.peak(machine.pid) - held)


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


def measure(case: str, memory: int) -> dict[str, Cost]:
    """All steps of a machine."""
    balloon = case != CASES[0]
    costs = {}
    with tempfile.TemporaryDirectory(prefix="hpb-scale-") as directory:
        start = time.perf_counter()
        with Machine(memory, balloon) as source:
            costs["start"] = Cost(time.perf_counter() - start, hostmem.peak(source.pid))
            if balloon:
                costs["inflate"] = inflate(source, pieces(case, memory))
            with Machine(memory, balloon, incoming=True) as destination:
                costs["migration setup"], costs["migration"] = migrate(source, destination, Path(directory))
    return costs


def many(count: int) -> Cost:
    """That many ranges of the largest guest."""
    with Machine(SIZES[-1]) as machine:
        return inflate(machine, apart(count))


Runs = dict[tuple[str, int], list[dict[str, Cost]]]


def middle(runs: Runs, case: str, memory: int, step: str) -> tuple[float, float]:
    """Medians: seconds, MiB. A machine's size at its start is compared with one without a balloon."""
    def of(case: str, field: str) -> float:
        return statistics.median(getattr(one[step], field) for one in runs[case, memory])
    return of(case, "seconds"), (of(case, "growth") - (of(CASES[0], "growth") if step == "start" else 0)) / MIB


def reached(runs: Runs, ranges: dict[int, list[Cost]]) -> list[Target]:
    """What shall be, and is, for the largest; and the slope of ranges."""
    found = [(f"{step}: {case}", middle(runs, case, SIZES[-1], step)) for step in STEPS[:3] for case in CASES[1:]]
    worst_seconds = max((cost[0], name) for name, cost in found)
    worst_mib = max((cost[1], name) for name, cost in found)
    each = [statistics.median(cost.seconds for cost in costs) / count for count, costs in ranges.items()]
    return [Target(f"1 TiB, a step with the balloon, at most, s ({worst_seconds[1]})", "<=", SECONDS_MAX, worst_seconds[0]),
            Target(f"1 TiB, QEMU grows in a step, at most, MiB ({worst_mib[1]})", "<=", MIB_MAX, worst_mib[0]),
            Target(f"a range among {COUNTS[-1]:,}, times one among {COUNTS[0]:,}", "<=", BENT, each[-1] / each[0])]


def run(rounds: int) -> Report:
    """All rounds."""
    runs: Runs = {(case, memory): [] for memory in SIZES for case in CASES}
    ranges: dict[int, list[Cost]] = {count: [] for count in COUNTS}
    for number in range(rounds):
        for case, memory in runs:
            runs[case, memory].append(measure(case, memory))
            print(f"round {number + 1}/{rounds} {memory // GIB:5} GiB {case:<20} " + "   ".join(
                f"{step} {cost.seconds * 1000:.0f} ms" for step, cost in runs[case, memory][-1].items()), flush=True)
        for count, costs in ranges.items():
            costs.append(many(count))
            print(f"round {number + 1}/{rounds} {count:8,} ranges {costs[-1].seconds * 1000:8.1f} ms   {costs[-1].growth / MIB:.1f} MiB", flush=True)
    by_count = [[f"{count:,}", span([1000 * cost.seconds for cost in costs]), span([1e6 * cost.seconds / count for cost in costs]),
                 span([cost.growth / MIB for cost in costs])] for count, costs in ranges.items()]
    targets = reached(runs, ranges)
    series = {figure: [Series(f"{step}, {memory // GIB} GiB", case, unit, [getattr(one[step], field) * scale for one in runs[case, memory]], figure)
                       for step in STEPS for case, memory in runs if step in runs[case, memory][0]]
              for figure, unit, field, scale in (("time", "milliseconds", "seconds", 1000), ("memory", "MiB", "growth", 1 / MIB))}
    by_range = [Series(f"{count:,} ranges", OURS, "milliseconds", [1000 * cost.seconds for cost in costs], "ranges") for count, costs in ranges.items()]
    text = "\n\n".join([
        grid("milliseconds", series["time"]), grid("QEMU has grown by, MiB", series["memory"]),
        table(["ranges of 2 MiB, apart", "ms", "microseconds each", "QEMU grows MiB"], by_count), verdicts(targets),
        f"{how_often(rounds)}, median (lowest-highest). Half of the memory is out. Both QEMUs on this host, no guest in them, nothing of the memory touched. \"every second range\": 2 MiB out, 2 MiB not, and\n"
        "so on, the most ranges there can be. At \"start\" it is all of QEMU; that the setup of a migration does is QEMU's bitmap of dirty pages."])
    return Report(text, {"targets": [one.data() for one in targets], "ranges": {count: [dataclasses.asdict(cost) for cost in costs] for count, costs in ranges.items()},
                         "runs": {f"{case}, {memory // GIB} GiB": [{step: dataclasses.asdict(cost) for step, cost in one.items()} for one in found]
                                  for (case, memory), found in runs.items()}}, sum(series.values(), by_range))
