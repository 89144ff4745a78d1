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
from report import Report, Series, Target, spreads, verdicts

STEPS = [("shrink 4 -> 1 GiB", "shrink"), ("grow 1 -> 4 GiB", "grow")]


def reached(stock: list[measure.Measurement], ours: list[measure.Measurement]) -> list[Target]:
    """Both balloons beside the project's targets."""
    def faster(step: str) -> float:
        return statistics.median(getattr(m, step) for m in stock) / statistics.median(getattr(m, step) for m in ours)
    return [
        Target("shrink, times faster than stock", ">=", 120, faster("shrink")),
        Target("grow, times faster than stock", ">=", 150, faster("grow")),
        Target("requests to shrink", "<=", 16, max(m.shrink_traffic.requests for m in ours)),
        Target("requests to grow", "<=", 16, max(m.grow_traffic.requests for m in ours)),
        Target("host memory given back, % of the balloon", ">=", 99, 100 * min(m.released for m in ours)),
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
    series = [Series(title, driver.removesuffix("-pci"), "milliseconds", [1000 * getattr(m, step) for m in runs[driver]])
              for title, step in STEPS for driver in (STOCK, OURS)]
    targets = reached(runs[STOCK], runs[OURS])
    text = "\n\n".join([
        spreads(series), verdicts(targets),
        f"{rounds} rounds, accelerator {settings.accel()}, `init_on_alloc=0`, the guest has touched {measure.TOUCH_MIB} MiB before."])
    return Report(text, {"accel": settings.accel(), "targets": [{**dataclasses.asdict(one), "met": one.met} for one in targets],
                         "runs": {driver: [dataclasses.asdict(m) for m in found] for driver, found in runs.items()}}, series)
