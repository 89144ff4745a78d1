# SPDX-License-Identifier: GPL-2.0-or-later
"""virsh setmem of both balloons, by one unmodified libvirtd, in turns (A B A B ...).

From the command until virsh dommemstat shows the new size. One virsh process
gives all commands, so that what is measured is not how fast virsh starts.
"""
from __future__ import annotations

import dataclasses
import re
import statistics
import subprocess
import time

from hpbtest import settings
from hpbtest.balloon import BalloonError
from hpbtest.guest import OURS, STOCK
from hpbtest.libvirt import Domain, Libvirtd, missing
from report import Report, Series, how_often, spreads, table

SIZE = 4096
SMALL = 1024
TOUCH = 3584
PATIENCE = 120.0
NAMES = {STOCK: "virtio-balloon", OURS: "virtio-balloon-hp"}


@dataclasses.dataclass
class Sample:
    """Milliseconds."""
    shrink: float
    grow: float


class Shell:
    """virsh that reads commands. It echoes them; the quotes tell the echo from what it says."""

    def __init__(self, daemon: Libvirtd):
        self._process = daemon.popen(stdin=subprocess.PIPE)

    def close(self) -> None:
        """Leave it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def ask(self, command: str) -> str:
        """One command; returns what virsh prints."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f'{command}\necho --"end"--\n')
        self._process.stdin.flush()
        said = []
        for line in self._process.stdout:
            if "--end--" in line:
                return "".join(said)
            said.append(line)
        raise BalloonError(f"virsh ended at '{command}': {''.join(said).strip()}")

    def setmem(self, name: str, mib: int) -> float:
        """Set it and wait until the guest is there; returns seconds."""
        begin = time.monotonic()
        self.ask(f"setmem {name} {mib}M --live")
        while True:
            said = self.ask(f"dommemstat {name}")
            actual = re.search(r"^actual (\d+)", said, re.MULTILINE)
            if actual and int(actual[1]) == mib * 1024:
                return time.monotonic() - begin
            if not actual or time.monotonic() - begin > PATIENCE:
                raise BalloonError(f"{name} does not reach {mib} MiB; virsh dommemstat: {said.strip()}")


def measure(daemon: Libvirtd, driver: str, number: int) -> Sample:
    """One guest: down and up."""
    one = Domain(daemon, f"bench-{NAMES[driver]}-{number}", memory=SIZE, driver=driver, append=f"hpb.touch={TOUCH}")
    shell = Shell(daemon)
    try:
        one.define()
        one.start()
        return Sample(1000 * shell.setmem(one.name, SMALL), 1000 * shell.setmem(one.name, SIZE))
    finally:
        shell.close()
        one.close()


def run(rounds: int) -> Report:
    """All rounds."""
    if reason := missing():
        raise BalloonError(reason)
    runs: dict[str, list[Sample]] = {driver: [] for driver in NAMES}
    with Libvirtd("bench") as daemon:
        version = daemon.virsh("--version").strip()
        for number in range(rounds):
            for driver, name in NAMES.items():
                one = measure(daemon, driver, number)
                runs[driver].append(one)
                print(f"round {number + 1}/{rounds} {name:<18} shrink {one.shrink:8.1f} ms   grow {one.grow:8.1f} ms", flush=True)

    def middle(driver: str, field: str) -> float:
        return statistics.median(getattr(one, field) for one in runs[driver])
    series = [Series(what, name, "milliseconds", [getattr(one, field) for one in runs[driver]])
              for what, field in ((f"setmem {SIZE // 1024} -> {SMALL // 1024} GiB", "shrink"), (f"setmem {SMALL // 1024} -> {SIZE // 1024} GiB", "grow"))
              for driver, name in NAMES.items()]
    text = "\n\n".join([
        spreads(series),
        table(["", "measured"], [[f"{field}, times faster than virtio-balloon", f"{middle(STOCK, field) / middle(OURS, field):.1f}"]
                                 for field in ("shrink", "grow")]),
        f"{how_often(rounds)}, accelerator {settings.accel()}, libvirt {version}. From `virsh setmem --live` until `virsh dommemstat` shows the size; "
        f"the guest has used {TOUCH} MiB before."])
    return Report(text, {"accel": settings.accel(), "runs": {NAMES[driver]: [dataclasses.asdict(one) for one in found] for driver, found in runs.items()}}, series)
