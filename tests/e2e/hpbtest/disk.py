# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk with files, for guests whose page cache shall be full."""
from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

MIB = 1 << 20
FILE_MIB = 64


class Disk:
    """An ext4 image of files of FILE_MIB each, with random contents; `files` are their MD5 sums by name."""

    def __init__(self, directory: Path, mib: int):
        self.image = directory / "disk"
        self.mib = mib
        self.files: dict[str, str] = {}
        tree = directory / "tree"
        tree.mkdir()
        for number in range(mib // FILE_MIB):
            contents = os.urandom(FILE_MIB * MIB)
            name = f"file{number}"
            (tree / name).write_bytes(contents)
            self.files[name] = hashlib.md5(contents, usedforsecurity=False).hexdigest()
        with self.image.open("wb") as file:
            file.truncate((mib + mib // 8 + 64) * MIB)
        subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-m", "0", "-d", str(tree), str(self.image)], check=True)
        for name in self.files:
            (tree / name).unlink()
        tree.rmdir()

    def args(self) -> list[str]:
        """QEMU arguments that make it the guest's vda."""
        return ["-drive", f"if=none,id=disk,file={self.image},format=raw", "-device", "virtio-blk-pci,drive=disk"]


MOUNT = "mkdir -p /mnt && mount -t ext4 -o ro,noatime /dev/vda /mnt"
READ_ALL = "cat /mnt/file* >/dev/null"
