# SPDX-License-Identifier: GPL-2.0-or-later
"""The libvirt of the next release, unpacked beside the machine's own: the tests that would notice a difference first.

HPB_LIBVIRT=TREE runs all tests of libvirt with another one (docs/HACKING.md).
"""
from __future__ import annotations

import os
import re
from typing import Iterator

import pytest

from hpbtest import settings
from hpbtest.libvirt import Libvirtd
from test_libvirt import test_attributes, test_balloon_change_event, test_dommemstat_has_all_statistics, test_save_and_restore, test_setmem

__all__ = ["test_attributes", "test_balloon_change_event", "test_dommemstat_has_all_statistics", "test_save_and_restore", "test_setmem"]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Libvirtd]:
    """One libvirtd of that release for all tests here."""
    tree = settings.newer_libvirt()
    if not tree.exists():
        pytest.skip("needs a libvirt newer than the machine's, from Debian 12's backports: ./hpb test e2e fetches it; Debian 13 has it itself")
    if os.getuid():
        pytest.skip("needs root, for a mount namespace with another libvirt in it")
    with Libvirtd("newer", tree=tree) as one:
        yield one


def test_version(daemon, domain):
    """It is another one that starts QEMU."""
    one = domain(ready=False)
    daemon.virsh("start", one.name)
    log = (daemon.root / f"cache_home/libvirt/qemu/log/{one.name}.log").read_text(encoding="utf-8", errors="replace")
    seen = re.search(r"libvirt version: (\d+)\.", log)
    assert seen and int(seen[1]) >= 11, log
