# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of guests that do not need all their memory, in turns (A B A B ...).

Over a unix socket without a limit, both QEMUs on this host. The guest keeps some
memory under hpb-pattern, which is stopped meanwhile, so that the guest is idle,
and afterwards checks every byte on the destination.

Three groups. "idle": a guest that has just booted and been shrunk, by each peer, beside
one that never had more. "used": it had filled its memory before, so that the host holds
what is left. "untouched": no balloon at all. QEMU without our patches reads what was
never populated, so that is what the others are measured with; what the traditional
balloon would be with them is a row of its own.

Where the host is itself a virtual machine, memory that it has not used for a while has to
be fetched from its own host, at ten times the cost of everything that is measured
here. So right before each migration the host uses and frees what the destination may need.
"""
from __future__ import annotations

import dataclasses
import mmap
import os
import statistics
from pathlib import Path
from typing import Any

from hpbtest import hostmem, settings
from hpbtest.guest import MIB, OURS, STOCK, Guest
from hpbtest.migrate import migrate
from peers import REPORTING, VIRTIO_MEM, Resizable, guest_options, kernel_line
from report import Report, Series, Target, how_often, ratio, table, verdicts

BIG = 4096
SMALL = 1024
PATTERN = 64
FILL_BIG = 3456    # nearly all that a guest of BIG MiB has, beside the pattern
FILL_SMALL = 500   # of what a guest of SMALL MiB has, beside the pattern
WARM = 2048        # more than any destination here gets
HUGE = 2 * MIB
NO_SKIP = ("-global", "migration.skip-unpopulated=off")


@dataclasses.dataclass(frozen=True)
class Case:
    """A guest to be migrated. peer: who has shrunk it."""
    group: str
    name: str
    peer: str | None
    memory: int = BIG
    args: tuple[str, ...] = ()

    @property
    def used(self) -> bool:
        """Has it filled its memory before?"""
        return self.group == "used"


CASES = [case for group in ("idle", "used") for case in (
    Case(group, "virtio-balloon", STOCK, args=NO_SKIP),
    Case(group, REPORTING, REPORTING, args=NO_SKIP),
    Case(group, VIRTIO_MEM, VIRTIO_MEM, args=NO_SKIP),
    Case(group, OURS, OURS),
    Case(group, "booted with 1 GiB", None, memory=SMALL),
)] + [
    Case("idle", "virtio-balloon, skip on", STOCK),
    Case("untouched", "skip off", None, args=NO_SKIP),
    Case("untouched", "skip on", None),
]


@dataclasses.dataclass
class Sample:
    """One migration: milliseconds, bytes, pages, seconds."""
    total: float
    downtime: float
    setup: float
    sent: int
    zero: int
    cpu: float
    growth: int


# What is drawn: title, unit, field and what to divide it by.
FIGURES = {"total": ("milliseconds", "total", 1), "downtime": ("milliseconds", "downtime", 1), "sent": ("MiB", "sent", MIB), "processor time": ("seconds", "cpu", 1)}
# What is compared: title, group, cases and field (a ratio if there are two cases), relation, limit.
TARGETS: list[tuple[str, str, tuple[str, ...], str, str, float]] = [
    ("idle: times faster than stock", "idle", ("virtio-balloon", "virtio-balloon-hp"), "total", ">=", 5),
    ("idle: times the total of -m 1G", "idle", ("virtio-balloon-hp", "booted with 1 GiB"), "total", "<=", 1.25),
    ("idle: zero pages", "idle", ("virtio-balloon-hp",), "zero", "<=", 30000),
    ("idle: source grows, MiB", "idle", ("virtio-balloon-hp",), "growth", "<=", 1),
    ("used: times the total of -m 1G", "used", ("virtio-balloon-hp", "booted with 1 GiB"), "total", "<=", 1.25),
    ("used: source grows, MiB", "used", ("virtio-balloon-hp",), "growth", "<=", 1),
    ("untouched: times faster with the skip", "untouched", ("skip off", "skip on"), "total", ">=", 1.7),
    ("untouched: zero pages", "untouched", ("skip on",), "zero", "<=", 30000),
]


def cpu_seconds(guest: Guest) -> float:
    """Processor time of a QEMU so far, of all its threads."""
    fields = Path(f"/proc/{guest.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def warm_host() -> None:
    """Have the host own memory that it can hand out at once."""
    with mmap.mmap(-1, WARM * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for offset in range(0, WARM * MIB, mmap.PAGESIZE):
            memory[offset] = 1


def measure(case: Case, number: int) -> Sample:
    """Boot, make it small, migrate, check the contents."""
    name = f"bench-migration-{CASES.index(case)}-{number}"
    options: dict[str, Any] = guest_options(case.peer, case.memory) if case.peer else {"memory": case.memory}
    options["args"] = [*options.get("args", []), *case.args]
    source = Guest(name, append=kernel_line(case.peer or "", more=f"hpb.pattern={PATTERN}"), **options)
    destination = Guest(f"{name}-to", incoming=True, **options)
    with source, destination:
        if case.peer:
            one = Resizable(case.peer, source, case.memory)
            one.to(case.memory)
            if case.used:
                source.run(f"hpb-touch {FILL_BIG}", timeout=300)
            one.to(SMALL)
        if case.used:
            source.run(f"hpb-touch {FILL_SMALL}")
        source.console.wait_pattern(more=1, passes=1)
        source.run("killall -STOP hpb-pattern")
        warm_host()
        held = hostmem.forget_peak(source.pid)
        cpu = cpu_seconds(source) + cpu_seconds(destination)
        info = migrate(source, destination)
        cpu = cpu_seconds(source) + cpu_seconds(destination) - cpu
        growth = hostmem.peak(source.pid) - held
        destination.run("killall -CONT hpb-pattern")
        destination.console.wait_pattern(more=1, passes=1)
    ram = info["ram"]
    return Sample(info["total-time"], info["downtime"], info["setup-time"], ram["transferred"], ram["duplicate"], cpu, growth)


Runs = dict[tuple[str, str], list[Sample]]


def median(runs: Runs, group: str, case: str, field: str) -> float:
    """Of all rounds."""
    return statistics.median(getattr(sample, field) for sample in runs[group, case])


def reached(runs: Runs) -> list[Target]:
    """Targets and what was measured."""
    found = []
    for title, group, cases, field, relation, limit in TARGETS:
        value = median(runs, group, cases[0], field)
        if len(cases) == 2:
            value /= median(runs, group, cases[1], field)
        elif field == "growth":
            value /= MIB
        found.append(Target(title, relation, limit, value))
    return found


def row(case: Case, samples: list[Sample], times: str) -> list[str]:
    """A line of the table; times: how many times ours."""
    def middle(field: str) -> float:
        return statistics.median(getattr(sample, field) for sample in samples)
    totals = [sample.total for sample in samples]
    return [f"{case.group}: {case.name}", f"{middle('total'):.0f}", f"{min(totals):.0f}", f"{max(totals):.0f}", times, f"{middle('downtime'):.0f}",
            f"{middle('sent') / MIB:.1f}", f"{middle('zero'):.0f}", f"{middle('cpu'):.2f}", f"{middle('growth') / MIB:.1f}"]


def run(rounds: int) -> Report:
    """All rounds."""
    runs: Runs = {(case.group, case.name): [] for case in CASES}
    for number in range(rounds):
        for case in CASES:
            one = measure(case, number)
            runs[case.group, case.name].append(one)
            print(f"round {number + 1}/{rounds} {case.group + ': ' + case.name:<34} {one.total:6.0f} ms   {one.sent / MIB:7.1f} MiB"
                  f"   {one.zero:8,} zero pages   {one.cpu:5.2f} s CPU", flush=True)
    ordered = sorted(CASES, key=lambda case: ("idle", "used", "untouched").index(case.group))
    targets = reached(runs)
    figures = {title: [Series(case.group, case.name, unit, [getattr(one, field) / scale for one in runs[case.group, case.name]], title) for case in ordered]
               for title, (unit, field, scale) in FIGURES.items()}
    total = figures["total"]
    limit = median(runs, "idle", "virtio-balloon", "total") / median(runs, "idle", "booted with 1 GiB", "total")
    more = median(runs, "idle", "virtio-balloon-hp", "sent") - median(runs, "idle", "booted with 1 GiB", "sent")
    text = "\n\n".join([
        table(["guest", "ms", "min", "max", "of ours", "downtime", "MiB sent", "zero pages", "CPU s", "source grows MiB"],
              [row(case, runs[case.group, case.name], ratio(one, total)) for case, one in zip(ordered, total)]),
        verdicts(targets),
        f"{how_often(rounds)}, medians, accelerator {settings.accel()}. Guests of {BIG // 1024} GiB; where there is a device, {(BIG - SMALL) // 1024} GiB of it are out. CPU of both QEMUs, "
        f"the guest's included.\n\"used\": it has filled {FILL_BIG} MiB before, and {FILL_SMALL} MiB again after it was shrunk. "
        "virtio-balloon, with reporting too, virtio-mem and `skip off` are without the patch for memory never populated\n(`-global migration.skip-unpopulated=off`), as QEMU is today.\n"
        f"A guest booted with {SMALL // 1024} GiB is the limit: idle {limit:.2f} times faster than the traditional balloon. A shrunk guest sends {more / MIB:.1f} MiB more than that one, "
        "most of it\nthe array of struct page for the memory that is out, which the guest needs to get it back."])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {f"{group}: {name}": [dataclasses.asdict(sample) for sample in found]
                                  for (group, name), found in runs.items()}}, sum(figures.values(), []))
