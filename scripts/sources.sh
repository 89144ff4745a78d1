# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What hpb builds upon, each in a cached directory: the QEMU source, guest
# kernels with their build directories, meson, the kernel source.
#
# "The newest that can be had" is decided once, when the directory is made; it
# then stays until ./hpb clean --cache, so that results can be compared.

HPB_QEMU_SERIES=10.0
HPB_KERNELS="6.12 6.1"
HPB_KERNEL_SOURCE=$HPB_CACHE/src/linux-6.12

# --- meson ------------------------------------------------------------------

fill_meson() { fetch_debs "$1" "$(newest_version_of meson)"; }

# newest_version_of PACKAGE: PACKAGE=VERSION of the newest there is.
newest_version_of() {
    local version
    version=$(own_apt cache madison "$1" | awk -F'|' '/Packages/ { gsub(/ /, "", $2); print $2 }' | sort -rV | head -n 1)
    [ -n "$version" ] || { echo "no package '$1' in the archive"; return 1; }
    printf '%s=%s\n' "$1" "$version"
}

# need_meson: set MESON to a command that runs meson 1.5 or later.
need_meson() {
    local dir=$HPB_CACHE/meson packages version
    version=$(dpkg-query -W -f '${Version}' meson 2>/dev/null || true)
    MESON="/usr/bin/python3 -m mesonbuild.mesonmain"
    if [ -n "$version" ] && dpkg --compare-versions "$version" ge 1.5; then
        return 0
    fi
    if [ ! -f "$dir/.hpb-stamp" ]; then
        apt_lists
        cached "$dir" "meson 1" 50 "meson" fill_meson
    fi
    packages=$dir/root/usr/lib/python3/dist-packages
    # QEMU's configure looks for meson among the Python packages it can import.
    export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
}

# --- QEMU -------------------------------------------------------------------

# qemu_candidates: versions of the source package qemu in our series, newest first.
qemu_candidates() {
    own_apt cache showsrc qemu 2>/dev/null | awk '/^Version:/ { print $2 }' | sort -u |
        grep -E "^([0-9]+:)?${HPB_QEMU_SERIES//./\\.}\\.[0-9]" | sort -rV
}

