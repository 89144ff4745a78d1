#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""./hpb bench: measurements side by side, each a module here.

  resize        shrink and grow: the traditional balloon, virtio-mem, this one and the host's limit
  sizes         the same for guests of all sizes, untouched, used and in pieces
  stages        where the time of a resize goes
  hugepages     whether huge pages stay whole, in the guest and on the host
  interference  what a program in the guest feels of a resize
  backings      what the host has of a guest before, ballooned, grown back and used again
  choosing      guests in pieces, full of page cache, and with a kernel that clears what it allocates
  migration     live migration of guests that do not need all their memory, in turns
  lending       live migration of guests that lend what they do not need, in turns
  libvirt       virsh setmem of both balloons, by one libvirtd, in turns
  stalls        how long a program waits for its memory while the guest moves and grows
  scale         guests of up to a terabyte, and many ranges: start, inflate, migration setup
  monitor       how long QEMU's monitor is silent while a guest is resized
  device        the device without a guest, beside the bare system calls
  library       the helper library beside the bare system calls

A measurement returns a Report. All are written as JSON, values by round as CSV
too, and drawn as SVG and PNG; their chapters in docs/benchmarks.md are replaced,
with machine and date, unless it was only a look (--quick) or --no-update is given.

Exit status 0 when it could measure, whether targets are met or not: on a shared
machine a missed target is a reason to look, not a broken build. What does not
depend on the machine's mood, requests and memory, is a test too (tests/e2e).
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import backings
import choosing
import device
import hugepages
import interference
import lending
import library
import libvirt
import migration
import monitor
import resize
import scale
import sizes
import stages
import stalls
from report import Report, draw, machine, update, write_csv
from hpbtest import hostsetup, settings
from hpbtest.balloon import BalloonError
from hpbtest.console import ConsoleError
from hpbtest.guest import GuestError
from hpbtest.hostsetup import HostLacks
from hpbtest.libvirt import LibvirtError
from hpbtest.migrate import MigrationError
from hpbtest.qmp import QmpError, QmpTimeout
from hpbtest.scripted import ScriptedError

MEASUREMENTS = {module.__name__: module.run for module in (
    resize, sizes, stages, hugepages, interference, backings, choosing, migration, lending, libvirt, stalls, monitor, scale, device, library)}
# What a host, a guest or a document can lack. One measurement that fails does not end the others.
ERRORS = (GuestError, BalloonError, ConsoleError, HostLacks, LibvirtError, MigrationError, OSError, QmpError, QmpTimeout, ScriptedError,
          subprocess.SubprocessError, ValueError)
ROUNDS = {"quick": 1, "usual": 5, "full": 15}
TCG = ("Under TCG the guest's own work costs ten times and more of what it does on hardware, the host's what it always does: "
       "what the guest does weighs too much in these times, and ratios say more than they do.")


def keep(stem: Path, name: str, result: Report) -> None:
    """Write what was measured."""
    stem.with_suffix(".json").write_text(json.dumps({"machine": machine(), **result.data}, indent=2) + "\n", encoding="utf-8")
    paths = [stem.with_suffix(".json")]
    if result.series:
        write_csv(stem.with_suffix(".csv"), result.series)
        paths += [stem.with_suffix(".csv"), *draw(stem, name, f"accelerator {settings.accel()}", result.series)]
    print("written:", *paths, sep="\n  ")


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="./hpb bench", description="Measure side by side.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {' '.join(MEASUREMENTS)}; or all (default: resize)")
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--rounds", type=int, default=ROUNDS["usual"], help="how often, where it is repeated (default %(default)s)")
    for name in ("quick", "full"):
        much.add_argument(f"--{name}", dest="rounds", action="store_const", const=ROUNDS[name], help=f"--rounds {ROUNDS[name]}")
    parser.add_argument("--accel", choices=["kvm", "tcg"], help="accelerator of the guests (default: KVM if it boots one, else TCG)")
    parser.add_argument("--update", action=argparse.BooleanOptionalAction, help="write the results to docs/benchmarks.md (default: unless there is one round only)")
    parser.add_argument("--out", type=Path, default=settings.build() / "bench", help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "all" in options.names:
        options.names = list(MEASUREMENTS)
    for name in options.names:
        if name not in MEASUREMENTS:
            parser.error(f"unknown measurement '{name}' (there are: {' '.join(MEASUREMENTS)} all)")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.update is None:
        options.update = options.rounds > 1
    return options


def one(name: str, options: argparse.Namespace) -> None:
    """A measurement, from the first guest to its files."""
    result: Report = MEASUREMENTS[name](options.rounds)
    print(f"\n{result.text}\n\n{machine()}.")
    if settings.accel() == "tcg":
        print(f"\n{TCG}")
    keep(options.out / time.strftime(f"{name}-%Y%m%d-%H%M%S"), name, result)
    if options.update:
        print(f"updated: {update(settings.top() / 'docs/benchmarks.md', name, result)}")


def main() -> int:
    options = arguments()
    if options.check:
        return 0
    ending = hostsetup.Ending()
    if options.accel:
        os.environ["HPB_ACCEL"] = options.accel
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.names or ["resize"]:
        try:
            one(name, options)
        except ERRORS as error:
            print(f"bench: {name} failed: {error}", file=sys.stderr)
            failed.append(name)
        except KeyboardInterrupt:
            pass
        if ending.began:
            print(f"bench: stopped while it measured {name}; nothing of it is written", file=sys.stderr)
            return 130
    if failed:
        print(f"bench: not measured, or not written: {' '.join(failed)}; the reasons are above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
