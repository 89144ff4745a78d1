# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host has of a guest's memory: before, ballooned, and grown back, for every kind of backing (DEV-13, DEV-14).

Also what happens when the host does not have it any more.
"""
from __future__ import annotations

import os
import re
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpbtest import hostmem
from hpbtest.balloon import actual, counters, driver_status, qom_path, resize, set_target, wait_actual
from hpbtest.guest import MIB

GIB = 1024 * MIB
HUGE = 2 * MIB
LARGE = 1024 * MIB
SMALL = 400 * MIB
NOISE = 16 * MIB
BACK_SECONDS = 90.0  # the driver asks again after 30 s at most


def backend(options):
    """Guest memory from one backend; options begin with its type."""
    return {"machine": "pc,memory-backend=m", "args": ["-object", f"{options},id=m,size={LARGE // MIB}M"]}


def need_pool(pages):
    """Skip without that many free huge pages."""
    if (free := hostmem.pool_free()) < pages:
        pytest.skip(f"needs {pages} free 2 MiB huge pages, this host has {free} (vm.nr_hugepages)")


@contextmanager
def hog(left):
    """Another program has all huge pages of the pool but `left`."""
    fd = os.memfd_create("hog", os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    try:
        os.posix_fallocate(fd, 0, (hostmem.pool_free() - left) * HUGE)
        assert hostmem.pool_free() == left
        yield
    finally:
        os.close(fd)


@contextmanager
def more_pages(kib, pages):
    """So many more huge pages of that size in the host's pool."""
    path = Path(f"/sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages")
    if not path.exists():
        pytest.skip(f"this host has no huge pages of {kib} KiB")
    before = int(path.read_text(encoding="utf-8"))
    got = 0
    try:
        try:
            path.write_text(str(before + pages), encoding="utf-8")
        except OSError as error:
            pytest.skip(f"needs the right to write {path} (root): {error}")
        got = int(path.read_text(encoding="utf-8")) - before
        if got < pages:
            pytest.skip(f"needs {pages} more huge pages of {kib} KiB, this host has memory for {got}")
        yield
    finally:
        if got:
            path.write_text(str(int(path.read_text(encoding="utf-8")) - got), encoding="utf-8")


@pytest.fixture
def mounted(tmp_path):
    """Mounts file systems until the test ends: mounted(TYPE, OPTIONS) is where."""
    done = []

    def mount(kind, options):
        path = tmp_path / f"{kind}-{len(done)}"
        path.mkdir()
        run = subprocess.run(["mount", "-t", kind, "-o", options, "hpb-test", str(path)],
                             capture_output=True, text=True, check=False)
        if run.returncode:
            pytest.skip(f"needs the right to mount {kind} with {options} (root): {run.stderr.strip()}")
        done.append(path)
        return path

    yield mount
    for path in done:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("kind", ["memfd", "hugetlbfs"])
def test_hugetlb_pool_gets_exactly_what_is_ballooned(boot, kind, mounted):
    """HugePages_Free rises by what the balloon holds, and falls by it again."""
    need_pool(LARGE // HUGE)
    options = "memory-backend-memfd,hugetlb=on,hugetlbsize=2M"
    if kind == "hugetlbfs":
        options = f"memory-backend-file,share=on,mem-path={mounted('hugetlbfs', 'pagesize=2M')}"
    guest = boot(memory=1024, append="hpb.touch=700 hpb.pattern=64", **backend(f"{options},prealloc=on"))
    before = hostmem.pool_free()
    resize(guest, SMALL)
    assert hostmem.pool_free() - before == (LARGE - SMALL) // HUGE
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, LARGE)
    assert hostmem.pool_free() == before
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    guest.console.wait_pattern(more=1, passes=1)


