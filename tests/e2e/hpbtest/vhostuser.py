# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk that another process serves, out of the guest's own memory (vhost-user)."""
from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from . import settings

STOP_SECONDS = 10.0


class VhostUserDisk:
    """qemu-storage-daemon with one raw image; a context manager. The guest needs shared memory."""

    def __init__(self, image: Path):
        self._directory = Path(tempfile.mkdtemp(prefix="hpb-vu-"))
        self._socket = self._directory / "socket"
        self._pidfile = self._directory / "pid"
        # Both ends of a migration have the image open: no locks.
        self._args = [str(settings.existing(settings.qemu().parent / "qemu-storage-daemon", "storage daemon")),
                      "--blockdev", f"driver=file,node-name=image,filename={image},locking=off",
                      "--export", f"vhost-user-blk,id=disk,addr.type=unix,addr.path={self._socket},node-name=image,writable=on",
                      "--pidfile", str(self._pidfile), "--daemonize"]

    def __enter__(self) -> "VhostUserDisk":
        # With --daemonize it returns when the socket is there.
        subprocess.run(self._args, check=True)
        return self

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        subprocess.run(["kill", self._pidfile.read_text(encoding="ascii").strip()], check=False)
        subprocess.run(["timeout", f"{STOP_SECONDS:g}", "sh", "-c", f"while [ -e {self._pidfile} ]; do sleep 0.1; done"], check=False)
        for path in (self._socket, self._pidfile):
            path.unlink(missing_ok=True)
        self._directory.rmdir()

    def args(self) -> list[str]:
        """QEMU arguments that make it the guest's vda."""
        return ["-chardev", f"socket,id=vu,path={self._socket}", "-device", "vhost-user-blk-pci,chardev=vu,num-queues=1"]
