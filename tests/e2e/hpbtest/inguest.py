# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done in a guest, and asked of its kernel, by several tests and measurements."""
from __future__ import annotations

import re

from .balloon import BalloonError
from .guest import Guest


def hold(guest: Guest, arguments: str, output: str = "/tmp/touched") -> None:
    """Run hpb-touch with these arguments; returns when it has all its memory, and leaves it there.

    What it prints is in the guest's file `output`, its process id in one with .pid added.
    """
    guest.run(f"hpb-touch -k {arguments} >{output} 2>&1 & echo $! >{output}.pid; "
              f"while ! grep -q TOUCHED {output} && [ -d /proc/$(cat {output}.pid) ]; do sleep 0.1; done; cat {output}; grep -q TOUCHED {output}", timeout=120)


def fragment(guest: Guest, mib: int) -> None:
    """Fill the guest with so many MiB in pages of 4 KiB of which every second is free again, and keep it so."""
    hold(guest, f"-f {mib}")


def meminfo(guest: Guest, field: str) -> int:
    """A line of the guest's /proc/meminfo, in bytes."""
    return int(guest.run(f"sed -n 's/^{field}: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").output) * 1024


def vmstat(guest: Guest) -> dict[str, int]:
    """The guest's /proc/vmstat."""
    return {name: int(value) for name, value in
            (line.split() for line in guest.run("cat /proc/vmstat").output.splitlines() if line.strip())}


def starved_zones(guest: Guest) -> list[str]:
    """Zones of the guest with fewer free pages than its kernel needs to go on, or keeps for what can use no other zone."""
    starved = []
    for text in guest.run("cat /proc/zoneinfo").output.split("\nNode "):
        zone = re.search(r"zone +(\w+)", text)
        free, least, managed = (re.search(rf"^ +{name} +(\d+)$", text, re.M) for name in ("pages free", "min", "managed"))
        protection = re.search(r"protection: \((.*)\)", text)
        if not (zone and free and least and managed and protection):
            raise BalloonError(f"guest {guest.name} says of a zone: {text}")
        # Below half of the minimum the kernel makes programs wait for kswapd; what needs no wait may use the other half.
        keep = max(int(least[1]) // 2, int(protection[1].split(",")[-1]))
        if zone[1] != "Movable" and int(managed[1]) and int(free[1]) < keep:
            starved.append(f"{zone[1]}: {free[1]} free, {keep} to be kept")
    return starved
