# SPDX-License-Identifier: GPL-2.0-or-later
"""What a measurement has to say, and its chapter in the documentation."""
from __future__ import annotations

import dataclasses
import os
import platform
import re
import time
from pathlib import Path
from typing import Any


@dataclasses.dataclass
class Report:
    """text: Markdown, for the terminal as well. data: everything, for JSON."""
    text: str
    data: Any


def machine() -> str:
    """This machine and today, in a line."""
    cpu = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} x {cpu}, {memory:.0f} GiB, "
            f"Linux {platform.release().split('-')[0]}")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table that can be read as text: first column left, others right."""
    lines = [head, *rows]
    width = [max(len(line[i]) for line in lines) for i in range(len(head))]

    def text(line: list[str]) -> str:
        cells = [cell.ljust(width[i]) if i == 0 else cell.rjust(width[i]) for i, cell in enumerate(line)]
        return "| " + " | ".join(cells) + " |"
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(width)) + "|"
    return "\n".join([text(head), rule, *(text(row) for row in rows)])


def update(path: Path, name: str, report: Report) -> Path:
    """Replace the chapter of that name, between its two marks, in a document."""
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    new, count = re.subn(re.escape(begin) + ".*?" + re.escape(end),
                         lambda match: f"{begin}\n\n{report.text}\n\n{machine()}.\n\n{end}", text, flags=re.S)
    if count != 1:
        raise ValueError(f"{path} must have the marks '{begin}' and '{end}' once; put them where the results shall be")
    path.write_text(new, encoding="utf-8")
    return path
