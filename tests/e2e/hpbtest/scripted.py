# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine without a guest: QEMU executes nothing (accelerator qtest), and this is the balloon's driver.

For what no guest can be started for, such as a terabyte of memory: a guest's kernel
alone would fill what this host has. The machine is a microvm, whose virtio devices are
found without a bus. What a driver can do wrong is not tested here (tests/qtest).
"""
from __future__ import annotations

import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from . import settings
from .guest import BALLOON_ID
from .qmp import Qmp

GIB = 1 << 30
HIGH = 4 * GIB          # where memory goes on above the devices
SECONDS = 60.0          # for anything; only something broken needs it
MMIO = 0xfeb00000       # the machine's first virtio transport
DEVICE_ID = 13
FEATURES = 1 << 32 | 1 << 28    # VERSION_1, INDIRECT_DESC
INFLATE, DEFLATE = 0, 1         # queues; the request types are one more
RINGS, TABLE, HEADER, ANSWER = 1 << 20, 2 << 20, 3 << 20, (3 << 20) + 64
RING_STRIDE = 64 << 10
RING_SIZE = 256
RESP_SIZE = 1024
MAX_RANGES = 0x100 + 32         # of the configuration
WRITE, INDIRECT = 2, 4          # descriptor flags


class ScriptedError(Exception):
    """The machine or the device did not do what it should."""


class Machine:
    """A machine with `memory` bytes that nobody touches; use it as a context manager.

    backend: -object arguments of its memory but for id and size, the type first.
    """

    def __init__(self, memory: int, balloon: bool = True, incoming: bool = False, backend: str = "memory-backend-ram,reserve=off"):
        self._sockets = Path(tempfile.mkdtemp(prefix="hpb-"))
        self._seen = {INFLATE: 0, DEFLATE: 0}
        self._input = b""
        self._interrupted = False
        self._args = [
            str(settings.qemu()), "-accel", "qtest", "-cpu", "qemu64,phys-bits=46", "-machine", "microvm,memory-backend=ram,ioapic2=off",
            "-object", f"{backend},id=ram,size={memory}", "-m", f"{memory // (1 << 20)}M",
            "-display", "none", "-nodefaults", "-no-user-config", "-global", "virtio-mmio.force-legacy=false",
            "-chardev", f"socket,id=qmp,path={self._sockets / 'qmp'}", "-mon", "chardev=qmp,mode=control",
            "-qtest", f"unix:{self._sockets / 'qtest'}", "-qtest-log", "/dev/null",
            *(["-device", f"virtio-balloon-hp-device,id={BALLOON_ID},bus=virtio-mmio-bus.0"] if balloon else []),
            *(["-incoming", "defer"] if incoming else [])]

    def __enter__(self) -> "Machine":
        listeners = {}
        for name in ("qmp", "qtest"):
            listeners[name] = socket.socket(socket.AF_UNIX)
            listeners[name].bind(str(self._sockets / name))
            listeners[name].listen(1)
            listeners[name].settimeout(0.2)  # how often we look whether QEMU has died meanwhile
        self._process = subprocess.Popen(self._args, stdin=subprocess.DEVNULL)
        try:
            self._qtest = self._accept(listeners["qtest"])
            self.qmp = Qmp(self._accept(listeners["qmp"]))
        except BaseException:
            self.__exit__()
            raise
        finally:
            for listener in listeners.values():
                listener.close()
        return self

    def _accept(self, listener: socket.socket) -> socket.socket:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                connected = listener.accept()[0]
            except TimeoutError:
                continue
            connected.settimeout(SECONDS)
            return connected
        raise ScriptedError(f"QEMU did not connect, or has ended (status {self._process.poll()}): {' '.join(self._args)}")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(SECONDS)
        for part in ("qmp", "_qtest"):
            if hasattr(self, part):
                getattr(self, part).close()
        shutil.rmtree(self._sockets, ignore_errors=True)

    @property
    def pid(self) -> int:
        """Process id of QEMU."""
        return self._process.pid

    def _line(self) -> str:
        while b"\n" not in self._input:
            data = self._qtest.recv(65536)
            if not data:
                raise ScriptedError("QEMU has ended")
            self._input += data
        line, self._input = self._input.split(b"\n", 1)
        self._interrupted |= line.startswith(b"IRQ raise")
        return line.decode()

    def _ask(self, command: str) -> str:
        self._qtest.sendall(command.encode() + b"\n")
        while (line := self._line()).startswith("IRQ"):
            pass
        word, _, rest = line.partition(" ")
        if word != "OK":
            raise ScriptedError(f"'{command[:80]}' was answered '{line}'")
        return rest

    def _register(self, offset: int, value: int | None = None) -> int:
        if value is None:
            return int(self._ask(f"readl {MMIO + offset:#x}"), 16)
        self._ask(f"writel {MMIO + offset:#x} {value:#x}")
        return value

    def _write(self, address: int, data: bytes) -> None:
        self._ask(f"write {address:#x} {len(data):#x} 0x{data.hex()}")

    def _read(self, address: int, length: int) -> bytes:
        return bytes.fromhex(self._ask(f"read {address:#x} {length:#x}")[2:])

    def start_driver(self) -> None:
        """Negotiate, and set up the queues for inflate and deflate."""
        self._ask("irq_intercept_in ioapic")
        if (kind := self._register(8)) != DEVICE_ID:
            raise ScriptedError(f"the first virtio device is of type {kind}, not {DEVICE_ID}")
        for status in (0, 1, 3):
            self._register(0x70, status)
        for half in (0, 1):
            self._register(0x24, half)
            self._register(0x20, FEATURES >> 32 * half & 0xffffffff)
        self._register(0x70, 11)
        if self._register(0x70) != 11:
            raise ScriptedError("the device does not accept our features")
        for queue in (INFLATE, DEFLATE):
            ring = RINGS + queue * RING_STRIDE
            self._register(0x30, queue)
            self._register(0x38, RING_SIZE)
            for register, address in ((0x80, ring), (0x90, ring + 4096), (0xa0, ring + 8192)):
                self._register(register, address)
                self._register(register + 4, 0)
            self._register(0x44, 1)
        self._register(0x70, 15)

    def max_ranges(self) -> int:
        """How many ranges a request may have."""
        return self._register(MAX_RANGES)

    def request(self, queue: int, ranges: list[tuple[int, int]]) -> float:
        """Give up (INFLATE) or take back (DEFLATE) ranges of address and length below 4 GiB each; all of it has to be done.

        Returns the seconds from the notification until the interrupt.
        """
        size = sum(length for _, length in ranges)
        seconds = self._send(queue, ranges, 1)
        status, _, exceptions, done = struct.unpack("<HHIQ", self._read(ANSWER, 16))
        if status or done != size:
            raise ScriptedError(f"{done} of {size} bytes were done, status {status}, {exceptions} exceptions")
        return seconds

    def empty_requests(self, queue: int, count: int) -> float:
        """Requests without ranges, at most RING_SIZE with one notification. Returns the seconds from the notification until the last interrupt."""
        return self._send(queue, [], count)

    def _send(self, queue: int, ranges: list[tuple[int, int]], count: int) -> float:
        """The same request, `count` times."""
        ring = RINGS + queue * RING_STRIDE
        size = sum(length for _, length in ranges)
        self._write(HEADER, struct.pack("<HHIQ", queue + 1, 0, RESP_SIZE, size))
        chain = [(HEADER, 16, 0), (ANSWER, RESP_SIZE, WRITE), *((address, length, WRITE) for address, length in ranges)]
        table = b"".join(struct.pack("<QIHH", address, length, flags | (number + 1 < len(chain)), (number + 1) % len(chain))
                         for number, (address, length, flags) in enumerate(chain))
        self._write(TABLE, table)
        self._write(ring, struct.pack("<QIHH", TABLE, len(table), INDIRECT, 0) * count)
        for number in range(count):
            self._write(ring + 4096 + 4 + (self._seen[queue] + number) % RING_SIZE * 2, struct.pack("<H", number))
        self._seen[queue] = (self._seen[queue] + count) % (1 << 16)
        self._write(ring + 4096, struct.pack("<HH", 0, self._seen[queue]))
        start, interrupt = time.perf_counter(), 0.0
        self._register(0x50, queue)
        while struct.unpack("<H", self._read(ring + 8192 + 2, 2))[0] != self._seen[queue]:
            while not self._interrupted:
                self._line()
            interrupt = time.perf_counter()
            self._interrupted = False
            self._register(0x64, self._register(0x60))
        return (interrupt or time.perf_counter()) - start
