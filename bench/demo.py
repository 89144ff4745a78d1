#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""./hpb demo: the traditional balloon and this one side by side, then a live migration.

Nothing here is prepared: both devices are in the QEMU that was just built, and
every number of the table was measured in this run. Exit status 1 if anything
is wrong (a balloon that does not arrive, memory that changed, a migration that
failed, host memory that did not come back).
"""
from __future__ import annotations

import sys
import time

from hpbtest import hostsetup, measure, settings
from hpbtest.balloon import BalloonError, actual, resize
from hpbtest.console import ConsoleError
from hpbtest.guest import MIB, OURS, STOCK, Guest, GuestError
from hpbtest.migrate import MigrationError, migrate
from hpbtest.qmp import QmpError, QmpTimeout

PATTERN_MIB = 256
RELEASED_MIN = 0.99

_start = time.monotonic()


def progress(text: str) -> None:
    """A line about what is going on."""
    print(f"[{time.monotonic() - _start:5.1f} s] {text}", flush=True)


def seconds(value: float) -> str:
    """A duration in the unit that reads best."""
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value * 1000:.0f} ms"


def mib(value: int) -> str:
    """A size in MiB."""
    return f"{value / MIB:,.0f} MiB"


def ratio(stock: float, ours: float, unit: str = "x") -> str:
    """How many times more stock takes."""
    return f"{stock / ours:,.0f}{unit}" if ours else "-"


def table(stock: measure.Measurement, ours: measure.Measurement) -> str:
    """The comparison."""
    big, small = measure.GUEST_MIB // 1024, measure.SMALL_MIB // 1024
    rows = [
        ("", "virtio-balloon", "virtio-balloon-hp", ""),
        (f"Guest shrinks {big} -> {small} GiB in", seconds(stock.shrink), seconds(ours.shrink),
         f"{ratio(stock.shrink, ours.shrink)} faster"),
        (f"Guest grows {small} -> {big} GiB in", seconds(stock.grow), seconds(ours.grow),
         f"{ratio(stock.grow, ours.grow)} faster"),
        ("Requests to shrink", f"{stock.shrink_traffic.requests:,}", f"{ours.shrink_traffic.requests:,}",
         f"{ratio(stock.shrink_traffic.requests, ours.shrink_traffic.requests)} fewer"),
        ("Requests to grow", f"{stock.grow_traffic.requests:,}", f"{ours.grow_traffic.requests:,}",
         f"{ratio(stock.grow_traffic.requests, ours.grow_traffic.requests)} fewer"),
        ("Descriptors to shrink", f"{stock.shrink_traffic.descriptors:,}", f"{ours.shrink_traffic.descriptors:,}", ""),
        ("Descriptors to grow", f"{stock.grow_traffic.descriptors:,}", f"{ours.grow_traffic.descriptors:,}", ""),
        ("Host memory used by QEMU, before", mib(stock.before.rss), mib(ours.before.rss), ""),
        ("Host memory used by QEMU, shrunk", mib(stock.shrunk.rss), mib(ours.shrunk.rss), ""),
        ("  given back, of what was asked for", f"{stock.released:.1%}", f"{ours.released:.1%}", ""),
        ("  of it in huge pages, before", mib(stock.before.huge), mib(ours.before.huge), ""),
        ("  of it in huge pages, shrunk", mib(stock.shrunk.huge), mib(ours.shrunk.huge), ""),
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [f"  {r[0]:<{widths[0]}}   {r[1]:>{widths[1]}}   {r[2]:>{widths[2]}}   {r[3]:<{widths[3]}}".rstrip()
             for r in rows]
    lines.insert(1, "  " + "-" * (sum(widths) + 9))
    return "\n".join(lines)


def start_pattern(guest: Guest) -> None:
    """Start hpb-pattern in a running guest and wait until it has checked everything once."""
    guest.run(f"sh -c 'echo -1000 >/proc/self/oom_score_adj; exec hpb-pattern {PATTERN_MIB}' >/dev/console 2>&1 &")
    guest.console.wait_pattern(more=1, passes=0)


def ours_and_migration() -> tuple[measure.Measurement, str]:
    """Measure our balloon, then migrate its guest, shrunk, while it checks its memory."""
    result = measure.Measurement(OURS)
    guest, log = measure.boot(OURS, "demo-ours", append=f"hpb.touch={measure.TOUCH_MIB}")
    destination, _ = measure.boot(OURS, "demo-destination", incoming=True)
    progress(f"{OURS}: booting a {measure.GUEST_MIB // 1024} GiB guest that touches {measure.TOUCH_MIB / 1024:g} GiB")
    with guest, destination:
        progress(f"{OURS}: 4 GiB -> 1 GiB -> 4 GiB")
        measure.time_resizes(guest, result)
        progress(f"{OURS}: once more, counting requests")
        measure.count_traffic(guest, log, result)
        progress(f"{OURS}: shrinking to 1 GiB, {PATTERN_MIB} MiB of its memory under a checked pattern")
        start_pattern(guest)
        resize(guest, measure.SMALL_MIB * MIB)
        guest.console.wait_pattern(more=1)
        progress("migrating the shrunk guest, live, to a second QEMU")
        info = migrate(guest, destination)
        guest.console.check_pattern()
        progress("checking every byte of the pattern on the destination")
        destination.console.wait_pattern(more=2, passes=1)
        size = actual(destination)
        if size != measure.SMALL_MIB * MIB:
            raise BalloonError(f"the destination says the guest has {mib(size)}, not {measure.SMALL_MIB} MiB")
        resize(destination, measure.GUEST_MIB * MIB)
        destination.console.wait_pattern(more=1, passes=1)
    log.unlink(missing_ok=True)
    text = (f"  Live migration of the shrunk guest: {info['total-time']} ms, {mib(info['ram']['transferred'])} sent, "
            f"paused for {info.get('downtime', 0)} ms.\n"
            f"  On the destination every byte of the guest's {PATTERN_MIB} MiB pattern is right, and the guest grew "
            f"back to {measure.GUEST_MIB // 1024} GiB.")
    return result, text


def main() -> int:
    hostsetup.Ending()
    accel = settings.accel()
    try:
        stock = measure.measure(STOCK, "demo-stock", progress)
        ours, migration = ours_and_migration()
    except (GuestError, BalloonError, ConsoleError, MigrationError, QmpError, QmpTimeout) as error:
        print(f"demo: failed: {error}\nConsole logs: {settings.build() / 'e2e'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: stopped", file=sys.stderr)
        return 130
    print(f"\nThe same guest ({measure.GUEST_MIB // 1024} GiB, {measure.TOUCH_MIB / 1024:g} GiB touched, "
          f"init_on_alloc=0, {accel}), two balloons, one QEMU:\n")
    print(table(stock, ours))
    print(f"\n{migration}")
    if ours.released < RELEASED_MIN:
        print(f"demo: failed: the host got back {ours.released:.1%} of what the balloon holds, "
              f"less than {RELEASED_MIN:.0%}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
