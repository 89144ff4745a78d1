# SPDX-License-Identifier: GPL-2.0-or-later
"""What a measurement has to say, and its chapter in the documentation."""
from __future__ import annotations

import csv
import dataclasses
import os
import platform
import re
import statistics
import time
from pathlib import Path
from typing import Any

from hpbtest import settings
from hpbtest.guest import OURS


@dataclasses.dataclass
class Series:
    """What was measured of one peer, a value a round; series of one title are drawn side by side.

    figure: name of the drawing it is in, where there are several; all in one have the same unit.
    """
    title: str
    peer: str
    unit: str
    values: list[float]
    figure: str = ""

    def spread(self) -> list[float]:
        """Median, minimum, maximum."""
        return [statistics.median(self.values), min(self.values), max(self.values)]


@dataclasses.dataclass
class Target:
    """What shall be reached, and what was. relation: "<=" or ">="."""
    name: str
    relation: str
    target: float
    value: float

    @property
    def met(self) -> bool:
        """Was it?"""
        return self.value >= self.target if self.relation == ">=" else self.value <= self.target

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return {**dataclasses.asdict(self), "met": self.met}


def how_often(rounds: int) -> str:
    """For captions."""
    return f"{rounds} round{'s' if rounds > 1 else ''}"


@dataclasses.dataclass
class Report:
    """text: Markdown, for the terminal as well. data: everything, for JSON. series: what is drawn, and written as CSV."""
    text: str
    data: dict[str, Any]
    series: list[Series] = dataclasses.field(default_factory=list)


def machine() -> str:
    """This machine, today, and what ran on it, in a line."""
    cpu = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} x {cpu}, {memory:.0f} GiB, "
            f"Linux {platform.release().split('-')[0]}; {settings.versions()}")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table that can be read as text: first column left, others right."""
    lines = [head, *rows]
    width = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def text(line: list[str]) -> str:
        cells = [cell.ljust(width[i]) if i == 0 else cell.rjust(width[i]) for i, cell in enumerate(line)]
        return "| " + " | ".join(cells) + " |"
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(width)) + "|"
    return "\n".join([text(head), rule, *(text(row) for row in rows)])


def readable(value: float) -> str:
    """Three digits, but no powers of ten."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(one: Series, series: list[Series]) -> str:
    """How many times the median of our device in the same measurement this one is; nothing for our own."""
    ours = next((other.spread()[0] for other in series if other.title == one.title and other.peer == OURS), 0.0)
    return f"{readable(one.spread()[0] / ours)} x" if ours and one.peer != OURS else ""


def spreads(series: list[Series]) -> str:
    """A table of medians, minima, maxima and ratios."""
    return table([series[0].unit, "device", "median", "min", "max", "of ours"],
                 [[one.title, one.peer, *(f"{value:.2f}" for value in one.spread()), ratio(one, series)] for one in series])


def span(values: list[float]) -> str:
    """Median (minimum-maximum), for a cell of a table."""
    digits = 2 if max(values) < 10 else 1
    middle, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least}-{most})"


def grid(head: str, series: list[Series]) -> str:
    """The same in less room: a row for each title, a column for each device; median (minimum-maximum) ratio."""
    def cell(title: str, peer: str) -> str:
        for one in series:
            if (one.title, one.peer) == (title, peer):
                return f"{span(one.values)} {ratio(one, series)}".rstrip()
        return ""
    titles, peers = (list(dict.fromkeys(names)) for names in ([one.title for one in series], [one.peer for one in series]))
    return table([head, *peers], [[title, *(cell(title, peer) for peer in peers)] for title in titles])


def verdicts(targets: list[Target]) -> str:
    """A table of targets."""
    return table(["", "measured", "target", ""],
                 [[one.name, f"{one.value:.2f}" if abs(one.value) < 100 else readable(one.value), f"{one.relation} {one.target:g}",
                   "met" if one.met else "MISSED"] for one in targets])


