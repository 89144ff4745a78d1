# SPDX-License-Identifier: GPL-2.0-or-later
"""The helper library beside the bare system calls: its own benchmark, run and quoted."""
from __future__ import annotations

import subprocess

from hpbtest import settings
from hpbtest.guest import GuestError
from report import Report


def run(rounds: int) -> Report:
    """The program has rounds of its own."""
    del rounds
    program = settings.existing(settings.build() / "helper-plain/helper/bench/hpb-memory-bench", "the library's benchmark")
    found = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    if found.returncode:
        raise GuestError(found.stderr.strip())
    return Report(f"```\n{found.stdout.rstrip()}\n```", {"output": found.stdout.splitlines()})
