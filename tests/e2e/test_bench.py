# SPDX-License-Identifier: GPL-2.0-or-later
"""What ./hpb bench makes of its measurements, and that it measures. Times are not looked at."""
from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from contextlib import nullcontext

import pytest

from hpbtest import settings

sys.path.insert(0, str(settings.top() / "bench"))

import bench  # noqa: E402
import library  # noqa: E402
import migration  # noqa: E402
import peers  # noqa: E402
import stages  # noqa: E402
from hpbtest import backings  # noqa: E402
from hpbtest.balloon import BalloonError  # noqa: E402
from hpbtest.guest import OURS, STOCK, GuestError  # noqa: E402
from hpbtest.qmp import QmpTimeout  # noqa: E402
from peers import REPORTING, VIRTIO_MEM, guest_options  # noqa: E402
from report import HATCHES, Report, Series, Target, draw, grid, spreads, update, verdicts, write_csv  # noqa: E402

SERIES = [Series("shrink", "stock", "ms", [4.0, 2.0, 9.0]), Series("shrink", OURS, "ms", [1.0, 3.0]), Series("grow", "stock", "ms", [5.0])]


def test_tables():
    """Median, minimum, maximum and ratio; a target is met or missed, in its direction."""
    def cells(lines: list[str]) -> list[list[str]]:
        assert len({len(line) for line in lines}) == 1
        return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells(spreads(SERIES).splitlines())[2:] == [
        ["shrink", "stock", "4.00", "2.00", "9.00", "2 x"], ["shrink", OURS, "2.00", "1.00", "3.00", ""], ["grow", "stock", "5.00", "5.00", "5.00", ""]]
    assert cells(grid("ms", SERIES).splitlines())[::2] == [
        ["ms", "stock", OURS], ["shrink", "4.00 (2.00-9.00) 2 x", "2.00 (1.00-3.00)"]]
    said = verdicts([Target("a", ">=", 2, 2), Target("b", ">=", 2, 1.9), Target("c", "<=", 2, 2), Target("d", "<=", 2, 2.1)])
    assert [line.split("|")[4].strip() for line in said.splitlines()[2:]] == ["met", "MISSED", "met", "MISSED"]


