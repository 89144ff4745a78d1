# SPDX-License-Identifier: GPL-2.0-or-later
"""./hpb install and uninstall: what they put below a prefix works there, and nothing else is touched."""
from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from hpbtest import settings
from hpbtest.libvirt import Libvirtd, missing

BUILD_SECONDS = 600


def hpb(*args, **environment):
    """Run ./hpb."""
    return subprocess.run([settings.top() / "hpb", *args], env={**os.environ, **environment}, timeout=BUILD_SECONDS,
                          check=False, capture_output=True, text=True)


def files(directory):
    """All names below it."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture
def prefix():
    """A place that other users can read, which had something already."""
    with tempfile.TemporaryDirectory(prefix="hpb-prefix-") as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "bin").mkdir()
        (place / "bin/theirs").touch()
        yield place


def test_installed_emulator_and_tools(prefix, domain):
    """Libvirt's unprivileged user runs a guest with it; hpbctl sees the machine; then all of it goes, and theirs stays."""
    if reason := missing():
        pytest.skip(reason)
    for _ in range(2):  # the second time over the first
        result = hpb("install", "--prefix", str(prefix))
        assert result.returncode == 0, result.stderr
        assert "cannot be entered" not in result.stderr, result.stderr
    emulator = prefix / "lib/hpb/bin/qemu-system-x86_64"
    assert f"<emulator>{emulator}</emulator>" in result.stdout
    with Libvirtd("installed", emulator) as daemon:
        guest = domain("installed", daemon=daemon)
        guest.setmem(512)
        guest.wait_actual(512)
        guest.console.wait_pattern(more=1, passes=1)
        guest.close()
    assert "node" in subprocess.run([prefix / "bin/hpbctl", "--json", "host"], check=True, capture_output=True, text=True).stdout
    result = hpb("uninstall", f"--prefix={prefix}")
    assert result.returncode == 0, result.stderr
    assert files(prefix) == ["bin", "bin/theirs"]


def test_destination_directory(tmp_path):
    """As a packager does it."""
    result = hpb("install", "--prefix=/opt/hpb", DESTDIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "opt/hpb/bin/hpbctl").exists() and (tmp_path / "opt/hpb/share/man/man1/hpbctl.1").exists()
    assert str(tmp_path) not in (tmp_path / "opt/hpb/lib/pkgconfig/hpballoon.pc").read_text()
    assert str(tmp_path) not in (tmp_path / "opt/hpb/lib/hpb/installed").read_text()
    assert hpb("uninstall", "--prefix=/opt/hpb", DESTDIR=str(tmp_path)).returncode == 0
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_bad_prefixes(tmp_path):
    """Said before anything is built or removed."""
    (tmp_path / "file").touch()
    for bad, words, status in (("relative", "absolute", 2), ("/a/../b", "absolute", 2), (str(tmp_path / "file"), "no directory", 1)):
        for command in ("install", "uninstall"):
            result = hpb(command, "--prefix", bad)
            assert (result.returncode, words in result.stderr) == (status, True), result.stderr
    result = hpb("uninstall", "--prefix", str(tmp_path))
    assert result.returncode == 1 and "nothing was installed" in result.stderr
    assert files(tmp_path) == ["file"]
