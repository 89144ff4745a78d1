# SPDX-License-Identifier: GPL-2.0-or-later
"""Shrink and grow: the traditional balloon, this one, virtio-mem, and what the host alone needs for as much, in turns.

Each round takes a fresh guest for each device (A B C A B C ...), so that drift of
the machine hits all alike. A program fills the guest before it is shrunk, and
again when it has been grown back: what a shrink saves is not to be paid then.
"""
from __future__ import annotations

import dataclasses
import mmap
import statistics
import time

from hpbtest import measure, settings
from hpbtest.balloon import POLL_SECONDS, RESIZE_SECONDS, BalloonError
from hpbtest.guest import MIB, OURS, STOCK, Guest
from report import Report, Series, Target, spreads, verdicts

VIRTIO_MEM = "virtio-mem"
HOST = "host, one call"
TAKEN = (measure.GUEST_MIB - measure.SMALL_MIB) * MIB
MADV_POPULATE_WRITE = 23  # Linux 5.14


@dataclasses.dataclass
class Round:
    """Times of one peer, in seconds; 0 where it has none. touch: fills memory, after the boot, after the grow, and once more."""
    shrink: float
    grow: float = 0.0
    fresh: float = 0.0
    touch: float = 0.0
    touch_again: float = 0.0
    balloon: measure.Measurement | None = None


STEPS = {"shrink 4 -> 1 GiB": "shrink", "grow 1 -> 4 GiB": "grow", "fill a fresh guest": "fresh", "fill a grown guest": "touch", "fill it once more": "touch_again"}


def fill(guest: Guest) -> float:
    """How long a program takes to use as good as all that the guest has."""
    start = time.perf_counter()
    guest.run(f"hpb-touch {measure.TOUCH_MIB}", timeout=120)
    return time.perf_counter() - start


def balloon(driver: str, name: str) -> Round:
    """One guest with a balloon; requests are counted at the end, untimed."""
    found = measure.Measurement(driver)
    guest, log = measure.boot(driver, name)
    with guest:
        fresh = fill(guest)
        measure.time_resizes(guest, found)
        touch, again = fill(guest), fill(guest)
        measure.count_traffic(guest, log, found)
    log.unlink(missing_ok=True)
    return Round(found.shrink, found.grow, fresh, touch, again, found)


def virtio_mem(name: str) -> Round:
    """One guest of which all but the small size is a virtio-mem device, plugged in and made movable."""
    guest = Guest(name, memory=measure.SMALL_MIB, append="init_on_alloc=0 memhp_default_state=online_movable",
                  args=["-m", f"{measure.SMALL_MIB}M,maxmem={2 * measure.GUEST_MIB}M", "-object", f"memory-backend-ram,id=v,size={TAKEN}"],
                  devices=["-device", f"virtio-mem-pci,id=v0,memdev=v,requested-size={TAKEN}"])

    def plugged(size: int) -> float:
        start = time.perf_counter()
        guest.qmp.execute("qom-set", path="/machine/peripheral/v0", property="requested-size", value=size)
        while guest.qmp.qom_get("/machine/peripheral/v0", "size") != size:
            if time.perf_counter() - start > RESIZE_SECONDS:
                raise BalloonError(f"virtio-mem of guest {name} does not get to {size // MIB} MiB")
            time.sleep(POLL_SECONDS)
        return time.perf_counter() - start
    with guest:
        plugged(TAKEN)
        fresh = fill(guest)
        shrink, grow = plugged(0), plugged(TAKEN)
        return Round(shrink, grow, fresh, fill(guest), fill(guest))


def host() -> Round:
    """As much memory in huge pages, populated, freed by one system call: nothing that frees it can be faster."""
    with mmap.mmap(-1, TAKEN + 2 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        memory.madvise(MADV_POPULATE_WRITE)
        start = time.perf_counter()
        memory.madvise(mmap.MADV_DONTNEED)
        return Round(time.perf_counter() - start)


def reached(runs: dict[str, list[Round]]) -> list[Target]:
    """All peers beside the project's targets."""
    def times(peer: str, step: str) -> float:
        return statistics.median(getattr(one, step) for one in runs[peer])

    def faster(peer: str, step: str) -> float:
        return times(peer, step) / times(OURS, step)
    ours = [one.balloon for one in runs[OURS] if one.balloon]
    return [
        Target("shrink, times faster than virtio-balloon", ">=", 120, faster(STOCK, "shrink")),
        Target("shrink, times faster than virtio-mem", ">=", 12, faster(VIRTIO_MEM, "shrink")),
        Target("shrink, times what the host alone needs", "<=", 2, 1 / faster(HOST, "shrink")),
        Target("grow, times faster than virtio-balloon", ">=", 150, faster(STOCK, "grow")),
        Target("grow, times faster than virtio-mem", ">=", 6, faster(VIRTIO_MEM, "grow")),
        Target("fill a grown guest, of the time for a fresh one", "<=", 1.05, times(OURS, "touch") / times(OURS, "fresh")),
        Target("requests to shrink", "<=", 16, max(one.shrink_traffic.requests for one in ours)),
        Target("requests to grow", "<=", 16, max(one.grow_traffic.requests for one in ours)),
        Target("host memory given back, % of the balloon", ">=", 99, 100 * min(one.released for one in ours)),
    ]


def run(rounds: int) -> Report:
    """All rounds."""
    peers = {STOCK: lambda name: balloon(STOCK, name), OURS: lambda name: balloon(OURS, name), VIRTIO_MEM: virtio_mem, HOST: lambda name: host()}
    runs: dict[str, list[Round]] = {peer: [] for peer in peers}
    for number in range(rounds):
        for peer, measured in peers.items():
            one = measured(f"bench-{peer.split(',')[0]}-{number}")
            runs[peer].append(one)
            print(f"round {number + 1}/{rounds} {peer:<20} shrink {one.shrink * 1000:8.1f} ms   grow {one.grow * 1000:8.1f} ms"
                  f"   fill {one.fresh:6.2f} {one.touch:6.2f} {one.touch_again:6.2f} s", flush=True)
    series = [Series(title, peer.removesuffix("-pci"), "milliseconds", values) for title, step in STEPS.items() for peer in peers
              if any(values := [1000 * getattr(one, step) for one in runs[peer]])]
    targets = reached(runs)
    text = "\n\n".join([
        spreads(series), verdicts(targets),
        f"{rounds} rounds, accelerator {settings.accel()}, `init_on_alloc=0`, the guest has filled {measure.TOUCH_MIB} MiB before. virtio-mem: {measure.SMALL_MIB // 1024} GiB "
        f"of ordinary memory\nand {TAKEN // MIB // 1024} GiB of its own, online as movable. \"host, one call\": MADV_DONTNEED of {TAKEN // MIB // 1024} GiB in huge pages, no guest."])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {peer: [dataclasses.asdict(one) for one in found] for peer, found in runs.items()}}, series)
