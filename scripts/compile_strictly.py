#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compile our own files in QEMU once more with warnings as errors, as TAP.

usage: compile_strictly.py COMPILE_COMMANDS DIR...

QEMU built from a tarball does not turn warnings into errors, and must not: a
newer compiler would then break the build on files that are not ours. Here
each C file below the DIRs is checked with the flags that the build uses for it.
"""
from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path


def names(folders: list[str]) -> list[str]:
    """Paths of our C files, as they end in the QEMU tree."""
    found = []
    for folder in folders:
        root = Path(folder)
        base = root if root.name == "qemu" else root.parents[1]
        found += [str(path.relative_to(base)) for path in sorted(root.rglob("*.c"))]
    return found


def strict(command: str) -> list[str]:
    """The command for a check without output."""
    words, result, skip = shlex.split(command), [], False
    for word in words:
        if skip:
            skip = False
        elif word in ("-o", "-MF", "-MQ"):
            skip = True
        elif word not in ("-MD", "-c"):
            result.append(word)
    # -fsyntax-only would leave out the warnings that need data flow.
    return [*result, "-Werror", "-c", "-o", "/dev/null"]


def main(argv: list[str]) -> int:
    if len(argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    with open(argv[1], encoding="utf-8") as file:
        commands = json.load(file)
    ours = names(argv[2:])
    print(f"1..{len(ours)}")
    failed = False
    for number, name in enumerate(ours, 1):
        entry = next((c for c in commands if c["file"].endswith("/" + name)), None)
        if entry is None:
            print(f"not ok {number} - {name} is not built: no meson.build names it")
            failed = True
            continue
        run = subprocess.run(strict(entry["command"]), cwd=entry["directory"], capture_output=True, text=True, check=False)
        for line in run.stderr.splitlines():
            print(f"# {line}")
        print(f"{'not ok' if run.returncode else 'ok'} {number} - {name} compiles without a warning")
        failed |= bool(run.returncode)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
