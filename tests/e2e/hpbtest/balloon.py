# SPDX-License-Identifier: GPL-2.0-or-later
"""Setting targets and measuring how long they take, the same way for every balloon."""
from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from .guest import BALLOON_ID, MIB, Guest

RESIZE_SECONDS = 120.0
# Pause between two questions: a share of the time that has passed, so that what is measured is longer by
# that share at most; not shorter and not longer than this. A question takes half a millisecond of three
# threads' time, on processors that the balloon needs itself: asking as often as can be makes it slower.
POLL_SHARE = 0.05
POLL_SECONDS = 0.0002
POLL_MAX_SECONDS = 0.005


class BalloonError(Exception):
    """A balloon did not get where it was told to go."""


def actual(guest: Guest) -> int:
    """Size of the guest by query-balloon, in bytes."""
    return guest.qmp.execute("query-balloon")["actual"]


def set_target(guest: Guest, size: int) -> None:
    """Ask for a guest size in bytes."""
    guest.qmp.execute("balloon", value=size)


def wait_size(guest: Guest, size: Callable[[], int], wanted: int, timeout: float = RESIZE_SECONDS, tolerance: int = 0, pause: float = 0.0) -> None:
    """Ask for the guest's size in bytes until it is what is wanted, with `pause` seconds between two questions if that is not 0.

    BALLOON_CHANGE is not used: it is rate-limited to one a second and would hide
    how long the change took.
    """
    start = time.monotonic()
    while abs((now := size()) - wanted) > tolerance:
        passed = time.monotonic() - start
        if passed > timeout:
            raise BalloonError(f"guest {guest.name} is at {now // MIB} MiB {timeout:g} s after it was asked to go to "
                               f"{wanted // MIB} MiB; its console ends:\n{guest.console.tail()}")
        time.sleep(pause or min(max(POLL_SHARE * passed, POLL_SECONDS), POLL_MAX_SECONDS))


def wait_actual(guest: Guest, size: int, timeout: float = RESIZE_SECONDS, tolerance: int = 0) -> None:
    """Wait until query-balloon shows that size."""
    wait_size(guest, lambda: actual(guest), size, timeout, tolerance)


def set_node_targets(guest: Guest, sizes: list[int]) -> None:
    """Ask for a size in bytes of each NUMA node of the guest."""
    guest.qmp.execute("qom-set", path=qom_path(), property="node-sizes", value=sizes)


def nodes(guest: Guest) -> list[dict[str, Any]]:
    """What the device says of the guest's NUMA nodes."""
    return guest.qmp.qom_get(qom_path(), "nodes")


def wait_nodes(guest: Guest, sizes: list[int], timeout: float = RESIZE_SECONDS) -> None:
    """Wait until each node has that size in bytes."""
    deadline = time.monotonic() + timeout
    while (now := [node["actual-size"] for node in nodes(guest)]) != sizes:
        if time.monotonic() > deadline:
            raise BalloonError(f"nodes of guest {guest.name} have {[n // MIB for n in now]} MiB {timeout:g} s after they were "
                               f"asked to go to {[n // MIB for n in sizes]} MiB; its console ends:\n{guest.console.tail()}")
        time.sleep(POLL_SECONDS)


def resize(guest: Guest, size: int, timeout: float = RESIZE_SECONDS) -> float:
    """Go to a size; returns the seconds from the command until query-balloon shows it."""
    start = time.perf_counter()
    set_target(guest, size)
    wait_actual(guest, size, timeout)
    return time.perf_counter() - start


@dataclass
class Traffic:
    """What went through the balloon's queues."""
    requests: int = 0
    descriptors: int = 0


class QueueTrace:
    """Counts requests and descriptors by QEMU's trace event virtqueue_pop.

    The event covers all virtio devices: use it with a guest whose only active
    virtio device is the balloon. Needs QEMU started with trace_args().
    """

    def __init__(self, guest: Guest, log: Path):
        self._guest = guest
        self._log = log
        self._start = 0

    @staticmethod
    def trace_args(log: Path) -> list[str]:
        """QEMU arguments that send trace events to a file."""
        return ["-D", str(log)]

    def __enter__(self) -> "QueueTrace":
        self._start = self._log.stat().st_size if self._log.exists() else 0
        self._guest.qmp.execute("trace-event-set-state", name="virtqueue_pop", enable=True)
        self.traffic = Traffic()
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if not self._guest.alive():
            return
        self._guest.qmp.execute("trace-event-set-state", name="virtqueue_pop", enable=False)
        if not self._log.exists():
            return
        with self._log.open(encoding="utf-8", errors="replace") as file:
            file.seek(self._start)
            for match in re.finditer(r"virtqueue_pop vq \S+ elem \S+ in_num (\d+) out_num (\d+)", file.read()):
                self.traffic.requests += 1
                self.traffic.descriptors += int(match[1]) + int(match[2])


def wanted(guest: Guest, size: int) -> int:
    """Guest size in bytes that our balloon goes to when asked for `size`: what is out is rounded down to the unit."""
    ram = guest.memory * MIB
    unit = guest.qmp.qom_get(qom_path(), "unit")
    return ram - (ram - min(size, ram)) // unit * unit


def counters(guest: Guest) -> dict[str, Any]:
    """What our device has done."""
    return guest.qmp.qom_get(qom_path(), "counters")


def driver_status(guest: Guest) -> dict[str, str]:
    """What our driver says about itself in debugfs."""
    text = guest.run("cat /sys/kernel/debug/virtio_balloon_hp/*/status").output
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


def qom_path() -> str:
    """QOM path of the balloon."""
    return f"/machine/peripheral/{BALLOON_ID}"
