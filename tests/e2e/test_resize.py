# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes: shrinking and growing real guests, and what the host gets back.

Path steps [1] to [6] together. What they cost is in test_cost.py.
"""
from __future__ import annotations

import random

import pytest

from hpbtest import hostmem
from hpbtest.balloon import actual, counters, driver_status, resize, set_target, wait_actual, wanted
from hpbtest.guest import MIB
from hpbtest.qmp import QmpError

REQUESTS_MAX = 16  # for 3 GiB of free memory, each way
NOISE = 8 * MIB  # what QEMU itself may allocate meanwhile


def test_shrink_gives_memory_back_to_the_host(boot, series):
    """4 GiB to 1 GiB in at most 16 requests; RSS falls by what the balloon holds; huge pages stay whole (DEV-13)."""
    guest = boot(series, memory=4096, append="hpb.touch=3072")
    before = hostmem.guest_ram(guest.pid, 4096 * MIB)
    assert before.rss >= 3072 * MIB
    resize(guest, 1024 * MIB)
    after = hostmem.guest_ram(guest.pid, 4096 * MIB)
    count = counters(guest)
    held = count["inflate"]["bytes"]
    assert held == 3072 * MIB
    # Of the memory taken, some had never been touched: the host had held before.rss.
    never_touched = 4096 * MIB - before.rss
    assert before.rss - after.rss >= 0.99 * (held - never_touched) - NOISE
    assert after.rss <= 1024 * MIB + NOISE
    assert count["inflate"]["requests"] <= REQUESTS_MAX
    if before.anon_huge:
        assert after.rss - after.anon_huge <= before.rss - before.anon_huge + NOISE, "huge pages were split"
    resize(guest, 4096 * MIB)
    count = counters(guest)
    assert count["deflate"]["bytes"] == held
    assert count["deflate"]["requests"] <= REQUESTS_MAX
    assert not any(count["refused"].values())


def test_memory_that_came_back_is_usable(boot, series):
    """After growing back the guest can use all of its memory again (DEV-14)."""
    guest = boot(series, memory=1024, append="hpb.touch=600")
    total = guest.memory_total()
    resize(guest, 256 * MIB)
    assert guest.memory_total() == total - 768 * MIB
    resize(guest, 1024 * MIB)
    # actual says that the device gave it back; the driver then frees the pages into the guest.
    guest.run("for i in $(seq 100); do grep -q '^idle 0$' /sys/kernel/debug/virtio_balloon_hp/*/status && break; "
              "usleep 50000; done")
    assert guest.memory_total() == total
    assert "TOUCHED 600" in guest.run("hpb-touch -p random 600").output


def test_contents_stay_through_random_resizes(boot, series):
    """200 random targets between 25 % and 100 %, half of them replaced before they are reached (DRV-7, DRV-13)."""
    guest = boot(series, memory=2048, append="hpb.touch=1500 hpb.pattern=192")
    rng = random.Random(2024)
    for step in range(200):
        size = rng.randrange(512, 2048 + 1) * MIB
        set_target(guest, size)
        if rng.random() < 0.5 or step == 199:
            wait_actual(guest, wanted(guest, size))
        if step % 20 == 19:
            guest.console.wait_pattern(more=1, passes=1)
        guest.console.check_pattern()
    resize(guest, 2048 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
    assert counters(guest)["broken"] == 0


@pytest.mark.parametrize("value", [0, -1])
def test_target_that_is_no_size_is_refused(boot, value):
    """A target of 0 or less is a QMP error, and nothing changes."""
    guest = boot(memory=512)
    with pytest.raises(QmpError, match="expects a size"):
        guest.qmp.execute("balloon", value=value)
    assert actual(guest) == 512 * MIB


def test_target_is_rounded_in_favour_of_the_guest(boot):
    """What is not a multiple of the unit is rounded so that the guest has no less; query-balloon reports the result."""
    guest = boot(memory=512)
    for size in (400 * MIB + 1, 401 * MIB, 401 * MIB - 1):
        set_target(guest, size)
        result = wanted(guest, size)
        assert size <= result < size + 2 * MIB
        wait_actual(guest, result)
    assert guest.qmp.qom_get("/machine/peripheral/balloon0", "requested-size") == 512 * MIB - result


def test_target_above_ram_means_all(boot):
    """A target above the RAM size is taken as all RAM."""
    guest = boot(memory=512)
    resize(guest, 256 * MIB)
    set_target(guest, 100 * 1024 * MIB)
    wait_actual(guest, 512 * MIB)


def test_impossible_target_stops_with_a_reason(boot, series):
    """A target of next to nothing: the driver takes what it can, says why it stops, and the guest lives (DRV-22)."""
    guest = boot(series, memory=512, append="hpb.pattern=64")
    guest.console.wait_pattern(more=1, passes=1)
    set_target(guest, 2 * MIB)
    guest.console.wait_pattern(more=5, passes=1)
    size = actual(guest)
    assert 64 * MIB < size < 512 * MIB
    assert guest.run("echo alive").output == "alive\n"
    assert driver_status(guest)["stop"] != "none"
    resize(guest, 512 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_hmp_shows_and_sets(boot):
    """HMP balloon and info balloon work as with the traditional balloon."""
    guest = boot(memory=512)
    guest.qmp.hmp("balloon 300")
    wait_actual(guest, 300 * MIB)
    assert "actual=300" in guest.qmp.hmp("info balloon")
