#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The library's ABI stands in three places; they must agree.

What the public headers declare, what the symbol map exports, and (for a shared
build) what the library really has. Also: the manual page names every function,
and each public header compiles by itself, in C and in C++.

Usage: symbols-test.py MAP MANUAL LIBRARY CC HEADER... (LIBRARY may be static)
"""

import pathlib
import re
import shlex
import subprocess
import sys


def declared(headers):
    names = set()
    for header in headers:
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        text = re.sub(r"^\s*#.*?[^\\]$", "", text, flags=re.DOTALL | re.MULTILINE)
        text = re.sub(r"\{[^}]*\}", "{}", text)
        names |= set(re.findall(r"^[\w*\s]*?\b(hpb_\w+)\s*\([^;]*\);", text, re.MULTILINE))
    return names


def mapped(symbol_map):
    text = re.sub(r"/\*.*?\*/", "", symbol_map.read_text(), flags=re.DOTALL)
    return set(re.findall(r"^\s*(hpb_\w+);", text, re.MULTILINE))


def defined(library, *options):
    """Global symbols of a library."""
    out = subprocess.run(["nm", "-g", "--defined-only", *options, library], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in out.splitlines()]
    # Version nodes are absolute symbols (type A).
    return {row[2].split("@")[0] for row in rows if len(row) == 3 and row[1] != "A"}


def compiles(compiler, include, source, language):
    flags = subprocess.run(["pkg-config", "--cflags", "glib-2.0"], check=True, capture_output=True, text=True).stdout
    command = [*compiler, f"-x{language}", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    command += [*shlex.split(flags), "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    for line in done.stderr.splitlines():
        print("#", line)
    return done.returncode == 0


class Tap:
    def __init__(self):
        self.count = 0
        self.failed = False

    def test(self, name, good, *why):
        self.count += 1
        self.failed |= not good
        print(f"{'ok' if good else 'not ok'} {self.count} {name}")
        if not good:
            print("#", *why)

    def skip(self, name, reason):
        self.count += 1
        print(f"ok {self.count} {name} # SKIP {reason}")


def main():
    symbol_map, manual, library = map(pathlib.Path, sys.argv[1:4])
    compiler = shlex.split(sys.argv[4])
    headers = [pathlib.Path(name) for name in sys.argv[5:]]
    tap = Tap()

    api, abi = declared(headers), mapped(symbol_map)
    tap.test("headers declare functions", len(api) > 0)
    tap.test("map equals headers", api == abi, "differ:", sorted(api ^ abi))
    if library.suffix == ".a":
        # Hides nothing, so has more than the map.
        missing = abi - defined(library)
        tap.test("static library has the map", not missing, "missing:", sorted(missing))
    else:
        extra = defined(library, "-D") ^ abi
        tap.test("library equals map", not extra, "differ:", sorted(extra))
    text = manual.read_text()
    missing = [name for name in sorted(api) if not re.search(rf"\b{name}\b", text)]
    tap.test("manual names every function", not missing, "missing:", missing)
    unknown = set(re.findall(r"\bhpb_\w+", text)) - api
    tap.test("manual names no other function", not unknown, "unknown:", sorted(unknown))
    has_cpp = compiles(compiler, ".", "", "c++")
    for header in headers:
        include, source = header.parent.parent, f"#include <hpballoon/{header.name}>\n"
        tap.test(f"{header.name} compiles alone", compiles(compiler, include, source, "c"))
        if has_cpp:
            tap.test(f"{header.name} compiles alone as C++", compiles(compiler, include, source, "c++"))
        else:
            tap.skip(f"{header.name} compiles alone as C++", "this compiler has no C++")
    print(f"1..{tap.count}")
    return tap.failed


if __name__ == "__main__":
    sys.exit(main())
