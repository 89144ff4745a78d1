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


def migrate(source: Guest, destination: Guest, timeout: float = MIGRATION_SECONDS,
            capabilities: dict[str, bool] | None = None, postcopy: bool = False) -> dict[str, Any]:
    """Migrate and wait until the guest runs on the destination; returns query-migrate of the source.

    With postcopy (and its capability) the guest is switched over as soon as the migration is active.
    """
    flags = {"events": True, **(capabilities or {})}
    for guest in (source, destination):
        guest.qmp.execute("migrate-set-capabilities",
                          capabilities=[{"capability": k, "state": v} for k, v in flags.items()])
        guest.qmp.execute("migrate-set-parameters", max_bandwidth=UNLIMITED)
    with tempfile.TemporaryDirectory(prefix="hpb-mig-") as directory:
        uri = f"unix:{Path(directory) / 'socket'}"
        destination.qmp.execute("migrate-incoming", uri=uri)
        source.qmp.drain()
        source.qmp.execute("migrate", uri=uri)
        if postcopy:
            source.qmp.wait_event("MIGRATION", timeout, lambda data: data["status"] == "active")
            source.qmp.execute("migrate-start-postcopy")
        end = source.qmp.wait_event("MIGRATION", timeout,
                                    lambda data: data["status"] in ("completed", "failed", "cancelled"))
        info = source.qmp.execute("query-migrate")
        if end["status"] != "completed":
            raise MigrationError(f"migration {end['status']}: {info.get('error-desc', 'QEMU gives no reason')}; "
                                 f"destination said: {destination.stderr().strip() or 'nothing'}")
        destination.qmp.wait_event("RESUME", timeout)
    return info
