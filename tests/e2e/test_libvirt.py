# SPDX-License-Identifier: GPL-2.0-or-later
"""virsh and an unmodified libvirtd, of the release that the machine has: everything that operators do to a domain goes on working."""
from __future__ import annotations

import re
import subprocess
from contextlib import ExitStack

import pytest

from hpbtest import hostmem, hostsetup, settings
from hpbtest.guest import STOCK
from hpbtest.libvirt import Domain, Libvirtd, LibvirtError, missing

FULL = 1024
SMALL = 512
FIELDS = {"actual", "swap_in", "swap_out", "major_fault", "minor_fault", "unused", "available", "usable", "last_update",
          "disk_caches", "hugetlb_pgalloc", "hugetlb_pgfail", "rss"}


@pytest.fixture(scope="module")
def daemon():
    """One libvirtd for all tests here."""
    if reason := missing():
        pytest.skip(reason)
    with Libvirtd() as one:
        yield one


@pytest.fixture
def domain(daemon, request):
    """domain(...) starts one; it ends with the test, which fails if the guest's memory has changed."""
    domains = []

    default = daemon

    def start(name="", ready=True, daemon=default, **more):
        name = name or re.sub(r"\W", "-", request.node.name)
        one = Domain(daemon, name, append="hpb.pattern=64", **more)
        domains.append(one)
        one.define()
        if ready:
            one.start()
        return one

    yield start
    bad = [line for one in domains if hasattr(one, "console") for line in one.console.pattern.bad]
    for one in domains:
        one.close()
    assert not bad, f"guest memory changed: {bad}"


def guest_has(one, mib):
    """The guest's own view: about that much is managed."""
    total = int(one.run("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").output) // 1024
    return mib - 100 < total <= mib


def test_setmem(domain):
    """Down and up; what libvirt says is what the guest has."""
    one = domain()
    assert one.stats()["actual"] == FULL * 1024
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    assert guest_has(one, SMALL)
    one.setmem(FULL)
    one.wait_actual(FULL)
    assert guest_has(one, FULL)
    assert f"{FULL * 1024} KiB" in one.virsh("dominfo")
    one.console.wait_pattern(more=1, passes=1)


def test_dommemstat_has_all_statistics(domain):
    """As with the traditional balloon, and anew in each period."""
    ours, stock = domain("ours"), domain("stock", driver=STOCK)
    for one in (ours, stock):
        one.virsh("dommemstat", "--period", "1", "--live")
    first = ours.stats()
    assert set(first) >= FIELDS and set(first) == set(stock.stats())
    assert 0 < first["unused"] < first["available"] <= FULL * 1024
    ours.setmem(SMALL)
    ours.wait_actual(SMALL)
    ours.console.wait_pattern(more=3)  # seconds
    later = ours.stats()
    assert later["last_update"] > first["last_update"]
    assert later["available"] < first["available"] - 400 * 1024


def test_balloon_change_event(daemon, domain):
    """The last size is always told."""
    one = domain()
    watch = daemon.popen("event", one.name, "balloon-change", "--loop", "--timeout", "20")
    assert watch.stdout
    one.setmem(SMALL)
    for line in watch.stdout:
        if f"{SMALL * 1024}KiB" in line.replace(" ", ""):
            break
    else:
        pytest.fail("no event with the last size")
    watch.terminate()
    watch.wait()


def test_fifty_in_a_row(domain):
    """Each is a new target; the last one counts."""
    one = domain()
    for number in range(50):
        one.setmem(FULL if number % 2 else SMALL + number)
    one.setmem(600)
    one.wait_actual(600)
    one.console.wait_pattern(more=1, passes=1)


def test_sizes_that_make_no_sense(domain):
    """More than there is: refused by libvirt. Nothing: the guest gives what it can and lives."""
    one = domain()
    with pytest.raises(LibvirtError, match="memory"):
        one.setmem(FULL * 2)
    assert one.stats()["actual"] == FULL * 1024
    one.console.wait_pattern(more=1)  # the guest has what it needs
    one.virsh("setmem", "4K", "--live")
    one.wait_below(SMALL)
    one.console.wait_pattern(more=2, passes=1)
    assert one.stats()["actual"] > 64 * 1024
    one.setmem(FULL)
    one.wait_actual(FULL)


def test_setmem_before_the_driver_is_there(daemon, domain):
    """Asked while the firmware runs: done when the guest has booted."""
    one = domain(ready=False)
    daemon.virsh("start", one.name)
    one.setmem(SMALL)
    one.connected()
    one.console.wait_line(r"^READY\b", 120.0)
    one.wait_actual(SMALL)


def test_setmem_while_paused(domain):
    """Taken note of, done when the guest goes on."""
    one = domain()
    one.virsh("suspend")
    one.setmem(SMALL)
    one.virsh("resume")
    one.wait_actual(SMALL)
    one.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("managed", [False, True])
def test_save_and_restore(daemon, domain, managed):
    """Right after a setmem: the guest comes back at the size it had."""
    one = domain()
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    path = str(daemon.directory("files") / f"{one.name}.save")
    if managed:
        one.virsh("managedsave")
        daemon.virsh("start", one.name)
    else:
        one.virsh("save", path)
        daemon.virsh("restore", path)
    one.connected(running=True)
    one.wait_actual(SMALL)
    one.console.wait_pattern(more=1, passes=1)
    one.setmem(FULL)
    one.wait_actual(FULL)
    one.console.wait_pattern(more=1, passes=1)


