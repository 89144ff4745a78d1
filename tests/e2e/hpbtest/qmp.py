# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP client: commands, and events that can be waited for.

One socket, no thread: events that arrive while a command is waiting for its
answer are queued and found by the next wait. (Debian has no qemu.qmp package.)
"""
from __future__ import annotations

import json
import select
import socket
import time
from collections import deque
from typing import Any, Callable

COMMAND_TIMEOUT = 60.0


class QmpError(Exception):
    """QEMU answered a command with an error."""

    def __init__(self, command: str, error: dict[str, str]):
        super().__init__(f"{command}: {error.get('desc')}")
        self.error_class = error.get("class", "")
        self.desc = error.get("desc", "")


class QmpTimeout(Exception):
    """No answer or no event in time, or QEMU is gone."""


class Qmp:
    """A QMP connection over a connected stream socket."""

    def __init__(self, sock: socket.socket):
        self._sock = sock
        self._buffer = b""
        self._lines: deque[dict[str, Any]] = deque()
        self.events: deque[dict[str, Any]] = deque(maxlen=100000)
        self._next(time.monotonic() + COMMAND_TIMEOUT)  # greeting
        self.execute("qmp_capabilities")

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _next(self, deadline: float) -> dict[str, Any]:
        """The next message."""
        while not self._lines:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._sock], [], [], left)[0]:
                raise QmpTimeout("QMP: nothing came in time")
            try:
                data = self._sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                raise QmpTimeout("QMP: QEMU closed the connection")
            self._buffer += data
            *lines, self._buffer = self._buffer.split(b"\n")
            self._lines.extend(json.loads(line) for line in lines if line.strip())
        return self._lines.popleft()

    def execute(self, command: str, timeout: float = COMMAND_TIMEOUT, **arguments: Any) -> Any:
        """Run a command and return its result; an underscore in an argument's name stands for a dash."""
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self._sock.sendall(json.dumps(message).encode() + b"\n")
        deadline = time.monotonic() + timeout
        while True:
            try:
                answer = self._next(deadline)
            except QmpTimeout as error:
                raise QmpTimeout(f"{command}: {error}") from None
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise QmpError(command, answer["error"])
            elif "return" in answer:
                return answer["return"]

    def wait_event(self, name: str, timeout: float = COMMAND_TIMEOUT,
                   match: Callable[[dict[str, Any]], bool] = lambda data: True) -> dict[str, Any]:
        """The data of the oldest event of that name that matches; it and all before it are dropped."""
        deadline = time.monotonic() + timeout
        while True:
            while self.events:
                event = self.events.popleft()
                if event["event"] == name and match(event.get("data", {})):
                    return event.get("data", {})
            try:
                message = self._next(deadline)
            except QmpTimeout as error:
                raise QmpTimeout(f"event {name}: {error}") from None
            if "event" in message:
                self.events.append(message)

    def drain(self) -> list[dict[str, Any]]:
        """All events there are now."""
        self.execute("query-status")
        events = list(self.events)
        self.events.clear()
        return events

    def hmp(self, line: str) -> str:
        """Run a human monitor command and return what it prints."""
        return self.execute("human-monitor-command", command_line=line)

    def qom_get(self, path: str, name: str) -> Any:
        """A QOM property."""
        return self.execute("qom-get", path=path, property=name)
