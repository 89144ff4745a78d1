# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of other processes, which map the guest's memory for themselves: what is out is not in their way."""
from __future__ import annotations

from hpbtest import hostmem
from hpbtest.balloon import resize
from hpbtest.disk import Disk
from hpbtest.guest import MIB, Guest
from hpbtest.migrate import migrate
from hpbtest.vhostuser import VhostUserDisk

SIZE = 1024
SMALL = 400
MEMORY = ["-object", f"memory-backend-memfd,id=m,size={SIZE}M,share=on"]


def check_file(guest: Guest, disk: Disk) -> None:
    """Read the first file again, from the disk."""
    name, md5 = next(iter(disk.files.items()))
    guest.run("echo 3 >/proc/sys/vm/drop_caches")
    assert guest.run(f"md5sum /mnt/{name}", timeout=60).output.split()[0] == md5


def test_vhost_user_disk(boot, tmp_path):
    """A disk of another process is read and written while the guest is small, large, and moved elsewhere."""
    disk = Disk(tmp_path, 256)
    with VhostUserDisk(disk.image) as here, VhostUserDisk(disk.image) as there:
        source = boot(memory=SIZE, machine="pc,memory-backend=m", args=MEMORY, devices=here.args(),
                      append="hpb.pattern=64 hpb.touch=700")
        source.run("mkdir -p /mnt && mount -t ext4 -o noatime /dev/vda /mnt")
        held = hostmem.memfd_allocated(source.pid)
        resize(source, SMALL * MIB)
        assert held - hostmem.memfd_allocated(source.pid) > 400 * MIB
        check_file(source, disk)
        source.run("dd if=/dev/urandom of=/mnt/new bs=1M count=32 && sync && md5sum /mnt/new >/tmp/new.md5", timeout=60)
        resize(source, SIZE * MIB)
        check_file(source, disk)
        resize(source, SMALL * MIB)
        destination = boot(memory=SIZE, machine="pc,memory-backend=m", args=MEMORY, devices=there.args(), incoming=True)
        migrate(source, destination)
        check_file(destination, disk)
        assert destination.run("md5sum -c /tmp/new.md5", timeout=60).status == 0
        resize(destination, SIZE * MIB)
        check_file(destination, disk)
        destination.console.wait_pattern(more=1, passes=1)
        source.stop()
        destination.stop()
