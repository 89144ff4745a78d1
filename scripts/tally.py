#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Count test results: TAP, KTAP and JUnit files, into one total.

usage: tally.py RESULTS-DIR [SUITE...]

Files are RESULTS-DIR/SUITE*.tap and SUITE*.xml; beside each may lie a .log with
the same name, to which failures point. Prints failures and skips with their
reason, then exactly "N passed, N failed, N skipped". Exit status 1 if anything
failed, if a suite left no result, or if no test ran.

NAME-again.xml is what came of the failed tests of NAME.xml when they were
repeated. What passed then is counted as passed, and printed as unstable with
what it failed of.

What makes a file a failure by itself: "Bail out!", a plan that was not
fulfilled, no test in it.
"""
from __future__ import annotations

import re
import sys
import xml.etree.ElementTree
from dataclasses import dataclass, field
from pathlib import Path

_LINE = re.compile(r"^(?P<indent>\s*)(?P<not>not )?ok\b\s*(?P<num>\d+)?\s*-?\s*(?P<name>[^#]*?)\s*"
                   r"(?:#\s*(?P<directive>SKIP|TODO)\S*\s*(?P<why>.*))?$", re.I)
_PLAN = re.compile(r"^(?P<indent>\s*)1\.\.(?P<n>\d+)\s*(?:#\s*skip\S*\s*(?P<why>.*))?$", re.I)


@dataclass
class Tally:
    """What was found."""
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    unstable: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def total(self) -> int:
        """All tests seen."""
        return self.passed + len(self.failed) + len(self.skipped)


def strip_kernel_prefix(line: str) -> str:
    """KTAP from a kernel log has time stamps in front."""
    return re.sub(r"^\[\s*\d+\.\d+\]( |$)", "", line)


def read_tap(text: str, source: str) -> Tally:
    """Results of a TAP or KTAP text. In KTAP a parent's line sums up its children: only leaves count.

    A child's lines are indented more than its parent's and come before it.
    """
    tally = Tally()
    plans: dict[int, int] = {}  # per indentation: tests planned, less results seen; a plan may come last
    planned: set[int] = set()
    children: dict[int, bool] = {}  # per indentation with results since the last shallower line: did one fail?
    for raw in text.splitlines():
        line = strip_kernel_prefix(raw)
        plan = _PLAN.match(line)
        if plan:
            depth = len(plan["indent"])
            plans[depth] = plans.get(depth, 0) + int(plan["n"])
            planned.add(depth)
            if int(plan["n"]) == 0 and plan["why"] is not None:
                tally.skipped.append(f"{source}: {plan['why'] or 'no reason given'}")
            continue
        if line.startswith("Bail out!"):
            tally.failed.append(f"{source}: {line}")
            continue
        match = _LINE.match(line)
        if not match:
            continue
        depth = len(match["indent"])
        plans[depth] = plans.get(depth, 0) - 1
        deeper = [d for d in children if d > depth]
        blamed = any([children.pop(d) for d in deeper])
        for level in [d for d in plans if d > depth]:
            if plans.pop(level) > 0:
                tally.failed.append(f"{source}: {match['name']}: fewer results than planned")
            planned.discard(level)
        children[depth] = children.get(depth, False) or bool(match["not"])
        name = f"{source}: {match['name'] or match['num']}"
        if deeper:
            if match["not"] and not blamed:
                tally.failed.append(f"{name}: failed although each of its tests passed")
            continue
        if (match["directive"] or "").upper() == "SKIP":
            tally.skipped.append(f"{name}: {match['why'] or 'no reason given'}")
        elif match["not"]:
            tally.failed.append(name)
        else:
            tally.passed += 1
    for left in plans.values():
        if left > 0:
            tally.failed.append(f"{source}: {left} planned tests gave no result")
    if not planned:
        tally.failed.append(f"{source}: no plan (1..N): the program ended early")
    return tally


AGAIN = "-again"


def junit_cases(path: Path) -> list[tuple[str, xml.etree.ElementTree.Element]]:
    """Tests of a JUnit file with their names."""
    return [(f"{case.get('classname', '')}.{case.get('name', '')}".lstrip("."), case)
            for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase")]


def passed_again(path: Path) -> set[str]:
    """Tests of the JUnit file at path that passed when they were repeated. One may have several entries: test and clean-up."""
    again = path.with_name(f"{path.stem}{AGAIN}.xml")
    good: dict[str, bool] = {}
    for name, case in junit_cases(again) if again.exists() else []:
        good[name] = good.get(name, True) and not any(c.tag in ("failure", "error", "skipped") for c in case)
    return {name for name, fine in good.items() if fine}


def read_junit(path: Path, source: str) -> Tally:
    """Results of a JUnit file."""
    tally = Tally()
    again = passed_again(path)
    for test, case in junit_cases(path):
        name = f"{source}: {test}"
        bad = [c for c in case if c.tag in ("failure", "error")]
        skip = case.find("skipped")
        if bad:
            message = (bad[0].get("message") or bad[0].text or "").strip().splitlines()
            text = f"{name}: {message[0] if message else 'failed'}"
            if test in again:
                tally.unstable.append(text)
                tally.passed += 1
            else:
                tally.failed.append(text)
        elif skip is not None:
            tally.skipped.append(f"{name}: {skip.get('message') or case.findtext('system-out') or 'no reason given'}")
        else:
            tally.passed += 1
    return tally


def read_file(path: Path) -> Tally:
    """Results of one file; a file without any is a failure."""
    source = path.stem
    try:
        if path.suffix == ".xml":
            tally = read_junit(path, source)
        else:
            tally = read_tap(path.read_text(encoding="utf-8", errors="replace"), source)
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        return Tally(failed=[f"{source}: results cannot be read: {error}"])
    if tally.total() == 0:
        tally.failed.append(f"{source}: no test ran")
    if tally.failed:
        logs = [p for p in (path.with_suffix(".log"), path) if p.exists()]
        tally.failed = [f"{text}\n       see {logs[0]}" for text in tally.failed]
    return tally


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    results, suites = Path(argv[1]), argv[2:]
    sum_up = Tally()
    files = sorted(p for p in results.iterdir() if p.suffix in (".tap", ".xml") and not p.stem.endswith(AGAIN))
    for suite in suites:
        mine = [p for p in files if p.stem == suite or p.stem.startswith(f"{suite}-")]
        if not mine:
            sum_up.failed.append(f"{suite}: left no results")
        for path in mine:
            one = read_file(path)
            sum_up.passed += one.passed
            sum_up.failed += one.failed
            sum_up.unstable += one.unstable
            sum_up.skipped += one.skipped
    for text in sum_up.skipped:
        print(f"skipped: {text}")
    for text in sum_up.unstable:
        print(f"unstable, passed when repeated: {text}")
    for text in sum_up.failed:
        print(f"FAILED: {text}")
    if sum_up.total() == 0:
        print("FAILED: no test ran")
    print(f"{sum_up.passed} passed, {len(sum_up.failed)} failed, {len(sum_up.skipped)} skipped")
    return 1 if sum_up.failed or sum_up.total() == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
