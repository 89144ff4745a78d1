# SPDX-License-Identifier: GPL-2.0-or-later
"""One measurement of a balloon: the same guest, shrunk and grown back. Used by demo, bench and tests.

The guest has 4 GiB; 3 GiB are taken away and given back. Before, the guest
touches 3.5 GiB, as good as all that is free, as huge pages: so the host holds
all that the balloon is going to take, and what is given back can be compared
with what the balloon holds. init_on_alloc=0, because zeroing by the guest's page
allocator, which is the same for every balloon, would hide all else under TCG.

Times are taken without tracing. Requests and descriptors are counted in a
second, untimed shrink and grow, by a trace event that is the same for both.
"""
from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Callable

from . import hostmem, settings
from .balloon import QueueTrace, Traffic, actual, resize
from .guest import MIB, Guest, balloon_device

GUEST_MIB = 4096
TOUCH_MIB = 3584
SMALL_MIB = 1024


@dataclasses.dataclass
class HostView:
    """Host memory behind the guest, in bytes."""
    rss: int
    huge: int


@dataclasses.dataclass
class Measurement:
    """Outcome for one device; times in seconds."""
    driver: str
    shrink: float = 0.0
    grow: float = 0.0
    before: HostView = dataclasses.field(default_factory=lambda: HostView(0, 0))
    shrunk: HostView = dataclasses.field(default_factory=lambda: HostView(0, 0))
    shrink_traffic: Traffic = dataclasses.field(default_factory=Traffic)
    grow_traffic: Traffic = dataclasses.field(default_factory=Traffic)

    @property
    def released(self) -> float:
        """Share of what the balloon holds that the host got back, 0 to 1 (may exceed 1 by noise)."""
        return (self.before.rss - self.shrunk.rss) / ((GUEST_MIB - SMALL_MIB) * MIB)


def host_view(guest: Guest) -> HostView:
    """Host memory of a guest now."""
    whole = hostmem.process(guest.pid)
    return HostView(whole.rss, whole.anon_huge)


def boot(driver: str, name: str, append: str = "", incoming: bool = False, **options: object) -> tuple[Guest, Path]:
    """A guest for measurements (not yet started) and its trace log."""
    log = settings.build() / "e2e" / f"{name}.trace"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    guest = Guest(name, memory=GUEST_MIB, devices=balloon_device(driver, **options),
                  append=f"init_on_alloc=0 {append}".strip(), args=QueueTrace.trace_args(log), incoming=incoming)
    return guest, log


def time_resizes(guest: Guest, result: Measurement, rest: float = 0.0) -> None:
    """Shrink and grow back once, timed. rest: seconds between, in which the driver does what it has left."""
    result.before = host_view(guest)
    result.shrink = resize(guest, SMALL_MIB * MIB)
    result.shrunk = host_view(guest)
    time.sleep(rest)
    result.grow = resize(guest, GUEST_MIB * MIB)


def count_traffic(guest: Guest, log: Path, result: Measurement, grow: bool = True) -> None:
    """Shrink once more, and grow back if wanted, counting requests."""
    with QueueTrace(guest, log) as trace:
        resize(guest, SMALL_MIB * MIB)
    result.shrink_traffic = trace.traffic
    if grow:
        with QueueTrace(guest, log) as trace:
            resize(guest, GUEST_MIB * MIB)
        result.grow_traffic = trace.traffic


def measure(driver: str, name: str, progress: Callable[[str], None] = lambda text: None,
            append: str = "", traffic: bool = True) -> Measurement:
    """Boot, measure, stop."""
    result = Measurement(driver)
    guest, log = boot(driver, name, append=f"hpb.touch={TOUCH_MIB} {append}")
    progress(f"{driver}: booting a {GUEST_MIB // 1024} GiB guest that touches {TOUCH_MIB / 1024:g} GiB")
    with guest:
        assert actual(guest) == GUEST_MIB * MIB
        progress(f"{driver}: {GUEST_MIB // 1024} GiB -> {SMALL_MIB // 1024} GiB -> {GUEST_MIB // 1024} GiB")
        time_resizes(guest, result)
        if traffic:
            progress(f"{driver}: once more, counting requests")
            count_traffic(guest, log, result)
    log.unlink(missing_ok=True)
    return result
