# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest: one QEMU process with our kernel and initrd.

QEMU connects to sockets that we listen on before it starts, so that not a
byte of the console is lost and no start-up race has to be polled away.
"""
from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from . import settings
from .console import Agent, Console, ConsoleError, Result
from .qmp import Qmp, QmpTimeout

MIB = 1 << 20
CONNECT_SECONDS = 30.0  # for QEMU to come up; it allocates guest memory first
# A guest kernel under TCG calibrates its clocks against QEMU's, and on a busy host sometimes hangs
# over the result. If it has not reached our init by then, it is started again, so many times.
INIT_SECONDS = 45.0
INIT_TRIES = 4
_serial = itertools.count(1)

STOCK = "virtio-balloon-pci"
OURS = "virtio-balloon-hp"
BALLOON_ID = "balloon0"


class GuestError(Exception):
    """The guest did not start, died, or does not answer."""


def balloon_device(driver: str, **options: Any) -> list[str]:
    """-device arguments for a balloon that can be found as BALLOON_ID."""
    extra = "".join(f",{key.replace('_', '-')}={value}" for key, value in options.items())
    return ["-device", f"{driver},id={BALLOON_ID}{extra}"]


class Guest:
    """A running guest; use it as a context manager.

    memory is in MiB. devices and args are QEMU arguments; append is added to
    the kernel command line. incoming starts a migration destination, resumed one
    that goes on where a guest has hibernated.
    """

    def __init__(self, name: str, *, series: str = settings.DEFAULT_KERNEL, memory: int = 1024, cpus: int = 2,
                 machine: str = "pc", devices: list[str] | None = None, args: list[str] | None = None,
                 append: str = "", incoming: bool = False, accel: str | None = None,
                 ready_timeout: float = 120.0, wait_ready: bool = True, resumed: bool = False):
        self.name = name
        self.memory = memory
        self.log_dir = settings.build() / "e2e" / f"{name}-{os.getpid()}-{next(_serial)}"
        self._sockets = Path(tempfile.mkdtemp(prefix="hpb-"))
        self._running = incoming or resumed
        self._wait_ready = wait_ready and not self._running
        self._ready_timeout = ready_timeout
        self.process: subprocess.Popen[bytes] | None = None
        self._args = [
            str(settings.qemu()), *settings.accel_args(accel or settings.accel()),
            "-name", f"{name},debug-threads=on", "-machine", machine, "-smp", str(cpus), "-m", f"{memory}M",
            "-display", "none", "-nodefaults", "-no-user-config", "-nic", "none",
            "-kernel", str(settings.kernel(series)), "-initrd", str(settings.initrd(series)),
            "-append", f"console=ttyS0 panic=-1 loglevel=5 no_timer_check {append}".strip(),
            *self._chardev("qmp"), "-mon", "chardev=qmp,mode=control",
            *self._chardev("console"), "-serial", "chardev:console",
            *self._chardev("agent"), *self._agent_serial(machine),
            *(devices or []), *(args or []), *(["-incoming", "defer"] if incoming else []),
        ]

    def _chardev(self, name: str) -> list[str]:
        return ["-chardev", f"socket,id={name},path={self._sockets / name}"]

    @staticmethod
    def _agent_serial(machine: str) -> list[str]:
        # microvm has one serial port of its own; further ones are devices there.
        if machine.startswith("microvm"):
            return ["-device", "isa-serial,chardev=agent,index=1"]
        return ["-serial", "chardev:agent"]

    def __enter__(self) -> "Guest":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self.stop()
        if kind is None:
            shutil.rmtree(self.log_dir, ignore_errors=True)

    def start(self) -> None:
        """Start QEMU, connect, wait for READY unless this is a migration destination."""
        self.log_dir.mkdir(parents=True, exist_ok=True)
        (self.log_dir / "command").write_text(" ".join(self._args) + "\n", encoding="utf-8")
        names = ("qmp", "console", "agent")
        listeners = {name: socket.socket(socket.AF_UNIX) for name in names}
        for name, listener in listeners.items():
            listener.bind(str(self._sockets / name))
            listener.listen(1)
        with (self.log_dir / "stderr").open("wb") as stderr:
            self.process = subprocess.Popen(self._args, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        connected = {name: self._accept(listener) for name, listener in listeners.items()}
        for listener in listeners.values():
            listener.close()
        self.console = Console(connected["console"], self.log_dir / "console")
        self.agent = Agent(connected["agent"], running=self._running)
        try:
            self.qmp = Qmp(connected["qmp"])
        except QmpTimeout as error:
            raise GuestError(f"{error}; {self._stderr()}") from None
        if self._wait_ready:
            self.wait_ready()

    def _accept(self, listener: socket.socket) -> socket.socket:
        assert self.process
        deadline = time.monotonic() + CONNECT_SECONDS
        listener.settimeout(0.2)  # how often we look whether QEMU has died meanwhile
        while time.monotonic() < deadline:
            try:
                return listener.accept()[0]
            except TimeoutError:
                if self.process.poll() is not None:
                    raise GuestError(f"QEMU exited with status {self.process.returncode}: {self._stderr()}") from None
        raise GuestError(f"QEMU did not connect within {CONNECT_SECONDS:g} s: {self._stderr()}")

    def _stderr(self) -> str:
        text = (self.log_dir / "stderr").read_text(encoding="utf-8", errors="replace").strip()
        return f"{text or 'it printed nothing'} (logs in {self.log_dir})"

    def stderr(self) -> str:
        """What QEMU has printed so far."""
        return (self.log_dir / "stderr").read_text(encoding="utf-8", errors="replace")

    def wait_ready(self, start: int = 0) -> int:
        """Wait for the guest's READY; returns the number of that console line."""
        try:
            self._wait_init(start)
            return self.console.wait_line(r"^READY\b", self._ready_timeout, start)
        except ConsoleError as error:
            raise GuestError(f"guest {self.name}: {error}\n{self._stderr()}") from None

    def _wait_init(self, start: int) -> None:
        """Wait until the guest's kernel has come up to our init; reset a guest that hangs before."""
        limit = min(INIT_SECONDS, self._ready_timeout)
        for left in reversed(range(INIT_TRIES)):
            try:
                self.console.wait_line(r"^hpb: init", limit, start)
                return
            except ConsoleError:
                if not left or self.console.closed or self._ready_timeout <= INIT_SECONDS:
                    raise
            print(f"guest {self.name}: its kernel hung before init, starting it again", file=sys.stderr)
            start = len(self.console.lines)
            self.qmp.execute("system_reset")

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        assert self.process
        return self.process.pid

    def run(self, command: str, timeout: float = 60.0, check: bool = True) -> Result:
        """Run a line of shell in the guest; with check a non-zero status is an error."""
        result = self.agent.run(command, timeout)
        if check and result.status:
            raise GuestError(f"guest {self.name}: '{command}' exited with {result.status}: {result.output.strip()}")
        return result

    def reset(self) -> None:
        """Reboot the guest and wait until it is READY again."""
        start = len(self.console.lines)
        self.agent.expect_greeting()
        self.qmp.execute("system_reset")
        self.wait_ready(start)
        self.console.restart_pattern()

    def memory_total(self) -> int:
        """Bytes that the guest's kernel manages (MemTotal)."""
        return int(self.run("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").output) * 1024

    def alive(self) -> bool:
        """Is QEMU running?"""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End this guest's QEMU (and only that), close everything; logs stay."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for part in ("qmp", "agent", "console"):
            if hasattr(self, part):
                getattr(self, part).close()
        shutil.rmtree(self._sockets, ignore_errors=True)
