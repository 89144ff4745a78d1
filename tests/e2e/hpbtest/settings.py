# SPDX-License-Identifier: GPL-2.0-or-later
"""What ./hpb tells the harness: paths, and which accelerator works.

KVM may be there and yet not boot a stock kernel (a paravirtual KVM does that:
it initialises and then hangs), so it is used only after a guest has booted
under it once. The result is remembered for this host kernel and processor.
"""
from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

DEFAULT_KERNEL = "6.12"
KVM_PROBE_SECONDS = 15


def top() -> Path:
    """The project's tree."""
    return Path(os.environ.get("HPB_TOP") or Path(__file__).resolve().parents[3])


def build() -> Path:
    """Build outputs of the tree."""
    return Path(os.environ.get("HPB_BUILD") or top() / "build")


def cache() -> Path:
    """hpb's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hpb"
    return Path(os.environ.get("HPB_CACHE") or default)


def existing(path: Path, what: str) -> Path:
    """path, if it is there; else an error that says how to make it."""
    if not path.exists():
        raise FileNotFoundError(f"{what}: {path} is not there; run ./hpb build first")
    return path


def qemu() -> Path:
    """The QEMU under test."""
    return existing(Path(os.environ.get("HPB_QEMU") or build() / "qemu/plain/qemu-system-x86_64"), "QEMU")


def kernel(series: str = DEFAULT_KERNEL) -> Path:
    """Guest kernel of a series."""
    return existing(cache() / "kernels" / series / "vmlinuz", f"guest kernel {series}")


def versions() -> str:
    """QEMU, the kernel that guests have if nothing else is said, and the accelerator, in a line."""
    said = subprocess.run([qemu(), "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    guest = (kernel().parent / "abi").read_text(encoding="utf-8")
    return f"QEMU {said.split()[3]}, guest Linux {re.split('[+-]', guest)[0].strip()}, accelerator {accel()}"


def initrd(series: str = DEFAULT_KERNEL) -> Path:
    """Initrd for a guest kernel."""
    return existing(build() / "guest" / f"initrd-{series}.cpio", f"initrd for kernel {series}")


def libvirt() -> Path | None:
    """A tree (with usr/) whose libvirt is used instead of the machine's own."""
    tree = os.environ.get("HPB_LIBVIRT")
    return existing(Path(tree) / "usr/sbin/libvirtd", "HPB_LIBVIRT").parents[2] if tree else None


def newer_libvirt() -> Path:
    """The tree that ./hpb test has fetched, if the machine's own libvirt is old."""
    return cache() / "libvirt/root"


def _host_key() -> str:
    model = ""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return f"{platform.release()} {model}"


def _kvm_boots() -> bool:
    from .guest import Guest, GuestError  # guest needs this module: import late
    print(f"    trying KVM: does a guest boot within {KVM_PROBE_SECONDS} s?", file=sys.stderr, flush=True)
    try:
        with Guest("kvm-probe", memory=512, accel="kvm", ready_timeout=KVM_PROBE_SECONDS):
            return True
    except GuestError:
        return False


def accel() -> str:
    """The accelerator to use, "kvm" or "tcg"."""
    wanted = os.environ.get("HPB_ACCEL", "")
    if wanted in ("kvm", "tcg"):
        return wanted
    if wanted:
        raise ValueError(f"HPB_ACCEL={wanted}: must be tcg or kvm")
    memory = cache() / "accel"
    key = _host_key()
    if memory.exists():
        name, _, seen = memory.read_text(encoding="utf-8").strip().partition(" ")
        if seen == key:
            os.environ["HPB_ACCEL"] = name
            return name
    name = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and _kvm_boots() else "tcg"
    memory.write_text(f"{name} {key}\n", encoding="utf-8")
    os.environ["HPB_ACCEL"] = name
    print(f"    guests run under {name}", file=sys.stderr, flush=True)
    return name


def accel_args(name: str) -> list[str]:
    """QEMU arguments for an accelerator and the processor model that goes with it.

    TCG emulates "rep movs/stos" byte by byte; without erms and fsrm the guest
    kernel zeroes and copies with plain loops, which is much faster there.
    """
    if name == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg", "-cpu", "max,-erms,-fsrm"]
