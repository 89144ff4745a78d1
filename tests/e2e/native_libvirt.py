# SPDX-License-Identifier: GPL-2.0-or-later
"""A libvirt with libvirt/patches, which knows the device by itself. Run by ./hpb test libvirt, which builds that libvirt, and by nothing else."""
from __future__ import annotations

from hpbtest.libvirt import Libvirtd

FULL = 1024
SMALL = 512
NATIVE = {"override": "", "model": "virtio-hp"}


def test_setmem(domain):
    """<memballoon model='virtio-hp'/>: no override, the attributes reach the device, it is resized and has statistics."""
    one = domain(balloon=" autodeflate='on' freePageReporting='on'", **NATIVE)
    assert "qemu:override" not in one.virsh("dumpxml")
    assert "<memballoon model='virtio-hp' autodeflate='on' freePageReporting='on'>" in one.virsh("dumpxml")
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    assert {"available", "unused", "usable", "disk_caches", "hugetlb_pgalloc"} <= set(one.stats())
    asked = one.virsh("qemu-monitor-command", '{"execute": "qom-list", "arguments": {"path": "/machine/peripheral"}}')
    assert "child<virtio-balloon-hp-pci>" in asked
    for name in ("deflate-on-oom", "free-page-reporting"):
        said = one.virsh("qemu-monitor-command", f'{{"execute": "qom-get", "arguments": {{"path": "/machine/peripheral/balloon0", "property": "{name}"}}}}')
        assert '"return":true' in said, f"{name}: {said}"
    one.setmem(FULL)
    one.wait_actual(FULL)
    one.console.wait_pattern(more=1, passes=1)


def test_save_and_migrate(daemon, domain):
    """The model stays with the domain: saved, restored and moved it has the size it had."""
    one = domain(**NATIVE)
    one.setmem(SMALL)
    one.wait_actual(SMALL)
    one.virsh("managedsave")
    daemon.virsh("start", one.name)
    one.connected(running=True)
    one.wait_actual(SMALL)
    with Libvirtd("two", daemon.emulator) as other:
        one.virsh("migrate", "--live", "--desturi", other.uri.replace("qemu:", "qemu+unix:"), "--migrateuri", "tcp://127.0.0.1")
        one.connected(running=True, daemon=other)
        one.wait_actual(SMALL)
        assert "<memballoon model='virtio-hp'>" in one.virsh("dumpxml")
        one.console.wait_pattern(more=1, passes=1)
        one.close()
