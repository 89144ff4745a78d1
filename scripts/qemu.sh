# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds the helper library and QEMU with our device.
#
# The QEMU build tree is in the cache and is kept: a change to one of our files
# costs the compilation of that file, also from another clone. So nothing is
# ever unpacked over it. Instead everything that differs from the pristine
# source (patched files, our files) is put together in a staging directory and
# copied by checksum; what was in the last staging and is not in this one is
# put back. Our files may only be added: to change a QEMU file is what
# qemu/patches is for, so that the series stays git-am-able and short.
#
# Two flavours: plain (optimised; measured, demonstrated) and asan (address and
# undefined-behaviour sanitizers in QEMU and helper; run by the qtest suite).

# qemu_set_paths FLAVOUR: where things are; needs QEMU_PRISTINE.
qemu_set_paths() {
    QEMU_TREE=$HPB_CACHE/qemu/$(printf '%s %s' "$(cat "$QEMU_PRISTINE/VERSION")" "$QEMU_PRISTINE" | hash_of)
    QEMU_BUILD=$QEMU_TREE/build-$1
    QEMU_FIRMWARE=$QEMU_TREE/firmware
    QEMU_HELPER=$QEMU_TREE/helper-$1
    HPB_QEMU=$HPB_BUILD/qemu/$1/qemu-system-x86_64
}

fill_qemu_tree() { rsync -a --exclude=/.git --exclude='/build*/' "$QEMU_PRISTINE/" "$1/"; }

# patched_files: names of the QEMU files that our patches touch.
patched_files() {
    find "$HPB_TOP/qemu/patches" -name '*.patch' -exec sed -nE 's#^(---|\+\+\+) [ab]/([^\t]+).*#\2#p' {} + 2>/dev/null | sort -u
}