def disk(daemon, name):
    """A qcow2 disk of 64 MiB."""
    path = daemon.directory("files") / f"{name}.qcow2"
    tool = settings.existing(settings.qemu().parent / "qemu-img", "qemu-img")
    subprocess.run([str(tool), "create", "-q", "-f", "qcow2", str(path), "64M"], check=True)
    path.chmod(0o666)
    return f"<disk type='file'><driver name='qemu' type='qcow2'/><source file='{path}'/><target dev='vda' bus='virtio'/></disk>"


def test_snapshot_and_revert(daemon, domain):
    """The guest of an internal snapshot with memory comes back at the size it had."""
    one = domain(devices=disk(daemon, "snapshot"))
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    one.virsh("snapshot-create-as", "small")
    one.console.wait_pattern(more=1)
    one.setmem(FULL)
    one.wait_actual(FULL)
    one.virsh("snapshot-revert", "small")
    one.reconnected()
    one.wait_actual(SMALL)
    one.console.wait_pattern(more=1, passes=1)
    one.setmem(FULL)
    one.wait_actual(FULL)
    one.console.wait_pattern(more=1, passes=1)


def test_reset_and_daemon_restart(daemon, domain):
    """The target outlives a reset of the guest and a restart of libvirtd."""
    one = domain()
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    start = len(one.console.lines)
    one.agent.expect_greeting()
    one.virsh("reset")
    one.console.wait_line(r"^READY\b", 120.0, start)
    one.console.restart_pattern()
    one.wait_actual(SMALL)
    daemon.stop()
    daemon.start()
    assert one.stats()["actual"] == SMALL * 1024
    one.setmem(FULL)
    one.wait_actual(FULL)
    assert set(one.stats()) >= FIELDS
    one.console.wait_pattern(more=1, passes=1)


def test_memory_dump(daemon, domain):
    """virsh dump --memory-only of a shrunk guest, which goes on."""
    one = domain()
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    path = daemon.directory("files") / "dump.elf"
    one.virsh("dump", str(path), "--memory-only", "--live")
    with path.open("rb") as file:
        assert file.read(4) == b"\x7fELF"
    one.console.wait_pattern(more=1, passes=1)
    one.setmem(FULL)
    one.wait_actual(FULL)


def test_other_devices_come_and_go(daemon, domain):
    """Attaching and detaching a disk leaves the balloon alone."""
    one = domain()
    path = daemon.directory("files") / "disk.xml"
    path.write_text(disk(daemon, "plug"), encoding="utf-8")
    one.setmem(SMALL)
    one.virsh("attach-device", str(path), "--live")
    one.wait_actual(SMALL)
    one.virsh("detach-device", str(path), "--live")
    one.setmem(FULL)
    one.wait_actual(FULL)
    one.console.wait_pattern(more=1, passes=1)


def test_attributes(domain):
    """autodeflate and freePageReporting reach the device."""
    one = domain(balloon=" autodeflate='on' freePageReporting='on'")
    out = one.run("cat /sys/bus/virtio/devices/virtio0/features").output.strip()
    stock = domain("attributes-off")
    assert out != stock.run("cat /sys/bus/virtio/devices/virtio0/features").output.strip()
    one.setmem(SMALL)
    one.wait_actual(SMALL)


def test_shared_memory(domain):
    """memoryBacking that other processes can map."""
    one = domain(backing="<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>")
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    one.console.wait_pattern(more=1, passes=1)
    one.setmem(FULL)
    one.wait_actual(FULL)
    one.console.wait_pattern(more=1, passes=1)


def test_huge_pages(domain):
    """Huge pages of the host go back to its pool."""
    try:
        with hostsetup.pool(FULL // 2), hostsetup.mounted("hugetlbfs", "pagesize=2M,mode=1777") as mount, \
                Libvirtd("huge", hugetlbfs=mount) as daemon:
            before = hostmem.pool_free()
            one = domain(daemon=daemon, backing="<memoryBacking><hugepages/><source type='memfd'/><access mode='shared'/></memoryBacking>")
            one.setmem(SMALL)
            one.wait_actual(SMALL)
            assert before - hostmem.pool_free() == SMALL // 2
            one.console.wait_pattern(more=1, passes=1)
            one.setmem(FULL)
            one.wait_actual(FULL)
            one.console.wait_pattern(more=1, passes=1)
            one.close()
    except hostsetup.HostLacks as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("how", ["direct", "p2p", "parallel", "postcopy"])
def test_migration_between_two_hosts(daemon, domain, how):
    """A shrunk guest moves to another libvirtd, and is resized there."""
    options = {"direct": [], "p2p": ["--p2p"], "parallel": ["--parallel", "--parallel-connections", "2"],
               "postcopy": ["--postcopy", "--postcopy-after-precopy"]}[how]
    one = domain()
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    with ExitStack() as stack:
        if how == "postcopy":
            try:
                stack.enter_context(hostsetup.sysctl("vm.unprivileged_userfaultfd", "1"))
            except hostsetup.HostLacks as error:
                pytest.skip(str(error))
        other = stack.enter_context(Libvirtd("two", daemon.emulator))
        one.virsh("migrate", "--live", *options, "--desturi", other.uri.replace("qemu:", "qemu+unix:"),
                  "--migrateuri", "tcp://127.0.0.1")
        one.connected(running=True, daemon=other)
        one.wait_actual(SMALL)
        one.console.wait_pattern(more=1, passes=1)
        one.setmem(FULL)
        one.wait_actual(FULL)
        one.console.wait_pattern(more=1, passes=1)
        one.close()
