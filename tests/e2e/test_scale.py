# SPDX-License-Identifier: GPL-2.0-or-later
"""What a balloon for a very large guest costs in the host's memory. How long it takes is a benchmark (./hpb bench scale)."""
from __future__ import annotations

from pathlib import Path

import pytest

from hpbtest import hostmem
from hpbtest.guest import MIB
from hpbtest.scripted import DEFLATE, GIB, HIGH, INFLATE, Machine

MEMORY = 1024 * GIB
OUT = 512 * GIB
MOST = 100 * MIB


def test_a_terabyte(tmp_path):
    """1 TiB that nobody touched: device, 512 GiB out and back, and a migration cost less than 100 MiB each."""
    if Path("/proc/sys/vm/overcommit_memory").read_text(encoding="utf-8").strip() == "2":
        pytest.skip("this host hands out no more memory than it has (sysctl vm.overcommit_memory=0)")
    ranges = [(HIGH + offset, GIB) for offset in range(0, OUT, GIB)]
    uri = f"unix:{tmp_path / 'socket'}"
    with Machine(MEMORY, balloon=False) as machine:
        without = hostmem.peak(machine.pid)
    with Machine(MEMORY) as source, Machine(MEMORY, incoming=True) as destination:
        held = hostmem.peak(source.pid)
        assert held - without < MOST
        source.start_driver()
        source.request(INFLATE, ranges)
        assert source.qmp.execute("query-balloon")["actual"] == MEMORY - OUT
        assert hostmem.peak(source.pid) - held < MOST
        held = hostmem.forget_peak(source.pid)
        source.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        destination.qmp.execute("migrate-incoming", uri=uri)
        source.qmp.execute("migrate", uri=uri)
        source.qmp.wait_event("MIGRATION", 120, lambda data: data["status"] in ("completed", "failed"))
        info = source.qmp.execute("query-migrate")
        assert info["status"] == "completed", info
        assert info["ram"]["skipped-discarded-bytes"] == OUT
        assert info["ram"]["duplicate"] + info["ram"]["normal"] < 10000
        assert hostmem.peak(source.pid) - held < MOST
        assert destination.qmp.execute("query-balloon")["actual"] == MEMORY - OUT
        assert hostmem.peak(destination.pid) - without < MOST
        source.qmp.execute("cont")
        source.request(DEFLATE, ranges)
        assert source.qmp.execute("query-balloon")["actual"] == MEMORY
        assert hostmem.peak(source.pid) - held < MOST
