# SPDX-License-Identifier: GPL-2.0-or-later
"""hpbctl against real guests, over a QMP socket: what it shows is so, and each failure says what to do and ends."""
from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import pytest

from hpbtest import libvirt
from hpbtest.balloon import actual, set_target, wait_actual
from hpbtest.guest import MIB, STOCK
from hpbtest.hpbctl import LIMIT, hpbctl, program, told


@pytest.fixture
def directory():
    """Where the sockets of VMs are."""
    with tempfile.TemporaryDirectory(prefix="hpb-ctl-") as name:
        yield Path(name)


@pytest.fixture
def vm(boot, directory):
    """Start a guest that has a QMP socket for hpbctl; returns it and the socket."""
    def start(name: str = "vm", **more):
        path = directory / f"{name}.sock"
        args = ["-qmp", f"unix:{path},server=on,wait=off", *more.pop("args", [])]
        return boot(args=args, **more), path

    return start


def test_list_and_status(vm, directory):
    """list has the guest, and names the socket that is dead; status tells the sizes that the device has."""
    guest, path = vm()
    assert [one["name"] for one in told("--dir", directory, "list")] == [guest.name]
    set_target(guest, 768 * MIB)
    wait_actual(guest, 768 * MIB)
    status = told("status", path)
    assert (status["size"], status["target"], status["ram"]) == (768 * MIB, 768 * MIB, 1024 * MIB)
    assert (status["driver"], status["balloon"], status["pid"]) == ("running", "virtio-balloon-hp", guest.pid)
    assert "768 MiB of 1 GiB" in hpbctl("--dir", directory, "status", "vm").stdout
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "dead.sock"))
    shown = told("--dir", directory, "list", status=1)
    assert "nobody listens" in shown[0]["error"] and shown[1]["size"] == 768 * MIB


def test_resize(vm):
    """Without --wait the request is made; with it the guest has the size when hpbctl ends, exactly."""
    guest, path = vm()
    result = told("resize", "--wait", path, "512M")
    assert (result["from"], result["size"], result["reached"]) == (1024 * MIB, 512 * MIB, True)
    assert actual(guest) == 512 * MIB and result["bytes-per-second"] > 0
    assert "was asked for 1 GiB" in hpbctl("resize", path, "1G").stdout or actual(guest) == 1024 * MIB
    wait_actual(guest, 1024 * MIB)
    text = hpbctl("resize", "--wait", path, "0.75G")
    assert "has 768 MiB" in text.stdout and "GiB/s" in text.stderr and "\r" not in text.stderr
    assert "no unit" in hpbctl("resize", path, "512", status=2).stderr


def test_resize_stops_short(vm):
    """A guest without driver: status 3, the reason, and the request stays."""
    guest, path = vm(append="hpb.skip=virtio_balloon_hp")
    run = hpbctl("resize", "--wait", "--timeout", 1, path, "512M", status=3)
    assert "load virtio_balloon_hp there" in run.stderr and "takes it back" in run.stderr
    assert actual(guest) == 1024 * MIB
    assert told("status", path)["target"] == 512 * MIB


def test_resize_paused(vm):
    """A paused guest is named as such."""
    guest, path = vm()
    guest.qmp.execute("stop")
    assert "'paused'" in hpbctl("resize", "--wait", "--timeout", 1, path, "512M", status=3).stderr
    guest.qmp.execute("cont")
    wait_actual(guest, 512 * MIB)


