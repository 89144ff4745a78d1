# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest chooses to give up when little is free in one piece. How long it takes is for ./hpb bench to say."""
from __future__ import annotations

from hpbtest import hostmem
from hpbtest.balloon import driver_status, resize
from hpbtest.guest import MIB, Guest

GUEST_MIB = 4096
FRAGMENT_MIB = 3300
ASK_MIB = 1900
# What the host may hold beyond the size asked for: QEMU itself, and what is no guest memory.
RSS_SLACK = 150 * MIB
HUGE_WHOLE = 0.95
MOVED_MAX = 1.1


def fragment(guest: Guest) -> None:
    """Fill the guest with pages of 4 KiB of which every second is free again, and keep it so."""
    guest.run(f"hpb-touch -f -k {FRAGMENT_MIB} >/tmp/touched 2>&1 & "
              "until grep -q TOUCHED /tmp/touched; do sleep 0.1; done", timeout=120)


def test_fragmented_guest(boot, series):
    """Half of each block is in use: the target is reached, huge pages stay whole, little more is moved than must be."""
    guest = boot(series, memory=GUEST_MIB)
    fragment(guest)
    before = hostmem.process(guest.pid)
    target = (GUEST_MIB - ASK_MIB) * MIB
    resize(guest, target)
    after = hostmem.process(guest.pid)
    status = driver_status(guest)

    assert after.rss <= target + RSS_SLACK
    outside = before.anon_huge - (before.rss - after.rss)
    assert after.anon_huge >= HUGE_WHOLE * outside
    assert int(status["emptied_blocks"]) > 0, "nothing had to be emptied: the guest was not fragmented"
    assert int(status["moved_bytes"]) <= MOVED_MAX * int(status["moved_bytes_cheapest"])
    assert guest.run("pidof hpb-touch").status == 0
