# SPDX-License-Identifier: GPL-2.0-or-later
"""Run hpbctl and check how it ended. A call that hangs is a failure, so each has a limit."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path

from . import settings

LIMIT = 30.0  # no call takes longer, whatever happens


def program() -> Path:
    """The hpbctl under test."""
    return settings.existing(settings.build() / "helper-plain/helper/ctl/hpbctl", "hpbctl")


def hpbctl(*args: object, status: int = 0, limit: float = LIMIT, **more: object) -> subprocess.CompletedProcess[str]:
    """Run it and check its exit status."""
    run = subprocess.run([str(program()), *map(str, args)], capture_output=True, text=True, timeout=limit, check=False,
                         **more)  # type: ignore[call-overload]
    assert run.returncode == status, f"{args}: status {run.returncode}: {run.stdout}{run.stderr}"
    return run


def told(*args: object, status: int = 0, **more: object) -> object:
    """Its result as JSON."""
    return json.loads(hpbctl("--json", *args, status=status, **more).stdout)  # type: ignore[arg-type]
