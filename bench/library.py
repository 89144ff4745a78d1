# SPDX-License-Identifier: GPL-2.0-or-later
"""The helper library beside the bare system calls: its own benchmark, run and quoted."""
from __future__ import annotations

import re
import subprocess

from hpbtest import settings
from hpbtest.guest import GuestError
from report import Report, Series

MEMORY = re.compile(r"(\S.*?) \(")
# Times of one call, of a call for each 2 MiB, and of the library; "-" where there is none.
ROW = re.compile(r"  (\S.*?)\s{2,}" + r"\s+".join([r"(-|\d+)"] * 3) + r"(?:\s|$)")


def series(lines: list[str]) -> list[Series]:
    """The times in what the program says."""
    found, memory = [], ""
    for line in lines:
        if head := MEMORY.match(line):
            memory = head[1]
        elif row := ROW.match(line):
            found += [Series(f"{memory}: {row[1]}", peer, "microseconds", [float(value)])
                      for peer, value in zip(("one call", "per 2 MiB", "library"), row.groups()[1:]) if value != "-"]
    if not found:
        raise ValueError("hpb-memory-bench does not say its times as it did; bench/library.py has to follow")
    return found


def run(rounds: int) -> Report:
    """The program has rounds of its own."""
    del rounds
    program = settings.existing(settings.build() / "helper-plain/helper/bench/hpb-memory-bench", "the library's benchmark")
    found = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    if found.returncode:
        raise GuestError(found.stderr.strip())
    lines = found.stdout.splitlines()
    return Report(f"```\n{found.stdout.rstrip()}\n```", {"output": lines}, series(lines))
