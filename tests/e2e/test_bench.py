# SPDX-License-Identifier: GPL-2.0-or-later
"""What ./hpb bench makes of its measurements. No guest, no times."""
from __future__ import annotations

import csv
import sys

import pytest

from hpbtest import settings

sys.path.insert(0, str(settings.top() / "bench"))

import library  # noqa: E402
import stages  # noqa: E402
from hpbtest.balloon import BalloonError  # noqa: E402
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
    path.write_text("<!-- missed: begin -->\n<!-- missed: end -->\na\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n", encoding="utf-8")
    said = verdicts([Target("fast", ">=", 2, 2), Target("small", "<=", 2, 3)])
    update(path, "x", Report(f"new \\1\n\n{said}", {}))
    update(path, "x", Report(f"new \\1\n\n{said}", {}))
    text = path.read_text(encoding="utf-8")
    assert "a\n<!-- x: begin -->\n\nnew \\1\n" in text and text.endswith("<!-- x: end -->\nb\n") and "old" not in text
    summary = text[:text.index("missed: end")]
    assert "1 of 2 targets are met." in summary and "x: small" in summary and "fast" not in summary
    with pytest.raises(ValueError, match="begin"):
        update(path, "y", Report("new", {}))
    assert path.read_text(encoding="utf-8") == text


GUEST = """ kworker 10.000: hpb_target: virtio0 requested=4 held=0
 kworker 10.002: hpb_taken: virtio0 ranges=1 bytes=2
 kworker 10.002: hpb_request: virtio0 type=1 ranges=1 bytes=2
 kworker 10.005: hpb_taken: virtio0 ranges=1 bytes=2
 kworker 10.005: hpb_request: virtio0 type=1 ranges=1 bytes=2
 kworker 10.0075: hpb_answer: virtio0 type=1 status=0
 kworker 10.010: hpb_answer: virtio0 type=1 status=0
"""
HOST = """1@99.999:virtio_balloon_hp_target guest size
1@100.002:virtio_balloon_hp_request req 0x1
1@100.006:virtio_balloon_hp_request req 0x2
2@100.007:virtio_balloon_hp_discard block
1@100.007:virtio_balloon_hp_answer req 0x1
2@100.009:virtio_balloon_hp_discard block
1@100.009:virtio_balloon_hp_answer req 0x2
"""


def test_stages():
    """Two traces with clocks of their own become one line of time; each moment is of one stage."""
    guest, host = stages.events(GUEST, stages.GUEST_LINE), stages.events(HOST, stages.HOST_LINE)
    assert (len(guest), len(host)) == (7, 7)
    difference = stages.clock_difference(guest, host)
    assert difference == pytest.approx(90)
    guest = [stages.Event(event.at + difference, event.what) for event in guest]
    spans = stages.host_spans(host) + stages.guest_spans(guest) + stages.on_its_way(guest, host)
    found = stages.split(spans, host[0].at, guest[-1].at)
    # the guest takes until 100.002; from then on the host frees, until 100.009; the last answer takes a millisecond
    assert {stage: round(1000 * seconds, 3) for stage, seconds in found.items()} == {
        "freeing": 7, "taking": 2, "returning": 0, "on its way": 1, "waiting": 1}
    with pytest.raises(BalloonError, match="2 requests, 1 have arrived"):
        stages.clock_difference(guest, host[:2])


def test_library():
    """The times in what the library's own benchmark says, which knows no time of some."""
    lines = ["3072 MiB, microseconds, least of 6", "                           one call    per 2 MiB      library      /one   /per 2M",
             "memfd (shmem, freed by punch-hole)", "  alone                           1            2            3      1.06      0.77    426 GiB/s",
             "  apart (half of it)              -         4673         3700         -      0.79", "  scan, populated        pagemap-scan 57 us, pagemap 3372 us"]
    assert [(one.title, one.peer, one.values) for one in library.series(lines)] == [
        ("memfd: alone", "one call", [1]), ("memfd: alone", "per 2 MiB", [2]), ("memfd: alone", "library", [3]),
        ("memfd: apart (half of it)", "per 2 MiB", [4673]), ("memfd: apart (half of it)", "library", [3700])]
    with pytest.raises(ValueError, match="has to follow"):
        library.series(lines[:2])
