# SPDX-License-Identifier: GPL-2.0-or-later
"""What guest and management see: memory pressure, statistics, events, and that an idle device is idle."""
from __future__ import annotations

import time

import pytest

from hpbtest import hostmem
from hpbtest.balloon import actual, counters, qom_path, resize, set_target, wait_actual
from hpbtest.guest import MIB

IDLE_SECONDS = 5
PATCHED = "6.12-hpb"  # see scripts/kernel.sh


def test_deflate_on_oom_saves_the_guest(boot, series):
    """A program that needs more than there is gets it from the balloon; afterwards the target is reached again (DRV-22, DEV-23)."""
    guest = boot(series, memory=1024, options={"deflate_on_oom": "on"}, append="hpb.pattern=32")
    resize(guest, 300 * MIB)
    result = guest.run("hpb-touch -s 500", timeout=120, check=False)
    assert "TOUCHED 500" in result.output, f"status {result.status}: {result.output}"
    assert counters(guest)["deflate"]["bytes"] > 0
    wait_actual(guest, 300 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_without_deflate_on_oom_the_balloon_stays(boot):
    """The same without the feature: the program is killed, the balloon stays as large as it was asked to be (DRV-22)."""
    guest = boot(memory=1024, append="hpb.pattern=32")
    resize(guest, 300 * MIB)
    result = guest.run("hpb-touch -s 500", timeout=120, check=False)
    assert result.status != 0 and "TOUCHED" not in result.output
    assert actual(guest) == 300 * MIB
    guest.console.wait_pattern(more=1, passes=1)


def test_statistics(boot, series):
    """guest-stats by QOM: fresh, and true (DRV-21, DEV-21)."""
    guest = boot(series, memory=512)
    guest.qmp.execute("qom-set", path=qom_path(), property="guest-stats-polling-interval", value=1)
    deadline = time.monotonic() + 30
    while not (stats := guest.qmp.qom_get(qom_path(), "guest-stats"))["last-update"]:
        assert time.monotonic() < deadline, f"no statistics came: {stats}"
        time.sleep(0.1)
    values = stats["stats"]
    assert values["stat-total-memory"] == guest.memory_total()
    assert 0 < values["stat-free-memory"] <= values["stat-total-memory"]
    assert 0 < values["stat-available-memory"] <= values["stat-total-memory"]
    first = stats["last-update"]
    guest.run("hpb-touch -k 200 >/dev/null 2>&1 &")
    while (stats := guest.qmp.qom_get(qom_path(), "guest-stats"))["stats"]["stat-free-memory"] > 250 * MIB:
        assert time.monotonic() < deadline + 30, f"statistics do not follow: {stats}"
        time.sleep(0.1)
    assert stats["last-update"] >= first


def test_balloon_change_tells_the_last_value(boot):
    """BALLOON_CHANGE is rate-limited, but the last size is always told."""
    guest = boot(memory=1024)
    guest.qmp.drain()
    for size in (900, 500, 800, 400):
        resize(guest, size * MIB)
    guest.qmp.wait_event("BALLOON_CHANGE", 10, lambda data: data["actual"] == 400 * MIB)
    set_target(guest, 1024 * MIB)
    guest.qmp.wait_event("BALLOON_CHANGE", 10, lambda data: data["actual"] == 1024 * MIB)


def test_free_page_reporting(boot, series):
    """free-page-reporting=on: memory that a program frees goes back to the host without any target (DRV-19, DEV-19)."""
    guest = boot(series, memory=4096, options={"free_page_reporting": "on"}, append="hpb.pattern=64")
    guest.console.wait_pattern(more=1, passes=1)
    fresh = hostmem.guest_ram(guest.pid, 4096 * MIB).rss
    guest.run("hpb-touch 3000", timeout=120)
    deadline = time.monotonic() + 60
    while (rss := hostmem.guest_ram(guest.pid, 4096 * MIB).rss) > fresh + 150 * MIB:
        assert time.monotonic() < deadline, f"the host still holds {rss // MIB} MiB: {counters(guest)}"
        time.sleep(0.2)
    assert counters(guest)["report"]["requests"] > 0
    guest.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("kernel, how, reports", [("6.12", "init_on_free", True), (PATCHED, "init_on_free", True),
                                                  (PATCHED, "page_poison", False)])
def test_reporting_and_contents_of_free_pages(boot, kernel, how, reports):
    """A kernel that expects zeroes in free pages finds them; one that expects a pattern reports nothing (DRV-19)."""
    guest = boot(kernel, memory=1024, options={"free_page_reporting": "on"}, append=f"hpb.pattern=32 {how}=1")
    for _ in range(2):
        guest.run("hpb-touch -p random 600", timeout=120)
        deadline = time.monotonic() + 60
        while reports and counters(guest)["report"]["bytes"] < 400 * MIB:
            assert time.monotonic() < deadline, f"nothing is reported: {counters(guest)}"
            time.sleep(0.2)
    resize(guest, 300 * MIB)
    resize(guest, 1024 * MIB)
    guest.run("hpb-touch 600", timeout=120)
    assert (counters(guest)["report"]["requests"] > 0) == reports
    assert guest.run("dmesg | grep -ci 'pagealloc: memory corruption'", check=False).output.strip() == "0"
    guest.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("size", [1024, 400])
def test_idle_device_wakes_nobody(boot, series, size):
    """With nothing to do there is no request, no interrupt, and the device's thread sleeps; full balloon or empty."""
    guest = boot(series, memory=1024)
    resize(guest, size * MIB)
    interrupts = "grep -E 'virtio|balloon' /proc/interrupts | tr -s ' ' | cut -d' ' -f3-4"
    guest.run("sleep 2")  # what follows a resize (freeing pages in the guest) comes to its end
    before = guest.run(interrupts).output, counters(guest), hostmem.context_switches(guest.pid)
    time.sleep(IDLE_SECONDS)
    after = guest.run(interrupts).output, counters(guest), hostmem.context_switches(guest.pid)
    assert after[0] == before[0], "virtio interrupts"
    assert after[1] == before[1], "requests"
    workers = [name for name in after[2] if name.startswith("balloon-hp-")]
    assert len(workers) == 1, f"the device's thread among {sorted(after[2])}"
    for name in workers:
        assert after[2][name] == before[2][name], f"thread {name} woke up"
