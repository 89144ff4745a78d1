# SPDX-License-Identifier: GPL-2.0-or-later
"""./hpb run: the test guest on this terminal (leave with Ctrl-A X)."""
from __future__ import annotations

import os
import sys

from . import settings
from .guest import OURS, balloon_device


def main() -> None:
    """Replace this process by QEMU."""
    extra = sys.argv[1:]
    args = [str(settings.qemu()), *settings.accel_args(settings.accel()),
            "-m", "2G", "-smp", "2", "-nographic", "-nodefaults", "-nic", "none", "-no-reboot",
            "-serial", "mon:stdio",
            "-kernel", os.environ.get("HPB_KERNEL") or str(settings.kernel()),
            "-initrd", os.environ.get("HPB_INITRD") or str(settings.initrd())]
    if "-append" not in extra:
        args += ["-append", "console=ttyS0 panic=-1"]
    if not any("balloon" in arg for arg in extra):
        args += balloon_device(OURS)
    os.execv(args[0], [*args, *extra])


if __name__ == "__main__":
    main()
