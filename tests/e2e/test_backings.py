# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host has of a guest's memory: before, ballooned, and grown back, for every kind of backing (DEV-13, DEV-14).

Also what happens when the host does not have it any more.
"""
from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from hpbtest import backings, hostmem, hostsetup
from hpbtest.backings import GIB, HUGE
from hpbtest.balloon import actual, counters, driver_status, qom_path, resize, set_target, wait_actual
from hpbtest.guest import MIB, STOCK

LARGE = 1024 * MIB
SMALL = 400 * MIB
NOISE = 16 * MIB
BACK_SECONDS = 90.0  # the driver asks again after 30 s at most


@pytest.fixture
def host():
    """Settings of the host until the test ends: host(context manager) is its value; the test is skipped if the host cannot do it."""
    with ExitStack() as stack:
        def enter(context):
            try:
                return stack.enter_context(context)
            except hostsetup.HostLacks as error:
                pytest.skip(str(error))
        yield enter


@pytest.mark.parametrize("kind", [backings.hugetlb, backings.hugetlbfs])
def test_hugetlb_pool_gets_exactly_what_is_ballooned(boot, kind, host):
    """HugePages_Free rises by what the balloon holds, and falls by it again."""
    backing = host(kind(LARGE))
    guest = boot(append="hpb.touch=700 hpb.pattern=64", **backing.guest_options(LARGE))
    before = hostmem.pool_free()
    resize(guest, SMALL)
    assert hostmem.pool_free() - before == (LARGE - SMALL) // HUGE
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, LARGE)
    assert hostmem.pool_free() == before
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    guest.console.wait_pattern(more=1, passes=1)


def test_stock_balloon_gives_no_huge_page_back(boot, host):
    """What this device is for: the traditional one leaves the pool as it is."""
    backing = host(backings.hugetlb(LARGE))
    guest = boot(driver=STOCK, append="hpb.touch=700", **backing.guest_options(LARGE))
    before = hostmem.pool_free()
    resize(guest, SMALL)
    assert hostmem.pool_free() == before


def test_grow_while_the_pool_is_empty(boot, host):
    """Refused in part: the guest lives with what there is, says why it waits, and has the rest when pages are back."""
    backing = host(backings.hugetlb(LARGE))
    guest = boot(append="hpb.touch=700 hpb.pattern=64", **backing.guest_options(LARGE))
    resize(guest, SMALL)
    with hostsetup.hog(left=100):
        set_target(guest, LARGE)
        wait_actual(guest, SMALL + 100 * HUGE)
        guest.console.wait_pattern(more=1, passes=2)
        assert actual(guest) == SMALL + 100 * HUGE
        assert driver_status(guest)["stop"] == "the host has no memory"
        assert counters(guest)["refused"]["nomem"] > 0
        assert hostmem.pool_free() == 0
        refused = guest.qmp.qom_get(qom_path(), "grow-refused")
        assert refused["block"] == "m" and refused["bytes"] > 0 and "pool" in refused["reason"], refused
        assert guest.stderr().count("which the host cannot provide") == 1
        # what it was given is real
        assert "TOUCHED 200" in guest.run("hpb-touch -p random 200").output
    wait_actual(guest, LARGE, BACK_SECONDS)
    assert guest.qmp.qom_get(qom_path(), "grow-refused") == {"active": False}
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    guest.console.wait_pattern(more=1, passes=1)


def test_prealloc(boot):
    """prealloc=on: memory that comes back is there before the guest touches it."""
    guest = boot(memory=1024, append="hpb.touch=700 hpb.pattern=64", options={"prealloc": "on"})
    before = hostmem.guest_ram(guest.pid, LARGE).rss
    resize(guest, SMALL)
    assert hostmem.guest_ram(guest.pid, LARGE).rss <= SMALL + NOISE
    resize(guest, LARGE)
    assert hostmem.guest_ram(guest.pid, LARGE).rss >= before - NOISE
    guest.console.wait_pattern(more=1, passes=1)


def test_grow_beyond_the_limit_of_a_control_group(boot, host):
    """Nobody is killed: the guest gets what the limit leaves, goes on, and has the rest when the limit is raised."""
    guest = boot(memory=1024, append="hpb.touch=700 hpb.pattern=64", options={"prealloc": "on"})
    limit = host(hostsetup.memory_group(guest.pid))
    resize(guest, SMALL)
    limit(200 * MIB)
    set_target(guest, LARGE)
    wait_actual(guest, SMALL + 160 * MIB, tolerance=20 * MIB)
    guest.console.wait_pattern(more=1, passes=2)
    assert actual(guest) < SMALL + 200 * MIB
    refused = guest.qmp.qom_get(qom_path(), "grow-refused")
    assert refused["active"] and "hpb-test" in refused["reason"], refused
    limit(0)
    wait_actual(guest, LARGE, BACK_SECONDS)
    assert guest.qmp.qom_get(qom_path(), "grow-refused") == {"active": False}
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    guest.console.wait_pattern(more=1, passes=1)


def test_shrink_again_while_a_grow_waits(boot, host):
    """A new target ends the waiting; nothing is lost by it."""
    backing = host(backings.hugetlb(LARGE))
    guest = boot(append="hpb.pattern=64", **backing.guest_options(LARGE))
    resize(guest, SMALL)
    with hostsetup.hog(left=10):
        set_target(guest, LARGE)
        wait_actual(guest, SMALL + 10 * HUGE)
        resize(guest, SMALL - 20 * HUGE)
        assert hostmem.pool_free() == 30
        resize(guest, SMALL)
        assert hostmem.pool_free() == 10
    guest.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("kind,is_huge", [
    pytest.param(lambda: backings.anonymous(LARGE, "madvise"), True, id="anonymous-thp-madvise"),
    pytest.param(lambda: backings.anonymous(LARGE, "always"), True, id="anonymous-thp-always"),
    pytest.param(lambda: backings.anonymous(LARGE, "never"), False, id="anonymous-thp-never"),
    pytest.param(lambda: backings.memfd(LARGE), False, id="memfd"),
    pytest.param(lambda: backings.tmpfs(LARGE), True, id="tmpfs-huge"),
])
def test_there_and_back(boot, host, kind, is_huge):
    """What is ballooned costs the host nothing, nor does what came back, until it is used."""
    backing = host(kind())
    guest = boot(append="hpb.touch=700 hpb.pattern=64", **backing.guest_options(LARGE))
    assert (backing.huge(guest) > 600 * MIB) == is_huge, f"{backing.huge(guest) // MIB} MiB in huge pages"
    assert backing.held(guest) > 700 * MIB
    resize(guest, SMALL)
    assert backing.held(guest) <= SMALL + NOISE
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, LARGE)
    assert backing.held(guest) <= SMALL + NOISE
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    assert backing.held(guest) > 700 * MIB
    guest.console.wait_pattern(more=1, passes=1)


def test_huge_pages_after_ten_cycles(boot):
    """Shrink and grow ten times, fill: the host has as many huge pages behind the guest as behind a fresh one."""
    guest = boot(memory=1024, append="hpb.touch=800")
    fresh = hostmem.process(guest.pid).anon_huge
    for _ in range(10):
        resize(guest, SMALL)
        resize(guest, LARGE)
    deadline = time.monotonic() + 60
    while True:
        assert "TOUCHED 800" in guest.run("hpb-touch 800").output
        huge = hostmem.process(guest.pid).anon_huge
        if huge >= 0.98 * fresh:
            break
        assert time.monotonic() < deadline, f"{huge // MIB} MiB in huge pages, {fresh // MIB} MiB when it was fresh"


def test_units_of_one_gibibyte(boot, series):
    """Nothing less can be given up: the guest empties whole gibibytes of its memory, and gets them back.

    Of 8 GiB some four have nothing of the kernel in them, which cannot be moved.
    """
    guest = boot(series, memory=8 * 1024, append="hpb.touch=900 hpb.pattern=64", options={"unit": "1G"})
    resize(guest, 6 * GIB)
    assert counters(guest)["inflate"]["bytes"] == 2 * GIB
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, 8 * GIB)
    assert "TOUCHED 2000" in guest.run("hpb-touch -s 2000").output
    resize(guest, 7 * GIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_pages_of_one_gibibyte(boot, host):
    """On huge pages of that size: the pool gets what is ballooned, and what it lacks is waited for.

    They are a DIMM that Linux keeps free of its own data, so that all of it can be given up.
    """
    pages, kib = 2, 1024 * 1024
    host(hostsetup.pool(pages, kib))
    guest = boot(memory=1024, append="hpb.touch=1500 hpb.pattern=64 memhp_default_state=online_movable", options={"unit": "1G"},
                 args=["-m", "size=1024M,slots=1,maxmem=8G",
                       "-object", f"memory-backend-memfd,id=d,size={pages}G,hugetlb=on,hugetlbsize=1G,prealloc=on",
                       "-device", "pc-dimm,memdev=d"])
    before = hostmem.pool_free(kib)
    resize(guest, 2 * GIB)
    assert hostmem.pool_free(kib) - before == 1
    resize(guest, GIB)
    assert hostmem.pool_free(kib) - before == pages
    guest.console.wait_pattern(more=1, passes=1)
    with hostsetup.hog(left=1, kib=kib):
        set_target(guest, 3 * GIB)
        wait_actual(guest, 2 * GIB)
        guest.console.wait_pattern(more=1, passes=1)
        assert guest.qmp.qom_get(qom_path(), "grow-refused")["block"] == "d"
    wait_actual(guest, 3 * GIB, BACK_SECONDS)
    assert hostmem.pool_free(kib) == before
    assert "TOUCHED 1500" in guest.run("hpb-touch 1500").output
    guest.console.wait_pattern(more=1, passes=1)