# stage_patches DIR: the patched files, made from the pristine ones.
stage_patches() {
    local file
    patched_files | while read -r file; do
        [ -f "$QEMU_PRISTINE/$file" ] || continue
        mkdir -p "$1/$(dirname "$file")"
        cp "$QEMU_PRISTINE/$file" "$1/$file"
    done
    for file in "$HPB_TOP"/qemu/patches/*.patch; do
        [ -f "$file" ] || continue
        patch -d "$1" -p1 -F0 -s --no-backup-if-mismatch -i "$file" || {
            echo "$file does not apply to QEMU $(cat "$QEMU_PRISTINE/VERSION") at $QEMU_PRISTINE"
            return 1
        }
    done
}

# stage_overlay DIR: our own files, none of which may be there already.
stage_overlay() {
    local own=$1.own file
    rm -rf "$own"
    mkdir -p "$own/include/standard-headers/linux" "$own/tests/qtest"
    (cd "$HPB_TOP/qemu" && find . -path ./patches -prune -o \( -name '*.[ch]' -o -name '*.inc' -o -name 'trace*' -o -name meson.build -o -name Kconfig \) -type f -print0) |
        rsync -a --from0 --files-from=- "$HPB_TOP/qemu/" "$own/"
    cp "$HPB_TOP/spec/virtio_balloon_hp.h" "$own/include/standard-headers/linux/"
    find "$HPB_TOP/tests/qtest" -maxdepth 1 -name '*.[ch]' -exec cp -t "$own/tests/qtest" {} + 2>/dev/null || true
    (cd "$own" && find . -type f) | while read -r file; do
        if [ -e "$QEMU_PRISTINE/$file" ] || [ -e "$1/$file" ]; then
            echo "qemu/$file exists in QEMU: change it by a patch in qemu/patches, not by a copy"
            return 1
        fi
    done
    rsync -a "$own/" "$1/"
    rm -rf "$own"
}

# update_qemu_tree: bring the build tree's source up to our patches and files.
update_qemu_tree() {
    local staging=$QEMU_TREE/staging file
    rm -rf "$staging"
    mkdir -p "$staging"
    stage_patches "$staging"
    stage_overlay "$staging"
    (cd "$staging" && find . -type f | LC_ALL=C sort) >"$QEMU_TREE/manifest.new"
    if [ -f "$QEMU_TREE/manifest" ]; then
        LC_ALL=C comm -23 "$QEMU_TREE/manifest" "$QEMU_TREE/manifest.new" | while read -r file; do
            rm -f "$QEMU_TREE/src/$file"
            [ ! -f "$QEMU_PRISTINE/$file" ] || cp "$QEMU_PRISTINE/$file" "$QEMU_TREE/src/$file"
        done
    fi
    # A run that dies from here on has to know both lists to put things back.
    LC_ALL=C sort -u "$QEMU_TREE/manifest.new" "$QEMU_TREE/manifest" -o "$QEMU_TREE/manifest" 2>/dev/null ||
        cp "$QEMU_TREE/manifest.new" "$QEMU_TREE/manifest"
    rsync -rlpc "$staging/" "$QEMU_TREE/src/"
    mv "$QEMU_TREE/manifest.new" "$QEMU_TREE/manifest"
    rm -rf "$staging"
}

# build_helper FLAVOUR: the helper library, static, installed below $QEMU_HELPER.
build_helper() {
    local dir=$HPB_BUILD/helper-$1 args=(--buildtype=release)
    [ "$1" = asan ] && args=(--buildtype=debugoptimized "-Db_sanitize=address,undefined" -Db_lundef=false)
    if [ ! -f "$dir/build.ninja" ]; then
        rm -rf "$dir"
        $MESON setup "$dir" "$HPB_TOP" --prefix="$QEMU_HELPER" --libdir=lib -Ddefault_library=static "${args[@]}"
    else
        $MESON configure "$dir" --prefix="$QEMU_HELPER" >/dev/null
    fi
    ninja -j "$HPB_JOBS" -C "$dir"
    rm -rf "$dir/dest"
    $MESON install -C "$dir" --no-rebuild --destdir "$dir/dest" --quiet
    mkdir -p "$QEMU_HELPER"
    rsync -rlc --delete "$dir/dest/$QEMU_HELPER/" "$QEMU_HELPER/"
}

# reconfigure_qemu: what the helper library wants to be linked with has changed. Only QEMU's meson reads that, once.
reconfigure_qemu() {
    local pc=$QEMU_HELPER/lib/pkgconfig/hpballoon.pc
    cmp -s "$pc" "$QEMU_BUILD/.hpb-pc" && return 0
    PKG_CONFIG_PATH=$QEMU_HELPER/lib/pkgconfig "$QEMU_BUILD/pyvenv/bin/meson" setup --reconfigure --clearcache \
        "$QEMU_BUILD" "$QEMU_TREE/src"
    cp "$pc" "$QEMU_BUILD/.hpb-pc"
}

# configure_qemu FLAVOUR
configure_qemu() {
    local args=(--target-list=x86_64-softmmu --without-default-features --enable-kvm --enable-tcg
        --enable-numa --enable-tools --enable-fdt=system --enable-seccomp --enable-trace-backends=log
        --enable-vhost-user --enable-vhost-user-blk-server --disable-install-blobs --disable-download --disable-docs --python=/usr/bin/python3
        --firmwarepath="$QEMU_FIRMWARE:/usr/share/qemu:/usr/share/seabios")
    if [ "$1" = asan ]; then
        args+=(--enable-asan --enable-ubsan --extra-cflags=-g1 --disable-debug-info)
    else
        args+=(--disable-debug-info)
    fi
    if [ -f "$QEMU_BUILD/.hpb-configured" ] && [ "$(cat "$QEMU_BUILD/.hpb-configured")" = "${args[*]}" ]; then
        reconfigure_qemu
        return 0
    fi
    rm -rf "$QEMU_BUILD"
    mkdir -p "$QEMU_BUILD"
    (cd "$QEMU_BUILD" && PKG_CONFIG_PATH=$QEMU_HELPER/lib/pkgconfig ../src/configure "${args[@]}")
    cp "$QEMU_HELPER/lib/pkgconfig/hpballoon.pc" "$QEMU_BUILD/.hpb-pc"
    printf '%s\n' "${args[*]}" >"$QEMU_BUILD/.hpb-configured"
}

# assemble_firmware: what a PC needs at run time, from Debian's seabios and QEMU's own option ROMs.
# QEMU's configure builds those only where gcc -m32 links (gcc-multilib); they do not need that.
assemble_firmware() {
    local file rom=$QEMU_TREE/optionrom
    mkdir -p "$rom" "$QEMU_FIRMWARE"
    printf '%s\n' "TOPSRC_DIR=$QEMU_TREE/src" CC=gcc OBJCOPY=objcopy PYTHON=/usr/bin/python3 >"$rom/config.mak"
    make -s -C "$rom" -f "$QEMU_TREE/src/pc-bios/optionrom/Makefile" config-cc.mak
    make -s -C "$rom" -f "$QEMU_TREE/src/pc-bios/optionrom/Makefile" all
    for file in "$rom"/*.bin /usr/share/seabios/*.bin; do
        install_if_changed "$file" "$QEMU_FIRMWARE/$(basename "$file")"
    done
}

# qtest_targets: names of the test programs that come from our tests/qtest.
qtest_targets() {
    find "$HPB_TOP/tests/qtest" -maxdepth 1 -name '*-test.c' -printf 'tests/qtest/%f\n' 2>/dev/null | sed 's/\.c$//' | sort
}

# compile_qemu FLAVOUR [NINJA-TARGET...]; the tools are for tests, with snapshots and with vhost-user.
compile_qemu() {
    local flavour=$1
    shift
    update_qemu_tree
    configure_qemu "$flavour"
    ninja -j "$HPB_JOBS" -C "$QEMU_BUILD" qemu-system-x86_64 qemu-img storage-daemon/qemu-storage-daemon "$@"
    assemble_firmware
    install_if_changed "$QEMU_BUILD/qemu-img" "$(dirname "$HPB_QEMU")/qemu-img"
    install_if_changed "$QEMU_BUILD/storage-daemon/qemu-storage-daemon" "$(dirname "$HPB_QEMU")/qemu-storage-daemon"
    install_if_changed "$QEMU_BUILD/qemu-system-x86_64" "$HPB_QEMU"
}

# build_qemu FLAVOUR [NINJA-TARGET...]: set HPB_QEMU to a QEMU with our device.
build_qemu() {
    local flavour=$1 mib=900
    need_meson
    need_qemu_source
    qemu_set_paths "$flavour"
    [ "$flavour" = asan ] && mib=2500
    cached "$QEMU_TREE/src" "$QEMU_PRISTINE 1" 600 "QEMU build tree" fill_qemu_tree
    [ -f "$QEMU_BUILD/.hpb-configured" ] || need_disk "$mib" "$QEMU_TREE" "QEMU ($flavour)"
    if [ -f "$HPB_TOP/meson.build" ]; then
        run_step "Helper library ($flavour)" build_helper "$flavour"
    fi
    run_step "QEMU $(cat "$QEMU_PRISTINE/VERSION") ($flavour)" compile_qemu "$@"
}