def test_csv(tmp_path):
    """A line for each value, with its round."""
    write_csv(tmp_path / "x.csv", SERIES)
    with (tmp_path / "x.csv").open(encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["measurement", "device", "round", "value", "unit"]
    assert lines[3] == ["shrink", "stock", "3", "9.0", "ms"] and len(lines) == 7


def test_drawings(tmp_path):
    """A file for each figure, in shades of grey, with a pattern for each device but the first; there are as many as any measurement has devices."""
    assert len(set(HATCHES)) == len(HATCHES) >= max(len({case.name for case in migration.CASES}), len(stages.STAGES) + 1)
    more = [Series("used", "stock", "MiB", [3.0], "host memory"), Series("used", OURS, "MiB", [1.0], "host memory")]
    paths = draw(tmp_path / "x-1", "x", "accelerator tcg", SERIES + more)
    assert [path.name for path in paths] == ["x-1.svg", "x-1.png", "x-1-host-memory.svg", "x-1-host-memory.png"]
    for svg in paths[::2]:
        text = svg.read_text(encoding="utf-8")
        assert "<pattern" in text
        assert all(len({red, green, blue}) == 1 for red, green, blue in re.findall(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b", text))
    assert all(png.read_bytes().startswith(b"\x89PNG") for png in paths[1::2])


def test_options_of_peers():
    """A guest of virtio-mem has a quarter of its memory itself; what backs the rest is as asked for, and populated by the device only."""
    hugetlb = backings.Backing("huge", "memory-backend-memfd,hugetlb=on,prealloc=on", lambda _: 0, lambda _: 0)
    assert guest_options(STOCK, 4096)["memory"] == guest_options(REPORTING, 4096, hugetlb)["memory"] == 4096
    assert "free-page-reporting=on" in guest_options(REPORTING, 4096)["devices"][1]
    found = guest_options(VIRTIO_MEM, 4096, hugetlb)
    assert found["memory"] == 1024 and f"{hugetlb.option},id=m,size=1024M" in found["args"]
    assert "memory-backend-memfd,hugetlb=on,id=v,size=3072M" in found["args"] and found["devices"][1].endswith(",prealloc=on")
    plain = guest_options(VIRTIO_MEM, 4096)
    assert "memory-backend-ram,id=v,size=3072M" in plain["args"] and "prealloc" not in plain["devices"][1]


def test_measures(tmp_path):
    """A measurement without a guest, from the command line to its files. It is for the documentation only if asked to be."""
    document = settings.top() / "docs/benchmarks.md"
    before = document.read_bytes()
    run = subprocess.run([sys.executable, settings.top() / "bench/bench.py", "device", "--quick", "--out", tmp_path],
                         capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "share of the limit" in run.stdout and "Empty requests" in run.stdout
    data = json.loads(next(tmp_path.glob("device-*.json")).read_text(encoding="utf-8"))
    assert data["targets"] and all(pair[0] > 0 and pair[1] > 0 for pairs in data["times"].values() for pair in pairs)
    assert next(tmp_path.glob("device-*.csv")).read_text(encoding="utf-8").count("virtio-balloon-hp") == len(data["times"])
    assert document.read_bytes() == before


def test_one_that_fails(tmp_path, monkeypatch, capsys):
    """It is named with the reason, the others are measured, and the status says that not all is well."""
    def fails(rounds: int) -> Report:
        raise QmpTimeout(f"QEMU is silent in round {rounds}")
    monkeypatch.setattr(bench, "MEASUREMENTS", {"bad": fails, "good": lambda rounds: Report(f"{rounds} rounds", {"said": 1}, SERIES)})
    monkeypatch.setattr(sys, "argv", ["bench.py", "all", "--quick", "--out", str(tmp_path)])
    assert bench.main() == 1
    said = capsys.readouterr()
    assert "bad failed: QEMU is silent in round 1" in said.err and "not written: bad;" in said.err and "1 rounds" in said.out
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".csv", ".svg", ".png"}


@pytest.mark.parametrize("number, fails", [(signal.SIGTERM, False), (signal.SIGHUP, False), (signal.SIGINT, False), (signal.SIGTERM, True),
                                           (signal.SIGINT, True)])
def test_stopped(tmp_path, number, fails):
    """A measurement that is killed leaves nothing on the host, says so, and is not followed by another, even if something goes wrong then."""
    program = f"""
import signal, sys, tempfile
# Both are ignored where the tests run in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.path.insert(0, {str(settings.top() / 'bench')!r})
import bench

def waits(rounds):
    with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
        print("here", flush=True)
        try:
            sys.stdin.read()
        finally:
            if {fails}:
                raise OSError("what is put back has gone")
bench.MEASUREMENTS = {{"waits": waits, "next": waits}}
sys.argv = ["bench.py", "waits", "next", "--out", {str(tmp_path / 'out')!r}]
sys.exit(bench.main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "here\n"
        run.send_signal(number)
        assert run.wait(30) == 130
        assert "stopped while it measured waits" in run.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


class Booting:
    """Stands for a guest whose QEMU says that when it boots, and nothing more when it has said all."""

    def __init__(self, says: list[str]):
        self._says = says

    def __enter__(self) -> str:
        if self._says:
            raise GuestError(f"guest x: console closed; {self._says.pop(0)}")
        return "guest"

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""


@pytest.mark.parametrize("says, boots, fails", [([], 1, False), (["Assertion `a < b' failed"], 2, False),
                                                (["Assertion `a < b' failed"] * 3, 2, True), (["no such option"] * 3, 1, True)])
def test_an_emulator_that_ends_itself(monkeypatch, capsys, says, boots, fails):
    """It boots once more, aloud; other errors, and a second time, are errors."""
    booted = []
    monkeypatch.setattr(peers, "Guest", lambda name, **options: booted.append(name) or Booting(says))
    monkeypatch.setattr(peers.Resizable, "to", lambda self, mib: 0.0)
    with pytest.raises(GuestError) if fails else nullcontext(), peers.started(OURS, "x", peers.Setting()) as one:
        assert one.guest == "guest"
    assert len(booted) == boots
    assert ("once more, guest x" in capsys.readouterr().out) == (boots == 2)


@pytest.mark.parametrize("words, says", [(["devices"], "unknown measurement 'devices'"), (["device", "--rounds", "0"], "--rounds must be at least 1"),
                                         (["--quick", "--full"], "not allowed with"), (["--accel", "xen"], "invalid choice: 'xen'")])
def test_wrong_arguments(words, says):
    """They are named, and nothing is measured."""
    run = subprocess.run([sys.executable, settings.top() / "bench/bench.py", *words], capture_output=True, text=True, check=False, timeout=30)
    assert run.returncode == 2 and says in run.stderr and not run.stdout


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
1@100.002:virtio_balloon_hp_request req 0x1 queue 0 type 1 size 0x2 pieces 2
1@100.003:virtio_balloon_hp_request req 0x3 queue 0 type 4 size 0x0 pieces 1
1@100.003:virtio_balloon_hp_answer req 0x3 status 0 done 0x0 exceptions 0
1@100.006:virtio_balloon_hp_request req 0x2 queue 0 type 1 size 0x2 pieces 2
2@100.007:virtio_balloon_hp_discard block
1@100.007:virtio_balloon_hp_answer req 0x1 status 0 done 0x2 exceptions 0
2@100.009:virtio_balloon_hp_discard block
1@100.009:virtio_balloon_hp_answer req 0x2 status 0 done 0x2 exceptions 0
"""


def test_stages():
    """Two traces with clocks of their own become one line of time; each moment is of one stage. What the driver says of itself is in none."""
    guest, host = stages.guest_events(GUEST), stages.host_events(HOST)
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
