# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of guests with a full balloon (DEV-27). Path step [6], and the vmstate."""
from __future__ import annotations

import time

import pytest

from hpbtest import hostmem
from hpbtest.balloon import actual, qom_path, resize, set_target, wait_actual
from hpbtest.guest import MIB
from hpbtest.migrate import Migration, MigrationError, migrate
from hpbtest.qmp import QmpError

SLOW = 32 * MIB  # bytes a second
PAGE = 4096
GIB = 1024 * MIB
NOISE = 16 * MIB


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_shrunk_guest_keeps_size_and_contents(boot, series, machine):
    """What is out arrives as out, what the guest has arrives as it was; the balloon works on the other side."""
    source = boot(series, memory=1024, machine=machine, append="hpb.touch=700 hpb.pattern=128")
    resize(source, 400 * MIB)
    source.console.wait_pattern(more=1)
    destination = boot(series, memory=1024, machine=machine, incoming=True)
    migrate(source, destination)
    assert actual(destination) == 400 * MIB
    destination.console.wait_pattern(more=2, passes=1)
    assert destination.qmp.qom_get("/machine/peripheral/balloon0", "actual-size") == 624 * MIB
    resize(destination, 1024 * MIB)
    destination.console.wait_pattern(more=1, passes=1)
    resize(destination, 400 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_destination_does_not_keep_what_is_out(boot):
    """After the migration the destination's host memory is that of the small guest."""
    source = boot(memory=2048, append="hpb.touch=1500")
    resize(source, 512 * MIB)
    destination = boot(memory=2048, incoming=True)
    migrate(source, destination)
    # Memory that came in with the stream is freed in the background after the load.
    wait_actual(destination, 512 * MIB)
    destination.run("sync")
    resize(destination, 514 * MIB)
    assert hostmem.guest_ram(destination.pid, 2048 * MIB).rss <= 600 * MIB


def test_resizing_while_migrating(boot):
    """Targets that change while the guest migrates are followed, on one side or the other."""
    source = boot(memory=1024, append="hpb.touch=700 hpb.pattern=128")
    resize(source, 400 * MIB)
    destination = boot(memory=1024, incoming=True)
    set_target(source, 900 * MIB)
    migrate(source, destination)
    wait_actual(destination, 900 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_target_before_the_state(boot):
    """A target set on the destination before its state arrives (libvirt does that) is the one that counts."""
    source = boot(memory=1024, append="hpb.pattern=64")
    resize(source, 400 * MIB)
    destination = boot(memory=1024, incoming=True)
    set_target(destination, 500 * MIB)
    migrate(source, destination)
    wait_actual(destination, 500 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_postcopy(boot):
    """Postcopy from the start: contents are right, and the balloon works afterwards."""
    source = boot(memory=1024, append="hpb.touch=700 hpb.pattern=128")
    resize(source, 400 * MIB)
    source.console.wait_pattern(more=1)
    destination = boot(memory=1024, incoming=True)
    try:
        destination.qmp.execute("migrate-set-capabilities",
                                capabilities=[{"capability": "postcopy-ram", "state": True}])
    except Exception as error:  # pylint: disable=broad-except # QEMU says what the host lacks
        pytest.skip(f"this host cannot do postcopy: {error}")
    migrate(source, destination, capabilities={"postcopy-ram": True}, postcopy=True)
    destination.console.wait_pattern(more=2, passes=1)
    assert actual(destination) == 400 * MIB
    resize(destination, 1024 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_destination_with_another_unit_refuses(boot):
    """A destination that cannot represent the state fails the load, and the source runs on."""
    source = boot(memory=1024, append="hpb.pattern=64")
    resize(source, 402 * MIB)
    destination = boot(memory=1024, options={"unit": "8M"}, incoming=True)
    with pytest.raises(MigrationError):
        migrate(source, destination)
    assert source.qmp.execute("query-status")["status"] in ("running", "postmigrate", "paused")
    source.qmp.execute("cont")
    source.console.wait_pattern(more=1, passes=1)
    resize(source, 1024 * MIB)


@pytest.mark.parametrize("capabilities", [{}, {"multifd": True}], ids=["precopy", "multifd"])
def test_what_is_out_is_passed_over(boot, capabilities):
    """Not read, not sent, not faulted in: as many pages are looked at as the small guest has."""
    source = boot(memory=2048, append="hpb.touch=1600 hpb.pattern=64")
    resize(source, 512 * MIB)
    source.console.wait_pattern(more=1)  # the driver has done what it does behind a shrink
    rss = hostmem.process(source.pid).rss
    destination = boot(memory=2048, incoming=True)
    info = migrate(source, destination, capabilities=capabilities)["ram"]
    looked_at = info["duplicate"] + info["normal"]
    # what the guest changes meanwhile is sent again; firmware and display memory count, too
    assert looked_at <= (512 + 160) * MIB // PAGE, info
    assert source.qmp.qom_get(qom_path(), "migration-skipped") == 1536 * MIB
    assert info["skipped-discarded-bytes"] == 1536 * MIB
    assert info["skipped-hinted-bytes"] == 0
    monitor = source.qmp.hmp("info migrate")
    assert f"skipped discarded: {1536 * 1024} kbytes" in monitor
    assert "skipped hinted" not in monitor
    assert hostmem.process(source.pid).rss <= rss + NOISE
    destination.console.wait_pattern(more=1, passes=1)
    # the guest goes on there, with pages that it had not used before, in huge pages of the host
    assert hostmem.process(destination.pid).rss <= rss + NOISE
    resize(destination, 2048 * MIB)
    assert "TOUCHED 1600" in destination.run("hpb-touch -p random 1600").output
    destination.console.wait_pattern(more=1, passes=1)


def test_resizing_a_slow_migration(boot):
    """Down and up while pages are being sent: at once, not when it is over; what goes out is no longer sent."""
    source = boot(memory=2048, append="hpb.touch=1600 hpb.pattern=64")
    source.run("hpb-touch -p random 1500")
    destination = boot(memory=2048, incoming=True)
    migration = Migration(source, destination, bandwidth=SLOW)
    migration.wait_active()
    resize(source, 512 * MIB)
    source.console.wait_pattern(more=1)
    resize(source, 900 * MIB)
    assert "TOUCHED 300" in source.run("hpb-touch -p random 300").output
    assert source.qmp.execute("query-migrate")["status"] == "active"
    info = migration.finish()["ram"]
    assert source.qmp.qom_get(qom_path(), "migration-skipped") >= 1500 * MIB
    assert info["normal"] <= 1300 * MIB // PAGE, info
    assert info["skipped-discarded-bytes"] == 0
    # without what had already been sent when it went out, and with what went out twice
    assert 1000 * MIB <= info["skipped-hinted-bytes"] <= source.qmp.qom_get(qom_path(), "migration-skipped")
    assert actual(destination) == 900 * MIB
    destination.console.wait_pattern(more=1, passes=1)
    resize(destination, 2048 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_deflate_then_postcopy(boot):
    """Memory that came back on the source has to be sent: the destination gets it, and its guest does not wait for ever."""
    source = boot(memory=2048, append="hpb.pattern=64")
    resize(source, 512 * MIB)
    destination = boot(memory=2048, incoming=True)
    try:
        migration = Migration(source, destination, {"postcopy-ram": True}, bandwidth=SLOW // 8)
    except QmpError as error:
        pytest.skip(f"this host cannot do postcopy: {error}")
    migration.wait_active()
    resize(source, 1536 * MIB)
    source.run("(hpb-touch -p random 800 >/dev/null; echo done) &")
    migration.start_postcopy()
    migration.finish()
    destination.console.wait_pattern(more=2, passes=1)
    assert "TOUCHED 900" in destination.run("hpb-touch -p random 900").output
    resize(destination, 2048 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_reset_while_migrating(boot):
    """All that was out is the guest's again, and is sent: the guest that boots meanwhile arrives whole, and is shrunk again."""
    source = boot(memory=1024, append="hpb.pattern=64")
    resize(source, 400 * MIB)
    destination = boot(memory=1024, incoming=True)
    # a guest boots in seconds or, on a busy host, in a minute: nothing may be over before
    migration = Migration(source, destination, bandwidth=SLOW // 128)
    migration.wait_active()
    source.reset()
    assert source.qmp.execute("query-migrate")["status"] == "active"
    migration.finish()
    wait_actual(destination, 400 * MIB)
    destination.console.wait_pattern(more=1, passes=1)
    resize(destination, 1024 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_file_with_fixed_places(boot, tmp_path):
    """mapped-ram: what is out takes no room in the file."""
    source = boot(memory=2048, append="hpb.touch=1600 hpb.pattern=64")
    resize(source, 512 * MIB)
    destination = boot(memory=2048, incoming=True)
    for guest in (source, destination):
        guest.qmp.execute("migrate-set-capabilities", capabilities=[
            {"capability": name, "state": True} for name in ("events", "mapped-ram")])
    path = tmp_path / "state"
    source.qmp.execute("stop")
    source.qmp.execute("migrate", uri=f"file:{path}")
    source.qmp.wait_event("MIGRATION", 120, lambda data: data["status"] == "completed")
    assert path.stat().st_blocks * 512 <= (512 + 64) * MIB
    destination.qmp.execute("migrate-incoming", uri=f"file:{path}")
    destination.qmp.wait_event("MIGRATION", 120, lambda data: data["status"] == "completed")
    if destination.qmp.execute("query-status")["status"] != "running":
        destination.qmp.execute("cont")
    destination.console.wait_pattern(more=1, passes=1)
    resize(destination, 2048 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_dump_passes_over_what_is_out(boot, tmp_path):
    """dump-guest-memory: the file has what the guest has."""
    guest = boot(memory=2048, append="hpb.touch=1600 hpb.pattern=64")
    resize(guest, 512 * MIB)
    path = tmp_path / "dump"
    guest.qmp.execute("dump-guest-memory", paging=False, protocol=f"file:{path}")
    assert 400 * MIB < path.stat().st_size <= (512 + 64) * MIB
    guest.console.wait_pattern(more=1, passes=1)


ZERO_PAGES_MAX = 30000  # of a million: what the guest's kernel has zeroed at boot, and firmware


def test_never_populated_memory_is_left_out(boot, series):
    """Nobody reads what nobody ever touched; no balloon is needed."""
    source = boot(series, driver=None, memory=4096, append="hpb.pattern=64")
    source.console.wait_pattern(more=1, passes=1)
    rss = hostmem.process(source.pid).rss
    destination = boot(series, driver=None, memory=4096, incoming=True)
    info = migrate(source, destination)["ram"]
    assert info["duplicate"] <= ZERO_PAGES_MAX, info
    assert 3 * GIB <= info["skipped-unpopulated-bytes"] < 4 * GIB
    assert "skipped unpopulated: " in source.qmp.hmp("info migrate")
    assert hostmem.process(source.pid).rss <= rss + 2 * NOISE
    destination.console.wait_pattern(more=1, passes=1)
    assert "TOUCHED 3000" in destination.run("hpb-touch -p random 3000").output


def test_never_populated_and_out(boot):
    """Both together: 4 GiB of which 3 are out cost what is in use."""
    source = boot(memory=4096, append="hpb.pattern=64")
    resize(source, 1024 * MIB)
    destination = boot(memory=4096, incoming=True)
    info = migrate(source, destination)["ram"]
    assert info["duplicate"] <= ZERO_PAGES_MAX, info
    # each byte has one reason, so that it is counted once
    assert info["skipped-discarded-bytes"] == 3 * GIB
    assert 0 < info["skipped-unpopulated-bytes"] < 1 * GIB
    destination.console.wait_pattern(more=1, passes=1)
    resize(destination, 4096 * MIB)
    assert "TOUCHED 3000" in destination.run("hpb-touch -p random 3000").output
    destination.console.wait_pattern(more=1, passes=1)


def test_memory_populated_while_migrating(boot):
    """What was not there when the migration began is sent if it is written later."""
    source = boot(driver=None, memory=1024, append="hpb.pattern=64")
    destination = boot(driver=None, memory=1024, incoming=True)
    # At SLOW it may be over before the file is: the vCPUs stop, and the agent never answers.
    migration = Migration(source, destination, bandwidth=SLOW // 128)
    migration.wait_active()
    written = source.run("mkdir -p /t && mount -t tmpfs t /t && dd if=/dev/urandom of=/t/x bs=1M count=300 2>/dev/null && md5sum /t/x",
                         timeout=300).output
    assert source.qmp.execute("query-migrate")["status"] == "active"
    migration.finish()
    assert destination.run("md5sum /t/x").output == written
    destination.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("backend,left_out", [
    ("memory-backend-memfd,share=on", True),
    ("memory-backend-file,share=on,mem-path={path}", False),
], ids=["memfd", "named-file"])
def test_never_populated_shared_memory(boot, tmp_path, backend, left_out):
    """Holes of a memfd stay holes on both sides. A file with a name may have contents on the destination: all of it is sent."""
    def start(name, **more):
        return boot(driver=None, memory=1024, machine="pc,memory-backend=m", append="hpb.pattern=64",
                    args=["-object", f"{backend.format(path=tmp_path / name)},id=m,size=1G"], **more)
    source = start("source")
    source.console.wait_pattern(more=1, passes=1)
    held = hostmem.memfd_allocated(source.pid)
    destination = start("destination", incoming=True)
    info = migrate(source, destination)["ram"]
    assert (info["duplicate"] <= ZERO_PAGES_MAX) == left_out, info
    assert hostmem.memfd_allocated(source.pid) <= held + 2 * NOISE
    destination.console.wait_pattern(more=1, passes=1)


def test_switched_off(boot):
    """migration.skip-unpopulated=off: as without it."""
    args = ["-global", "migration.skip-unpopulated=off"]
    source = boot(driver=None, memory=1024, args=args)
    destination = boot(driver=None, memory=1024, args=args, incoming=True)
    info = migrate(source, destination)["ram"]
    assert info["duplicate"] > 800 * MIB // PAGE
    assert info["skipped-unpopulated-bytes"] == 0


def test_beside_other_memory_devices(boot):
    """A DIMM's memory is the balloon's to take, virtio-mem's is not; all of it moves."""
    # The smallest first: QEMU 10.0 without qemu/patches/0007 takes others for it when it clears dirty bits, and loses writes.
    options = {"memory": 1024, "args": ["-m", "1024M,slots=2,maxmem=8G", "-object", "memory-backend-ram,id=d,size=512M",
                                        "-object", "memory-backend-ram,id=v,size=1G"],
               "devices": ["-device", "pc-dimm,memdev=d", "-device", "virtio-mem-pci,id=v0,memdev=v,requested-size=256M"]}
    source = boot(append="hpb.pattern=64 memhp_default_state=online_movable", **options)

    def plugged(guest, size):
        deadline = time.monotonic() + 60
        while guest.qmp.qom_get("/machine/peripheral/v0", "size") != size:
            assert time.monotonic() < deadline, guest.qmp.qom_get("/machine/peripheral/v0", "size")
            time.sleep(0.05)
    plugged(source, 256 * MIB)
    assert actual(source) == 1536 * MIB
    resize(source, 700 * MIB)
    destination = boot(incoming=True, **options)
    migrate(source, destination)
    destination.console.wait_pattern(more=1, passes=1)
    assert actual(destination) == 700 * MIB
    destination.qmp.execute("qom-set", path="/machine/peripheral/v0", property="requested-size", value=512 * MIB)
    plugged(destination, 512 * MIB)
    resize(destination, 1536 * MIB)
    assert "TOUCHED 1000" in destination.run("hpb-touch 1000").output
    destination.console.wait_pattern(more=1, passes=1)
