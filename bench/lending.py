# SPDX-License-Identifier: GPL-2.0-or-later
"""What a migration need not send if the guest lends it, in turns (A B A B ...).

freed       3 GiB filled with random bytes and freed again, of 4 GiB
page cache  2.5 GiB of clean page cache of files on ext4, of 4 GiB

Each without a loan and with one ("free", "clean"), over a unix socket without a limit.
The time until the guest has its memory back counts from the end of the migration.
"""
from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

from hpbtest import settings
from hpbtest.balloon import qom_path, wait_actual
from hpbtest.disk import MOUNT, READ_ALL, Disk
from hpbtest.guest import MIB, OURS, Guest, balloon_device
from hpbtest.migrate import migrate
from report import Report, Series, Target, how_often, span, table, verdicts

SIZE = 4096
FREED = 3072
CACHE = 2560
PATTERN = 16
# What dropping page cache may take: seconds, where the guest is emulated.
PATIENCE = 30000
# Policy, least share that is not sent.
CASES = {"freed": ("free", 90.0), "page cache": ("clean", 85.0)}


@dataclasses.dataclass
class Sample:
    """Bytes; milliseconds."""
    sent: int
    total: float
    back: float
    lent: int
    right: bool


def prepare(guest: Guest, case: str) -> None:
    """Have the memory that is not needed."""
    if case == "freed":
        guest.run(f"hpb-touch -p random {FREED}", timeout=120)
    else:
        guest.run(MOUNT)
        guest.run(READ_ALL, timeout=300)


def measure(case: str, lend: str, name: str, disk: Disk) -> Sample:
    """Boot, prepare, migrate, look at the contents."""
    devices = balloon_device(OURS, migration_lend=lend, migration_lend_time=PATIENCE) + disk.args()
    source = Guest(name, memory=SIZE, devices=devices, append=f"init_on_alloc=0 hpb.pattern={PATTERN}")
    destination = Guest(f"{name}-to", memory=SIZE, devices=devices, incoming=True)
    with source, destination:
        prepare(source, case)
        info = migrate(source, destination)
        end = time.perf_counter()
        wait_actual(destination, SIZE * MIB)
        back = time.perf_counter() - end
        lent = source.qmp.qom_get(qom_path(), "migration-session")["most-lent"]
        right = case == "freed" or all(destination.run(f"md5sum /mnt/{file}", timeout=120).output.split()[0] == md5
                                       for file, md5 in disk.files.items())
        destination.console.wait_pattern(more=1, passes=1)
    return Sample(info["ram"]["transferred"], info["total-time"], 1000 * back, lent, right)


Runs = dict[tuple[str, str], list[Sample]]


def middle(runs: Runs, case: str, lend: str, field: str) -> float:
    """The median of a field."""
    return statistics.median(getattr(sample, field) for sample in runs[case, lend])


def reached(runs: Runs) -> list[Target]:
    """What shall be, and is."""
    found = []
    for case, (lend, share) in CASES.items():
        saved = 100 * (1 - middle(runs, case, lend, "sent") / middle(runs, case, "off", "sent"))
        found.append(Target(f"{case}: not sent, %", ">=", share, saved))
        found.append(Target(f"{case}: back in the guest, ms", "<=", 1000, middle(runs, case, lend, "back")))
        found.append(Target(f"{case}: contents wrong", "<=", 0, sum(not sample.right for sample in runs[case, lend])))
    return found


def run(rounds: int) -> Report:
    """All rounds."""
    runs: Runs = {(case, policy): [] for case, (lend, _) in CASES.items() for policy in ("off", lend)}
    with tempfile.TemporaryDirectory(prefix="hpb-lending-", dir="/var/tmp") as directory:
        disk = Disk(Path(directory), CACHE)
        for number in range(rounds):
            for case, lend in runs:
                one = measure(case, lend, f"bench-lending-{case.replace(' ', '-')}-{lend}-{number}", disk)
                runs[case, lend].append(one)
                print(f"round {number + 1}/{rounds} {case:<10} lend={lend:<5} {one.sent / MIB:8.1f} MiB {one.total:7.0f} ms", flush=True)
    targets = reached(runs)
    series = [Series(case, f"migration-lend={lend}", "MiB sent", [one.sent / MIB for one in found]) for (case, lend), found in runs.items()]
    text = "\n\n".join([
        table(["guest", "migration-lend", "MiB sent", "total ms", "MiB lent", "back after ms"],
              [[case, lend, *(span([getattr(one, field) / scale for one in found]) for field, scale in (("sent", MIB), ("total", 1), ("lent", MIB), ("back", 1)))]
               for (case, lend), found in runs.items()]),
        verdicts(targets),
        f"{how_often(rounds)}, median (lowest-highest), accelerator {settings.accel()}. A guest of {SIZE // 1024} GiB; freed: it has filled {FREED} MiB with random bytes; page cache: it has read\n"
        f"{CACHE} MiB of files on ext4. \"total\" has the time in which the guest gives up what it lends."])
    return Report(text, {"accel": settings.accel(), "targets": [one.data() for one in targets],
                         "runs": {f"{case}: {lend}": [dataclasses.asdict(one) for one in found] for (case, lend), found in runs.items()}}, series)
