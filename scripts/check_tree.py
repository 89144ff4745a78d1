#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of the tree as a whole, as TAP: licences, layers, leaks of machine details.

usage: check_tree.py TOP

Which folder may use which is written down here and nowhere else (LAYERS).
"""
from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Callable

# Licence of each folder, first match counts. Files that cannot carry a line are in NO_SPDX.
LICENCES = [
    ("spec/*", "BSD-3-Clause"),
    ("guest/*", "GPL-2.0-only|GPL-2.0"),
    ("tests/kunit/*", "GPL-2.0-only|GPL-2.0|GPL-2.0-or-later"),
    ("helper/*", "LGPL-2.1-or-later"),
    ("tests/unit/*", "LGPL-2.1-or-later|GPL-2.0-or-later"),
    ("meson*", "LGPL-2.1-or-later|GPL-2.0-or-later"),
    ("*", "GPL-2.0-or-later|LGPL-2.1-or-later"),
]
NO_SPDX = ["LICENSES/*", "qemu/patches/*.patch", "guest/linux/patches/*.patch", "libvirt/patches/*.patch", "tests/fuzz/corpus/*", ".gitignore"]

# Folder, what its #include lines must not name, why. The wire header is everybody's.
LAYERS = [
    ("spec/*", r'"|<(?!linux/types\.h>)', "the wire header needs linux/types.h and nothing else"),
    ("guest/*", r"hpballoon|qemu/|hw/|\.\./(?!spec/)|glib", "the driver uses the kernel and spec/ only"),
    ("helper/*", r"qemu/|hw/|exec/|qapi/|migration/|virtio_balloon_hp|guest/|linux/virtio", "the helper knows neither QEMU nor the guest nor the wire"),
    ("qemu/*", r'guest/|"balloon_hp\.h|"ranges\.h|helper/lib', "the device uses QEMU, spec/ and the helper's public headers"),
    ("tests/unit/*", r"qemu/|hw/|virtio_balloon_hp|guest/", "unit tests drive the helper alone"),
    ("tests/qtest/*", r"guest/|hw/virtio/virtio-balloon-hp|hpballoon", "qtests see the device from outside"),
    ("tests/e2e/guest/*", r'"', "guest programs are one file each"),
]


# Folders that are the same everywhere say nothing about a machine.
GENERIC = {"/", "//", "/root/", "/home/", "/usr/src/", "/tmp/", "/var/tmp/"}


def tracked(top: Path) -> list[str]:
    """Files of the tree: what git knows and would add; all but build/ where there is no git."""
    try:
        out = subprocess.run(["git", "-C", str(top), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                             check=True, capture_output=True).stdout.decode()
        names = [n for n in out.split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        names = [str(p.relative_to(top)) for p in top.rglob("*")]
        names = [n for n in names if not n.startswith(("build/", ".git/"))]
    return sorted(n for n in set(names) if (top / n).is_file())


def read(top: Path, name: str) -> str:
    """A file's text; empty for a binary."""
    data = (top / name).read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", "replace")


def check_spdx(top: Path, names: list[str]) -> list[str]:
    """Every file names its licence, and the one that its folder has."""
    wrong = []
    for name in names:
        if any(fnmatch.fnmatch(name, pattern) for pattern in NO_SPDX):
            continue
        head = "\n".join(read(top, name).splitlines()[:10])
        match = re.search(r"SPDX-License-Identifier:\s*([\w.+-]+)", head)
        allowed = next(licence for pattern, licence in LICENCES if fnmatch.fnmatch(name, pattern))
        if not match:
            wrong.append(f"{name}: no SPDX-License-Identifier in the first ten lines (want {allowed})")
        elif match[1] not in allowed.split("|"):
            wrong.append(f"{name}: licence {match[1]}, this folder has {allowed}")
    return wrong


def check_licence_texts(top: Path, names: list[str]) -> list[str]:
    """Each licence that is named has its text in LICENSES/."""
    used = set()
    for name in names:
        used.update(re.findall(r"^\W*SPDX-License-Identifier:\s*([\w.+-]+)", read(top, name), re.M))
    have = {Path(n).stem for n in names if n.startswith("LICENSES/")}
    alias = {"GPL-2.0": "GPL-2.0-only"}
    return [f"LICENSES/{one}.txt is missing" for one in sorted(used) if alias.get(one, one) not in have]


def check_layers(top: Path, names: list[str]) -> list[str]:
    """No folder includes what it must not know."""
    wrong = []
    for name in names:
        if not name.endswith((".c", ".h")):
            continue
        for number, line in enumerate(read(top, name).splitlines(), 1):
            match = re.match(r"\s*#\s*include\s+([<\"].*)", line)
            if not match:
                continue
            for pattern, forbidden, why in LAYERS:
                if fnmatch.fnmatch(name, pattern) and re.search(forbidden, match[1]):
                    wrong.append(f"{name}:{number}: {line.strip()}: {why}")
    return wrong


def machine_details() -> set[str]:
    """Strings of this machine that must not be in the tree: archive hosts."""
    found = set()
    for directory in ("/etc/apt/sources.list.d", "/etc/apt"):
        for path in Path(directory).glob("*s*"):
            if path.is_file() and path.suffix in (".list", ".sources"):
                text = path.read_text(encoding="utf-8", errors="replace")
                found.update(re.findall(r"\w+://([^/\s]+\.[^/\s]+)", text))
    return found


def check_leaks(top: Path, names: list[str]) -> list[str]:
    """No path of this machine, no host of a package archive."""
    forbidden = {str(top.resolve().parent) + "/", os.path.expanduser("~") + "/"} - GENERIC | machine_details()
    wrong = []
    for name in names:
        text = read(top, name)
        wrong += [f"{name}: contains '{detail}'" for detail in sorted(forbidden) if detail in text]
    return wrong


def check_python_shebang(top: Path, names: list[str]) -> list[str]:
    """Python programs name Debian's interpreter: only that one has Debian's modules."""
    return [f"{name}: starts with {first}" for name in names if name.endswith(".py")
            for first in read(top, name).splitlines()[:1] if first.startswith("#!") and first != "#!/usr/bin/python3"]


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    top = Path(argv[1])
    names = tracked(top)
    checks: list[Callable[[Path, list[str]], list[str]]] = [
        check_spdx, check_licence_texts, check_layers, check_leaks, check_python_shebang]
    print(f"1..{len(checks)}")
    status = 0
    for number, check in enumerate(checks, 1):
        wrong = check(top, names)
        for line in wrong:
            print(f"# {line}")
        summary = (check.__doc__ or "").splitlines()[0].rstrip(".")
        print(f"{'not ok' if wrong else 'ok'} {number} - tree: {summary}")
        status |= bool(wrong)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv))
