# SPDX-License-Identifier: GPL-2.0-or-later
"""hpbctl over a libvirt connection: domains by name, UUID and id; what ends half-way is named, nothing hangs."""
from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

from hpbtest import libvirt
from hpbtest.guest import MIB, STOCK
from hpbtest.hpbctl import LIMIT, hpbctl, program, told

pytestmark = pytest.mark.skipif(bool(libvirt.missing()), reason=libvirt.missing() or "there")

# An emulated guest on a busy machine keeps libvirtd waiting; what must end earlier says so.
PATIENT = ("--answer", 25)


@pytest.fixture(scope="module")
def daemon() -> Iterator[libvirt.Libvirtd]:
    """One libvirtd for all tests here: some stop it."""
    if reason := libvirt.missing():
        pytest.skip(reason)
    with libvirt.Libvirtd("ctl") as one:
        yield one


@pytest.fixture
def domain(daemon, request):
    """domain(...) defines one, and starts it unless start=False; it ends with the test."""
    domains = []

    def make(name="", start=True, **more):
        one = libvirt.Domain(daemon, name or re.sub(r"\W", "-", request.node.name), **more)
        domains.append(one)
        one.define()
        if start:
            one.start()
        return one

    yield make
    for one in domains:
        one.close()


@pytest.fixture
def connect(daemon) -> tuple[object, ...]:
    """Options that make hpbctl use the daemon."""
    return ("--connect", daemon.uri, *PATIENT)


def pid_of(daemon: libvirt.Libvirtd, name: str) -> int:
    """QEMU's process, from libvirt's own pid file."""
    return int((daemon.root / f"runtime_dir/libvirt/qemu/run/{name}.pid").read_text(encoding="utf-8"))


