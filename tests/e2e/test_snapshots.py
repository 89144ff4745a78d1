# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest as it was at a moment: savevm and loadvm, snapshots in the background, COLO (DEV-27). Path step [6]."""
from __future__ import annotations

import socket
import subprocess
import threading

import pytest

from hpbtest import hostmem, settings
from hpbtest.balloon import actual, counters, qom_path, resize, set_target
from hpbtest.guest import MIB
from hpbtest.qmp import QmpError

NOISE = 128 * MIB  # what the emulator has translated meanwhile; the memory in question is five times as much
JOB_SECONDS = 120.0
CHUNK = 64 << 10  # bytes of a snapshot read at a time
BYTES_PER_SECOND = 16 << 20  # of a snapshot, until it is let go: some 50 s for all of it


@pytest.fixture
def disk(tmp_path):
    """Arguments for a disk that can keep snapshots."""
    path = tmp_path / "disk.qcow2"
    tool = settings.existing(settings.qemu().parent / "qemu-img", "qemu-img")
    subprocess.run([str(tool), "create", "-q", "-f", "qcow2", str(path), "64M"], check=True)
    return ["-drive", f"if=none,id=disk,file={path},format=qcow2", "-device", "virtio-blk-pci,drive=disk"]


def monitor(guest, line):
    """A monitor command that says nothing if it works."""
    assert guest.qmp.execute("human-monitor-command", timeout=JOB_SECONDS, command_line=line) == ""


def test_savevm_and_loadvm(boot, disk):
    """There and back between a small and a full guest: size, contents and the host's memory are those of the snapshot."""
    guest = boot(memory=1024, devices=disk, append="hpb.pattern=64")
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    monitor(guest, "savevm full")
    resize(guest, 400 * MIB)
    held = hostmem.process(guest.pid).rss
    monitor(guest, "savevm small")
    # what was out has contents that must not be there afterwards
    resize(guest, 1024 * MIB)
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    monitor(guest, "loadvm small")
    assert actual(guest) == 400 * MIB
    guest.console.wait_pattern(more=1, passes=1)
    # freed in the background after the load, before the next request is answered
    resize(guest, 402 * MIB)
    assert hostmem.process(guest.pid).rss <= held + NOISE
    resize(guest, 1024 * MIB)
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    resize(guest, 400 * MIB)
    monitor(guest, "loadvm full")
    assert actual(guest) == 1024 * MIB
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, 400 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


class Snapshot:
    """A snapshot in the background that is read slowly, until it is let go.

    The reader never waits for the guest's monitor: QEMU's main loop may stand at a page that
    is not saved yet (an answer that the device writes into it), and that one waits for the reader.
    """

    def __init__(self, guest, directory):
        self.path = directory / "snapshot"
        self._guest = guest
        self._free = threading.Event()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(directory / "socket"))
            listener.listen(1)
            guest.qmp.execute("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in ("events", "background-snapshot")])
            guest.qmp.execute("migrate", uri=f"unix:{directory / 'socket'}")
            listener.settimeout(JOB_SECONDS)
            self._stream = listener.accept()[0]
        self._stream.settimeout(JOB_SECONDS)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        """All of it, to the file."""
        with self.path.open("wb") as file:
            while data := self._stream.recv(CHUNK):
                file.write(data)
                self._free.wait(CHUNK / BYTES_PER_SECOND)

    def reading(self):
        """Whether there is more."""
        return self._reader.is_alive()

    def let_go(self):
        """Read the rest as it comes."""
        self._free.set()

    def finish(self):
        """Wait until it is complete."""
        end = self._guest.qmp.wait_event("MIGRATION", JOB_SECONDS, lambda data: data["status"] in ("completed", "failed"))
        assert end["status"] == "completed", self._guest.qmp.execute("query-migrate")
        self._reader.join(JOB_SECONDS)
        self._stream.close()
        self._guest.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "background-snapshot", "state": False}])


def test_background_snapshot(boot, tmp_path):
    """What the guest had is in it: memory is not let go before it is saved (BUSY), memory that comes back is not in it."""
    guest = boot(memory=1024, append="hpb.pattern=64", options={"migration_lend": "free"})
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    resize(guest, 800 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
    try:
        snapshot = Snapshot(guest, tmp_path)
    except QmpError as error:
        pytest.skip(f"this host cannot do snapshots in the background: {error}")
    assert not guest.qmp.qom_get(qom_path(), "migration-session")["active"], "a snapshot borrows nothing"
    set_target(guest, 600 * MIB)
    while not counters(guest)["refused"]["busy"]:
        assert snapshot.reading(), "the snapshot was over before the guest tried to shrink"
    assert actual(guest) == 800 * MIB
    snapshot.let_go()
    resize(guest, 1000 * MIB)
    snapshot.finish()
    resize(guest, 600 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
    again = boot(memory=1024, incoming=True)
    again.qmp.execute("migrate-incoming", uri=f"file:{snapshot.path}")
    again.qmp.wait_event("RESUME", JOB_SECONDS)
    assert actual(again) == 800 * MIB
    again.console.wait_pattern(more=1, passes=1)
    resize(again, 1024 * MIB)
    assert "TOUCHED 700" in again.run("hpb-touch -p random 700").output
    again.console.wait_pattern(more=1, passes=1)


def test_colo_is_refused(boot):
    """QEMU as we build it has no COLO and says so; the balloon is none the wiser."""
    guest = boot(memory=512, append="hpb.pattern=64")
    resize(guest, 300 * MIB)
    with pytest.raises(QmpError, match="COLO"):
        guest.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": True}])
    resize(guest, 512 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
