# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is measured against whom: both balloons, free page reporting, virtio-mem, and what the host alone needs."""
from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack, contextmanager
from typing import Any, Iterator

import limit
from hpbtest.backings import Backing
from hpbtest.balloon import actual, set_target, wait_size
from hpbtest.guest import MIB, OURS, STOCK, Guest, GuestError, balloon_device
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
PLAIN = "memory-backend-ram"
REFILL_MAX = 4096   # MiB of a guest that is filled again after it was grown back: an emulated guest takes seconds for each GiB
MEM_PATH = "/machine/peripheral/v0"
ASSERTION = "Assertion"     # what QEMU says when it ends itself


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


def guest_options(peer: str, memory: int, backing: Backing | None = None) -> dict[str, Any]:
    """What a Guest of `memory` MiB has to be called with to have that peer.

    With virtio-mem a quarter of it is there at the start, and three quarters are the device's.
    """
    if peer != VIRTIO_MEM:
        driver, options = DRIVERS[peer]
        return {"memory": memory, "devices": balloon_device(driver, **options), **(backing.guest_options(memory * MIB) if backing else {})}
    own, option = memory // 4, backing.option if backing else PLAIN
    found = backing.guest_options(own * MIB) if backing else {"memory": own, "args": []}
    # Its device populates what it plugs, where all is populated; the memory behind it must not be.
    plugged, wanted = option.replace(",prealloc=on", ""), ",prealloc=on" if "prealloc=on" in option else ""
    return {**found, "args": [*found["args"], "-m", f"{own}M,maxmem={2 * memory}M", "-object", f"{plugged},id=v,size={memory - own}M"],
            "devices": ["-device", f"virtio-mem-pci,id=v0,memdev=v{wanted}"]}


def kernel_line(peer: str, clear: bool = False, more: str = "") -> str:
    """What the peer's guest has on its kernel's command line. virtio-mem: as movable memory, or it is not to be unplugged."""
    return " ".join([f"init_on_alloc={clear:d}", *(["memhp_default_state=online_movable"] if peer == VIRTIO_MEM else []), *([more] if more else [])])


class Resizable:
    """A guest of a peer that can be asked to have `memory` MiB or less, and for what it has."""

    def __init__(self, peer: str, guest: Guest, memory: int):
        self.guest = guest
        self._own = memory // 4 * MIB if peer == VIRTIO_MEM else None

    def ask(self, mib: int) -> None:
        """Ask for a size; returns at once."""
        if self._own is None:
            set_target(self.guest, mib * MIB)
        else:
            self.guest.qmp.execute("qom-set", path=MEM_PATH, property="requested-size", value=mib * MIB - self._own)

    def size(self) -> int:
        """Bytes that it has."""
        return actual(self.guest) if self._own is None else self.guest.qmp.qom_get(MEM_PATH, "size") + self._own

    def to(self, mib: int, pause: float = 0.0) -> float:
        """Go to a size. Seconds from the command until the monitor shows it, which is not asked before `pause` and as often again."""
        start = time.perf_counter()
        self.ask(mib)
        wait_size(self.guest, self.size, mib * MIB, pause=pause)
        return time.perf_counter() - start


def fill(guest: Guest, setting: Setting) -> float:
    """How long a program takes to use as good as all that the guest has."""
    start = time.perf_counter()
    guest.run(f"hpb-touch {setting.fill}", timeout=300)
    return time.perf_counter() - start


@contextmanager
def started(peer: str, name: str, setting: Setting, backing: Backing | None = None) -> Iterator[Resizable]:
    """A guest of a peer, with all of its memory.

    An emulator may end by an assertion of its own while two vCPUs work on the map of PCI (QEMU 10.0, TCG, seldom). While
    the guest boots nothing has been measured yet, and what an hour has measured before is not lost to that: it boots once more.
    """
    def guest() -> Guest:
        return Guest(name, append=kernel_line(peer, setting.clear), **guest_options(peer, setting.memory, backing))
    with ExitStack() as stack:
        try:
            booted = stack.enter_context(guest())
        except GuestError as error:
            if ASSERTION not in str(error):
                raise
            print(f"once more, {error}", flush=True)
            booted = stack.enter_context(guest())
        found = Resizable(peer, booted, setting.memory)
        found.to(setting.memory)
        yield found


def measured(peer: str, name: str, setting: Setting) -> Times:
    """Shrink and grow one guest."""
    with started(peer, name, setting) as one:
        if setting.state == "fragmented":
            fragment(one.guest, setting.memory * 4 // 5)
            return Times(*there_and_back(setting, one))
        fresh = fill(one.guest, setting) if setting.state == "used" else 0.0
        found = Times(*there_and_back(setting, one), fresh)
        if setting.memory <= REFILL_MAX:
            found.touch, found.touch_again = fill(one.guest, setting), fill(one.guest, setting)
        one.to(setting.memory - setting.out)
        found.at_once = one.to(setting.memory)
        return found


def warm_up(setting: Setting, one: Resizable) -> None:
    """Go the way once with little, which leaves the rest as it was: an emulator translates code when it runs first."""
    one.to(setting.memory - WARM_UP)
    one.to(setting.memory)
    time.sleep(REST_SECONDS)


def there_and_back(setting: Setting, one: Resizable) -> tuple[float, float]:
    """Seconds for each, with a rest between."""
    warm_up(setting, one)
    shrink = one.to(setting.memory - setting.out)
    time.sleep(REST_SECONDS)
    return shrink, one.to(setting.memory)


def host(setting: Setting) -> Times:
    """As much memory in huge pages, populated, freed by one system call: nothing that frees it can be faster."""
    return Times(limit.free(limit.ANONYMOUS, setting.out * MIB, [(0, setting.out * MIB)]))
