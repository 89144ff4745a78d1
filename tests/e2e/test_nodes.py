# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets of NUMA nodes: memory comes from the node that is asked, in the guest and on the host (DRV-24, DEV-28, DEV-29)."""
from __future__ import annotations

import pytest

from hpbtest import hostmem
from hpbtest.balloon import actual, qom_path, resize, set_node_targets, set_target, wait_actual, wait_nodes
from hpbtest.guest import MIB
from hpbtest.qmp import QmpError

NODE = 512 * MIB
NOISE = 16 * MIB


def two_nodes(first="memory-backend-ram,id=m0", second="memory-backend-ram,id=m1"):
    """Arguments for two nodes of 512 MiB."""
    return ["-object", f"{first},size=512M", "-object", f"{second},size=512M",
            "-numa", "node,memdev=m0,cpus=0", "-numa", "node,memdev=m1,cpus=1"]


def guest_totals(guest):
    """MemTotal of each node in the guest's kernel, in bytes."""
    out = guest.run("sed -n 's/^Node [0-9]* MemTotal: *\\([0-9]*\\) kB/\\1/p' /sys/devices/system/node/node[01]/meminfo").output
    return [int(word) * 1024 for word in out.split()]


def test_each_node_has_its_target(boot, series):
    """Down and up on one node, the other one untouched; both at once; back to a target for all."""
    guest = boot(series, memory=1024, append="hpb.touch=600 hpb.pattern=64", args=two_nodes())
    before = guest_totals(guest)
    set_node_targets(guest, [NODE, 200 * MIB])
    wait_nodes(guest, [NODE, 200 * MIB])
    assert actual(guest) == 712 * MIB
    after = guest_totals(guest)
    assert after[0] == before[0] and before[1] - after[1] == NODE - 200 * MIB
    set_node_targets(guest, [300 * MIB, NODE])
    wait_nodes(guest, [300 * MIB, NODE])
    after = guest_totals(guest)
    assert before[0] - after[0] == NODE - 300 * MIB and after[1] == before[1]
    set_node_targets(guest, [320 * MIB, 256 * MIB])
    wait_nodes(guest, [320 * MIB, 256 * MIB])
    guest.console.wait_pattern(more=1, passes=1)
    set_target(guest, 1024 * MIB)
    wait_actual(guest, 1024 * MIB)
    assert guest_totals(guest) == before
    guest.console.wait_pattern(more=1, passes=1)


def test_what_one_node_lacks_is_not_taken_from_another(boot):
    """A node that cannot give all it is asked for stops short; the other keeps its memory."""
    guest = boot(memory=1024, append="hpb.pattern=64", args=two_nodes())
    before = guest_totals(guest)
    set_node_targets(guest, [2 * MIB, NODE])
    guest.console.wait_pattern(more=1, passes=2)
    assert guest_totals(guest)[1] == before[1]
    assert 512 * MIB < actual(guest) < 1024 * MIB - 100 * MIB
    set_node_targets(guest, [NODE, NODE])
    wait_nodes(guest, [NODE, NODE])
    guest.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("sizes,error", [([NODE], "2"), ([NODE] * 3, "2"), ([NODE, -1], "")])
def test_targets_that_make_no_sense(boot, sizes, error):
    """A wrong number of nodes or a size that is none: refused, nothing changes."""
    guest = boot(memory=1024, args=two_nodes())
    resize(guest, 900 * MIB)
    with pytest.raises(QmpError, match=error):
        set_node_targets(guest, sizes)
    assert actual(guest) == 900 * MIB
    assert guest.qmp.qom_get(qom_path(), "requested-size") == 124 * MIB


def test_nodes_with_different_backings(boot):
    """One node in huge pages of a pool, one in ordinary memory: each gives back what it is asked for, where it came from."""
    free = hostmem.pool_free()
    if free < 256:
        pytest.skip(f"needs 256 free 2 MiB huge pages, this host has {free} (vm.nr_hugepages)")
    guest = boot(memory=1024, append="hpb.touch=700 hpb.pattern=64",
                 args=two_nodes(second="memory-backend-memfd,id=m1,hugetlb=on,hugetlbsize=2M,prealloc=on"))
    left, rss = hostmem.pool_free(), hostmem.process(guest.pid).rss
    set_node_targets(guest, [NODE, 256 * MIB])
    wait_nodes(guest, [NODE, 256 * MIB])
    assert hostmem.pool_free() - left == 256 * MIB // (2 * MIB)
    assert abs(hostmem.process(guest.pid).rss - rss) < NOISE
    set_node_targets(guest, [256 * MIB, NODE])
    wait_nodes(guest, [256 * MIB, NODE])
    assert hostmem.pool_free() == left
    assert rss - hostmem.process(guest.pid).rss > 100 * MIB
    guest.console.wait_pattern(more=1, passes=1)
    set_target(guest, 1024 * MIB)
    wait_actual(guest, 1024 * MIB)
    guest.console.wait_pattern(more=1, passes=1)
