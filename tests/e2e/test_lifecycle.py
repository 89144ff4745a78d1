# SPDX-License-Identifier: GPL-2.0-or-later
"""Coming and going: plug, unplug, module, unbind, reboot, kexec, suspend, hibernation, pause, drivers that are not there."""
from __future__ import annotations

import pytest

from hpbtest import settings
from hpbtest.balloon import actual, resize, set_target, wait_actual
from hpbtest.guest import BALLOON_ID, MIB, OURS, STOCK, GuestError
from hpbtest.qmp import QmpError

HIBERNATE_SECONDS = 120.0
SYSFS = "/sys/bus/virtio/drivers/virtio_balloon_hp"


def wait_total(guest, total):
    """Wait in the guest until its kernel manages that many bytes."""
    guest.run(f"for i in $(seq 200); do grep -q '^MemTotal: *{total // 1024} kB' /proc/meminfo && exit 0; "
              "usleep 50000; done; grep MemTotal /proc/meminfo; exit 1")


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_hotplug_and_unplug_with_a_full_balloon(boot, machine):
    """Plugged into a running guest, inflated, unplugged: all memory is back; plugged again, it works again."""
    port = ["-device", "pcie-root-port,id=port1,chassis=1"] if machine == "q35" else []
    bus = {"bus": "port1"} if machine == "q35" else {}
    guest = boot(machine=machine, driver=None, memory=512, devices=port, append="hpb.pattern=64")
    total = guest.memory_total()
    for _ in range(2):
        guest.qmp.execute("device_add", driver=OURS, id=BALLOON_ID, **bus)
        resize(guest, 256 * MIB)
        guest.console.wait_pattern(more=1, passes=1)
        guest.qmp.execute("device_del", id=BALLOON_ID)
        guest.qmp.wait_event("DEVICE_DELETED", 60, lambda data: data.get("device") == BALLOON_ID)
        wait_total(guest, total)
        with pytest.raises(QmpError, match="[Nn]o balloon"):
            actual(guest)
    guest.console.wait_pattern(more=1, passes=1)
    assert "TOUCHED 300" in guest.run("hpb-touch -p random 300").output