@contextmanager
def waiting(*args: object) -> Iterator[subprocess.Popen[str]]:
    """hpbctl that has its request through and waits."""
    with subprocess.Popen([str(program()), *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as run:
        try:
            assert run.stderr and select.select([run.stderr], [], [], LIMIT)[0], "no line of progress"
            yield run
        finally:
            if run.poll() is None:
                run.kill()


def test_status_and_resize(domain, daemon, connect):
    """By name, UUID and id; the guest has the size when hpbctl ends, and libvirt knows it."""
    one = domain()
    uuid, number = one.virsh("domuuid").strip(), one.virsh("domid").strip()
    status = told(*connect, "status", one.name)
    assert (status["name"], status["balloon"], status["driver"]) == (one.name, "virtio-balloon-hp", "running")
    assert (status["connection"], status["uuid"]) == (daemon.uri, uuid) and "socket" not in status
    assert status["pid"] == pid_of(daemon, one.name)
    assert told(*connect, "status", uuid)["uuid"] == told(*connect, "status", number)["uuid"] == uuid
    result = told(*connect, "resize", "--wait", one.name, "512M")
    assert (result["from"], result["size"], result["reached"]) == (1024 * MIB, 512 * MIB, True)
    assert one.stats()["actual"] == 512 * 1024
    assert "512 MiB of 1 GiB" in hpbctl("status", one.name, env={**os.environ, "LIBVIRT_DEFAULT_URI": daemon.uri}).stdout
    assert told(*connect, "resize", "--wait", uuid, "9G")["size"] == 1024 * MIB
    one.wait_actual(1024)


def test_list(domain, daemon, connect):
    """Running ones have sizes, one that is shut off is marked. A socket of the same name comes first, unless --connect is given."""
    running, off = domain("a-running"), domain("b-off", start=False, driver=STOCK)
    first, second = told(*connect, "list")
    assert (first["name"], first["state"], first["size"]) == (running.name, "running", 1024 * MIB)
    assert (second["name"], second["state"], second["balloon"]) == (off.name, "shut off", "virtio-balloon")
    assert "size" not in second and second["ram"] == 1024 * MIB
    lines = hpbctl(*connect, "list").stdout.splitlines()
    assert len(lines) == 3 and re.match(r"b-off +shut off +- +1 GiB", lines[2])
    assert hpbctl(*connect, "list", "--names").stdout == "a-running\nb-off\n"
    assert "shut off" in (run := hpbctl(*connect, "resize", off.name, "512M", status=1)).stderr and "virsh start" in run.stderr
    with tempfile.TemporaryDirectory() as empty:
        where = {**os.environ, "HPBCTL_DIR": empty, "LIBVIRT_DEFAULT_URI": daemon.uri}
        assert hpbctl("list", "--names", env=where).stdout == "a-running\nb-off\n"
        assert hpbctl("--dir", empty, "list", "--names").stdout == ""
        assert told("status", running.name, env=where)["uuid"] == first["uuid"]
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{empty}/a-running.sock")
        assert "nobody listens" in hpbctl("status", running.name, env=where, status=1).stderr
        assert told(*connect, "status", running.name, env=where)["uuid"] == first["uuid"]
        assert "no VM 'b-off'" in hpbctl("--dir", empty, "status", off.name, env=where, status=1).stderr


def test_completion(domain, daemon):
    """bash offers the domains of the connection that is in the line, running or not, and what else fits."""
    domain("web-one", start=False)
    script = """source "$1"; COMP_LINE=$2; COMP_POINT=${#2}; COMP_WORDS=("$3"); _hpbctl; printf '%s\\n' "${COMPREPLY[@]}" """
    source = Path(__file__).parents[2] / "helper/ctl/hpbctl.bash"

    def offered(line: str) -> list[str]:
        run = subprocess.run(["bash", "-euc", script, "bash", str(source), line, str(program())], capture_output=True, text=True,
                             timeout=LIMIT, check=True, cwd=daemon.root)
        return run.stdout.split()

    assert offered(f"hpbctl --connect {daemon.uri} resize --wait we") == ["web-one"]
    assert offered(f"hpbctl --connect={daemon.uri} libvirt enable we") == ["web-one"]
    assert offered("hpbctl --connect test:///default status ") == ["test"]
    assert offered("hpbctl --connect test:///default status x") == []
    assert offered("hpbctl --con") == ["--connect"] and offered("hpbctl st") == ["status", "stats"]


def test_stats_and_map(domain, daemon, connect):
    """Statistics are the guest's and the interval is as it was; the map finds QEMU's process by itself."""
    one = domain(append="hpb.touch=500")
    stats = told(*connect, "stats", one.name)
    assert 900 * MIB < stats["stat-total-memory"] <= 1024 * MIB
    assert "<stats period='1'/>" in one.virsh("dumpxml")
    told(*connect, "resize", "--wait", one.name, "512M")
    result = told(*connect, "map", one.name)
    assert result["pid"] == pid_of(daemon, one.name)
    assert result["ranges"]["ballooned"] == 256 and result["ballooned-but-held"] == 0
    assert sum(result["ranges"].values()) == 512


def test_resize_of_a_node(domain, connect):
    """By the monitor, as libvirt knows no targets of nodes; the other node keeps its size."""
    backing = "<memoryBacking><source type='memfd'/></memoryBacking>"
    numa = "<numa><cell id='0' cpus='0' memory='512' unit='MiB'/><cell id='1' cpus='1' memory='512' unit='MiB'/></numa>"
    one = domain(backing=backing, numa=numa)
    assert told(*connect, "resize", "--node", 1, "--wait", one.name, "256M")["size"] == 256 * MIB
    assert [node["actual-size"] for node in told(*connect, "status", one.name)["nodes"]] == [512 * MIB, 256 * MIB]
    one.wait_actual(768)


def test_stops_short(domain, connect):
    """A guest without driver: status 3 and the reason, and the hint names the connection."""
    one = domain(append="hpb.skip=virtio_balloon_hp")
    run = hpbctl(*connect, "resize", "--wait", "--timeout", 1, one.name, "512M", status=3)
    assert "load virtio_balloon_hp there" in run.stderr and f"'hpbctl --connect {connect[1]} resize {one.name} 1024M'" in run.stderr


@pytest.mark.parametrize("how", ["destroyed", "killed"])
def test_domain_ends_while_we_wait(domain, daemon, connect, how):
    """Status 1, and it is said that the VM is gone and how."""
    one = domain(append="hpb.skip=virtio_balloon_hp")
    with waiting(*connect, "resize", "--wait", one.name, "512M") as run:
        if how == "destroyed":
            one.virsh("destroy")
        else:
            os.kill(pid_of(daemon, one.name), signal.SIGKILL)
        output = run.communicate(timeout=LIMIT)[1]
    assert run.returncode == 1 and "the VM is gone" in output and "the request stays" not in output, output
    assert ("was destroyed" if how == "destroyed" else "QEMU failed") in output, output


def test_domain_migrates_while_we_wait(domain, daemon, connect):
    """It is said where the guest has gone; the next call goes there, and finds its new process."""
    one = domain(append="hpb.skip=virtio_balloon_hp")
    with libvirt.Libvirtd("ctl-two", daemon.emulator) as other:
        with waiting(*connect, "resize", "--wait", one.name, "512M") as run:
            one.virsh("migrate", "--live", "--desturi", other.uri.replace("qemu:", "qemu+unix:"), "--migrateuri", "tcp://127.0.0.1")
            output = run.communicate(timeout=LIMIT)[1]
        assert run.returncode == 1 and "was migrated to another host" in output and "stays" not in output, output
        one.connected(running=True, daemon=other)
        try:
            status = told("--connect", other.uri, *PATIENT, "status", one.name)
            assert (status["state"], status["pid"]) == ("running", pid_of(other, one.name))
        finally:
            one.close()


def test_daemon_ends_while_we_wait(domain, daemon, connect):
    """Status 1; the VM goes on with its request, and both are said."""
    one = domain(append="hpb.skip=virtio_balloon_hp")
    with waiting(*connect, "resize", "--wait", one.name, "512M") as run:
        daemon.process.kill()
        daemon.process.wait()
        output = run.communicate(timeout=LIMIT)[1]
    assert run.returncode == 1 and "its daemon has ended" in output and "the request stays" in output, output
    assert "cannot connect" in hpbctl(*connect, "status", one.name, status=1).stderr
    daemon.start()
    assert told(*connect, "status", one.name)["target"] == 512 * MIB


def test_daemon_stands_still_while_we_wait(domain, daemon):
    """Found by keepalive; the VM may go on, which is said."""
    one = domain(append="hpb.skip=virtio_balloon_hp")
    with waiting("--connect", daemon.uri, "--answer", 10, "resize", "--wait", one.name, "512M") as run:
        os.kill(daemon.process.pid, signal.SIGSTOP)
        try:
            output = run.communicate(timeout=LIMIT)[1]
        finally:
            os.kill(daemon.process.pid, signal.SIGCONT)
    assert run.returncode == 1 and "its daemon no longer answers" in output and "the request stays" in output, output


@pytest.mark.parametrize("who", ["daemon", "QEMU"])
def test_silence(domain, daemon, who):
    """A daemon or a QEMU that stands still: an end in time, and it is said who."""
    one = domain()
    pid = daemon.process.pid if who == "daemon" else pid_of(daemon, one.name)
    connect = ("--connect", daemon.uri, "--answer", 2)
    os.kill(pid, signal.SIGSTOP)
    try:
        run = hpbctl(*connect, "status", one.name, status=1)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert ("no connection within 2 s" if who == "daemon" else "no answer to 'query-cpus-fast' within 2 s") in run.stderr
    assert told("--connect", daemon.uri, *PATIENT, "status", one.name)["state"] == "running"


def test_list_with_one_that_stands_still(domain, daemon):
    """It is named; those that come after it are listed all the same."""
    still, well = domain("a-still"), domain("b-well")
    os.kill(pid_of(daemon, still.name), signal.SIGSTOP)
    try:
        run = hpbctl("--connect", daemon.uri, "--answer", 3, "list", status=1)
    finally:
        os.kill(pid_of(daemon, still.name), signal.SIGCONT)
    assert "domain 'a-still': no answer" in run.stderr and re.search(rf"^{well.name} +running", run.stdout, re.M), run


def interval(one: libvirt.Domain) -> int:
    """QEMU's polling interval for statistics."""
    command = ('{"execute": "qom-get", "arguments": {"path": "/machine/peripheral/balloon0", '
               '"property": "guest-stats-polling-interval"}}')
    return json.loads(one.daemon.virsh("qemu-monitor-command", one.name, command))["return"]


def test_stats_watched(domain, connect):
    """The interval is ours while we look, and libvirt's again after Ctrl-C."""
    one = domain()
    assert interval(one) == 1
    with subprocess.Popen([str(program()), *map(str, connect), "stats", "--watch", "2", one.name], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout and select.select([run.stdout], [], [], LIMIT)[0]
        assert interval(one) == 2
        run.send_signal(signal.SIGINT)
        output = run.communicate(timeout=LIMIT)[1]
    assert run.returncode == 130, output
    assert interval(one) == 1


def test_no_balloon(domain, connect):
    """Status says so, and what cannot be done says what to do."""
    one = domain(driver=STOCK, start=False)
    one.xml = re.sub(r"<memballoon.*</memballoon>", "<memballoon model='none'/>", one.xml)
    one.define()
    one.start()
    assert told(*connect, "status", one.name)["balloon"] == "none"
    for command in (["resize", one.name, "512M"], ["map", one.name], ["stats", one.name]):
        assert "'hpbctl libvirt enable' changes that" in hpbctl(*connect, *command, status=1).stderr
    assert "change it to model='virtio'" in hpbctl(*connect, "libvirt", "enable", one.name, status=1).stderr


def test_interrupted(domain, connect):
    """Ctrl-C: status 130, and the request stays."""
    one = domain(append="hpb.skip=virtio_balloon_hp")
    with waiting(*connect, "resize", "--wait", one.name, "512M") as run:
        run.send_signal(signal.SIGINT)
        output = run.communicate(timeout=LIMIT)[1]
    assert run.returncode == 130 and "the request stays" in output, output
    assert told(*connect, "status", one.name)["target"] == 512 * MIB


def test_wrong_names(daemon, connect):
    """No such domain, no such connection, no right to it: each says what to do."""
    for command in (["status", "nix"], ["map", "nix"], ["stats", "nix"], ["resize", "nix", "1G"], ["libvirt", "check", "nix"]):
        assert "'nix' at qemu:///" in (run := hpbctl(*connect, *command, status=1)).stderr and "list' shows" in run.stderr
    assert "libvirt's daemon running there?" in hpbctl("--connect", "qemu:///session?socket=/nonexistent", "list", status=1).stderr
    assert "as qemu:///system" in hpbctl("--connect", daemon.uri.replace("session", "nix"), "list", status=1).stderr
    assert "one of them" in hpbctl("--connect", daemon.uri, "--dir", "/", "list", status=2).stderr
    assert "connection to QEMU" in hpbctl("--connect", "test:///default", "status", "test", status=1).stderr


def test_emulator(domain, daemon, connect):
    """A definition gets our QEMU with our device; one that is not there is libvirt's to refuse, and nothing is changed."""
    one = domain(driver=STOCK, start=False)
    before = one.virsh("dumpxml", "--inactive", "--security-info")
    run = hpbctl(*connect, "libvirt", "enable", "--emulator", "/nowhere/qemu", one.name, status=1)
    assert "Cannot check QEMU binary /nowhere/qemu: No such file or directory" in run.stderr
    assert one.virsh("dumpxml", "--inactive", "--security-info") == before
    link = daemon.directory("emulator") / "bin/other"
    link.symlink_to(daemon.emulator.name)
    assert told(*connect, "libvirt", "enable", "--emulator", link, one.name)["changed"] is True
    assert f"<emulator>{link}</emulator>" in one.virsh("dumpxml", "--inactive")
    assert told(*connect, "libvirt", "enable", "-e", link, one.name)["changed"] is False
    one.start()
    assert told(*connect, "resize", "--wait", one.name, "512M")["size"] == 512 * MIB
    assert told(*connect, "libvirt", "enable", "-e", daemon.emulator, one.name)["restart-needed"] is True
    assert "absolute path" in hpbctl(*connect, "libvirt", "enable", "-e", "qemu", one.name, status=2).stderr
    assert "no --emulator" in hpbctl(*connect, "libvirt", "check", "-e", link, one.name, status=2).stderr


def test_enable_and_disable(domain, connect):
    """A defined domain gets our device, validated; back again it is exactly as it was."""
    one = domain(driver=STOCK, start=False, backing="<metadata><x:note xmlns:x='urn:x'>a &amp; b</x:note></metadata>")
    before = one.virsh("dumpxml", "--inactive", "--security-info")
    assert told(*connect, "libvirt", "check", one.name, status=1)["enabled"] is False
    assert "is now defined with virtio-balloon-hp" in hpbctl(*connect, "libvirt", "enable", one.name).stdout
    enabled = one.virsh("dumpxml", "--inactive", "--security-info")
    assert "value='virtio-balloon-hp'" in enabled and ">a &amp; b<" in enabled
    result = told(*connect, "libvirt", "enable", one.virsh("domuuid").strip())
    assert (result["enabled"], result["changed"], result["running"], result["restart-needed"]) == (True, False, False, False)
    assert one.virsh("dumpxml", "--inactive", "--security-info") == enabled
    assert "is defined with virtio-balloon-hp" in hpbctl(*connect, "libvirt", "check", one.name).stdout
    hpbctl(*connect, "libvirt", "disable", one.name)
    assert one.virsh("dumpxml", "--inactive", "--security-info") == before


def test_enable_a_running_domain(domain, connect):
    """What runs stays; a restart is asked for, and after it our device resizes the guest."""
    one = domain(driver=STOCK)
    result = told(*connect, "libvirt", "enable", one.name)
    assert (result["changed"], result["running"], result["restart-needed"]) == (True, True, True)
    assert "shut it down and start it again" in hpbctl(*connect, "libvirt", "check", one.name).stdout
    assert told(*connect, "status", one.name)["balloon"] == "virtio-balloon"
    assert sum(told(*connect, "map", one.name)["ranges"].values()) == 512
    assert told(*connect, "resize", "--wait", one.name, "900M")["size"] == 900 * MIB
    one.virsh("destroy")
    one.start()
    assert told(*connect, "libvirt", "check", one.name)["restart-needed"] is False
    assert told(*connect, "resize", "--wait", one.name, "512M")["size"] == 512 * MIB
    one.virsh("managedsave")
    assert "saved state" in hpbctl(*connect, "libvirt", "disable", one.name).stdout


def test_file_or_domain(domain, daemon, connect):
    """A name that is a file here is the file, unless --connect says that a domain is meant; transient domains are refused."""
    one = domain("both", driver=STOCK, start=False)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "both"
        file.write_text(one.xml, encoding="utf-8")
        output = hpbctl("libvirt", "enable", "both", cwd=name, env={**os.environ, "LIBVIRT_DEFAULT_URI": daemon.uri}).stdout
        assert "virtio-balloon-hp" in output and file.read_text(encoding="utf-8") == one.xml
        assert told(*connect, "libvirt", "check", "both", status=1, cwd=name)["name"] == "both"
        hpbctl(*connect, "libvirt", "enable", "both", cwd=name)
        assert "<domain" in hpbctl(*connect, "libvirt", "enable", "./both", cwd=name).stdout
    assert told(*connect, "libvirt", "check", "both")["enabled"] is True
    daemon.virsh("undefine", "both")
    daemon.virsh("create", "--paused", str(daemon.directory("files") / "both.xml"))
    assert "is transient" in hpbctl(*connect, "libvirt", "enable", "both", status=1).stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_no_permission(daemon):
    """Somebody else's libvirt."""
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "hpbctl"
        copy.write_bytes(program().read_bytes())
        copy.chmod(0o755)
        Path(name).chmod(0o755)
        run = subprocess.run(["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", str(copy), "--connect", daemon.uri,
                              "list"], capture_output=True, text=True, timeout=LIMIT, check=False, env={"HOME": name})
    assert run.returncode == 1 and "member of the group libvirt" in run.stderr, run.stderr
