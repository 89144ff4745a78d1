# SPDX-License-Identifier: GPL-2.0-or-later
"""Shrink and grow: the traditional balloon, this one, virtio-mem, and what the host alone needs for as much, in turns.

Each round takes a fresh guest for each device (A B C A B C ...), so that drift of
the machine hits all alike. A program fills the guest before it is shrunk, and
again when it has been grown back: what a shrink saves is not to be paid then.
"""
from __future__ import annotations

import dataclasses
import statistics

from hpbtest import measure, settings
from hpbtest.balloon import resize
from hpbtest.guest import MIB, OURS, STOCK
from peers import HOST, PEERS, REST_SECONDS, VIRTIO_MEM, Resizable, Setting, Times, fill, host, measured, warm_up
from report import Report, Series, Target, how_often, spreads, verdicts

SETTING = Setting(measure.GUEST_MIB, measure.GUEST_MIB - measure.SMALL_MIB)
STEPS = {"shrink 4 -> 1 GiB": "shrink", "grow 1 -> 4 GiB": "grow", "the same right after a shrink": "at_once",
         "fill a fresh guest": "fresh", "fill a grown guest": "touch", "fill it once more": "touch_again"}


@dataclasses.dataclass
class Round(Times):
    """Also what a balloon had to send, and what the host had back."""
    balloon: measure.Measurement | None = None


def counted(driver: str, name: str) -> Round:
    """One guest with a balloon; requests are counted at the end, untimed."""
    found = measure.Measurement(driver)
    guest, log = measure.boot(driver, name)
    with guest:
        fresh = fill(guest, SETTING)
        filled = measure.host_view(guest)
        warm_up(SETTING, Resizable(driver, guest, SETTING.memory))
        measure.time_resizes(guest, found, REST_SECONDS)
        found.before = filled
        touch, again = fill(guest, SETTING), fill(guest, SETTING)
        resize(guest, measure.SMALL_MIB * MIB)
        at_once = resize(guest, measure.GUEST_MIB * MIB)
        measure.count_traffic(guest, log, found)
    log.unlink(missing_ok=True)
    return Round(found.shrink, found.grow, fresh, touch, again, at_once, found)


def reached(runs: dict[str, list[Times]]) -> list[Target]:
    """All peers beside the project's targets."""
    def times(peer: str, step: str) -> float:
        return statistics.median(getattr(one, step) for one in runs[peer])

    def faster(peer: str, step: str) -> float:
        return times(peer, step) / times(OURS, step)
    ours = [one.balloon for one in runs[OURS] if isinstance(one, Round) and one.balloon]
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
    runs: dict[str, list[Times]] = {peer: [] for peer in [*PEERS, HOST]}
    for number in range(rounds):
        for peer in runs:
            name = f"bench-resize-{list(runs).index(peer)}-{number}"
            one = host(SETTING) if peer == HOST else counted(peer, name) if peer in (STOCK, OURS) else measured(peer, name, SETTING)
            runs[peer].append(one)
            print(f"round {number + 1}/{rounds} {peer:<26} shrink {one.shrink * 1000:8.1f} ms   grow {one.grow * 1000:8.1f} ms"
                  f"   fill {one.fresh:6.2f} {one.touch:6.2f} {one.touch_again:6.2f} s", flush=True)
    series = [Series(title, peer.removesuffix("-pci"), "milliseconds", values) for title, step in STEPS.items() for peer in runs
              if any(values := [1000 * getattr(one, step) for one in runs[peer]])]
    targets = reached(runs)
    text = "\n\n".join([
        spreads(series), verdicts(targets),
        f"{how_often(rounds)}, accelerator {settings.accel()}, `init_on_alloc=0`, the guest has filled {SETTING.fill} MiB before. "
        f"\"reporting\":\nfree-page-reporting=on. virtio-mem: {SETTING.out // 1024} of the {SETTING.memory // 1024} GiB are its own, online as movable. \"host, one call\": MADV_DONTNEED of "
        f"{SETTING.out // 1024} GiB in huge pages, no guest."])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {peer: [dataclasses.asdict(one) for one in found] for peer, found in runs.items()}}, series)
