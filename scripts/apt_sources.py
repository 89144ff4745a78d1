#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Derive an apt source list of our own from the machine's.

hpb needs suites that the machine may not use (backports, the source packages
of the next release). It must not change the user's apt set-up, and it must
not know any mirror by name. So: read the machine's entries (both the one-line
and the deb822 form), find those that serve the Debian archive, and print
one-line entries with the same URI and keyring for the suites asked for.

usage: apt_sources.py CODENAME KEYDIR SUITE[:TYPE[,TYPE]]...

Third-party repositories also use suites such as "bookworm main", so the
entries are ranked: keyring of the Debian archive, no keyring named, any other.
Whether a suite exists is not decided here; apt tells (see apt.sh).
"""
import dataclasses
import glob
import os
import re
import sys

DEFAULT_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclasses.dataclass
class Entry:
    """One archive at one URI."""
    uri: str
    suites: list[str]
    components: list[str]
    signed_by: str = ""

    def rank(self) -> int:
        """Lower is more surely the Debian archive."""
        if "debian-archive" in self.signed_by:
            return 0
        return 1 if not self.signed_by else 2


def parse_one_line(text: str) -> list[Entry]:
    """Entries of the sources.list(5) one-line form."""
    found = []
    for line in text.splitlines():
        line = line.split("#", 1)[0].strip()
        match = re.match(r"deb(?:-src)?\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$", line)
        if not match or match[2].startswith("cdrom:"):
            continue
        options = dict(o.split("=", 1) for o in (match[1] or "").split() if "=" in o)
        found.append(Entry(match[2], [match[3]], match[4].split(),
                           options.get("signed-by", "").split(",")[0]))
    return found


def parse_deb822(text: str) -> list[Entry]:
    """Entries of the deb822 form, one for each URI."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in " \t" and name:
                fields[name] += "\n" + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0", "off", "disable", "without"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        for uri in fields.get("uris", "").split():
            found.append(Entry(uri, fields.get("suites", "").split(),
                               fields.get("components", "").split(), fields.get("signed-by", "")))
    return found


def machine_entries(etc: str = "/etc/apt") -> list[Entry]:
    """All entries of the machine's apt configuration."""
    found = []
    for path in [f"{etc}/sources.list", *sorted(glob.glob(f"{etc}/sources.list.d/*"))]:
        if not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        if path.endswith(".sources"):
            found += parse_deb822(text)
        elif path.endswith(".list"):
            found += parse_one_line(text)
    return found


def keyring(entry: Entry, keydir: str) -> str:
    """Path of the keyring for an entry; an embedded key is written to keydir."""
    if not entry.signed_by:
        return DEFAULT_KEYRING
    if "BEGIN PGP" not in entry.signed_by:
        return entry.signed_by.split()[0]
    path = os.path.join(keydir, "embedded.asc")
    lines = ["" if line == "." else line for line in entry.signed_by.strip().splitlines()]
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


def pick(entries: list[Entry], suites: set[str]) -> list[Entry]:
    """The best-ranked entries that serve component main of one of the suites."""
    match = [e for e in entries if "main" in e.components and suites & set(e.suites)]
    best = min((e.rank() for e in match), default=0)
    unique = {e.uri: e for e in match if e.rank() == best}
    return list(unique.values())


def main(argv: list[str]) -> int:
    if len(argv) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    codename, keydir, wanted = argv[1], argv[2], argv[3:]
    entries = machine_entries()
    generic = {"stable", "oldstable", "testing"}
    main_archive = pick(entries, {codename} | generic)
    security = pick(entries, {f"{codename}-security"} | {f"{g}-security" for g in generic})
    if not main_archive:
        print(f"apt_sources.py: no entry for the Debian archive (suite {codename}, component main) in "
              "/etc/apt/sources.list or /etc/apt/sources.list.d: add one", file=sys.stderr)
        return 1
    for item in wanted:
        suite, _, types = item.partition(":")
        for entry in security if suite.endswith("-security") else main_archive:
            for kind in types.split(",") if types else ["deb"]:
                print(f"{kind} [signed-by={keyring(entry, keydir)}] {entry.uri} {suite} main")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