def test_resize_interrupted(vm):
    """Ctrl-C: status 130, the request stays, and both ways out are named."""
    guest, path = vm(append="hpb.skip=virtio_balloon_hp")
    with subprocess.Popen([str(program()), "resize", "--wait", str(path), "512M"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr and select.select([run.stderr], [], [], LIMIT)[0], "no line of progress"
        wait_target(path, guest)
        run.send_signal(signal.SIGINT)
        output = run.communicate(timeout=LIMIT)[1]
    assert run.returncode == 130, output
    assert "the request stays" in output and "1024M' takes it back" in output
    assert guest.qmp.qom_get("/machine/peripheral/balloon0", "requested-size") == 512 * MIB


def wait_target(path, guest):
    """Wait until QEMU has the request; its other socket is ours."""
    for _ in range(10000):
        if guest.qmp.qom_get("/machine/peripheral/balloon0", "requested-size"):
            return
    raise AssertionError(f"{path}: no request came")


def test_resize_of_a_node(vm):
    """One node shrinks, the other keeps its size; a node that is not there is refused."""
    nodes = ["-object", "memory-backend-ram,id=m0,size=512M", "-object", "memory-backend-ram,id=m1,size=512M",
             "-numa", "node,nodeid=0,memdev=m0", "-numa", "node,nodeid=1,memdev=m1"]
    guest, path = vm(args=nodes)
    assert told("resize", "--node", 1, "--wait", path, "256M")["size"] == 256 * MIB
    assert actual(guest) == 768 * MIB
    sizes = [node["actual-size"] for node in told("status", path)["nodes"]]
    assert sizes == [512 * MIB, 256 * MIB]
    assert "no NUMA node 2" in hpbctl("resize", "--node", 2, path, "256M", status=1).stderr
    assert [block["node"] for block in told("map", path)["blocks"]] == [0, 1]


def picture(path: Path) -> tuple[int, int, set[bytes]]:
    """Width, height and colours of a PNG of 8-bit RGB without interlacing, unfiltered by its own rules."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert (depth, colour) == (8, 2)
    raw, at = b"", 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        raw += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    lines, last, colours = zlib.decompress(raw), bytes(width * 3), set()
    for y in range(height):
        filtered, line = lines[y * (width * 3 + 1):(y + 1) * (width * 3 + 1)], bytearray(width * 3)
        for i, byte in enumerate(filtered[1:]):
            left, up, corner = (line[i - 3], last[i], last[i - 3]) if i >= 3 else (0, last[i], 0)
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda value, guess=guess: abs(guess - value))
            line[i] = (byte + (0, left, up, (left + up) // 2, paeth)[filtered[0]]) & 255
        colours |= {bytes(line[i:i + 3]) for i in range(0, width * 3, 3)}
        last = bytes(line)
    return width, height, colours


def test_map(vm, directory):
    """Out is what the device has out; the rest is what the host holds; text, SVG and PNG show it."""
    guest, path = vm(append="hpb.touch=700")
    before = told("map", path)["ranges"]
    assert before["ballooned"] == 0 and sum(before.values()) == 512
    assert before["huge"] + before["small"] + before["held"] > 300
    set_target(guest, 512 * MIB)
    wait_actual(guest, 512 * MIB)
    result = told("map", path, "--svg", directory / "a.svg", "--png", directory / "a.png")
    assert result["ranges"]["ballooned"] == 256 and result["ballooned-but-held"] == 0
    for block in result["blocks"]:
        assert sum(run["ranges"] for run in block["runs"]) * 2 * MIB == block["size"]
    text = hpbctl("map", path, env={**os.environ, "LC_ALL": "C.UTF-8"}).stdout
    assert "ballooned       256 ranges  512 MiB" in text and "░" in text and "\033" not in text
    assert "o ballooned" in hpbctl("map", path, env={**os.environ, "LC_ALL": "C"}).stdout
    assert ET.parse(directory / "a.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    width, height, colours = picture(directory / "a.png")
    assert width > 500 and height > 100 and {b"\x56\xb4\xe9", b"\xdd\xdd\xdd"} <= colours


def test_map_that_cannot_be_written(vm, directory):
    """A directory that is not there, and a process that is not the guest's."""
    _guest, path = vm()
    assert "no/a.svg" in hpbctl("map", path, "--svg", directory / "no/a.svg", status=1).stderr
    assert "--pid" in hpbctl("map", path, "--pid", os.getpid(), status=1).stderr


def test_stock_balloon(vm):
    """The traditional balloon is resized and mapped, and what it cannot tell is said."""
    _guest, path = vm(driver=STOCK, append="hpb.touch=700")
    assert told("status", path)["balloon"] == "virtio-balloon"
    before = told("map", path)
    assert sum(before["ranges"].values()) == 512 and "ballooned" not in before["ranges"] and not before["tells-ballooned"]
    assert told("resize", "--wait", path, "512M")["size"] == 512 * MIB
    after = told("map", path)["ranges"]
    assert after["untouched"] > before["ranges"]["untouched"] + 100
    assert "does not tell what is in it" in hpbctl("map", path).stdout
    assert "-device virtio-balloon-hp" in hpbctl("resize", "--node", 0, path, "1G", status=1).stderr


def test_no_vm(directory):
    """A wrong name, a dead socket, no right to it: each says what to do."""
    assert "hpbctl list" in hpbctl("--dir", directory, "status", "nix", status=1).stderr
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(directory / "one.sock"))
        for command in (["status"], ["map"], ["resize"]):
            size = ["1G"] if command == ["resize"] else []
            assert "nobody listens" in hpbctl("--dir", directory, *command, "one", *size, status=1).stderr
        one.listen(1)
        if os.getuid() == 0:
            directory.chmod(0o755)
            (directory / "one.sock").chmod(0o700)
            copy = directory / "hpbctl"
            copy.write_bytes(program().read_bytes())
            copy.chmod(0o755)
            run = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(copy), "status",
                                  str(directory / "one.sock")], capture_output=True, text=True, timeout=LIMIT, check=False)
            assert run.returncode == 1 and "may write to the socket" in run.stderr, run.stderr


