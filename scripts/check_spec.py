#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of the specification, as TAP.

usage: check_spec.py TOP OUT-DIR

It renders without a warning, numbers each requirement once and leaves none out, agrees
with the wire header on every constant, names no requirement in code that it does
not have, and each device requirement is cited by a test.
"""
from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REQUIREMENT = re.compile(r"\b(DRV|DEV)-(\d+)\b")


def definitions(text: str) -> list[tuple[str, int]]:
    """Requirements in the order in which they are defined."""
    return [(m[1], int(m[2])) for m in re.finditer(r"^(DRV|DEV)-(\d+)$", text, re.M)]


def check_render(spec: Path, out: Path) -> list[str]:
    """It renders to HTML without a warning."""
    out.mkdir(parents=True, exist_ok=True)
    tool = "import docutils.core; docutils.core.publish_cmdline(writer_name='html5')"
    run = subprocess.run(["/usr/bin/python3", "-c", tool, "--strict", str(spec), str(out / (spec.stem + ".html"))],
                         capture_output=True, text=True, check=False)
    return run.stderr.splitlines() if run.returncode or run.stderr.strip() else []


def check_numbers(text: str) -> list[str]:
    """Requirements are numbered from 1, without a gap, each once; later ones may stand anywhere."""
    wrong = []
    for kind in ("DRV", "DEV"):
        numbers = [n for k, n in definitions(text) if k == kind]
        if sorted(numbers) != list(range(1, len(numbers) + 1)):
            wrong.append(f"{kind}: {numbers}")
        if not numbers:
            wrong.append(f"{kind}: no requirement found")
    return wrong


def header_constants(header: str) -> dict[str, int]:
    """Numbers that the wire header defines."""
    found = {}
    for name, value in re.findall(r"^#define\s+VIRTIO_BALLOON_HP_(\w+)\s+(0x[0-9a-fA-F]+|\d+|\(1 << \d+\))", header, re.M):
        shift = re.match(r"\(1 << (\d+)\)", value)
        found[name] = 1 << int(shift[1]) if shift else int(value, 0)
    return found


def check_constants(text: str, header: str) -> list[str]:
    """Feature bits, request types and statuses have the header's numbers."""
    constants = header_constants(header)
    wrong, seen = [], set()
    features = re.findall(r"^VIRTIO_BALLOON_HP_(F_\w+) \((\d+)\)$", text, re.M)
    types = re.findall(r"^VIRTIO_BALLOON_HP_(REQ_\w+)\s+(\d+)\s", text, re.M)
    statuses = re.findall(r"^([A-Z][A-Z_]+)\s+(\d+)\s{2,}\S", text, re.M)
    for name, value in features + types + statuses:
        name = name.removeprefix("VIRTIO_BALLOON_HP_")
        seen.add(name)
        if constants.get(name) != int(value):
            wrong.append(f"{name} is {value} in the text, {constants.get(name, 'missing')} in the header")
    for name in constants:
        if name.startswith(("F_", "REQ_")) and name not in seen:
            wrong.append(f"{name} is in the header, not in the text")
    if not (features and types and statuses):
        wrong.append("no tables of constants found in the text")
    return wrong


def citations(top: Path, folders: list[str]) -> dict[tuple[str, int], str]:
    """Requirements that sources name, with a place for each. "DEV-3 to DEV-6" names its ends only."""
    found: dict[tuple[str, int], str] = {}
    for folder in folders:
        for path in sorted((top / folder).rglob("*")):
            if path.suffix in (".c", ".h", ".py", ".sh") and path.is_file():
                for match in REQUIREMENT.finditer(path.read_text(encoding="utf-8", errors="replace")):
                    found.setdefault((match[1], int(match[2])), str(path.relative_to(top)))
    return found


def check_cited_exist(text: str, top: Path) -> list[str]:
    """Sources and tests cite only requirements that exist."""
    known = set(definitions(text))
    return [f"{place} cites {kind}-{number}" for (kind, number), place in
            sorted(citations(top, ["guest", "qemu", "helper", "tests"]).items()) if (kind, number) not in known]


def check_device_tested(text: str, top: Path) -> list[str]:
    """Each device requirement is cited by a test."""
    cited = citations(top, ["tests/qtest", "tests/e2e", "tests/unit"])
    return [f"{kind}-{number} is cited by no test" for kind, number in definitions(text)
            if kind == "DEV" and (kind, number) not in cited]


def check_driver_tested(text: str, top: Path) -> list[str]:
    """Each driver requirement is cited by a test."""
    cited = citations(top, ["tests/kunit", "tests/e2e"])
    return [f"{kind}-{number} is cited by no test" for kind, number in definitions(text)
            if kind == "DRV" and (kind, number) not in cited]


def main(argv: list[str]) -> int:
    if len(argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    top, out = Path(argv[1]), Path(argv[2])
    spec = top / "spec/virtio-balloon-hp.rst"
    text = spec.read_text(encoding="utf-8")
    header = (top / "spec/virtio_balloon_hp.h").read_text(encoding="utf-8")
    results = [
        ("renders to HTML without a warning", check_render(spec, out)),
        ("requirements are numbered once and in order", check_numbers(text)),
        ("constants agree with the wire header", check_constants(text, header)),
        ("sources cite only requirements that exist", check_cited_exist(text, top)),
        ("each device requirement is cited by a test", check_device_tested(text, top)),
        ("each driver requirement is cited by a test", check_driver_tested(text, top)),
    ]
    print(f"1..{len(results)}")
    for number, (name, wrong) in enumerate(results, 1):
        for line in wrong:
            print(f"# {line}")
        print(f"{'not ok' if wrong else 'ok'} {number} - spec: {name}")
    return 1 if any(wrong for _, wrong in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
