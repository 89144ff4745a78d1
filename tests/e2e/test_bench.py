# SPDX-License-Identifier: GPL-2.0-or-later
"""What ./hpb bench makes of its measurements. No guest, no times."""
from __future__ import annotations

import csv
import sys

import pytest

from hpbtest import settings

sys.path.insert(0, str(settings.top() / "bench"))

from report import Report, Series, Target, spreads, update, verdicts, write_csv  # noqa: E402

SERIES = [Series("shrink", "stock", "ms", [4.0, 2.0, 9.0]), Series("shrink", "ours", "ms", [1.0, 3.0])]


def test_tables():
    """Median, minimum and maximum; a target is met or missed, in its direction."""
    lines = spreads(SERIES).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["shrink", "stock", "4.00", "2.00", "9.00"]
    assert [cell.strip() for cell in lines[3].split("|")[1:-1]] == ["shrink", "ours", "2.00", "1.00", "3.00"]
    assert len({len(line) for line in lines}) == 1
    said = verdicts([Target("a", ">=", 2, 2), Target("b", ">=", 2, 1.9), Target("c", "<=", 2, 2), Target("d", "<=", 2, 2.1)])
    assert [line.split("|")[4].strip() for line in said.splitlines()[2:]] == ["met", "MISSED", "met", "MISSED"]


def test_csv(tmp_path):
    """A line for each value, with its round."""
    write_csv(tmp_path / "x.csv", SERIES)
    with (tmp_path / "x.csv").open(encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["measurement", "device", "round", "value", "unit"]
    assert lines[3] == ["shrink", "stock", "3", "9.0", "ms"] and len(lines) == 6


def test_chapter(tmp_path):
    """Only what is between the marks is replaced; without them nothing is written, and it is said what to do."""
    path = tmp_path / "doc.md"
    path.write_text("a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n", encoding="utf-8")
    update(path, "x", Report("new \\1", {}))
    text = path.read_text(encoding="utf-8")
    assert text.startswith("a\n<!-- x: begin -->\n\nnew \\1\n") and text.endswith("<!-- x: end -->\nb\n") and "old" not in text
    with pytest.raises(ValueError, match="begin"):
        update(path, "y", Report("new", {}))
    assert path.read_text(encoding="utf-8") == text
