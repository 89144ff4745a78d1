# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# libvirt, for those who work on it: a release newer than the machine's, to test
# with, unpacked in a tree of its own; and one built with libvirt/patches. Users
# need neither: an unmodified libvirt drives the device (docs/libvirt.md).

HPB_LIBVIRT_NEWER=11
HPB_LIBVIRT_SERIES=11.3
HPB_PACKAGES_LIBVIRT="libgnutls28-dev libjson-c-dev libtirpc-dev libxml2-dev libxml2-utils libreadline-dev libnuma-dev libnl-3-dev libnl-route-3-dev
    libcap-ng-dev libglib2.0-dev python3 python3-docutils xsltproc"
# What notices a change of models of devices; all of libvirt's tests take ten times as long.
HPB_LIBVIRT_TESTS="qemuxmlconftest qemucapabilitiestest qemumonitorjsontest qemuhotplugtest domaincapstest genericxml2xmltest virschematest"

# fill_libvirt DIR: the daemon with QEMU's driver, and virsh, of the newest release there is.
fill_libvirt() {
    local version
    version=$(newest_version_of libvirt-daemon)
    version=${version#*=}
    dpkg --compare-versions "$version" ge "$HPB_LIBVIRT_NEWER" || { echo "libvirt '$version' is not $HPB_LIBVIRT_NEWER or later"; return 1; }
    fetch_debs "$1" "libvirt0=$version" "libvirt-common=$version" "libvirt-daemon=$version" \
        "libvirt-daemon-common=$version" "libvirt-daemon-driver-qemu=$version" "libvirt-clients=$version"
}

# need_newer_libvirt: a tree with libvirt 11, the one of Debian 13 and of Debian 12's backports, beside the machine's
# own if that is older. It is for some of the end-to-end tests, which say so when it cannot be had.
need_newer_libvirt() {
    local own rc
    own=$(dpkg-query -W -f '${Version}' libvirt-daemon 2>/dev/null || true)
    if dpkg --compare-versions "$own" ge "$HPB_LIBVIRT_NEWER" || [ -f "$HPB_CACHE/libvirt/.hpb-stamp" ]; then
        return 0
    fi
    apt_lists
    set +e
    (set -e; cached "$HPB_CACHE/libvirt" "libvirt $HPB_LIBVIRT_NEWER" 50 "libvirt $HPB_LIBVIRT_NEWER" fill_libvirt)
    rc=$?
    set -e
    [ $rc -eq 0 ] || warn "no libvirt $HPB_LIBVIRT_NEWER to be had beside the machine's $own: tests that want it are skipped"
}

# libvirt_version: newest source of the series.
libvirt_version() {
    own_apt cache madison libvirt | awk -F'|' '/Sources/ { gsub(/ /, "", $2); print $2 }' |
        grep -E "^${HPB_LIBVIRT_SERIES//./\\.}\\." | sort -rV | head -n 1
}

fill_libvirt_source() {
    local dir=$1 version
    version=$(libvirt_version)
    [ -n "$version" ] || { echo "Failed to fetch libvirt: no source of the series $HPB_LIBVIRT_SERIES (bookworm-backports, trixie)"; return 1; }
    mkdir "$dir/download" "$dir/src"
    # The patches are for upstream, so Debian's own are not wanted.
    (cd "$dir/download" && own_apt get source --tar-only --download-only "libvirt=$version") || { apt_forget; return 1; }
    tar -xf "$dir"/download/*.orig.tar.* -C "$dir/src" --strip-components=1
    rm -rf "$dir/download"
}

# patch_libvirt FROM TO: a tree with libvirt/patches; what did not change keeps its time.
patch_libvirt() {
    local file new=$2.new
    rm -rf "$new"
    cp -r "$1" "$new"
    for file in "$HPB_TOP"/libvirt/patches/*.patch; do
        patch -d "$new" -p1 --fuzz=0 --forward --silent --no-backup-if-mismatch <"$file" ||
            { echo "$file does not apply to libvirt $HPB_LIBVIRT_SERIES"; return 1; }
    done
    rsync -rlpc --delete "$new/" "$2/"
    rm -rf "$new"
}

make_libvirt() {
    local dir=$1 PATH=/usr/sbin:/usr/bin:/sbin:/bin
    patch_libvirt "$HPB_CACHE/src/libvirt/src" "$dir/src"
    if [ ! -f "$dir/build/build.ninja" ]; then
        $MESON setup "$dir/build" "$dir/src" --auto-features=disabled --prefix=/usr --sysconfdir=/etc --localstatedir=/var \
            --libdir="lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)" \
            -Ddriver_qemu=enabled -Ddriver_libvirtd=enabled -Ddriver_remote=enabled -Dtests=enabled \
            -Djson_c=enabled -Dcapng=enabled -Dnumactl=enabled -Dlibnl=enabled -Dreadline=enabled
    fi
    ninja -j "$HPB_JOBS" -C "$dir/build"
    rm -rf "$dir/root"
    DESTDIR=$dir/root $MESON install -C "$dir/build" --no-rebuild --quiet
}

# build_libvirt: with libvirt/patches. Sets LIBVIRT_NATIVE to its directory: src, build, root.
build_libvirt() {
    LIBVIRT_NATIVE=$HPB_CACHE/libvirt-native
    # shellcheck disable=SC2086 # a list of words
    need_packages $HPB_PACKAGES_LIBVIRT
    need_meson
    if [ ! -f "$HPB_CACHE/src/libvirt/.hpb-stamp" ]; then
        apt_lists
        cached "$HPB_CACHE/src/libvirt" "libvirt $HPB_LIBVIRT_SERIES" 400 "libvirt $HPB_LIBVIRT_SERIES source" fill_libvirt_source
    fi
    mkdir -p "$LIBVIRT_NATIVE/src"
    need_disk 1500 "$LIBVIRT_NATIVE" "libvirt"
    run_step "libvirt $HPB_LIBVIRT_SERIES with libvirt/patches" make_libvirt "$LIBVIRT_NATIVE"
}

# suite_libvirt: the patches for libvirt, by its own tests and with a real guest.
suite_libvirt() {
    prepare "${HPB_KERNELS%% *}"
    take_lock
    build_libvirt
    drop_lock
    say "==> tests of libvirt"
    # shellcheck disable=SC2086 # a list of words
    $MESON test -C "$LIBVIRT_NATIVE/build" --no-rebuild $HPB_LIBVIRT_TESTS >"$HPB_RESULTS/libvirt-own.log" 2>&1 || true
    cp "$LIBVIRT_NATIVE/build/meson-logs/testlog.junit.xml" "$HPB_RESULTS/libvirt-own.xml"
    say "==> a real guest"
    HPB_LIBVIRT=$LIBVIRT_NATIVE/root harness -m pytest "$HPB_TOP/tests/e2e/native_libvirt.py" -p no:cacheprovider -q \
        --junitxml="$HPB_RESULTS/libvirt-guest.xml" >"$HPB_RESULTS/libvirt-guest.log" 2>&1 || true
}
