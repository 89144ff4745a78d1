# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether huge pages stay whole on both sides: before a guest is ballooned, meanwhile, and when it has grown back and is used again.

Each time a program asks for huge pages and fills what is free. The guest's share is what
that program has in huge pages, the host's what QEMU has so of all that it holds. Nothing
here is a time.
"""
from __future__ import annotations

import dataclasses
import re

from hpbtest import hostmem, settings
from hpbtest.guest import MIB, Guest
from hpbtest.inguest import fragment, hold, meminfo
from peers import PEERS, Setting, fill, started
from report import Report, Series, grid, how_often

SETTINGS = [Setting(), Setting(out=1900, state="fragmented")]
MOMENTS = ("before", "ballooned", "refilled")
LEFT = 300      # MiB that the program leaves to others, if there is twice as much


@dataclasses.dataclass
class Share:
    """Percent in huge pages, of the program in the guest and of QEMU on the host; MiB that the program has."""
    guest: float
    host: float
    used: int


def look(guest: Guest) -> Share:
    """Fill what is free, look, and free it again."""
    available = meminfo(guest, "MemAvailable") // MIB
    used = max(available - LEFT, available // 2)
    hold(guest, str(used), "/tmp/filled")
    text = guest.run("cat /proc/$(cat /tmp/filled.pid)/smaps_rollup").output
    huge, anonymous = (int(re.search(rf"^{field}: +(\d+) kB", text, re.M)[1]) for field in ("AnonHugePages", "Anonymous"))
    host = hostmem.process(guest.pid)
    guest.run("p=$(cat /tmp/filled.pid); kill $p; while [ -d /proc/$p ]; do sleep 0.1; done")
    return Share(100 * huge / anonymous, 100 * host.anon_huge / host.rss, used)


def measure(peer: str, name: str, setting: Setting) -> dict[str, Share]:
    """One guest."""
    with started(peer, name, setting) as one:
        if setting.state == "fragmented":
            fill(one.guest, setting)
            fragment(one.guest, setting.memory * 4 // 5)
        found = {"before": look(one.guest)}
        one.to(setting.memory - setting.out)
        found["ballooned"] = look(one.guest)
        one.to(setting.memory)
        found["refilled"] = look(one.guest)
        return found


def run(rounds: int) -> Report:
    """Both guests, all peers."""
    runs: dict[tuple[Setting, str], list[dict[str, Share]]] = {(setting, peer): [] for setting in SETTINGS for peer in PEERS}
    for number in range(rounds):
        for setting, peer in runs:
            one = measure(peer, f"bench-huge-{number}-{SETTINGS.index(setting)}-{PEERS.index(peer)}", setting)
            runs[setting, peer].append(one)
            print(f"round {number + 1}/{rounds} {setting.state:<11} {peer:<26} " + "   ".join(
                f"{moment}: guest {share.guest:5.1f} % of {share.used} MiB, host {share.host:5.1f} %" for moment, share in one.items()), flush=True)
    series = {side: [Series(f"{setting.state}, {moment}", peer.removesuffix("-pci"), "% in huge pages", [getattr(one[moment], side) for one in found], side)
                     for moment in MOMENTS for (setting, peer), found in runs.items()] for side in ("guest", "host")}
    tables = "\n\n".join(grid(f"% in huge pages, {side}", found) for side, found in series.items())
    text = (f"{tables}\n\n{how_often(rounds)}, median (lowest-highest) and how many times ours it is, accelerator {settings.accel()}. Guests of {SETTINGS[0].memory // 1024} GiB, "
            f"{SETTINGS[0].out // 1024} GiB out (used), {SETTINGS[1].out} MiB out (fragmented: every second page of 4 KiB is in use).\nGuest: of a program that asks for huge pages and takes "
            "all that is free at that moment. Host: of all that QEMU holds.")
    return Report(text, {"accel": settings.accel(), "runs": {f"{setting}, {peer}": [{moment: dataclasses.asdict(share) for moment, share in one.items()} for one in found]
                                                            for (setting, peer), found in runs.items()}}, sum(series.values(), []))
