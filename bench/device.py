# SPDX-License-Identifier: GPL-2.0-or-later
"""The device alone: the bench plays the driver (hpbtest.scripted), beside the bare system calls for the same ranges.

No guest: what is measured is the device, from the driver's notification until the
interrupt after which the answer is there. All of the memory is populated. The limit is a loop of one
madvise or fallocate for each range in a process with one thread, in turns with it.
"""
from __future__ import annotations

import dataclasses
import statistics
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import limit
from hpbtest.guest import MIB
from hpbtest.hostsetup import HostLacks, pool
from hpbtest.scripted import GIB, INFLATE, RING_SIZE, Machine
from report import Report, Series, Target, how_often, spreads, verdicts

MEMORY = 4 * GIB
FIRST = 1 * GIB             # as much is left
OUT = 3 * GIB
LOW = 3 * GIB               # of a microvm's memory is below the hole for devices, which ends at 4 GiB
UNIT = 2 * MIB
BATCHES = 50
IDLE_SECONDS = 5.0
# Kind, -object of the machine, least share of the limit in percent.
KINDS = {limit.ANONYMOUS: ("memory-backend-ram,prealloc=on", 85), limit.HUGETLB: ("memory-backend-memfd,hugetlb=on,hugetlbsize=2M,prealloc=on", 85),
         limit.MEMFD: ("memory-backend-memfd,share=on,prealloc=on", 95)}
SHAPES = {"in one piece": [(offset, GIB) for offset in range(0, OUT, GIB)],
          "every second 2 MiB": [(offset, UNIT) for offset in range(0, OUT, 2 * UNIT)]}


@dataclasses.dataclass
class Idle:
    """What nothing costs."""
    requests: float     # empty ones a second
    cpu: float          # milliseconds of processor time in IDLE_SECONDS, while there is nothing to do
    without: float      # the same machine without the device


def physical(offset: int) -> int:
    """Where it is for the guest."""
    return offset if offset < LOW else offset + GIB


def host_needs(kind: str) -> AbstractContextManager[None]:
    """Huge pages for a machine or for the limit, not both at once."""
    return pool((MEMORY + UNIT) // UNIT) if kind == limit.HUGETLB else nullcontext()


def device(kind: str, ranges: list[tuple[int, int]]) -> float:
    """Seconds for an inflate of these ranges of populated memory."""
    with Machine(MEMORY, backend=KINDS[kind][0]) as machine:
        machine.start_driver()
        most = machine.max_ranges()
        whole = [(physical(FIRST + offset), length) for offset, length in ranges]
        return sum(machine.request(INFLATE, whole[first:first + most]) for first in range(0, len(whole), most))


def cpu(pid: int) -> float:
    """Milliseconds of processor time that a process has had, all its threads."""
    return sum(int((task / "schedstat").read_text(encoding="utf-8").split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e6


def resting(machine: Machine) -> float:
    """Processor time in IDLE_SECONDS. The pause is what is measured."""
    before = cpu(machine.pid)
    time.sleep(IDLE_SECONDS)
    return cpu(machine.pid) - before


def idle() -> Idle:
    """Empty requests, and none."""
    with Machine(MEMORY) as machine:
        machine.start_driver()
        seconds = sum(machine.empty_requests(INFLATE, RING_SIZE) for _ in range(BATCHES))
        used = resting(machine)
    with Machine(MEMORY, balloon=False) as machine:
        return Idle(BATCHES * RING_SIZE / seconds, used, resting(machine))


def run(rounds: int) -> Report:
    """All kinds and shapes, in turns with the limit."""
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    missing = []
    for kind in KINDS:
        try:
            with host_needs(kind):
                for number in range(rounds):
                    for shape, ranges in SHAPES.items():
                        pair = limit.free(kind, OUT, ranges), device(kind, ranges)
                        times.setdefault((kind, shape), []).append(pair)
                        print(f"round {number + 1}/{rounds} {kind:<22} {shape:<20} bare calls {1000 * pair[0]:7.2f} ms   device {1000 * pair[1]:7.2f} ms", flush=True)
        except HostLacks as error:
            missing.append(f"{kind} was left out: {error}.")
    nothing = [idle() for _ in range(rounds)]
    series = [Series(f"{kind}, {shape}", peer, "milliseconds", [1000 * pair[which] for pair in found])
              for (kind, shape), found in times.items() for which, peer in enumerate(("bare system calls", "virtio-balloon-hp"))]
    targets = [Target(f"{kind}, {shape}: share of the limit, %", ">=", KINDS[kind][1],
                      100 * statistics.median(bare / ours for bare, ours in found))
               for (kind, shape), found in times.items()]

    def middle(field: str) -> float:
        return statistics.median(getattr(one, field) for one in nothing)
    text = "\n\n".join([
        spreads(series), verdicts(targets),
        f"{how_often(rounds)}. {OUT // GIB} GiB of {MEMORY // GIB} are freed: in {len(SHAPES['in one piece'])} descriptors that are one piece of memory, or every second 2 MiB of it "
        f"in {len(SHAPES['every second 2 MiB'])} descriptors.\n"
        f"No guest is emulated in it. The share is the median of the rounds' shares, so that a moment in which the host is slow is one for both. Empty requests: {middle('requests'):,.0f} a second. An idle device: "
        f"{middle('cpu'):.2f} ms of processor time in {IDLE_SECONDS:g} s; QEMU without it {middle('without'):.2f} ms.", *missing])
    return Report(text, {"times": {f"{kind}, {shape}": found for (kind, shape), found in times.items()}, "nothing": [dataclasses.asdict(one) for one in nothing],
                         "targets": [one.data() for one in targets]}, series)
