# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The guest side: our module for a guest kernel, and an initrd that loads it.
#
# The initrd is a busybox, the modules, and small static programs (their
# sources are in tests/e2e/guest). A Debian root file system was rejected for
# this purpose: it takes longer to build and to boot, and its services touch
# memory while we measure.

# Modules loaded at boot, in this order, if the kernel has them as modules.
HPB_GUEST_MODULES="virtio_pci virtio_mmio virtio_blk virtio_balloon virtio_mem virtio_balloon_hp"
# Only put into the initrd, for modprobe.
HPB_GUEST_EXTRA="virtio_net virtio_scsi virtio-rng virtio_console ext4 loop"

# module_dir SERIES: where the module of a kernel series is built.
module_dir() { printf '%s\n' "$HPB_BUILD/module/$1"; }

# compile_module SERIES MAKE-ARGS...: build out of tree, in a copy, so that the
# source tree stays clean and both kernels can be built from it.
compile_module() {
    local series=$1 dir kdir
    shift
    dir=$(module_dir "$series")
    kdir=$(kernel_dir "$series")/kdir
    mkdir -p "$dir"
    # Our sources change seldom and object files must stay: copy by checksum.
    rsync -rlc --delete --include='/guest/' --include='/guest/linux/***' --include='/spec/' \
        --include='/spec/*.h' --filter='P *.o' --filter='P *.cmd' --filter='P *.ko' --filter='P *.mod*' \
        --filter='P *.order' --filter='P *.symvers' --exclude='*' "$HPB_TOP/" "$dir/"
    make -C "$kdir" M="$dir/guest/linux" -j "$HPB_JOBS" "$@" modules
}

# build_module SERIES: set HPB_MODULE to virtio_balloon_hp.ko for that kernel.
build_module() {
    need_kernel "$1"
    HPB_MODULE=$(module_dir "$1")/guest/linux/virtio_balloon_hp.ko
    if [ ! -f "$HPB_TOP/guest/linux/Kbuild" ]; then
        warn "guest/linux/Kbuild is not there: the guest gets no virtio_balloon_hp module"
        HPB_MODULE=
        return 0
    fi
    run_step "Guest module for kernel $1" compile_module "$1"
}

compile_guest_programs() {
    local program
    mkdir -p "$HPB_BUILD/guest"
    for program in touch pattern agent kexec blocks pollute stall load; do
        gcc -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -static -o "$HPB_BUILD/guest/hpb-$program" \
            "$HPB_TOP/tests/e2e/guest/$program.c"
    done
}

# copy_modules ROOT KERNEL-DIR ABI: modules with what they depend on, uncompressed.
copy_modules() {
    local root=$1 kernel=$2 abi=$3 name path word target=$1/lib/modules/$3
    mkdir -p "$target" "$root/etc"
    : >"$root/etc/hpb-modules"
    for name in $HPB_GUEST_MODULES $HPB_GUEST_EXTRA; do
        modprobe -d "$kernel/root" -S "$abi" --show-depends "$name" 2>/dev/null |
            while read -r word path _; do
                [ "$word" = insmod ] || continue
                case $path in
                *.xz) xz -dc "$path" >"$target/$(basename "$path" .xz)" ;;
                *) cp "$path" "$target/" ;;
                esac
            done || true
    done
    if [ -n "$HPB_MODULE" ]; then
        cp "$HPB_MODULE" "$target/"
    fi
    for name in $HPB_GUEST_MODULES; do
        [ ! -f "$target/$name.ko" ] || echo "$name" >>"$root/etc/hpb-modules"
    done
    cp "$kernel/root/lib/modules/$abi"/modules.builtin* "$kernel/root/lib/modules/$abi/modules.order" "$target/" 2>/dev/null || true
    depmod -b "$root" "$abi"
}

compile_initrd() {
    local series=$1 out=$2 kernel abi root=$2.root
    kernel=$(kernel_dir "$series")
    abi=$(cat "$kernel/abi")
    compile_guest_programs
    rm -rf "$root"
    mkdir -p "$root"/{bin,sbin,proc,sys,dev,etc,tmp,run}
    cp /bin/busybox "$root/bin/"
    # Applets are made as links here: at boot they would cost memory and time.
    "$root/bin/busybox" --list | grep -vx busybox | while read -r applet; do ln -sf busybox "$root/bin/$applet"; done
    cp "$HPB_BUILD"/guest/hpb-* "$root/bin/"
    install -m 755 "$HPB_TOP/tests/e2e/guest/init" "$root/init"
    copy_modules "$root" "$kernel" "$abi"
    (cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible) >"$out.tmp"
    rm -rf "$root"
    mv "$out.tmp" "$out"
}

# build_initrd SERIES: set HPB_KERNEL, HPB_INITRD and HPB_MODULE.
build_initrd() {
    build_module "$1"
    HPB_KERNEL=$KERNEL_DIR/vmlinuz
    HPB_INITRD=$HPB_BUILD/guest/initrd-$1.cpio
    run_step "Guest initrd for kernel $1" compile_initrd "$1" "$HPB_INITRD"
}
