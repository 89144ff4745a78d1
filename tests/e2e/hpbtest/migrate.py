# SPDX-License-Identifier: GPL-2.0-or-later
"""Live migration of a guest to a second QEMU on this host over a unix socket."""
from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from .guest import Guest

MIGRATION_SECONDS = 120.0
UNLIMITED = 1 << 40  # bytes a second; more than any host


class MigrationError(Exception):
    """A migration failed."""


class Migration:
    """A migration under way, throttled to `bandwidth` bytes a second until finish()."""

    def __init__(self, source: Guest, destination: Guest, capabilities: dict[str, bool] | None = None, bandwidth: int = UNLIMITED):
        self.source = source
        self.destination = destination
        self._resumed = False
        flags = {"events": True, **(capabilities or {})}
        for guest in (source, destination):
            guest.qmp.execute("migrate-set-capabilities",
                              capabilities=[{"capability": k, "state": v} for k, v in flags.items()])
        source.qmp.execute("migrate-set-parameters", max_bandwidth=bandwidth)
        destination.qmp.execute("migrate-set-parameters", max_bandwidth=UNLIMITED)
        self._directory = tempfile.TemporaryDirectory(prefix="hpb-mig-")
        uri = f"unix:{Path(self._directory.name) / 'socket'}"
        destination.qmp.execute("migrate-incoming", uri=uri)
        source.qmp.drain()
        source.qmp.execute("migrate", uri=uri)

    def wait_active(self, timeout: float = MIGRATION_SECONDS) -> None:
        """Wait until pages are being sent."""
        self.source.qmp.wait_event("MIGRATION", timeout, lambda data: data["status"] == "active")

    def start_postcopy(self) -> None:
        """Let the guest run on the destination from now on."""
        self.source.qmp.execute("migrate-set-parameters", max_bandwidth=UNLIMITED, max_postcopy_bandwidth=0)
        self.source.qmp.execute("migrate-start-postcopy")

    def wait_resumed(self, timeout: float = MIGRATION_SECONDS) -> None:
        """Wait until the guest runs on the destination; with postcopy its memory may still be coming."""
        if not self._resumed:
            self.destination.qmp.wait_event("RESUME", timeout)
            self._resumed = True

    def finish(self, timeout: float = MIGRATION_SECONDS) -> dict[str, Any]:
        """Without a limit from now on, to the end; returns query-migrate of the source."""
        self.source.qmp.execute("migrate-set-parameters", max_bandwidth=UNLIMITED)
        end = self.source.qmp.wait_event("MIGRATION", timeout,
                                         lambda data: data["status"] in ("completed", "failed", "cancelled"))
        self._directory.cleanup()
        info = self.source.qmp.execute("query-migrate")
        if end["status"] != "completed":
            raise MigrationError(f"migration {end['status']}: {info.get('error-desc', 'QEMU gives no reason')}; "
                                 f"destination said: {self.destination.stderr().strip() or 'nothing'}")
        self.wait_resumed(timeout)
        return info


def migrate(source: Guest, destination: Guest, timeout: float = MIGRATION_SECONDS,
            capabilities: dict[str, bool] | None = None, postcopy: bool = False) -> dict[str, Any]:
    """Migrate and wait until the guest runs on the destination; returns query-migrate of the source.

    With postcopy (and its capability) the guest is switched over as soon as the migration is active.
    """
    migration = Migration(source, destination, capabilities)
    if postcopy:
        migration.wait_active(timeout)
        migration.start_postcopy()
    return migration.finish(timeout)
