# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that a guest lends for the time of a migration (DEV-33, DRV-27): not sent, and back afterwards."""
from __future__ import annotations

import time
from typing import Any

import pytest

from hpbtest.balloon import actual, qom_path, resize, wait_actual
from hpbtest.disk import MOUNT, READ_ALL, Disk
from hpbtest.guest import MIB, Guest
from hpbtest.inguest import meminfo, vmstat
from hpbtest.migrate import Migration, migrate

SIZE = 4096
FREED = 3000
CACHE = 2560
# An emulated guest on a busy host takes seconds to lend what it can.
PATIENCE_MS = 30000


def session(guest: Guest) -> dict[str, Any]:
    """What the device says of the loan."""
    return guest.qmp.qom_get(qom_path(), "migration-session")


def wait_lent(guest: Guest, least: int) -> None:
    """Wait until so many bytes are lent."""
    deadline = time.monotonic() + 60
    while session(guest)["lent"] < least:
        assert time.monotonic() < deadline, session(guest)
        time.sleep(0.05)


def sent(boot, lend: str, **options: Any) -> int:
    """Bytes that are sent of a guest that has used and freed most of its memory."""
    balloon = {"migration_lend": lend, "migration_lend_time": PATIENCE_MS}
    source = boot(memory=SIZE, append="hpb.pattern=16", options=balloon, **options)
    source.run(f"hpb-touch -p random {FREED}", timeout=120)
    destination = boot(memory=SIZE, incoming=True, options=balloon, **options)
    info = migrate(source, destination)
    wait_actual(destination, SIZE * MIB)
    most = session(source)["most-lent"]
    assert (most > FREED * MIB) == (lend != "off"), f"{most // MIB} MiB were lent"
    destination.console.wait_pattern(more=1, passes=1)
    source.stop()
    destination.stop()
    return info["ram"]["transferred"]


def test_freed_memory_is_lent(boot):
    """3 GiB of random bytes that nobody needs: an eighth or less is sent (`./hpb bench lending` says how much), and the guest has its memory back."""
    plain = sent(boot, "off")
    lent = sent(boot, "free")
    assert plain > FREED * MIB
    assert lent <= plain / 8, f"{lent // MIB} MiB of {plain // MIB} MiB"


def test_page_cache_is_lent(boot, tmp_path):
    """Clean page cache is not sent either (a fifth or less of all; `./hpb bench lending` says how much), and is read again from its files."""
    disk = Disk(tmp_path, CACHE)
    balloon = {"migration_lend": "clean", "migration_lend_time": PATIENCE_MS}
    source = boot(memory=SIZE, append="hpb.pattern=16", options=balloon, devices=disk.args())
    source.run(MOUNT)
    source.run(READ_ALL, timeout=300)
    assert meminfo(source, "Cached") > CACHE * MIB
    used = meminfo(source, "MemTotal") - meminfo(source, "MemFree")
    before = vmstat(source)
    destination = boot(memory=SIZE, incoming=True, options=balloon, devices=disk.args())
    info = migrate(source, destination)
    # without a loan all that is in use is sent
    assert info["ram"]["transferred"] <= used / 5, f"{info['ram']['transferred'] // MIB} MiB of {used // MIB} MiB"
    wait_actual(destination, SIZE * MIB)
    after = vmstat(destination)
    for name in ("pswpout", "oom_kill", "nr_vmscan_write"):
        assert after[name] == before[name], name
    name, md5 = next(iter(disk.files.items()))
    assert destination.run(f"md5sum /mnt/{name}", timeout=120).output.split()[0] == md5
    destination.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("end", ["cancel", "resize", "destination killed"])
def test_everything_comes_back(boot, series, end):
    """However the migration ends, or a size is set meanwhile: the source has what it should have."""
    source = boot(series, memory=1024, append="hpb.pattern=64", options={"migration_lend": "free"})
    resize(source, 800 * MIB)
    destination = boot(series, memory=1024, incoming=True)
    migration = Migration(source, destination, bandwidth=MIB)
    migration.wait_active()
    wait_lent(source, 300 * MIB)
    size = 800 * MIB
    if end == "cancel":
        source.qmp.execute("migrate_cancel")
    elif end == "resize":
        size = 900 * MIB
        resize(source, size)
        assert not session(source)["active"]
        source.qmp.execute("migrate_cancel")
    else:
        destination.stop()
    wait_actual(source, size)
    source.console.wait_pattern(more=1, passes=1)


def test_what_a_program_needs_comes_back(boot, series):
    """A program that starts meanwhile has memory, without deflate-on-oom and without a kill."""
    source = boot(series, memory=2048, append="hpb.pattern=64", options={"migration_lend": "free"})
    destination = boot(series, memory=2048, incoming=True, options={"migration_lend": "free"})
    migration = Migration(source, destination, bandwidth=MIB)
    migration.wait_active()
    wait_lent(source, 1500 * MIB)
    result = source.run("hpb-touch -s 1000", timeout=120, check=False)
    assert "TOUCHED 1000" in result.output, f"{result.output}, {session(source)}"
    assert vmstat(source)["oom_kill"] == 0
    assert actual(source) >= 1000 * MIB
    migration.finish()
    wait_actual(destination, 2048 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_postcopy(boot):
    """What was lent comes back when postcopy is over."""
    source = boot(memory=1024, append="hpb.pattern=64", options={"migration_lend": "free"})
    destination = boot(memory=1024, incoming=True, options={"migration_lend": "free"})
    migrate(source, destination, capabilities={"postcopy-ram": True}, postcopy=True)
    wait_actual(destination, 1024 * MIB)
    destination.console.wait_pattern(more=1, passes=1)