def test_silent_and_dying(vm, directory):
    """A socket that never answers ends in time; a VM that dies while we wait is told from one that stops short."""
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(directory / "mute.sock"))
        mute.listen(1)
        assert "one client at a time" in hpbctl("--answer", 1, "status", directory / "mute.sock", status=1).stderr
    guest, path = vm(append="hpb.skip=virtio_balloon_hp")
    killer = threading.Thread(target=lambda: (wait_target(path, guest), os.kill(guest.pid, signal.SIGKILL)))
    killer.start()
    run = hpbctl("resize", "--wait", path, "512M", status=1)
    killer.join()
    assert "the VM is gone" in run.stderr and "the request stays" not in run.stderr


def test_stats(vm):
    """Statistics are the guest's; the polling interval is as it was afterwards, also after Ctrl-C."""
    guest, path = vm()
    interval = ("/machine/peripheral/balloon0", "guest-stats-polling-interval")
    stats = told("stats", path)
    assert abs(stats["stat-total-memory"] - guest.memory_total()) < 8 * MIB and stats["last-update"] > 0
    assert "stat-free-memory" in hpbctl("stats", path).stdout
    assert guest.qmp.qom_get(*interval) == 0
    with subprocess.Popen([str(program()), "stats", "--watch", "1", str(path)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout and select.select([run.stdout], [], [], LIMIT)[0]
        assert guest.qmp.qom_get(*interval) == 1
        run.send_signal(signal.SIGINT)
        output = run.communicate(timeout=LIMIT)[1]
    assert run.returncode == 130, output
    assert guest.qmp.qom_get(*interval) == 0
    guest.qmp.execute("stop")
    assert "gives no statistics" in hpbctl("stats", path, status=1).stderr
    assert guest.qmp.qom_get(*interval) == 0


def test_host():
    """What the host tells is what its kernel tells."""
    result = told("host")
    with open("/proc/meminfo", encoding="utf-8") as file:
        free = next(int(line.split()[1]) for line in file if line.startswith("MemFree:")) * 1024
    assert abs(result["free"] - free) < 2048 * MIB and result["nodes"]
    for pool in result["pools"]:
        total = Path(f"/sys/kernel/mm/hugepages/hugepages-{pool['page-size'] // 1024}kB/nr_hugepages")
        assert pool["total"] == int(total.read_text(encoding="utf-8"))
    assert "THP enabled" in hpbctl("host").stdout


@pytest.mark.skipif(bool(libvirt.missing()), reason=libvirt.missing() or "there")
def test_libvirt_definition():
    """A definition that was enabled is valid for libvirt, starts, and is resized by our device; disabled it is as before."""
    with libvirt.Libvirtd() as daemon:
        domain = libvirt.Domain(daemon, "ctl", driver=STOCK)
        plain = domain.xml
        assert "traditional" in hpbctl("libvirt", "check", "-", status=1, input=plain).stdout
        domain.xml = hpbctl("libvirt", "enable", "-", input=plain).stdout
        assert hpbctl("libvirt", "enable", "-", input=domain.xml).stdout == domain.xml
        try:
            domain.define()
            domain.start()
            hpbctl("libvirt", "check", "-", input=domain.virsh("dumpxml"))
            domain.setmem(512)
            domain.wait_actual(512)
            assert "virtio_balloon_hp" in domain.run("cat /proc/modules").output
            again = hpbctl("libvirt", "disable", "-", input=domain.virsh("dumpxml", "--inactive")).stdout
            hpbctl("libvirt", "check", "-", status=1, input=again)
            domain.xml = again
            domain.define()
        finally:
            domain.close()
    assert "no XML" in hpbctl("libvirt", "enable", "-", status=1, input="nothing").stderr
