# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine types, memory backends, queue layouts: the balloon works in all of them."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpbtest import hostmem
from hpbtest.balloon import actual, counters, driver_status, resize, set_target, wait_actual
from hpbtest.guest import MIB, OURS, GuestError

MICROVM = "microvm,pit=on,pic=on,rtc=on"  # without KVM's clock a kernel needs these to calibrate
NOISE = 8 * MIB


def there_and_back(guest, small):
    """Shrink and grow while the guest checks its memory."""
    guest.console.wait_pattern(more=1)
    resize(guest, small)
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, guest.memory * MIB)
    guest.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_pci_machines(boot, series, machine):
    """pc and q35."""
    there_and_back(boot(series, memory=1024, machine=machine, append="hpb.pattern=64"), 400 * MIB)


def test_microvm(boot, series):
    """The device on virtio-mmio."""
    guest = boot(series, driver="virtio-balloon-hp-device", memory=1024, machine=MICROVM, append="hpb.pattern=64",
                 args=["-global", "virtio-mmio.force-legacy=false"])
    there_and_back(guest, 400 * MIB)


def test_packed_ring(boot, series):
    """packed=on is negotiated and works."""
    guest = boot(series, memory=1024, options={"packed": "on"}, append="hpb.pattern=64")
    features = guest.run("cat /sys/bus/virtio/drivers/virtio_balloon_hp/virtio*/features").output.strip()
    assert features[34] == "1", f"VIRTIO_F_RING_PACKED is not negotiated: {features}"
    there_and_back(guest, 400 * MIB)


def test_access_platform_is_refused_or_cleared(boot):
    """Ranges are physical addresses: an IOMMU for the device is an error that says so (DRV-2)."""
    with pytest.raises(GuestError, match="iommu_platform=on is not possible"):
        boot(memory=512, driver=None, devices=["-device", f"{OURS},iommu_platform=on"])


def test_two_numa_nodes(boot, series):
    """Two memory backends: memory comes from both and goes back to both."""
    guest = boot(series, memory=1024, append="hpb.touch=700 hpb.pattern=64", args=[
        "-object", "memory-backend-ram,id=m0,size=512M", "-object", "memory-backend-ram,id=m1,size=512M",
        "-numa", "node,memdev=m0,cpus=0", "-numa", "node,memdev=m1,cpus=1"])
    nodes = "cat /sys/devices/system/node/node0/meminfo /sys/devices/system/node/node1/meminfo | " \
            "sed -n 's/.*MemFree: *\\([0-9]*\\) kB/\\1/p'"
    before = [int(n) for n in guest.run(nodes).output.split()]
    rss = hostmem.process(guest.pid).rss
    assert len(before) == 2
    resize(guest, 400 * MIB)  # two nodes have two reserves: less is below the guest's floor
    after = [int(n) for n in guest.run(nodes).output.split()]
    assert all(b - a > 64 * 1024 for a, b in zip(after, before)), f"free before {before} kB, after {after} kB"
    assert hostmem.process(guest.pid).rss < rss
    resize(guest, 1024 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_movable_memory(boot, series):
    """A DIMM that Linux keeps movable is given up like other memory, and can go offline while it is."""
    guest = boot(series, memory=1024, append="hpb.pattern=64 memhp_default_state=online_movable",
                 args=["-m", "size=1024M,slots=1,maxmem=8G", "-object", "memory-backend-ram,id=d,size=1G",
                       "-device", "pc-dimm,memdev=d"])
    movable = "sed -n '/zone *Movable/,/nr_free/s/^ *managed *//p' /proc/zoneinfo"
    before = int(guest.run(movable).output)
    assert before == 1024 * MIB // 4096
    resize(guest, 1024 * MIB)
    taken = before - int(guest.run(movable).output)
    assert taken >= 512 * MIB // 4096, f"{taken} pages of ZONE_MOVABLE"
    block = "/sys/devices/system/memory/memory32/state"  # 4 GiB, where the DIMM begins
    guest.run(f"echo offline > {block}")
    assert guest.run(f"cat {block}").output.strip() == "offline"
    wait_actual(guest, 1024 * MIB)  # others are taken instead
    guest.console.wait_pattern(more=1, passes=1)
    guest.run(f"echo online_movable > {block}")
    resize(guest, 2048 * MIB)
    assert int(guest.run(movable).output) == before
    guest.console.wait_pattern(more=1, passes=1)


def test_memfd(boot):
    """Memory in a memfd is given back."""
    guest = boot(memory=1024, machine="pc,memory-backend=m", append="hpb.touch=700 hpb.pattern=64",
                 args=["-object", "memory-backend-memfd,id=m,size=1G,share=on"])
    guest.console.wait_pattern(more=1)
    assert hostmem.memfd_allocated(guest.pid) > 700 * MIB
    resize(guest, 400 * MIB)
    assert hostmem.memfd_allocated(guest.pid) <= 400 * MIB + NOISE
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, 1024 * MIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_private_file_stays(boot):
    """Freeing memory that maps a file privately would change the file: QEMU says so, and the guest keeps all of it."""
    guest = boot(memory=1024, machine="pc,memory-backend=m", append="hpb.touch=700 hpb.pattern=64",
                 args=["-object", "memory-backend-memfd,id=m,size=1G,share=off"])
    assert re.search(r"warning: .*RAM block 'm' stays with the guest: .*private mapping.*share=on", guest.stderr())
    set_target(guest, 400 * MIB)
    guest.console.wait_pattern(more=1, passes=2)
    assert driver_status(guest)["stop"] == "the host refuses"
    assert counters(guest)["refused"]["denied"] > 0
    assert actual(guest) == 1024 * MIB
    assert guest.run("dmesg | grep -c 'MiB are out: the host refuses'").output.strip() == "1", "once in the guest's log"


def test_hugetlb(boot):
    """2 MiB hugetlb pages go back to the pool."""
    pool = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
    free = int((pool / "free_hugepages").read_text(encoding="utf-8"))
    if free < 512:
        pytest.skip(f"needs 512 free 2 MiB huge pages, this host has {free} (vm.nr_hugepages)")
    guest = boot(memory=1024, machine="pc,memory-backend=m", append="hpb.touch=900 hpb.pattern=64",
                 args=["-object", "memory-backend-memfd,id=m,size=1G,hugetlb=on,hugetlbsize=2M"])
    used = free - int((pool / "free_hugepages").read_text(encoding="utf-8"))
    resize(guest, 400 * MIB)
    back = used - (free - int((pool / "free_hugepages").read_text(encoding="utf-8")))
    assert back >= 0.99 * (used - 200)
    guest.console.wait_pattern(more=1, passes=1)
    assert actual(guest) == 400 * MIB
