# SPDX-License-Identifier: GPL-2.0-or-later
"""virsh and an unmodified libvirtd, of the release that the machine has: everything that operators do to a domain goes on working."""
from __future__ import annotations

import itertools
import subprocess
import threading

import pytest

from hpbtest import hostmem, hostsetup, settings
from hpbtest.guest import OURS, STOCK
from hpbtest.libvirt import OVERRIDE, Libvirtd, LibvirtError

FULL = 1024
SMALL = 512
FIELDS = {"actual", "swap_in", "swap_out", "major_fault", "minor_fault", "unused", "available", "usable", "last_update",
          "disk_caches", "hugetlb_pgalloc", "hugetlb_pgfail", "rss"}


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


def listening(one, watch):
    """Wait until virsh's event command listens. It does not say so: it does when it tells of a change made for that.

    virsh registers events in the order of their numbers, metadata-change after balloon-change.
    """
    heard = threading.Event()

    def change():
        for number in itertools.count():
            one.virsh("desc", "--live", "--new-desc", f"number {number}")
            if heard.wait(0.2):
                return
    changes = threading.Thread(target=change)
    changes.start()
    try:
        assert any("metadata-change" in line for line in watch.stdout), "no event"
    finally:
        heard.set()
        changes.join()


def test_balloon_change_event(daemon, domain):
    """The last size is always told."""
    one = domain()
    with daemon.popen("event", one.name, "--all", "--loop", "--timeout", "120") as watch:
        listening(one, watch)
        one.setmem(SMALL)
        for line in watch.stdout:
            if f"{SMALL * 1024}KiB" in line.replace(" ", ""):
                break
        else:
            pytest.fail("no event with the last size")
        watch.terminate()


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
    with pytest.raises(LibvirtError, match="memory"):
        one.setmem(0)
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
    """The guest of an internal snapshot with memory comes back at the size it had, right after a setmem too."""
    one = domain(devices=disk(daemon, "snapshot"))
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    one.virsh("snapshot-create-as", "small")
    one.console.wait_pattern(more=1)
    one.setmem(FULL)
    one.virsh("snapshot-revert", "small")
    one.reconnected()
    one.wait_actual(SMALL)
    one.console.wait_pattern(more=1, passes=1)
    one.setmem(FULL)
    one.wait_actual(FULL)
    one.console.wait_pattern(more=1, passes=1)


def test_external_snapshot(daemon, domain):
    """Of the memory of a shrunk guest, which goes on; what it was at that time comes back from it."""
    one = domain()
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    path = daemon.directory("files") / "memory.snapshot"
    one.virsh("snapshot-create-as", "outside", "--memspec", f"file={path},snapshot=external", "--live")
    one.console.wait_pattern(more=1, passes=1)
    one.setmem(FULL)
    one.wait_actual(FULL)
    one.virsh("destroy")
    daemon.virsh("restore", str(path))
    one.connected(running=True)
    one.wait_actual(SMALL)
    one.console.wait_pattern(more=1, passes=1)


def test_reset_and_daemon_restart(daemon, domain):
    """The target outlives a reset of the guest, its own reboot, and a restart of libvirtd."""
    one = domain()
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    start = len(one.console.lines)
    one.agent.expect_greeting()
    one.virsh("reset")
    one.console.wait_line(r"^READY\b", 120.0, start)
    one.console.restart_pattern()
    one.wait_actual(SMALL)
    start = len(one.console.lines)
    one.agent.expect_greeting()
    one.console.send("reboot -f\n")
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


def test_huge_pages_in_one_cell(domain):
    """Two NUMA cells, one of huge pages: those that the guest gives up go back to the pool; the traditional balloon gives none."""
    backing = ("<memoryBacking><hugepages><page size='2' unit='MiB' nodeset='0'/></hugepages>"
               "<source type='memfd'/><access mode='shared'/></memoryBacking>")
    numa = "<numa><cell id='0' cpus='0' memory='512' unit='MiB'/><cell id='1' cpus='1' memory='512' unit='MiB'/></numa>"
    try:
        with hostsetup.pool(512), hostsetup.mounted("hugetlbfs", "pagesize=2M,mode=1777") as mount, \
                Libvirtd("cells", hugetlbfs=mount) as daemon:
            stock = domain("stock", daemon=daemon, driver=STOCK, backing=backing, numa=numa)
            before = hostmem.pool_free()
            stock.setmem(SMALL)
            stock.wait_actual(SMALL)
            assert hostmem.pool_free() == before
            stock.close()
            ours = domain("ours", daemon=daemon, backing=backing, numa=numa)
            assert hostmem.pool_free() == before
            ours.setmem(SMALL)
            ours.wait_actual(SMALL)
            given = hostmem.pool_free() - before
            assert 16 <= given <= (FULL - SMALL) // 2, f"{given} huge pages"
            ours.setmem(FULL)
            ours.wait_actual(FULL)
            assert "TOUCHED 700" in ours.run("hpb-touch 700").output
            ours.console.wait_pattern(more=1, passes=1)
            ours.close()
    except hostsetup.HostLacks as error:
        pytest.skip(str(error))


def test_emulator_without_the_device(daemon, domain):
    """A QEMU that does not know what the override names: the domain does not start, and virsh says why."""
    one = domain(ready=False, override=OVERRIDE.replace(OURS, f"{OURS}-of-tomorrow"))
    with pytest.raises(LibvirtError, match="'virtio-balloon-hp-of-tomorrow' is not a valid device model name"):
        daemon.virsh("start", one.name)


def test_guest_without_the_driver(domain):
    """It starts and runs at its full size; what was asked for is done when there is a driver."""
    one = domain(extra="hpb.skip=virtio_balloon_hp")
    one.setmem(SMALL)
    one.console.wait_pattern(more=2, passes=1)
    assert one.stats()["actual"] == FULL * 1024
    one.run("modprobe virtio_balloon_hp")
    one.wait_actual(SMALL)


def test_old_definition(domain):
    """A definition from before works with our QEMU as it did."""
    one = domain(driver=STOCK)
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    one.setmem(FULL)
    one.wait_actual(FULL)
    assert one.run("ls /sys/bus/virtio/drivers/virtio_balloon").output.count("virtio0")
