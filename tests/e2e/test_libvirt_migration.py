# SPDX-License-Identifier: GPL-2.0-or-later
"""virsh migrate between two unmodified libvirtd: guests that are small, become small on the way, or lend what they do not need."""
from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack

import pytest

from hpbtest import hostsetup
from hpbtest.libvirt import OVERRIDE, Libvirtd

FULL = 1024
SMALL = 512
SLOW = 8  # MiB a second
FREED = 700

@pytest.mark.parametrize("how", ["direct", "p2p", "parallel", "postcopy"])
def test_migration_between_two_hosts(daemon, domain, how):
    """A shrunk guest moves to another libvirtd, and is resized there."""
    options = {"direct": [], "p2p": ["--p2p"], "parallel": ["--parallel", "--parallel-connections", "2"],
               "postcopy": ["--postcopy", "--postcopy-after-precopy"]}[how]
    one = domain()
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    with ExitStack() as stack:
        if how == "postcopy":
            try:
                stack.enter_context(hostsetup.sysctl("vm.unprivileged_userfaultfd", "1"))
            except hostsetup.HostLacks as error:
                pytest.skip(str(error))
        other = stack.enter_context(Libvirtd("two", daemon.emulator))
        one.virsh("migrate", "--live", *options, "--desturi", other.uri.replace("qemu:", "qemu+unix:"),
                  "--migrateuri", "tcp://127.0.0.1")
        one.connected(running=True, daemon=other)
        one.wait_actual(SMALL)
        one.console.wait_pattern(more=1, passes=1)
        one.setmem(FULL)
        one.wait_actual(FULL)
        one.console.wait_pattern(more=1, passes=1)
        one.close()


def arguments(other: Libvirtd) -> list[str]:
    """What virsh migrate is told about where to go."""
    return ["--live", "--desturi", other.uri.replace("qemu:", "qemu+unix:"), "--migrateuri", "tcp://127.0.0.1"]


def begin_slowly(one, other) -> subprocess.Popen[str]:
    """A migration in the background that will not end by itself; returns when it sends memory."""
    one.virsh("migrate-setspeed", str(SLOW))
    migration = one.daemon.popen("migrate", one.name, *arguments(other))
    deadline = time.monotonic() + 60
    while "Memory processed" not in one.virsh("domjobinfo", check=False):
        assert time.monotonic() < deadline and migration.poll() is None, migration.communicate()
        time.sleep(0.05)  # there is no event for it
    return migration


def test_resized_while_it_migrates(daemon, domain):
    """Libvirt has no setmem meanwhile, for any balloon; by the monitor it is done at once. On arrival libvirt asks for the size it knew at the start."""
    one = domain()

    def balloon(mib: int) -> None:
        one.virsh("qemu-monitor-command", "--hmp", f"balloon {mib}")
        one.wait_actual(mib)

    with Libvirtd("two", daemon.emulator) as other:
        migration = begin_slowly(one, other)
        balloon(SMALL)
        balloon(700)
        one.virsh("migrate-setspeed", "10000")
        assert migration.wait(120) == 0, migration.communicate()
        one.connected(running=True, daemon=other)
        one.wait_actual(FULL)
        one.console.wait_pattern(more=1, passes=1)
        one.setmem(SMALL)
        one.wait_actual(SMALL)
        one.close()


def test_aborted(daemon, domain):
    """virsh domjobabort: the guest stays, at the size it has, and is resized."""
    one = domain()
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    with Libvirtd("two", daemon.emulator) as other:
        migration = begin_slowly(one, other)
        one.virsh("domjobabort")
        said, _ = migration.communicate(timeout=60)
        assert migration.returncode and "operation aborted" in said, said
        assert one.name not in other.virsh("list", "--all", "--name").split()
    assert one.stats()["actual"] == SMALL * 1024
    one.setmem(FULL)
    one.wait_actual(FULL)
    one.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("lend", ["off", "free"])
def test_memory_is_lent(daemon, domain, lend):
    """With migration-lend=free in the override, what a program has used and freed is not sent; the size is as before."""
    lending = f"<qemu:property name='migration-lend' type='string' value='{lend}'/></qemu:frontend>"
    one = domain(override=OVERRIDE.replace("</qemu:frontend>", lending))
    one.run(f"hpb-touch -p random {FREED}")
    with Libvirtd("two", daemon.emulator) as other:
        one.virsh("migrate", *arguments(other), timeout=300.0)
        info = one.virsh("domjobinfo", "--completed")
        sent = next(line.split() for line in info.splitlines() if line.startswith("Data processed"))
        amount = float(sent[2]) * {"MiB": 1, "GiB": 1024, "KiB": 1 / 1024}[sent[3]]
        assert (amount > FREED) == (lend == "off"), f"{amount:.0f} MiB were sent"
        one.connected(running=True, daemon=other)
        one.wait_actual(FULL)
        one.console.wait_pattern(more=1, passes=1)
        one.close()
