# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Puts what the host needs below a prefix: QEMU with the device, for libvirt's
# <emulator>; hpbctl, the helper library and their manual pages.
#
# QEMU looks for firmware in ../share/qemu of its own directory, so both stand
# together in PREFIX/lib/hpb, where no other QEMU's files are, and it needs no
# wrapper: a shell between libvirt and QEMU is one thing more that a sandbox
# would have to allow. hpbctl is linked statically with the helper library: no
# search path has to be set for it.
#
# PREFIX/lib/hpb/installed lists files and directories, a directory after what is
# in it, so that they can be removed.

# install_emulator DIR: QEMU and its firmware.
install_emulator() {
    local file
    install -D -m 755 "$HPB_QEMU" "$1/bin/qemu-system-x86_64.new"
    # guests that run keep the file they were started from
    mv -f "$1/bin/qemu-system-x86_64.new" "$1/bin/qemu-system-x86_64"
    for file in "$QEMU_FIRMWARE"/*; do
        install -D -m 644 "$file" "$1/share/qemu/$(basename "$file")"
    done
}

# install_tools PREFIX: hpbctl, library, headers, manual pages, completion; by meson.
install_tools() {
    local dir=$HPB_BUILD/helper-install
    if [ -f "$dir/build.ninja" ]; then
        $MESON configure "$dir" --prefix="$1"
    else
        rm -rf "$dir"
        $MESON setup "$dir" "$HPB_TOP" --prefix="$1" --libdir=lib -Ddefault_library=static --buildtype=release \
            -Dtests=disabled -Dhpbctl=enabled -Dman=enabled
    fi
    ninja -j "$HPB_JOBS" -C "$dir"
    DESTDIR=${DESTDIR:-} $MESON install -C "$dir" --no-rebuild --quiet
}

# install_below PREFIX: all of it, and the list.
install_below() {
    local own=${DESTDIR:-}$1/lib/hpb list
    umask 022
    install_tools "$1"
    install_emulator "$own"
    # What an older version has put there is removed, too, with this one.
    list=$({
        cat "$own/installed" 2>/dev/null || true
        printf '%s\n' "$1/lib/hpb/installed"
        { cat "$HPB_BUILD/helper-install/meson-logs/install-log.txt"; find "$own"; } | sed "s|^${DESTDIR:-}/|/|"
    } | grep "^$1/" | LC_ALL=C sort -ur)
    printf '%s\n' "$list" >"$own/installed"
}

# check_prefix DIR: absolute, and something can be written there.
check_prefix() {
    local at=${DESTDIR:-}$1
    [[ $1 == /* && $1 != *[[:space:]]* && $1 != *..* ]] || usage_error "--prefix must be an absolute path without spaces and '..', not '$1'"
    while [ ! -e "$at" ]; do
        at=$(dirname "$at")
    done
    [ -d "$at" ] || die "cannot install below $1: $at is no directory"
    [ -w "$at" ] || die "cannot install below $1: no right to write to $at (run it with sudo, or choose another --prefix)"
}

# warn_unreachable DIR: libvirt's user has to be able to enter all directories above.
warn_unreachable() {
    local at=$1
    while [ "$at" != / ]; do
        if [ $((0$(stat -c %a "$at") & 1)) -eq 0 ]; then
            warn "$at cannot be entered by every user, so QEMU run by libvirt's user is not found there;" \
                "install it elsewhere, or chmod o+x $at"
        fi
        at=$(dirname "$at")
    done
}

# prefix_of ARGS...: set PREFIX from --prefix DIR.
prefix_of() {
    PREFIX=/usr/local
    while [ $# -gt 0 ]; do
        case $1 in
        --prefix)
            [ $# -ge 2 ] || usage_error "--prefix needs a directory"
            PREFIX=$2
            shift 2
            ;;
        --prefix=*) PREFIX=${1#*=}; shift ;;
        *) usage_error "unexpected argument '$1'" ;;
        esac
    done
    PREFIX=${PREFIX%/}
    check_prefix "$PREFIX"
}

cmd_install() {
    prefix_of "$@"
    hpb_start
    take_lock
    # shellcheck disable=SC2086 # a list of words
    need_packages $HPB_PACKAGES_BUILD
    build_qemu plain
    run_step "Install below $PREFIX" install_below "$PREFIX"
    drop_lock
    [ -n "${DESTDIR:-}" ] || warn_unreachable "$PREFIX/lib/hpb"
    printf '%s\n' "hpbctl: $PREFIX/bin/hpbctl" \
        "for libvirt: <emulator>$PREFIX/lib/hpb/bin/qemu-system-x86_64</emulator> (docs/libvirt.md)" \
        "take it away again: ./hpb uninstall --prefix $PREFIX"
}

cmd_uninstall() {
    local list file
    prefix_of "$@"
    list=${DESTDIR:-}$PREFIX/lib/hpb/installed
    [ -f "$list" ] || die "nothing was installed below $PREFIX by ./hpb install (there is no $list)"
    while read -r file; do
        file=${DESTDIR:-}$file
        # a directory stays if something of others is in it
        if [ -d "$file" ]; then
            rmdir "$file" 2>/dev/null || true
        else
            rm -f "$file"
        fi
    done <"$list"
}
