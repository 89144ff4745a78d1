# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the time of a resize goes, from the trace events of the guest's driver and of QEMU's device.

A guest that was used, one that was not, one whose kernel clears what it allocates, and one in pieces.

The two have clocks of their own. That a request arrives after it was sent, and an answer
too, ties them together to the time of one notification. Each moment of a resize is then
of one stage, the first that applies: the host frees; the guest takes, or returns, memory;
a request or an answer is on its way; nobody does anything (waiting: for a processor,
mostly, where there are two for guest and host).
"""
from __future__ import annotations

import dataclasses
import re
import time
from pathlib import Path

from hpbtest import settings
from hpbtest.balloon import BalloonError, resize
from hpbtest.guest import MIB, OURS, Guest, balloon_device
from hpbtest.inguest import fragment
from peers import REST_SECONDS, Resizable, Setting, fill, kernel_line, warm_up
from report import Report, Series, grid, how_often

SETTINGS = [Setting(), Setting(state="untouched"), Setting(clear=True), Setting(out=1900, state="fragmented")]
TRACING = "/sys/kernel/tracing"
STAGES = ("freeing", "taking", "returning", "on its way", "waiting")
WHOLE = "whole"
GUEST_LINE = re.compile(r" ([0-9.]+): hpb_(target|taken|request|answer|returned): (.*)$")
# "req" and its address are there in a request and its answer, the type in a request.
HOST_LINE = re.compile(r"@([0-9.]+):virtio_balloon_hp_(target|request|discard|answer) (?:req (\S+)(?: queue \d+ type (\d+))?)?")
REQ_STATE = "4"     # VIRTIO_BALLOON_HP_REQ_STATE


@dataclasses.dataclass(frozen=True)
class Event:
    """What happened, and when, in seconds."""
    at: float
    what: str


@dataclasses.dataclass
class Span:
    """Of a stage, in seconds."""
    stage: str
    begin: float
    end: float


def guest_events(text: str) -> list[Event]:
    """From the trace of the driver."""
    return [Event(float(match[1]), match[2]) for match in map(GUEST_LINE.search, text.splitlines()) if match]


def host_events(text: str) -> list[Event]:
    """From the trace of the device, without the requests by which the driver says what it waits for: these move no memory, and the driver does not trace them."""
    found, telling = [], set()
    for match in filter(None, map(HOST_LINE.search, text.splitlines())):
        at, what, request, kind = match.groups()
        if kind == REQ_STATE:
            telling.add(request)
        elif request in telling:
            telling.remove(request)
        else:
            found.append(Event(float(at), what))
    return found


def times(found: list[Event], what: str) -> list[float]:
    """When it happened."""
    return [event.at for event in found if event.what == what]


def clock_difference(guest: list[Event], host: list[Event]) -> float:
    """What to add to the guest's clock to have the host's: as if the fastest request had taken no time."""
    sent, arrived = times(guest, "request"), times(host, "request")
    if not sent or len(sent) != len(arrived):
        raise BalloonError(f"the guest has sent {len(sent)} requests, {len(arrived)} have arrived")
    return min(there - here for here, there in zip(sent, arrived))


def guest_spans(guest: list[Event]) -> list[Span]:
    """When the driver takes memory, and when it returns it: from its event before to the event that says so."""
    stage = {"taken": "taking", "returned": "returning"}
    return [Span(stage[now.what], before.at, now.at) for before, now in zip(guest, guest[1:]) if now.what in stage]


def host_spans(host: list[Event]) -> list[Span]:
    """When the device frees: from a request that finds it idle, or from the answer before, to the last range of the next answer."""
    spans, begin, last, waiting = [], 0.0, 0.0, 0
    for event in host:
        if event.what == "request":
            begin = begin if waiting else event.at
            waiting += 1
        elif event.what == "discard":
            last = event.at
        elif event.what == "answer":
            if last > begin:
                spans.append(Span("freeing", begin, last))
            begin, waiting = event.at, waiting - 1
    return spans


def on_its_way(guest: list[Event], host: list[Event]) -> list[Span]:
    """Requests until they arrive, answers until they are seen."""
    return [Span("on its way", *sorted(pair)) for what, one, other in (("request", guest, host), ("answer", host, guest))
            for pair in zip(times(one, what), times(other, what))]


def split(spans: list[Span], begin: float, end: float) -> dict[str, float]:
    """Seconds of each stage between two moments."""
    marks = sorted({begin, end, *(mark for span in spans for mark in (span.begin, span.end) if begin < mark < end)})
    found = dict.fromkeys(STAGES, 0.0)
    for first, second in zip(marks, marks[1:]):
        here = {span.stage for span in spans if span.begin <= first and second <= span.end}
        found[next((stage for stage in STAGES if stage in here), "waiting")] += second - first
    return found


def traced(guest: Guest, log: Path, mib: int) -> dict[str, float]:
    """Resize it. From when the device hears of it until the guest has returned or the host has freed the last."""
    start = log.stat().st_size if log.exists() else 0
    guest.run(f"echo >{TRACING}/trace")
    resize(guest, mib * MIB)
    inside = guest_events(guest.run(f"cat {TRACING}/trace").output)
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(start)
        host = host_events(file.read())
    difference = clock_difference(inside, host)
    inside = [dataclasses.replace(event, at=event.at + difference) for event in inside]
    spans = host_spans(host) + guest_spans(inside) + on_its_way(inside, host)
    return split(spans, host[0].at, max([event.at for event in host] + times(inside, "returned")))


def measure(setting: Setting, number: int) -> dict[str, dict[str, float]]:
    """One guest."""
    name = f"bench-stages-{SETTINGS.index(setting)}-{number}"
    log = settings.build() / "e2e" / f"{name}.trace"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with Guest(name, memory=setting.memory, devices=balloon_device(OURS), append=kernel_line(OURS, setting.clear),
               args=["-D", str(log), "-msg", "timestamp=on"]) as guest:
        if setting.state == "used":
            fill(guest, setting)
        elif setting.state == "fragmented":
            fragment(guest, setting.memory * 4 // 5)
        warm_up(setting, Resizable(OURS, guest, setting.memory))
        guest.run(f"echo 1 >{TRACING}/events/virtio_balloon_hp/enable")
        guest.qmp.execute("trace-event-set-state", name="virtio_balloon_hp_*", enable=True)
        found = {"shrink": traced(guest, log, setting.memory - setting.out)}
        time.sleep(REST_SECONDS)
        found["grow"] = traced(guest, log, setting.memory)
    log.unlink()
    return found


def run(rounds: int) -> Report:
    """All rounds."""
    runs: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        for setting in SETTINGS:
            for step, stages in measure(setting, number).items():
                runs.setdefault(f"{step}, {setting}", []).append({**stages, WHOLE: sum(stages.values())})
                print(f"round {number + 1}/{rounds} {setting!s:<38} {step:<7} "
                      + "   ".join(f"{stage} {1000 * seconds:6.2f}" for stage, seconds in runs[f"{step}, {setting}"][-1].items()) + " ms", flush=True)
    series = [Series(title, stage, "milliseconds", [1000 * one[stage] for one in found]) for title, found in runs.items() for stage in (*STAGES, WHOLE)]
    text = (f"{grid('milliseconds', series)}\n\n{how_often(rounds)}, median (lowest-highest), accelerator {settings.accel()}, traced by both sides. "
            "Each moment counts for the first stage that applies:\nthe guest takes the next blocks while the host frees those before, and that is \"freeing\". That pages are marked\ncomes after the last answer, and is in no stage. A guest that grows has its size before it has returned all "
            "blocks to its allocator;\nhere it is done when it has.")
    return Report(text, {"accel": settings.accel(), "runs": runs}, series)