fill_qemu_source() {
    local dir=$1 version dsc tried=
    for version in $(qemu_candidates); do
        echo "trying qemu $version"
        tried="$tried $version"
        rm -rf "$dir/download"
        mkdir "$dir/download"
        if (cd "$dir/download" && own_apt get source --download-only "qemu=$version"); then
            dsc=$(ls "$dir"/download/*.dsc)
            # apt has checked the hashes of all files against the signed archive.
            dpkg-source --no-check -x "$dsc" "$dir/src"
            rm -rf "$dir/download"
            return 0
        fi
        echo "qemu $version cannot be downloaded, trying the next"
    done
    apt_forget
    echo "Failed to fetch the QEMU source. Versions tried:${tried:- none found in the series $HPB_QEMU_SERIES}."
    echo "Needed: Debian source package qemu $HPB_QEMU_SERIES.x (bookworm-backports or trixie)."
    echo "To use a tree of your own: HPB_QEMU_SRC=/path/to/qemu-$HPB_QEMU_SERIES.x ./hpb ..."
    return 1
}

# check_qemu_tree DIR: die unless DIR is a QEMU source tree of the series.
check_qemu_tree() {
    local version where="Get QEMU $HPB_QEMU_SERIES.x: Debian source package qemu (bookworm-backports, trixie), or the release tarball."
    if [ ! -f "$1/VERSION" ] || [ ! -f "$1/hw/virtio/virtio-balloon.c" ]; then
        die "HPB_QEMU_SRC=$1 is not a QEMU source tree (no VERSION or no hw/virtio/virtio-balloon.c). $where"
    fi
    version=$(cat "$1/VERSION")
    case $version in
    "$HPB_QEMU_SERIES".*) ;;
    *) die "HPB_QEMU_SRC=$1 is QEMU $version; the patches are for $HPB_QEMU_SERIES.x. $where" ;;
    esac
}

# need_qemu_source: set QEMU_PRISTINE to an unmodified QEMU source tree.
need_qemu_source() {
    if [ -n "${HPB_QEMU_SRC:-}" ]; then
        check_qemu_tree "$HPB_QEMU_SRC"
        QEMU_PRISTINE=$(realpath "$HPB_QEMU_SRC")
        return 0
    fi
    if [ ! -f "$HPB_CACHE/src/qemu/.hpb-stamp" ]; then
        apt_lists
        cached "$HPB_CACHE/src/qemu" "qemu $HPB_QEMU_SERIES 1" 1000 "QEMU $HPB_QEMU_SERIES source" fill_qemu_source
    fi
    QEMU_PRISTINE=$HPB_CACHE/src/qemu/src
}

# --- guest kernels ----------------------------------------------------------

# kernel_dir SERIES: where the kernel of a series is.
kernel_dir() { printf '%s\n' "$HPB_CACHE/kernels/$1"; }

# check_kernel SERIES: usage error unless hpb knows the series.
check_kernel() {
    [[ " $HPB_KERNELS $HPB_PATCHED " == *" $1 "* ]] || usage_error "unknown guest kernel '$1' (there are: $HPB_KERNELS $HPB_PATCHED)"
}

# dependency_of PACKAGE PATTERN: first dependency whose name matches.
dependency_of() {
    own_apt cache depends --important "$1" | awk '$1 == "Depends:" { print $2 }' | grep -E "$2" | head -n 1
}

fill_kernel() {
    local dir=$1 series=$2 dest=$3 image abi headers common kbuild
    for image in $(own_apt cache pkgnames "linux-image-$series." |
        grep -E "^linux-image-${series//./\\.}\\.[0-9]+.*-cloud-amd64\$" | sort -rV); do
        abi=${image#linux-image-}
        headers=linux-headers-$abi
        common=$(dependency_of "$headers" '^linux-headers-.*-common$') || continue
        kbuild=$(dependency_of "$headers" '^linux-kbuild-') || continue
        echo "trying $image $common $kbuild"
        if fetch_debs "$dir" "$image" "$headers" "$common" "$kbuild"; then
            adjust_kernel_headers "$dir" "$abi" "$dest"
            return 0
        fi
        rm -rf "$dir/root" "$dir/debs"
    done
    echo "Failed to fetch a guest kernel linux-image-$series.*-cloud-amd64 with its headers from this machine's mirror."
    return 1
}

# adjust_kernel_headers DIR ABI DEST: the packages expect to be at /usr/src and
# /usr/lib; make them work where they are.
adjust_kernel_headers() {
    local dir=$1 abi=$2 dest=$3 headers=$1/root/usr/src/linux-headers-$2
    sed -i "s#/usr/src/#$dest/root/usr/src/#" "$headers/Makefile"
    if ! have gcc-12 && grep -q 'gcc-12' "$headers/.kernelvariables"; then
        sed -i 's/gcc-12/gcc/' "$headers/.kernelvariables"
    fi
    rm -f "$dir/root/lib/modules/$abi/build" "$dir/root/lib/modules/$abi/source"
    # It is there for BTF, which needs pahole; without it kbuild leaves BTF out.
    rm -f "$headers/vmlinux"
    # bookworm has /lib, later releases /usr/lib.
    if [ ! -d "$dir/root/lib/modules" ]; then
        ln -sfn usr/lib "$dir/root/lib"
    fi
    depmod -b "$dir/root" "$abi"
    ln -s "root/boot/vmlinuz-$abi" "$dir/vmlinuz"
    ln -s "root/usr/src/linux-headers-$abi" "$dir/kdir"
    printf '%s\n' "$abi" >"$dir/abi"
}

# need_kernel SERIES: set KERNEL_DIR, which then has vmlinuz, kdir, abi, root/.
need_kernel() {
    if [ "$1" = "$HPB_PATCHED" ]; then
        need_patched_kernel
        return 0
    fi
    KERNEL_DIR=$(kernel_dir "$1")
    [ -f "$KERNEL_DIR/.hpb-stamp" ] && [ "$(cat "$KERNEL_DIR/.hpb-stamp")" = "kernel $1 $KERNEL_DIR 2" ] && return 0
    apt_lists
    cached "$KERNEL_DIR" "kernel $1 $KERNEL_DIR 2" 900 "Guest kernel $1" fill_kernel "$1" "$KERNEL_DIR"
}

# --- kernel source (KUnit, checkpatch) -----------------------------------------

fill_kernel_source() {
    local dir=$1
    fetch_debs "$dir" "$(newest_version_of linux-source-6.12)"
    tar -xJf "$dir"/root/usr/src/linux-source-6.12.tar.xz -C "$dir"
    mv "$dir"/linux-source-6.12 "$dir/src"
    rm -rf "$dir/root"
}

# need_kernel_source: set KERNEL_SOURCE to an unmodified Linux 6.12 tree.
need_kernel_source() {
    KERNEL_SOURCE=$HPB_KERNEL_SOURCE/src
    [ -f "$HPB_KERNEL_SOURCE/.hpb-stamp" ] && return 0
    apt_lists
    cached "$HPB_KERNEL_SOURCE" "linux-source 1" 2500 "Linux 6.12 source" fill_kernel_source
}
