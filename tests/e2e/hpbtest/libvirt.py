# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmodified libvirt with our QEMU: a libvirtd of our own, and virsh.

No systemd, nothing of the machine's libvirt is used or changed: the daemon runs
in session mode as an unprivileged user (nobody, when we are root) with all its
directories below a temporary one. That user cannot read our caches, so QEMU and
its firmware are copied to where ./hpb install would have them.

A libvirt of another release lies in a tree of its own and finds its parts below
/usr only, so it and its virsh get a mount namespace in which that tree is on top.
"""
from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import Callable

from . import settings
from .console import Agent, Console, ConsoleError, Result
from .guest import MIB, OURS, STOCK

START_SECONDS = 60.0

OVERRIDE = """
  <qemu:override>
    <qemu:device alias='balloon0'>
      <qemu:frontend><qemu:property name='driver' type='string' value='virtio-balloon-hp'/></qemu:frontend>
    </qemu:device>
  </qemu:override>"""

DOMAIN = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>2</vcpu>
  {backing}
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 panic=-1 loglevel=5 no_timer_check init_on_alloc=0 {append}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'>
    <feature policy='disable' name='erms'/>
    <feature policy='disable' name='fsrm'/>
    {numa}
  </cpu>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    {devices}
    <serial type='unix'><source mode='connect' path='{sockets}/console'/></serial>
    <serial type='unix'><source mode='connect' path='{sockets}/agent'/></serial>
    <memballoon model='{model}'{balloon}><stats period='1'/></memballoon>
  </devices>{override}
</domain>
"""


# What the machine's release has left in the directory of modules is not for the other one's daemon.
ON_TOP = """mount -t overlay overlay -o "lowerdir=$0/usr:/usr" /usr
mount --bind "$0/usr/lib/x86_64-linux-gnu/libvirt" /usr/lib/x86_64-linux-gnu/libvirt
exec "$@"
"""


class LibvirtError(Exception):
    """virsh or libvirtd failed."""


def missing() -> str:
    """Why this machine cannot run these tests, or nothing."""
    if not (shutil.which("libvirtd") or Path("/usr/sbin/libvirtd").exists()) or not shutil.which("virsh"):
        return "needs libvirtd and virsh (apt-get install --no-install-recommends libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients)"
    return ""


class Libvirtd:
    """One daemon; use it as a context manager."""

    def __init__(self, name: str = "one", emulator: Path | None = None, hugetlbfs: Path | None = None, tree: Path | None = None):
        self.name = name
        self._tree = tree or settings.libvirt()
        self.root = Path(tempfile.mkdtemp(prefix=f"hpb-libvirt-{name}-"))
        self._user = pwd.getpwnam("nobody") if os.getuid() == 0 else None
        self.root.chmod(0o755)
        self.emulator = emulator or self._install_emulator()
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": str(self.directory("home")),
                             **{f"XDG_{what}": str(self.directory(what.lower())) for what in
                                ("CONFIG_HOME", "CACHE_HOME", "DATA_HOME", "RUNTIME_DIR")}}
        config = self.directory("config_home/libvirt")
        (config / "libvirtd.conf").write_text(f'host_uuid = "{uuid.uuid4()}"\nlog_outputs = "3:file:{self.root}/libvirtd.log"\n',
                                              encoding="utf-8")
        mount = f'hugetlbfs_mount = "{hugetlbfs}"\n' if hugetlbfs else ""
        (config / "qemu.conf").write_text(f'stdio_handler = "file"\nseccomp_sandbox = 1\n{mount}', encoding="utf-8")
        self._own(self.root)
        self.uri = f"qemu:///session?socket={self.root}/runtime_dir/libvirt/libvirt-sock"

    def directory(self, name: str) -> Path:
        """A directory below ours."""
        path = self.root / name
        if not path.exists():
            path.mkdir(parents=True)
            self._own(path)
        return path

    def _own(self, path: Path) -> None:
        if not self._user:
            return
        os.chown(path, self._user.pw_uid, self._user.pw_gid)
        for below in path.rglob("*"):
            os.chown(below, self._user.pw_uid, self._user.pw_gid, follow_symlinks=False)

    def _install_emulator(self) -> Path:
        """As ./hpb install does it."""
        target = self.directory("emulator")
        subprocess.run(["bash", "-euc", '. "$HPB_TOP/scripts/install.sh"; install_emulator "$1"', "install", target], check=True,
                       env={**os.environ, "HPB_TOP": str(settings.top()), "HPB_QEMU": str(settings.qemu()),
                            "QEMU_FIRMWARE": str(next((settings.cache() / "qemu").glob("*/firmware")))})
        return target / "bin/qemu-system-x86_64"

    def _command(self, args: list[str]) -> list[str]:
        if self._user:
            args = ["setpriv", f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}", "--clear-groups", *args]
        if self._tree:
            args = ["unshare", "--mount", "sh", "-euc", ON_TOP, str(self._tree), *args]
        return args

    def __enter__(self) -> "Libvirtd":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *what: object) -> None:
        try:
            if self.process and self.process.poll() is None:
                for name in self.virsh("list", "--name").split():
                    self.virsh("destroy", name, check=False)
        finally:
            self.stop()
            shutil.rmtree(self.root, ignore_errors=True)

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        log = (self.root / "stderr").open("wb")
        self.process = subprocess.Popen(self._command(["/usr/sbin/libvirtd", "--timeout=0"]), env=self._environment,
                                        cwd=self.root, stdout=log, stderr=log)
        log.close()
        deadline = time.monotonic() + START_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if subprocess.run(self._command(["virsh", "-c", self.uri, "list"]), env=self._environment, cwd=self.root,
                              capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.1)  # libvirtd says nobody when it is there
        raise LibvirtError(f"libvirtd did not come up: {(self.root / 'stderr').read_text(encoding='utf-8', errors='replace')}")

    def stop(self) -> None:
        """End the daemon; domains go on."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def virsh(self, *args: str, check: bool = True, timeout: float = 120.0) -> str:
        """Run virsh; returns what it prints. A failure is a LibvirtError with what virsh said."""
        run = subprocess.run(self._command(["virsh", "-q", "-c", self.uri, *args]), env=self._environment, cwd=self.root,
                             capture_output=True, text=True, timeout=timeout, check=False)
        if check and run.returncode:
            raise LibvirtError(f"virsh {' '.join(args)}: {run.stderr.strip()}")
        return run.stdout

    def popen(self, *args: str, stdin: int | None = None) -> subprocess.Popen[str]:
        """virsh in the background; without arguments it reads commands."""
        return subprocess.Popen(self._command(["virsh", "-q", "-c", self.uri, *args]), env=self._environment, cwd=self.root,
                                stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def readable(self, path: Path) -> Path:
        """A copy of a file that the daemon's user can read."""
        copy = self.directory("files") / f"{path.parent.name}-{path.name}"
        if not copy.exists():
            shutil.copy2(path, copy)
            self._own(copy)
        return copy