def test_stock_balloon_gives_no_huge_page_back(boot):
    """What this device is for: the traditional one leaves the pool as it is."""
    need_pool(LARGE // HUGE)
    guest = boot(memory=1024, driver="virtio-balloon-pci", append="hpb.touch=700",
                 **backend("memory-backend-memfd,hugetlb=on,hugetlbsize=2M,prealloc=on"))
    before = hostmem.pool_free()
    resize(guest, SMALL)
    assert hostmem.pool_free() == before


def test_grow_while_the_pool_is_empty(boot):
    """Refused in part: the guest lives with what there is, says why it waits, and has the rest when pages are back."""
    need_pool(LARGE // HUGE)
    guest = boot(memory=1024, append="hpb.touch=700 hpb.pattern=64",
                 **backend("memory-backend-memfd,hugetlb=on,hugetlbsize=2M,prealloc=on"))
    resize(guest, SMALL)
    with hog(left=100):
        set_target(guest, LARGE)
        wait_actual(guest, SMALL + 100 * HUGE)
        guest.console.wait_pattern(more=1, passes=2)
        assert actual(guest) == SMALL + 100 * HUGE
        assert driver_status(guest)["stop"] == "the host has no memory"
        assert counters(guest)["refused"]["nomem"] > 0
        assert hostmem.pool_free() == 0
        refused = guest.qmp.qom_get(qom_path(), "grow-refused")
        assert refused["block"] == "m" and refused["bytes"] > 0 and "pool" in refused["reason"], refused
        assert guest.stderr().count("which the host cannot provide") == 1
        # what it was given is real
        assert "TOUCHED 200" in guest.run("hpb-touch -p random 200").output
    wait_actual(guest, LARGE, BACK_SECONDS)
    assert guest.qmp.qom_get(qom_path(), "grow-refused") == {"active": False}
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    guest.console.wait_pattern(more=1, passes=1)


def test_prealloc(boot):
    """prealloc=on: memory that comes back is there before the guest touches it."""
    guest = boot(memory=1024, append="hpb.touch=700 hpb.pattern=64", options={"prealloc": "on"})
    before = hostmem.guest_ram(guest.pid, LARGE).rss
    resize(guest, SMALL)
    assert hostmem.guest_ram(guest.pid, LARGE).rss <= SMALL + NOISE
    resize(guest, LARGE)
    assert hostmem.guest_ram(guest.pid, LARGE).rss >= before - NOISE
    guest.console.wait_pattern(more=1, passes=1)


def test_shrink_again_while_a_grow_waits(boot):
    """A new target ends the waiting; nothing is lost by it."""
    need_pool(LARGE // HUGE)
    guest = boot(memory=1024, append="hpb.pattern=64",
                 **backend("memory-backend-memfd,hugetlb=on,hugetlbsize=2M,prealloc=on"))
    resize(guest, SMALL)
    with hog(left=10):
        set_target(guest, LARGE)
        wait_actual(guest, SMALL + 10 * HUGE)
        resize(guest, SMALL - 20 * HUGE)
        assert hostmem.pool_free() == 30
        resize(guest, SMALL)
        assert hostmem.pool_free() == 10
    guest.console.wait_pattern(more=1, passes=1)


@pytest.fixture
def host_thp():
    """Sets the host's switch for transparent huge pages of anonymous memory until the test ends."""
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    before = re.search(r"\[(\w+)\]", path.read_text(encoding="utf-8"))[1]

    def switch(value):
        try:
            path.write_text(value, encoding="utf-8")
        except OSError as error:
            pytest.skip(f"needs the right to write {path} (root): {error}")

    yield switch
    if re.search(r"\[(\w+)\]", path.read_text(encoding="utf-8"))[1] != before:
        path.write_text(before, encoding="utf-8")


def there_and_back(guest, held, huge, is_huge):
    """What is ballooned costs the host nothing, nor does what came back, until it is used."""
    assert (huge() > 600 * MIB) == is_huge, f"{huge() // MIB} MiB in huge pages"
    assert held() > 700 * MIB
    resize(guest, SMALL)
    assert held() <= SMALL + NOISE
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, LARGE)
    assert held() <= SMALL + NOISE
    assert "TOUCHED 700" in guest.run("hpb-touch -p random 700").output
    assert held() > 700 * MIB
    guest.console.wait_pattern(more=1, passes=1)


@pytest.mark.parametrize("thp", ["madvise", "never"])
def test_anonymous_memory(boot, host_thp, thp):
    """In transparent huge pages, which QEMU asks for, and in small ones."""
    host_thp(thp)
    guest = boot(memory=1024, append="hpb.touch=700 hpb.pattern=64", **backend("memory-backend-ram"))
    there_and_back(guest, lambda: hostmem.guest_ram(guest.pid, LARGE).rss,
                   lambda: hostmem.process(guest.pid).anon_huge, thp != "never")


def test_memfd(boot):
    """Shared memory, in small pages (memfd has others only if the host's administrator says so)."""
    guest = boot(memory=1024, append="hpb.touch=700 hpb.pattern=64", **backend("memory-backend-memfd,share=on"))
    there_and_back(guest, lambda: hostmem.memfd_allocated(guest.pid), lambda: hostmem.process(guest.pid).shmem_huge, False)


def test_tmpfs_in_huge_pages(boot, mounted):
    """Shared memory in transparent huge pages: a file on a tmpfs that has them."""
    path = mounted("tmpfs", "huge=always")
    guest = boot(memory=1024, append="hpb.touch=700 hpb.pattern=64",
                 **backend(f"memory-backend-file,share=on,align=2M,mem-path={path}"))
    there_and_back(guest, lambda: hostmem.memfd_allocated(guest.pid, str(path)),
                   lambda: hostmem.process(guest.pid).shmem_huge, True)


def test_huge_pages_after_ten_cycles(boot):
    """Shrink and grow ten times, fill: the host has as many huge pages behind the guest as behind a fresh one."""
    guest = boot(memory=1024, append="hpb.touch=800")
    fresh = hostmem.process(guest.pid).anon_huge
    for _ in range(10):
        resize(guest, SMALL)
        resize(guest, LARGE)
    deadline = time.monotonic() + 60
    while True:
        assert "TOUCHED 800" in guest.run("hpb-touch 800").output
        huge = hostmem.process(guest.pid).anon_huge
        if huge >= 0.98 * fresh:
            break
        assert time.monotonic() < deadline, f"{huge // MIB} MiB in huge pages, {fresh // MIB} MiB when it was fresh"


def test_units_of_one_gibibyte(boot, series):
    """Nothing less can be given up: the guest empties whole gibibytes of its memory, and gets them back.

    Of 8 GiB some four have nothing of the kernel in them, which cannot be moved.
    """
    guest = boot(series, memory=8 * 1024, append="hpb.touch=900 hpb.pattern=64", options={"unit": "1G"})
    resize(guest, 6 * GIB)
    assert counters(guest)["inflate"]["bytes"] == 2 * GIB
    guest.console.wait_pattern(more=1, passes=1)
    resize(guest, 8 * GIB)
    assert "TOUCHED 2000" in guest.run("hpb-touch -s 2000").output
    resize(guest, 7 * GIB)
    guest.console.wait_pattern(more=1, passes=1)


def test_pages_of_one_gibibyte(boot):
    """On huge pages of that size: the unit is the page size, and the pool gets what is ballooned."""
    pages = 4
    with more_pages(1024 * 1024, pages):
        guest = boot(memory=pages * 1024, append="hpb.touch=900 hpb.pattern=64", machine="pc,memory-backend=m",
                     args=["-object", f"memory-backend-memfd,id=m,size={pages}G,hugetlb=on,hugetlbsize=1G,prealloc=on"])
        assert guest.qmp.qom_get(qom_path(), "unit") == GIB
        before = hostmem.pool_free(1024 * 1024)
        resize(guest, (pages - 1) * GIB)
        assert hostmem.pool_free(1024 * 1024) - before == 1
        guest.console.wait_pattern(more=1, passes=1)
        resize(guest, pages * GIB)
        assert hostmem.pool_free(1024 * 1024) == before
        guest.console.wait_pattern(more=1, passes=1)