def write_csv(path: Path, series: list[Series]) -> None:
    """A line for each value."""
    with path.open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["measurement", "device", "round", "value", "unit"])
        for one in series:
            lines.writerows([", ".join(filter(None, [one.figure, one.title])), one.peer, number, value, one.unit] for number, value in enumerate(one.values, 1))


MISSED = "missed"  # the chapter that sums up the others
HATCHES = ["", "///", "...", "xxx", "---", "\\\\\\", "ooo", "+++", "|||", "OO"]
LOG_FROM = 20  # between the lowest and the highest bar


def draw(stem: Path, name: str, what: str, series: list[Series]) -> list[Path]:
    """All drawings of a measurement of that name; `what` is in their headings, too. Returns their files."""
    figures: dict[str, list[Series]] = {}
    for one in series:
        figures.setdefault(one.figure, []).append(one)
    return [path for figure, found in figures.items()
            for path in bars(stem.with_name("-".join([stem.name, *figure.split()])), ", ".join(filter(None, [name, figure, what])), found)]


def bars(stem: Path, heading: str, series: list[Series]) -> list[Path]:
    """Bars of the medians, with lowest and highest value, as SVG and PNG; devices differ in pattern as well as in shade."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    titles, peers = (list(dict.fromkeys(names)) for names in ([one.title for one in series], [one.peer for one in series]))
    figure, axes = pyplot.subplots(figsize=(12, 1.5 + 0.3 * len(titles) * len(peers)), layout="constrained")
    for number, peer in enumerate(peers):
        mine = [one for one in series if one.peer == peer]
        medians = [one.spread()[0] for one in mine]
        height = 0.8 / len(peers)
        drawn = axes.barh([titles.index(one.title) + (number - (len(peers) - 1) / 2) * height for one in mine], medians, height, label=peer,
                          color=str(0.9 - 0.6 * number / max(len(peers) - 1, 1)), edgecolor="black", hatch=HATCHES[number % len(HATCHES)],
                          xerr=[[one.spread()[0] - one.spread()[1] for one in mine], [one.spread()[2] - one.spread()[0] for one in mine]], capsize=3)
        axes.bar_label(drawn, [readable(median) for median in medians], padding=3)
    lowest, highest = (pick(one.spread()[0] for one in series) for pick in (min, max))
    if lowest > 0 and highest / lowest > LOG_FROM:
        axes.set_xscale("log")
    axes.margins(x=0.15, y=0.01)
    axes.set_yticks(range(len(titles)), titles)
    axes.invert_yaxis()
    axes.set_xlabel(series[0].unit)
    axes.set_title(heading)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    paths = [stem.with_suffix(f".{kind}") for kind in ("svg", "png")]
    for path in paths:
        figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return paths


def put(text: str, name: str, chapter: str) -> str:
    """A document with that chapter between the marks of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    new, count = re.subn(re.escape(begin) + ".*?" + re.escape(end), lambda match: f"{begin}\n\n{chapter}\n\n{end}", text, flags=re.S)
    if count != 1:
        raise ValueError(f"the document must have the marks '{begin}' and '{end}' once; put them where the results shall be")
    return new


def missed(text: str) -> str:
    """The targets that a document calls missed, in a table, and how many there are in all."""
    rows, met = [], 0
    for name, chapter in re.findall(r"<!-- (\w+): begin -->(.*?)<!-- \1: end -->", text, re.S):
        lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in chapter.splitlines() if line.endswith("|")] if name != MISSED else []
        met += sum(line[-1] == "met" for line in lines)
        rows += [[f"{name}: {line[0]}", *line[1:3]] for line in lines if line[-1] == "MISSED"]
    return "\n\n".join([f"{met} of {met + len(rows)} targets are met.", *([table(["missed", "measured", "target"], rows)] if rows else [])])


def update(path: Path, name: str, report: Report) -> Path:
    """Replace the chapter of that name, between its two marks, in a document; and the one that lists what is missed."""
    text = put(path.read_text(encoding="utf-8"), name, f"{report.text}\n\n{machine()}.")
    path.write_text(put(text, MISSED, missed(text)), encoding="utf-8")
    return path
