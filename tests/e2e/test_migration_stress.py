# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest, moved again and again while it is resized, in every way that works or fails (DEV-20, DEV-27).

Which way, which sizes and when is random, from a seed that is printed. HPB_MIGRATION_ROUNDS
says how many times (default: each way once), HPB_MIGRATION_SEED repeats a run.
"""
from __future__ import annotations

import os
import random

import pytest

from hpbtest import hostmem
from hpbtest.balloon import resize, set_target, wait_actual
from hpbtest.guest import MIB
from hpbtest.migrate import Migration
from hpbtest.qmp import QmpError

MEMORY = 1024
UNIT = 2
SMALLEST = 400
PATTERN = 48
SLACK = 128 * MIB       # of QEMU, and of what the emulator translates
SLOW = 48 * MIB         # bytes a second, so that there is a middle to do something in
SECONDS = 60.0
DOWNTIME_MAX = 3000     # milliseconds: ten times QEMU's limit, as hosts of tests are busy
WORKS = ("precopy", "multifd", "postcopy")
FAILS = ("canceled", "destination killed", "destination refuses")


class Traveller:
    """The guest, on whichever QEMU it is now, and the size it shall have."""

    def __init__(self, boot, rng):
        self._boot = boot
        self._rng = rng
        self.guest = boot(memory=MEMORY, append=f"hpb.pattern={PATTERN}")
        self.target = MEMORY * MIB

    def _new_target(self, guest):
        self.target = self._rng.randrange(SMALLEST, MEMORY + 1, UNIT) * MIB
        set_target(guest, self.target)

    def prepare(self):
        """Dirty some memory, then ask for another size: sometimes it is there when the migration begins, sometimes not."""
        room = self.target // MIB - PATTERN - 250
        if room > 0:
            amount = self._rng.randint(1, room)
            assert f"TOUCHED {amount}" in self.guest.run(f"hpb-touch -p random {amount}").output
        self._new_target(self.guest)
        if self._rng.random() < 0.5:
            wait_actual(self.guest, self.target)

    def _begin(self, way):
        options = {"unit": "8M"} if way == "destination refuses" else {}
        destination = self._boot(memory=MEMORY, options=options, incoming=True)
        try:
            migration = Migration(self.guest, destination, {"multifd": way == "multifd", "postcopy-ram": way == "postcopy"},
                                  bandwidth=SLOW)
        except QmpError as error:
            assert way == "postcopy", error
            pytest.skip(f"this host cannot do postcopy: {error}")
        return destination, migration

    def move(self, way):
        """A migration that works."""
        destination, migration = self._begin(way)
        migration.wait_active()
        if self._rng.random() < 0.7:
            self._new_target(self.guest)
        if way == "postcopy":
            migration.start_postcopy()
            # asked for while memory is still coming, or right after
            if self._rng.random() < 0.5:
                migration.wait_resumed(SECONDS)
                self._new_target(destination)
        info = migration.finish()
        assert info["downtime"] <= DOWNTIME_MAX, info
        self.guest.stop()
        self.guest = destination

    def fail(self, way):
        """A migration that does not: the guest stays where it is."""
        destination, migration = self._begin(way)
        if way == "destination refuses":
            status = "failed"
        else:
            migration.wait_active()
            if self._rng.random() < 0.7:
                self._new_target(self.guest)
            if way == "canceled":
                self.guest.qmp.execute("migrate_cancel")
                status = "cancelled"
            else:
                destination.process.kill()
                status = "failed"
        self.guest.qmp.wait_event("MIGRATION", SECONDS, lambda data: data["status"] == status)
        destination.stop()
        if self.guest.qmp.execute("query-status")["status"] != "running":
            self.guest.qmp.execute("cont")

    def check(self):
        """Size, contents, and what the host has of it."""
        wait_actual(self.guest, self.target)
        self.guest.console.wait_pattern(more=1, passes=1)
        # a change is answered after all that came in with a migration has been freed
        self.target += -UNIT * MIB if self.target > SMALLEST * MIB else UNIT * MIB
        resize(self.guest, self.target)
        rss = hostmem.guest_ram(self.guest.pid, MEMORY * MIB).rss
        assert rss <= self.target + SLACK, f"{rss // MIB} MiB are resident of a guest of {self.target // MIB} MiB"


def test_moved_again_and_again(boot):
    """After each migration, or attempt at one: the size asked for last, contents unchanged, nothing leaked."""
    seed = int(os.environ.get("HPB_MIGRATION_SEED") or random.SystemRandom().randrange(1 << 32))
    rounds = int(os.environ.get("HPB_MIGRATION_ROUNDS") or len(WORKS + FAILS))
    print(f"HPB_MIGRATION_SEED={seed} HPB_MIGRATION_ROUNDS={rounds}")
    rng = random.Random(seed)
    traveller = Traveller(boot, rng)
    ways: list[str] = []
    for number in range(rounds):
        if not ways:
            ways = rng.sample(WORKS + FAILS, len(WORKS + FAILS))
        way = ways.pop()
        traveller.prepare()
        print(f"round {number + 1}: {way}, to {traveller.target // MIB} MiB", flush=True)
        (traveller.move if way in WORKS else traveller.fail)(way)
        traveller.check()
