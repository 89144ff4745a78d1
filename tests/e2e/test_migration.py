# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of guests with a full balloon (DEV-27). Path step [6], and the vmstate."""
from __future__ import annotations

import pytest

from hpbtest import hostmem
from hpbtest.balloon import actual, resize, set_target, wait_actual
from hpbtest.guest import MIB
from hpbtest.migrate import MigrationError, migrate


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_shrunk_guest_keeps_size_and_contents(boot, series, machine):
    """What is out arrives as out, what the guest has arrives as it was; the balloon works on the other side."""
    source = boot(series, memory=1024, machine=machine, append="hpb.touch=700 hpb.pattern=128")
    resize(source, 400 * MIB)
    source.console.wait_pattern(more=1)
    destination = boot(series, memory=1024, machine=machine, incoming=True)
    migrate(source, destination)
    assert actual(destination) == 400 * MIB
    destination.console.wait_pattern(more=2, passes=1)
    assert destination.qmp.qom_get("/machine/peripheral/balloon0", "actual-size") == 624 * MIB
    resize(destination, 1024 * MIB)
    destination.console.wait_pattern(more=1, passes=1)
    resize(destination, 400 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_destination_does_not_keep_what_is_out(boot):
    """After the migration the destination's host memory is that of the small guest."""
    source = boot(memory=2048, append="hpb.touch=1500")
    resize(source, 512 * MIB)
    destination = boot(memory=2048, incoming=True)
    migrate(source, destination)
    # Memory that came in with the stream is freed in the background after the load.
    wait_actual(destination, 512 * MIB)
    destination.run("sync")
    resize(destination, 514 * MIB)
    assert hostmem.guest_ram(destination.pid, 2048 * MIB).rss <= 600 * MIB


def test_resizing_while_migrating(boot):
    """Targets that change while the guest migrates are followed, on one side or the other."""
    source = boot(memory=1024, append="hpb.touch=700 hpb.pattern=128")
    resize(source, 400 * MIB)
    destination = boot(memory=1024, incoming=True)
    set_target(source, 900 * MIB)
    migrate(source, destination)
    wait_actual(destination, 900 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_target_before_the_state(boot):
    """A target set on the destination before its state arrives (libvirt does that) is the one that counts."""
    source = boot(memory=1024, append="hpb.pattern=64")
    resize(source, 400 * MIB)
    destination = boot(memory=1024, incoming=True)
    set_target(destination, 500 * MIB)
    migrate(source, destination)
    wait_actual(destination, 500 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_postcopy(boot):
    """Postcopy from the start: contents are right, and the balloon works afterwards."""
    source = boot(memory=1024, append="hpb.touch=700 hpb.pattern=128")
    resize(source, 400 * MIB)
    source.console.wait_pattern(more=1)
    destination = boot(memory=1024, incoming=True)
    try:
        destination.qmp.execute("migrate-set-capabilities",
                                capabilities=[{"capability": "postcopy-ram", "state": True}])
    except Exception as error:  # pylint: disable=broad-except # QEMU says what the host lacks
        pytest.skip(f"this host cannot do postcopy: {error}")
    migrate(source, destination, capabilities={"postcopy-ram": True}, postcopy=True)
    destination.console.wait_pattern(more=2, passes=1)
    assert actual(destination) == 400 * MIB
    resize(destination, 1024 * MIB)
    destination.console.wait_pattern(more=1, passes=1)


def test_destination_with_another_unit_refuses(boot):
    """A destination that cannot represent the state fails the load, and the source runs on."""
    source = boot(memory=1024, append="hpb.pattern=64")
    resize(source, 402 * MIB)
    destination = boot(memory=1024, options={"unit": "8M"}, incoming=True)
    with pytest.raises(MigrationError):
        migrate(source, destination)
    assert source.qmp.execute("query-status")["status"] in ("running", "postmigrate", "paused")
    source.qmp.execute("cont")
    source.console.wait_pattern(more=1, passes=1)
    resize(source, 1024 * MIB)
