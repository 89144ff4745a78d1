# SPDX-License-Identifier: GPL-2.0-or-later
"""Shrink and grow guests of all sizes that fit, untouched, used and in pieces, with and without init_on_alloc, every peer in turns."""
from __future__ import annotations

import dataclasses
import statistics

from hpbtest import hostmem, settings
from hpbtest.guest import MIB, OURS, STOCK
from hpbtest.hostsetup import HostLacks
from peers import HOST, PEERS, REPORTING, VIRTIO_MEM, Setting, Times, host, measured
from report import Report, Series, Target, grid, how_often, verdicts

SIZES = [1024, 2048, 4096, 8192, 16384]
SPARE = 3072    # MiB of the host beside the guest
STEPS = {"shrink": "shrink", "grow": "grow", "fill a fresh guest": "fresh", "fill a grown guest": "touch", "fill it once more": "touch_again",
         "grow right after a shrink": "at_once"}
MAIN = 4096
UNTOUCHED_TIMES = 300
HOST_TIMES = 2


def fitting() -> tuple[list[Setting], list[int]]:
    """What this host has memory for, and sizes that it has not."""
    room = hostmem.meminfo("MemAvailable") // MIB - SPARE
    found = [Setting(size, size * 3 // 4, state) for state in ("untouched", "used") for size in SIZES if size <= room]
    if MAIN <= room:
        found += [Setting(state=state, clear=True) for state in ("untouched", "used")] + [Setting(out=1900, state="fragmented")]
    if not found:
        raise HostLacks(f"needs {SIZES[0] + SPARE} MiB of available memory, this host has {room + SPARE}")
    return found, [size for size in SIZES if size > room]


Runs = dict[Setting, dict[str, list[Times]]]


def middle(runs: Runs, setting: Setting, peer: str, step: str) -> float:
    """Median, milliseconds."""
    return 1000 * statistics.median(getattr(one, step) for one in runs[setting][peer])


def peers_of(setting: Setting) -> list[str]:
    """Who goes that way. The host's limit is for memory that it has, and clears nothing."""
    return [*PEERS, *([HOST] if setting.state == "used" and not setting.clear else [])]


def step_series(runs: Runs, title: str, step: str) -> list[Series]:
    """A step of all guests, where there is one."""
    return [Series(str(setting), peer.removesuffix("-pci"), "milliseconds", values, title) for setting, by_peer in runs.items()
            for peer, found in by_peer.items() if any(values := [1000 * getattr(one, step) for one in found])]


def reached(runs: Runs) -> list[Target]:
    """Where the issue is a limit of the project: guests that nobody has touched; and none of the others is slower than a peer."""
    untouched = Setting(MAIN, MAIN * 3 // 4, "untouched")
    found = [Target(f"{setting}: times faster than virtio-balloon", ">=", UNTOUCHED_TIMES,
                    middle(runs, setting, STOCK, "shrink") / middle(runs, setting, OURS, "shrink")) for setting in runs if setting == untouched]
    for step in ("shrink", "grow"):
        for peer in (STOCK, REPORTING, VIRTIO_MEM):
            least = min((middle(runs, setting, peer, step) / middle(runs, setting, OURS, step), str(setting)) for setting in runs)
            found.append(Target(f"{step}, times faster than {peer.removesuffix('-pci')}, at least ({least[1]})", ">=", 1, least[0]))
    most = max((middle(runs, setting, OURS, "shrink") / middle(runs, setting, HOST, "shrink"), str(setting)) for setting in runs if HOST in runs[setting])
    found.append(Target(f"shrink, times what the host alone needs, at most ({most[1]})", "<=", HOST_TIMES, most[0]))
    return found


def run(rounds: int) -> Report:
    """All guests, all peers in turns."""
    chosen, missing = fitting()
    runs: Runs = {setting: {peer: [] for peer in peers_of(setting)} for setting in chosen}
    for number in range(rounds):
        for place, setting in enumerate(chosen):
            for peer in runs[setting]:
                one = host(setting) if peer == HOST else measured(peer, f"bench-sizes-{number}-{place}-{PEERS.index(peer)}", setting)
                runs[setting][peer].append(one)
                print(f"round {number + 1}/{rounds} {setting!s:<42} {peer:<26} shrink {one.shrink * 1000:8.1f} ms   grow {one.grow * 1000:8.1f} ms"
                      f"   fill {one.fresh:6.2f} {one.touch:6.2f} {one.touch_again:6.2f} s", flush=True)
    series = {title: step_series(runs, title, step) for title, step in STEPS.items()}
    targets = reached(runs)
    text = "\n\n".join([
        *(grid(f"{title}, milliseconds", found) for title, found in series.items()), verdicts(targets),
        f"{how_often(rounds)}, median (lowest-highest) and how many times ours it is, accelerator {settings.accel()}. "
        "Three quarters of the guest are taken away and\n"
        "given back; of the fragmented one, in which every second page of 4 KiB is in use, 1900 MiB. \"reporting\" is free-page-reporting=on. virtio-mem: three quarters of the guest are its own, online as movable.\n"
        "\"host, one call\": MADV_DONTNEED of as much memory in huge pages, no guest.",
        *([f"Not measured, for want of memory: {', '.join(str(size // 1024) for size in missing)} GiB."] if missing else [])])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {str(setting): {peer: [dataclasses.asdict(one) for one in found] for peer, found in by_peer.items()}
                                  for setting, by_peer in runs.items()}}, sum(series.values(), []))