class Domain:
    """A guest by libvirt. Its console and agent connect to us, again after each restore or migration."""

    def __init__(self, daemon: Libvirtd, name: str, *, memory: int = 1024, driver: str = OURS, series: str = settings.DEFAULT_KERNEL,
                 append: str = "", balloon: str = "", numa: str = "", backing: str = "", devices: str = "",
                 override: str | None = None, model: str = "virtio"):
        self.daemon = daemon
        self.name = name
        self.memory = memory
        self._listeners: dict[str, socket.socket] = {}
        self.sockets = daemon.directory(f"sockets/{name}")
        for what in ("console", "agent"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.sockets / what))
            listener.listen(2)
            listener.settimeout(START_SECONDS)
            os.chmod(self.sockets / what, 0o777)
            self._listeners[what] = listener
        self.xml = DOMAIN.format(
            name=name, uuid=uuid.uuid4(), memory=memory, append=append, balloon=balloon, numa=numa,
            backing=backing, devices=devices, model=model,
            kernel=daemon.readable(settings.kernel(series)), initrd=daemon.readable(settings.initrd(series)),
            emulator=daemon.emulator, sockets=self.sockets,
            override=(OVERRIDE if driver == OURS else "") if override is None else override)
        assert driver in (OURS, STOCK)

    def define(self) -> None:
        """Define it; libvirt checks the definition."""
        path = self.daemon.directory("files") / f"{self.name}.xml"
        path.write_text(self.xml, encoding="utf-8")
        self.daemon.virsh("define", "--validate", str(path))

    def start(self) -> None:
        """Start and wait until the guest is ready."""
        self.daemon.virsh("start", self.name)
        self.connected()
        self.console.wait_line(r"^READY\b", 120.0)

    def connected(self, running: bool = False, daemon: Libvirtd | None = None) -> None:
        """A new QEMU process has connected: talk to that one. running: its guest goes on from saved state."""
        self.daemon = daemon or self.daemon
        self._close()
        accepted = {what: listener.accept()[0] for what, listener in self._listeners.items()}
        directory = settings.build() / "e2e"
        directory.mkdir(parents=True, exist_ok=True)
        self.console = Console(accepted["console"], directory / f"libvirt-{self.name}.console")
        self.agent = Agent(accepted["agent"], running=running)

    def reconnected(self) -> None:
        """The same if there is another QEMU process: that is for libvirt to decide when it reverts to a snapshot."""
        if select.select([self._listeners["console"]], [], [], 0)[0]:
            self.connected(running=True)

    def _close(self) -> None:
        for what in ("console", "agent"):
            if hasattr(self, what):
                getattr(self, what).close()

    def close(self) -> None:
        """Destroy and forget the domain."""
        if not self._listeners:
            return
        self.daemon.virsh("destroy", self.name, check=False)
        self.daemon.virsh("undefine", "--managed-save", "--snapshots-metadata", self.name, check=False)
        self._close()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()

    def run(self, command: str) -> Result:
        """Run a line of shell in the guest."""
        result = self.agent.run(command)
        if result.status:
            raise ConsoleError(f"'{command}' exited with {result.status}: {result.output}")
        return result

    def virsh(self, command: str, *args: str, **more: object) -> str:
        """A virsh command about this domain."""
        return self.daemon.virsh(command, self.name, *args, **more)  # type: ignore[arg-type]

    def stats(self) -> dict[str, int]:
        """virsh dommemstat, in KiB as it says."""
        return {key: int(value) for key, value in (line.split() for line in self.virsh("dommemstat").splitlines() if line)}

    def setmem(self, mib: int, *args: str) -> None:
        """virsh setmem --live."""
        self.virsh("setmem", f"{mib}M", "--live", *args)

    def _wait_size(self, done: Callable[[int], bool], what: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not done(now := self.stats()["actual"] * 1024):
            if time.monotonic() > deadline:
                raise LibvirtError(f"domain {self.name} is at {now // MIB} MiB {timeout:g} s after it was asked for {what} MiB")
            time.sleep(0.02)

    def wait_actual(self, mib: int, timeout: float = 60.0) -> None:
        """Wait until dommemstat shows that size."""
        self._wait_size(lambda now: now == mib * MIB, str(mib), timeout)

    def wait_below(self, mib: int, timeout: float = 60.0) -> None:
        """Wait until dommemstat shows less than that."""
        self._wait_size(lambda now: now < mib * MIB, f"less than {mib}", timeout)
