# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's console and its command channel, seen from the host.

The console is read all the time by a thread, so that a guest never blocks on
it, everything lands in the log, and PATTERN lines are judged as they come.
"""
from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

PATTERN_SILENCE = 30.0  # seconds without a PATTERN line that mean the guest is stuck (it prints every second)


class ConsoleError(Exception):
    """Something that was waited for did not come, or came wrong."""


@dataclass
class Pattern:
    """What hpb-pattern has said so far."""
    ok: int = 0
    passes: int = 0
    last: float = 0.0
    bad: list[str] = field(default_factory=list)


class Console:
    """Reader of a guest's console."""

    def __init__(self, sock: socket.socket, log: Path):
        self._sock = sock
        self._log = log.open("wb")
        self._changed = threading.Condition()
        self.lines: list[str] = []
        self.pattern = Pattern()
        self.closed = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rest = b""
        while True:
            try:
                data = self._sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            self._log.write(data)
            self._log.flush()
            *lines, rest = (rest + data).split(b"\n")
            with self._changed:
                for line in lines:
                    self._line(line.decode("utf-8", "replace").strip("\r"))
                self._changed.notify_all()
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        self._log.close()

    def _line(self, line: str) -> None:
        self.lines.append(line)
        match = re.search(r"PATTERN (OK|BAD|PASS|FIRST-BAD)\b ?(\d*)", line)
        if not match:
            return
        self.pattern.last = time.monotonic()
        if match[1] == "OK":
            self.pattern.ok = int(match[2] or 0)
        elif match[1] == "PASS":
            self.pattern.passes = int(match[2] or 0)
        else:
            self.pattern.bad.append(line)

    def close(self) -> None:
        """Stop reading."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join(5)
        self._sock.close()

    def tail(self, lines: int = 15) -> str:
        """The last lines, for messages."""
        return "\n".join(self.lines[-lines:])

    def send(self, text: str) -> None:
        """Type text."""
        self._sock.sendall(text.encode())

    def wait_line(self, regex: str, timeout: float, start: int = 0) -> int:
        """Index of the first line from start on that matches."""
        pattern = re.compile(regex)
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for index in range(start, len(self.lines)):
                    if pattern.search(self.lines[index]):
                        return index
                start = len(self.lines)
                left = deadline - time.monotonic()
                if self.closed or left <= 0:
                    raise ConsoleError(f"no line /{regex}/ on the console within {timeout:g} s"
                                       f"{' (console closed)' if self.closed else ''}; it ends:\n{self.tail()}")
                self._changed.wait(left)

    def check_pattern(self) -> None:
        """Raise if the guest has seen its memory change."""
        if self.pattern.bad:
            raise ConsoleError("guest memory changed: " + "; ".join(self.pattern.bad[:3]))

    def restart_pattern(self) -> None:
        """The guest restarts: its pattern will count from 1 again (what was BAD stays so)."""
        with self._changed:
            self.pattern.ok = self.pattern.passes = 0

    def wait_pattern(self, more: int = 2, passes: int = 0, timeout: float = 120.0) -> None:
        """Wait for `more` further OK lines and `passes` further full passes that began after now.

        A pass that is under way now does not count. Raises on BAD, on silence, or when the time is over.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            ok = self.pattern.ok + more
            full = self.pattern.passes + passes + (1 if passes else 0)
            quiet_since = time.monotonic()
            while True:
                self.check_pattern()
                if self.pattern.ok >= ok and self.pattern.passes >= full:
                    return
                now = time.monotonic()
                silent = now - max(self.pattern.last, quiet_since)
                if self.closed or now > deadline or silent > PATTERN_SILENCE:
                    raise ConsoleError(f"hpb-pattern made no progress: OK {self.pattern.ok} (want {ok}), passes "
                                       f"{self.pattern.passes} (want {full}), silent for {silent:.0f} s; "
                                       f"the console ends:\n{self.tail()}")
                self._changed.wait(min(1.0, max(0.01, deadline - now)))


@dataclass
class Result:
    """Outcome of a command in the guest."""
    status: int
    output: str


class Agent:
    """Client of hpb-agent (see tests/e2e/guest/agent.c for the protocol).

    Nothing is sent before the agent's greeting: until then the guest's serial
    line echoes and edits. A migration destination gets none, its agent runs.
    """

    def __init__(self, sock: socket.socket, running: bool = False):
        self._sock = sock
        self._buffer = b""
        self._id = 0
        self._greeted = running

    def expect_greeting(self) -> None:
        """The guest restarts: wait for its agent before the next command."""
        self._greeted = False

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _fill(self, deadline: float, what: str) -> None:
        self._sock.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = self._sock.recv(65536)
        except TimeoutError:
            data = b""
        if not data:
            raise ConsoleError(f"no answer from the guest's agent to: {what}")
        self._buffer += data

    def _line(self, deadline: float, what: str) -> str:
        while b"\n" not in self._buffer:
            self._fill(deadline, what)
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode("utf-8", "replace").strip()

    def run(self, command: str, timeout: float = 60.0) -> Result:
        """Run a line of shell in the guest."""
        self._id += 1
        mine = f"{self._id:x}"
        deadline = time.monotonic() + timeout
        while not self._greeted:
            self._greeted = self._line(deadline, "(greeting)").endswith("A 1")
        self._sock.settimeout(timeout)
        self._sock.sendall(f"{mine} {command}\n".encode())
        output = b""
        while True:
            # Lines that are not ours answer a command that timed out.
            kind, ident, number = (self._line(deadline, command).split(" ") + ["", ""])[:3]
            if kind == "D" and number.isdigit():
                while len(self._buffer) < int(number):
                    self._fill(deadline, command)
                data, self._buffer = self._buffer[:int(number)], self._buffer[int(number):]
                output += data if ident == mine else b""
            elif kind == "E" and ident == mine:
                return Result(int(number), output.decode("utf-8", "replace"))
