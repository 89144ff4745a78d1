# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the end-to-end tests: guests with our balloon, on each guest kernel."""
from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hpbtest import hostsetup  # noqa: E402
from hpbtest.guest import OURS, Guest, balloon_device  # noqa: E402
from hpbtest.libvirt import Domain, Libvirtd, missing  # noqa: E402

KERNELS = ["6.12", "6.1"]
ENDING = pytest.StashKey[hostsetup.Ending]()


def pytest_configure(config: pytest.Config) -> None:
    """A run that is killed puts back the settings of the host, and stops its guests."""
    config.stash[ENDING] = hostsetup.Ending()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Nothing more begins then."""
    if item.config.stash[ENDING].began:
        pytest.exit("killed", returncode=130)


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


@pytest.fixture(scope="session")
def daemon() -> Iterator[Libvirtd]:
    """One libvirtd for all tests with libvirt."""
    if reason := missing():
        pytest.skip(reason)
    with Libvirtd() as one:
        yield one


@pytest.fixture
def domain(daemon: Libvirtd, request: pytest.FixtureRequest) -> Iterator[Callable[..., Domain]]:
    """domain(...) starts one; it ends with the test, which fails if the guest's memory has changed."""
    domains: list[Domain] = []
    default = daemon

    def start(name: str = "", ready: bool = True, daemon: Libvirtd = default, extra: str = "", **more: Any) -> Domain:
        name = name or re.sub(r"\W", "-", request.node.name)
        one = Domain(daemon, name, append=f"hpb.pattern=64 {extra}".strip(), **more)
        domains.append(one)
        one.define()
        if ready:
            one.start()
        return one

    yield start
    bad = [line for one in domains if hasattr(one, "console") for line in one.console.pattern.bad]
    for one in domains:
        one.close()
    assert not bad, f"guest memory changed: {bad}"
