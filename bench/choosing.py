# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests give up that have little free in one piece, in turns (A B A B ...).

fragmented  4 GiB, filled with pages of 4 KiB of which every second is free again; asked for 1900 MiB.
            Half of every block has to be moved elsewhere, or the host's huge pages be broken.
page cache  4 GiB, 2.5 GiB of them clean page cache of files on ext4; asked down to 1 GiB.
zeroing     3.5 GiB used and freed, asked down to 1 GiB, by a kernel that clears what it allocates
            (init_on_alloc=1) and by one that does not, beside the time in which the latter clears as
            much for a program; and by one with the patches of guest/linux/patches, both ways.

give back   one block of 2 MiB, as often as STEPS, from the request until the guest's allocator has it
            (by the guest's own trace), and from the command until the monitor shows it.

The guest keeps what it needs: each measurement ends with a look at contents, swap, writes and kills.
"""
from __future__ import annotations

import dataclasses
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from hpbtest import hostmem, settings
from hpbtest.balloon import RESIZE_SECONDS, BalloonError, actual, driver_status, resize, set_target
from hpbtest.disk import MOUNT, READ_ALL, Disk
from hpbtest.guest import MIB, OURS, STOCK, Guest, balloon_device
from hpbtest.inguest import fragment, meminfo, vmstat
from report import Report, Series, Target, how_often, spreads, table, verdicts

SIZE = 4096
ASK = 1900
CACHE = 2560
SMALL = 1024
TOUCH = 3584
FRAGMENT = 3300
PATCHED = "6.12-hpb"
TRACING = "/sys/kernel/tracing"
STEPS = 50
SHRINKS = 3  # of a guest: one of ours takes so little that one alone says little
# Between two looks at the size: fine against 50 ms.
POLL = 0.0005


@dataclasses.dataclass
class Fragmented:
    """Seconds; bytes. moved and cheapest are our driver's own count."""
    first: float
    shrink: float
    again: float
    rss_over: int
    whole: float
    moved: int
    cheapest: int


@dataclasses.dataclass
class Cached:
    """Seconds; how many pages or kills; whether the files read back right."""
    shrink: float
    swapped: int
    written_kib: int
    killed: int
    right: bool


@dataclasses.dataclass
class Zeroing:
    """Seconds. shrink: median of SHRINKS; cleared: until a program has as much memory as the balloon takes, untouched."""
    shrink: float
    cleared: float


def shrink_watched(guest: Guest, size: int) -> tuple[float, float]:
    """Go to a size in bytes. Seconds until the host has the first memory, and all of it."""
    full = actual(guest)
    start = time.perf_counter()
    set_target(guest, size)
    first = 0.0
    while (now := actual(guest)) != size:
        passed = time.perf_counter() - start
        if now < full and not first:
            first = passed
        if passed > RESIZE_SECONDS:
            raise BalloonError(f"guest {guest.name} is at {now // MIB} MiB {passed:.0f} s after it was asked to go to {size // MIB} MiB")
        time.sleep(POLL)
    whole = time.perf_counter() - start
    return first or whole, whole


def fragmented(driver: str, name: str) -> Fragmented:
    """One guest in pieces."""
    with Guest(name, memory=SIZE, devices=balloon_device(driver), append="init_on_alloc=0 hpb.pattern=16") as guest:
        fragment(guest, FRAGMENT)
        guest.run("killall -STOP hpb-pattern")
        before = hostmem.process(guest.pid)
        target = (SIZE - ASK) * MIB
        first, shrink = shrink_watched(guest, target)
        after = hostmem.process(guest.pid)
        status = driver_status(guest) if driver == OURS else {"moved_bytes": "0", "moved_bytes_cheapest": "0"}
        # Of what the host held in huge pages, what has not been given up.
        outside = before.anon_huge - (before.rss - after.rss)
        resize(guest, SIZE * MIB)
        again = resize(guest, target)
        guest.run("killall -CONT hpb-pattern")
        guest.console.wait_pattern(more=1, passes=1)
        return Fragmented(first, shrink, again, after.rss - target, min(after.anon_huge / outside, 1.0),
                          int(status["moved_bytes"]), int(status["moved_bytes_cheapest"]))


def cached(driver: str, name: str, disk: Disk) -> Cached:
    """One guest full of files."""
    with Guest(name, memory=SIZE, devices=balloon_device(driver) + disk.args(), append="init_on_alloc=0") as guest:
        guest.run(MOUNT)
        guest.run(READ_ALL, timeout=300)
        if meminfo(guest, "Cached") < CACHE * MIB:
            raise BalloonError(f"guest {guest.name} has {meminfo(guest, 'Cached') // MIB} MiB of page cache, less than the {CACHE} MiB it read")
        before = vmstat(guest)
        shrink = resize(guest, SMALL * MIB)
        after = vmstat(guest)
        right = all(guest.run(f"md5sum /mnt/{file}", timeout=120).output.split()[0] == md5 for file, md5 in disk.files.items())
        return Cached(shrink, after["pswpout"] - before["pswpout"], after["pgpgout"] - before["pgpgout"],
                      after["oom_kill"] - before["oom_kill"], right)


def zeroing(driver: str, name: str, series: str = settings.DEFAULT_KERNEL, clear: int = 1) -> Zeroing:
    """One guest whose kernel clears memory when it is allocated, or does not."""
    with Guest(name, series=series, memory=SIZE, devices=balloon_device(driver), append=f"init_on_alloc={clear} hpb.touch={TOUCH}") as guest:
        said = guest.run(f"hpb-touch -z {SIZE - SMALL}").output
        shrinks = [resize(guest, SMALL * MIB)]
        for _ in range(1, SHRINKS):
            resize(guest, SIZE * MIB)
            guest.run(f"hpb-touch {TOUCH}", timeout=120)
            shrinks.append(resize(guest, SMALL * MIB))
        return Zeroing(statistics.median(shrinks), int(said.split()[1]) / 1e6)


@dataclasses.dataclass
class GiveBack:
    """Seconds, medians of STEPS; by our driver's trace, and as the host sees it."""
    guest: float
    shrink: float


def trace_times(text: str) -> list[float]:
    """Seconds from each deflate request to the return of its blocks, from the guest's trace."""
    times, start = [], None
    for line in text.splitlines():
        match = re.match(r".* ([0-9.]+): (hpb_request|hpb_returned): (.*)$", line)
        if match and match[2] == "hpb_request" and " type=2 " in match[3]:
            start = float(match[1])
        elif match and match[2] == "hpb_returned" and start is not None:
            times.append(float(match[1]) - start)
            start = None
    return times


def give_back(driver: str, name: str) -> GiveBack:
    """One guest that gets a block at a time."""
    with Guest(name, memory=SIZE, devices=balloon_device(driver), append="init_on_alloc=0") as guest:
        resize(guest, SMALL * MIB)
        if driver == OURS:
            guest.run(f"echo 1 >{TRACING}/events/virtio_balloon_hp/enable")
        seen = [resize(guest, (SMALL + 2 * step) * MIB) for step in range(1, STEPS + 1)]
        inside = trace_times(guest.run(f"cat {TRACING}/trace").output) if driver == OURS else [0.0]
        if driver == OURS and len(inside) != STEPS:
            raise BalloonError(f"guest {guest.name} has {len(inside)} deflates in its trace, not {STEPS}")
        return GiveBack(statistics.median(inside), statistics.median(seen))


Runs = dict[str, list[Any]]


def middle(runs: list[Any], field: str) -> float:
    """The median of a field."""
    return statistics.median(getattr(run, field) for run in runs)


def reached(pieces: Runs, files: Runs, zero: Runs, plain: Runs, patched: Runs, without: Runs, back: Runs) -> list[Target]:
    """What shall be, and is."""
    def ratio(runs: Runs, field: str) -> float:
        return middle(runs[OURS], field) / middle(runs[STOCK], field)
    ours = pieces[OURS]
    return [
        Target("fragmented: first shrink, of stock's time", "<=", 1.5, ratio(pieces, "shrink")),
        Target("fragmented: second shrink, times faster", ">=", 50, 1 / ratio(pieces, "again")),
        Target("fragmented: moved, of the cheapest choice", "<=", 1.1, max(run.moved / run.cheapest for run in ours)),
        Target("fragmented: host RSS over the target, MiB", "<=", 150, max(run.rss_over for run in ours) / MIB),
        Target("fragmented: huge pages whole outside, %", ">=", 95, 100 * min(run.whole for run in ours)),
        Target("fragmented: first memory, ms", "<=", 50, 1000 * middle(ours, "first")),
        Target("page cache: shrink, of stock's time", "<=", 1, ratio(files, "shrink")),
        Target("page cache: swapped pages", "<=", 0, max(run.swapped for run in files[OURS])),
        Target("page cache: written, KiB", "<=", 0, max(run.written_kib for run in files[OURS])),
        Target("page cache: kills", "<=", 0, max(run.killed for run in files[OURS])),
        Target("page cache: files wrong afterwards", "<=", 0, sum(not run.right for run in files[OURS])),
        Target("zeroing: shrink, of the time to clear as much", "<=", 1.05, middle(zero[OURS], "shrink") / middle(plain[OURS], "cleared")),
        Target("zeroing, patched: of the time without", "<=", 1.05, middle(patched[OURS], "shrink") / middle(without[OURS], "shrink")),
        Target("2 MiB given back, in the guest, ms", "<=", 1, 1000 * middle(back[OURS], "guest")),
    ]


def in_turns(rounds: int, directory: Path) -> dict[str, Runs]:
    """All guests."""
    disk = Disk(directory, CACHE)
    cases = {"fragmented": fragmented, "page cache": lambda driver, name: cached(driver, name, disk), "zeroing": zeroing,
             "no zeroing": lambda driver, name: zeroing(driver, name, clear=0),
             "zeroing, patched": lambda driver, name: zeroing(driver, name, PATCHED, 1),
             "none, patched": lambda driver, name: zeroing(driver, name, PATCHED, 0),
             "give back": give_back}
    runs: dict[str, Runs] = {case: {STOCK: [], OURS: []} for case in cases}
    for number in range(rounds):
        for case, measure in cases.items():
            for driver in (STOCK, OURS):
                one = measure(driver, f"bench-choosing-{case.replace(', ', '-').replace(' ', '-')}-{driver}-{number}")
                runs[case][driver].append(one)
                print(f"round {number + 1}/{rounds} {case:<16} {driver:<20} shrink {one.shrink * 1000:8.1f} ms", flush=True)
    return runs


def run(rounds: int) -> Report:
    """All rounds, as a report."""
    with tempfile.TemporaryDirectory(prefix="hpb-choosing-", dir="/var/tmp") as directory:
        runs = in_turns(rounds, Path(directory))
    series = [Series(title, driver.removesuffix("-pci"), "milliseconds", [1000 * getattr(one, field) for one in runs[case][driver]]) for title, case, field in (
        ("fragmented: first memory", "fragmented", "first"), ("fragmented: first shrink", "fragmented", "shrink"),
        ("fragmented: second shrink", "fragmented", "again"), ("page cache: shrink", "page cache", "shrink"),
        ("zeroing: shrink", "zeroing", "shrink"), ("no zeroing: shrink", "no zeroing", "shrink"), ("no zeroing: as much cleared for a program", "no zeroing", "cleared"),
        ("zeroing, patched kernel: shrink", "zeroing, patched", "shrink"), ("no zeroing, patched kernel: shrink", "none, patched", "shrink"),
        ("2 MiB given back, by the monitor", "give back", "shrink")) for driver in (STOCK, OURS)]
    kept = [["fragmented: huge pages whole outside, %", *(f"{100 * middle(runs['fragmented'][d], 'whole'):.1f}" for d in (STOCK, OURS))],
            ["fragmented: host RSS over the target, MiB", *(f"{middle(runs['fragmented'][d], 'rss_over') / MIB:.0f}" for d in (STOCK, OURS))]]
    targets = reached(*runs.values())
    text = "\n\n".join([
        spreads(series),
        table(["", "virtio-balloon", "virtio-balloon-hp"], kept),
        verdicts(targets),
        f"{how_often(rounds)}, accelerator {settings.accel()}. Guests of {SIZE // 1024} GiB. Fragmented: {FRAGMENT} MiB of pages of 4 KiB, every second freed, asked for "
        f"{ASK} MiB.\nPage cache: {CACHE} MiB of files on ext4, read once, asked down to {SMALL // 1024} GiB. Zeroing: `init_on_alloc=1`, {TOUCH} MiB used before, asked "
        f"down to {SMALL // 1024} GiB (median of {SHRINKS} in each guest, its memory used again before each),\nbeside a program that gets {SIZE - SMALL} MiB in huge pages from the same kernel with `init_on_alloc=0` (MADV_POPULATE_WRITE: each page is cleared once); "
        "elsewhere `init_on_alloc=0`."])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {case: {driver: [dataclasses.asdict(one) for one in found] for driver, found in by_driver.items()}
                                  for case, by_driver in runs.items()}}, series)
