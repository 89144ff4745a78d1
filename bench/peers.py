# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is measured against whom: both balloons, free page reporting, virtio-mem, and what the host alone needs."""
from __future__ import annotations

import dataclasses
import time
from contextlib import contextmanager
from typing import Any, Callable, Iterator

import limit
from hpbtest.balloon import POLL_SECONDS, RESIZE_SECONDS, BalloonError, resize
from hpbtest.guest import MIB, OURS, STOCK, Guest, balloon_device
from hpbtest.inguest import fragment

REPORTING = "virtio-balloon, reporting"
VIRTIO_MEM = "virtio-mem"
HOST = "host, one call"
WARM_UP = 64        # MiB
# Before a shrink, for a guest that has just booted still works at its own start; and before the grow,
# for drivers have work left when the host has the memory: ours marks the pages, which is what at_once meets.
REST_SECONDS = 0.5
# Device, and its options, of those that are balloons.
DRIVERS: dict[str, tuple[str, dict[str, Any]]] = {STOCK: (STOCK, {}), REPORTING: (STOCK, {"free_page_reporting": "on"}), OURS: (OURS, {})}
PEERS = [STOCK, REPORTING, VIRTIO_MEM, OURS]
REFILL_MAX = 4096   # MiB of a guest that is filled again after it was grown back: an emulated guest takes seconds for each GiB


@dataclasses.dataclass(frozen=True)
class Setting:
    """A guest of `memory` MiB of which `out` are taken away and given back.

    state: "used" (a program has filled it before), "untouched", or "fragmented" (filled in pages
    of 4 KiB of which every second is free again). clear: init_on_alloc.
    """
    memory: int = 4096
    out: int = 3072
    state: str = "used"
    clear: bool = False

    @property
    def fill(self) -> int:
        """MiB that a program gets: as good as all. Free page reporting has some of the rest at any time."""
        return self.memory * 15 // 16 - 384

    def __str__(self) -> str:
        return f"{self.memory // 1024} -> {(self.memory - self.out) / 1024:.3g} GiB, {self.state}{', init_on_alloc=1' if self.clear else ''}"


@dataclasses.dataclass
class Times:
    """Of one guest, in seconds; 0 where there is none.

    The fills: of a fresh guest, of one grown back, and once more. at_once: a grow right after a shrink.
    """
    shrink: float
    grow: float = 0.0
    fresh: float = 0.0
    touch: float = 0.0
    touch_again: float = 0.0
    at_once: float = 0.0


def fill(guest: Guest, setting: Setting) -> float:
    """How long a program takes to use as good as all that the guest has."""
    start = time.perf_counter()
    guest.run(f"hpb-touch {setting.fill}", timeout=300)
    return time.perf_counter() - start


def plug(guest: Guest, size: int) -> float:
    """Have a virtio-mem device go to a size in bytes; seconds."""
    start = time.perf_counter()
    guest.qmp.execute("qom-set", path="/machine/peripheral/v0", property="requested-size", value=size)
    while guest.qmp.qom_get("/machine/peripheral/v0", "size") != size:
        if time.perf_counter() - start > RESIZE_SECONDS:
            raise BalloonError(f"virtio-mem of guest {guest.name} does not get to {size // MIB} MiB in {RESIZE_SECONDS:g} s")
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - start


@contextmanager
def started(peer: str, name: str, setting: Setting, append: str = "") -> Iterator[tuple[Guest, Callable[[int], float]]]:
    """A guest of a peer, and what resizes it: takes the size in MiB, returns seconds.

    With virtio-mem, three quarters of the guest are its device's, as movable memory.
    """
    append = f"init_on_alloc={setting.clear:d} {append}".strip()
    if peer != VIRTIO_MEM:
        driver, options = DRIVERS[peer]
        with Guest(name, memory=setting.memory, devices=balloon_device(driver, **options), append=append) as guest:
            yield guest, lambda mib: resize(guest, mib * MIB)
        return
    own = setting.memory // 4
    with Guest(name, memory=own, append=f"memhp_default_state=online_movable {append}",
               args=["-m", f"{own}M,maxmem={2 * setting.memory}M", "-object", f"memory-backend-ram,id=v,size={setting.memory - own}M"],
               devices=["-device", "virtio-mem-pci,id=v0,memdev=v"]) as guest:
        plug(guest, (setting.memory - own) * MIB)
        yield guest, lambda mib: plug(guest, (mib - own) * MIB)


def measured(peer: str, name: str, setting: Setting) -> Times:
    """Shrink and grow one guest."""
    with started(peer, name, setting) as (guest, to):
        if setting.state == "fragmented":
            fragment(guest, setting.memory * 4 // 5)
            return Times(*there_and_back(setting, to))
        fresh = fill(guest, setting) if setting.state == "used" else 0.0
        found = Times(*there_and_back(setting, to), fresh)
        if setting.memory <= REFILL_MAX:
            found.touch, found.touch_again = fill(guest, setting), fill(guest, setting)
        to(setting.memory - setting.out)
        found.at_once = to(setting.memory)
        return found


def warm_up(setting: Setting, to: Callable[[int], float]) -> None:
    """Go the way once with little, which leaves the rest as it was: an emulator translates code when it runs first."""
    to(setting.memory - WARM_UP)
    to(setting.memory)
    time.sleep(REST_SECONDS)


def there_and_back(setting: Setting, to: Callable[[int], float]) -> tuple[float, float]:
    """Seconds for each, with a rest between."""
    warm_up(setting, to)
    shrink = to(setting.memory - setting.out)
    time.sleep(REST_SECONDS)
    return shrink, to(setting.memory)


def host(setting: Setting) -> Times:
    """As much memory in huge pages, populated, freed by one system call: nothing that frees it can be faster."""
    return Times(limit.free(limit.ANONYMOUS, setting.out * MIB, [(0, setting.out * MIB)]))