def test_module_unload_and_load_with_a_full_balloon(boot, series):
    """Unloading resets the device: nothing is out; the target is kept and reached again after loading (DEV-25, DRV-23)."""
    guest = boot(series, memory=512, append="hpb.pattern=64")
    total = guest.memory_total()
    for _ in range(2):
        resize(guest, 256 * MIB)
        guest.run("rmmod virtio_balloon_hp")
        assert actual(guest) == 512 * MIB
        wait_total(guest, total)
        assert "TOUCHED 300" in guest.run("hpb-touch -p random 300").output
        guest.run("modprobe virtio_balloon_hp")
        wait_actual(guest, 256 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_unbind_and_bind_with_a_full_balloon(boot, series):
    """The same by sysfs."""
    guest = boot(series, memory=512, append="hpb.pattern=64")
    total = guest.memory_total()
    resize(guest, 256 * MIB)
    name = guest.run(f"basename {SYSFS}/virtio*").output.strip()
    guest.run(f"echo {name} >{SYSFS}/unbind")
    assert actual(guest) == 512 * MIB
    wait_total(guest, total)
    guest.run(f"echo {name} >{SYSFS}/bind")
    wait_actual(guest, 256 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_reboot_with_a_full_balloon(boot, series):
    """system_reset: all memory is the guest's again, and the new kernel goes to the target (DEV-24, DEV-25)."""
    guest = boot(series, memory=1024, append="hpb.touch=600 hpb.pattern=64")
    resize(guest, 400 * MIB)
    guest.reset()
    wait_actual(guest, 400 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, 1024 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_suspend_to_ram_with_a_full_balloon(boot, series):
    """S3 and back: the guest's memory is right, and the balloon still follows its target."""
    guest = boot(series, memory=512, append="hpb.pattern=64")
    resize(guest, 256 * MIB)
    guest.console.wait_pattern(more=1)
    guest.qmp.drain()
    if "mem" not in guest.run("cat /sys/power/state").output.split():
        pytest.skip("this guest kernel has no suspend to RAM")
    guest.run("(echo mem >/sys/power/state) >/dev/null 2>&1 &")
    guest.qmp.wait_event("SUSPEND", 60)
    guest.qmp.execute("system_wakeup")
    guest.qmp.wait_event("WAKEUP", 60)
    guest.console.wait_pattern(more=1, passes=1)
    wait_actual(guest, 256 * MIB)
    resize(guest, 512 * MIB)
    resize(guest, 300 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_hibernation_with_a_full_balloon(boot, series, tmp_path):
    """To disk and back: what is out is not in the image; the guest goes on, with its memory right, in another machine."""
    disk = tmp_path / "swap"
    with disk.open("wb") as file:
        file.truncate(1024 * MIB)
    devices = ["-drive", f"if=none,id=swap,file={disk},format=raw", "-device", "virtio-blk-pci,drive=swap"]
    guest = boot(series, memory=1024, append="hpb.touch=600 hpb.pattern=64", devices=devices)
    guest.run("mkswap /dev/vda && swapon /dev/vda")
    resize(guest, 400 * MIB)
    guest.console.wait_pattern(more=1)
    guest.qmp.drain()
    guest.run("(echo shutdown >/sys/power/disk; echo disk >/sys/power/state) >/dev/console 2>&1 &")
    guest.qmp.wait_event("SHUTDOWN", HIBERNATE_SECONDS)
    guest.process.wait(HIBERNATE_SECONDS)
    assert disk.stat().st_blocks * 512 < 400 * MIB
    guest = boot(series, memory=1024, append="hpb.resume=vda", devices=devices, resumed=True)
    guest.console.wait_pattern(more=1, passes=1)
    wait_actual(guest, 1024 * MIB)
    resize(guest, 400 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, 1024 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_kexec_with_a_full_balloon(boot, series):
    """Another kernel without a reset of the machine: it has all memory, and goes to the target (DRV-23)."""
    files = [settings.kernel(series), settings.initrd(series)]
    devices = [word for number, file in enumerate(files) for word in (
        "-drive", f"if=none,id=d{number},file={file},format=raw,readonly=on",
        "-device", f"virtio-blk-pci,drive=d{number}")]
    guest = boot(series, memory=1024, append="hpb.touch=300 hpb.pattern=64", devices=devices)
    resize(guest, 500 * MIB)
    guest.run("dd if=/dev/vda of=/tmp/kernel bs=1M && dd if=/dev/vdb of=/tmp/initrd bs=1M")
    start = len(guest.console.lines)
    guest.run("hpb-kexec /tmp/kernel /tmp/initrd \"$(cat /proc/cmdline)\" >/dev/console 2>&1 &")
    guest.agent.expect_greeting()
    guest.wait_ready(start)
    guest.console.restart_pattern()
    wait_actual(guest, 500 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, 1024 * MIB)
    assert "TOUCHED 600" in guest.run("hpb-touch -p random 600").output
    guest.console.wait_pattern(more=1, passes=1)


def test_target_set_while_paused(boot):
    """A target that comes while the VM is stopped is followed when it runs again; nothing is lost (DEV-5, DEV-20)."""
    guest = boot(memory=512, append="hpb.pattern=64")
    guest.qmp.execute("stop")
    set_target(guest, 256 * MIB)
    assert actual(guest) == 512 * MIB
    guest.qmp.execute("cont")
    wait_actual(guest, 256 * MIB)
    # Stopped in the middle of it, several times.
    for size in (500, 200, 450, 220):
        set_target(guest, size * MIB)
        guest.qmp.execute("stop")
        guest.qmp.execute("cont")
    wait_actual(guest, 220 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_guest_without_our_driver(boot):
    """No driver: targets are taken and kept, nothing happens; the driver follows when it comes (DEV-2, DRV-1)."""
    guest = boot(memory=512, append="hpb.skip=virtio_balloon_hp")
    set_target(guest, 256 * MIB)
    assert guest.run("echo alive").output == "alive\n"
    assert actual(guest) == 512 * MIB
    guest.run("modprobe virtio_balloon_hp")
    wait_actual(guest, 256 * MIB)


@pytest.mark.parametrize("second", [OURS, STOCK])
def test_two_balloons_at_start(boot, second):
    """A machine has one balloon: the second one is an error that says so."""
    with pytest.raises(GuestError, match="[Oo]nly one balloon"):
        boot(memory=512, devices=["-device", second])


def test_two_balloons_by_hotplug(boot):
    """The same when plugged; the first balloon goes on working."""
    guest = boot(memory=512)
    with pytest.raises(QmpError, match="[Oo]nly one balloon"):
        guest.qmp.execute("device_add", driver=OURS, id="second")
    resize(guest, 256 * MIB)


def test_stock_balloon_still_works(boot, series):
    """The same QEMU and guest with the traditional balloon: our driver leaves its device alone."""
    guest = boot(series, driver=STOCK, memory=512, append="hpb.pattern=64")
    resize(guest, 256 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, 512 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
