# SPDX-License-Identifier: GPL-2.0-or-later
"""Shrink and grow: the traditional balloon and this one, alternating, several rounds.

Each round boots a fresh guest for each device (A B A B ...), so that drift of
the machine hits both alike. Says median, minimum and maximum, and the ratios of
the medians beside the project's targets.
"""
from __future__ import annotations

import dataclasses
import statistics

from hpbtest import measure, settings
from hpbtest.guest import OURS, STOCK
from report import Report, table

# What is compared, how it is read from a measurement, and its target.
TARGETS = [
    ("shrink, times faster than stock", ">=", 100.0),
    ("grow, times faster than stock", ">=", 150.0),
    ("requests to shrink", "<=", 16.0),
    ("requests to grow", "<=", 16.0),
    ("host memory given back, % of the balloon", ">=", 99.0),
]


def spread(values: list[float]) -> list[str]:
    """Median, minimum and maximum of seconds, in milliseconds."""
    return [f"{value * 1000:.2f}" for value in (statistics.median(values), min(values), max(values))]


def results(stock: list[measure.Measurement], ours: list[measure.Measurement]) -> list[float]:
    """Values for TARGETS, in order."""
    def median(values: list[float]) -> float:
        return statistics.median(values)
    return [
        median([m.shrink for m in stock]) / median([m.shrink for m in ours]),
        median([m.grow for m in stock]) / median([m.grow for m in ours]),
        max(m.shrink_traffic.requests for m in ours),
        max(m.grow_traffic.requests for m in ours),
        100 * min(m.released for m in ours),
    ]


def run(rounds: int) -> Report:
    """All rounds."""
    runs: dict[str, list[measure.Measurement]] = {STOCK: [], OURS: []}
    for number in range(rounds):
        for driver in (STOCK, OURS):
            one = measure.measure(driver, f"bench-{driver}-{number}")
            runs[driver].append(one)
            print(f"round {number + 1}/{rounds} {driver:<20} shrink {one.shrink * 1000:8.1f} ms"
                  f"   grow {one.grow * 1000:8.1f} ms", flush=True)
    times = [[name, driver.removesuffix("-pci"), *spread([getattr(m, attribute) for m in runs[driver]])]
             for name, attribute in (("shrink 4 -> 1 GiB", "shrink"), ("grow 1 -> 4 GiB", "grow"))
             for driver in (STOCK, OURS)]
    reached = []
    for (name, relation, target), value in zip(TARGETS, results(runs[STOCK], runs[OURS])):
        met = value >= target if relation == ">=" else value <= target
        reached.append({"name": name, "value": value, "relation": relation, "target": target, "met": met})
    text = "\n\n".join([
        table(["milliseconds", "device", "median", "min", "max"], times),
        table(["", "measured", "target", ""],
              [[str(t["name"]), f"{t['value']:.1f}", f"{t['relation']} {t['target']:g}", "met" if t["met"] else "MISSED"]
               for t in reached]),
        f"{rounds} rounds, accelerator {settings.accel()}, `init_on_alloc=0`, the guest has touched {measure.TOUCH_MIB} MiB before."])
    return Report(text, {"accel": settings.accel(), "targets": reached,
                         "runs": {driver: [dataclasses.asdict(m) for m in found] for driver, found in runs.items()}})
