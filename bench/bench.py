#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""./hpb bench: the traditional balloon and this one, alternating, several rounds.

Each round boots a fresh guest for each device (A B A B ...), so that drift of
the machine hits both alike. Prints median, minimum and maximum, and the ratios
of the medians beside the project's targets; writes everything as JSON.

Exit status 0 when it could measure, whether targets are met or not: on a shared
machine a missed target is a reason to look, not a broken build. What does not
depend on the machine's mood, requests and memory, is a test too (tests/e2e).
"""
from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import sys
import time
from pathlib import Path

from hpbtest import measure, settings
from hpbtest.balloon import BalloonError
from hpbtest.guest import OURS, STOCK, GuestError

# What is compared, how it is read from a measurement, and its target.
TARGETS = [
    ("shrink, times faster than stock", ">=", 100.0),
    ("grow, times faster than stock", ">=", 150.0),
    ("requests to shrink", "<=", 16.0),
    ("requests to grow", "<=", 16.0),
    ("host memory given back, % of the balloon", ">=", 99.0),
]


def spread(values: list[float], scale: float = 1.0) -> str:
    """Median, minimum and maximum."""
    scaled = [v * scale for v in values]
    return f"{statistics.median(scaled):10.2f} {min(scaled):10.2f} {max(scaled):10.2f}"


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


def report(stock: list[measure.Measurement], ours: list[measure.Measurement]) -> list[dict[str, object]]:
    """Print tables; returns the targets with what was reached."""
    print(f"\n{'':28}{'median':>10} {'min':>10} {'max':>10}")
    for name, attribute in (("shrink 4 -> 1 GiB, ms", "shrink"), ("grow 1 -> 4 GiB, ms", "grow")):
        for driver, runs in ((STOCK, stock), (OURS, ours)):
            print(f"{name}\n  {driver:<26}{spread([getattr(m, attribute) for m in runs], 1000)}")
    print(f"\n{'':44}{'measured':>10}   target")
    reached = []
    for (name, relation, target), value in zip(TARGETS, results(stock, ours)):
        met = value >= target if relation == ">=" else value <= target
        print(f"{name:<44}{value:10.1f}   {relation} {target:g}  {'met' if met else 'MISSED'}")
        reached.append({"name": name, "value": value, "relation": relation, "target": target, "met": met})
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description="Side by side with the stock balloon.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="directory for the JSON file")
    options = parser.parse_args()
    runs: dict[str, list[measure.Measurement]] = {STOCK: [], OURS: []}
    try:
        for number in range(options.rounds):
            for driver in (STOCK, OURS):
                one = measure.measure(driver, f"bench-{driver}-{number}")
                runs[driver].append(one)
                print(f"round {number + 1}/{options.rounds} {driver:<20} shrink {one.shrink * 1000:8.1f} ms"
                      f"   grow {one.grow * 1000:8.1f} ms", flush=True)
    except (GuestError, BalloonError) as error:
        print(f"bench: failed: {error}", file=sys.stderr)
        return 1
    reached = report(runs[STOCK], runs[OURS])
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / time.strftime("bench-%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps({
        "accel": settings.accel(), "host": platform.release(), "targets": reached,
        "runs": {driver: [dataclasses.asdict(m) for m in found] for driver, found in runs.items()},
    }, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
