# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the end-to-end tests: guests with our balloon, on each guest kernel."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hpbtest.guest import OURS, Guest, balloon_device  # noqa: E402

KERNELS = ["6.12", "6.1"]


@pytest.fixture(params=KERNELS)
def series(request: pytest.FixtureRequest) -> str:
    """Guest kernel series; a test that uses it runs on each."""
    return request.param


@pytest.fixture
def boot(request: pytest.FixtureRequest) -> Iterator[Callable[..., Guest]]:
    """Start guests that end with the test; a test fails if the memory of any of them changed.

    boot(series, driver=OURS, options={...}, memory=..., append=..., ...): see Guest. The balloon
    is left out with driver=None. Logs of a failed test stay below build/e2e.
    """
    guests: list[Guest] = []

    def start(series: str = KERNELS[0], driver: str | None = OURS, options: dict[str, Any] | None = None,
              devices: list[str] | None = None, append: str = "", **more: Any) -> Guest:
        name = request.node.name.replace("[", "-").replace("]", "").replace("/", "-")
        balloon = balloon_device(driver, **(options or {})) if driver else []
        guest = Guest(name, series=series, devices=[*balloon, *(devices or [])],
                      append=f"init_on_alloc=0 {append}".strip(), **more)
        guests.append(guest)
        guest.start()
        return guest

    yield start
    bad = []
    for guest in guests:
        if hasattr(guest, "console"):
            bad += guest.console.pattern.bad
        guest.stop()
    assert not bad, f"guest memory changed: {bad}"
