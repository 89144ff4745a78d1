# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A guest kernel with our patches (guest/linux/patches), and with what Debian's
# kernels do without (CMA, page poisoning): to measure, `./hpb bench choosing`,
# and for the tests that need it. All others run on distribution kernels.

HPB_PATCHED=6.12-hpb

# apply_kernel_patches TREE: in order, without fuzz.
apply_kernel_patches() {
    local file
    for file in "$HPB_TOP"/guest/linux/patches/*.patch; do
        patch -d "$1" -p1 --fuzz=0 --forward --silent --no-backup-if-mismatch <"$file" ||
            { echo "$file does not apply to Linux 6.12 of Debian"; return 1; }
    done
}

# copy_kernel_files TREE: the files that our patches change, from the pristine source.
copy_kernel_files() {
    local file
    sed -n 's,^+++ b/,,p' "$HPB_TOP"/guest/linux/patches/*.patch | sort -u | while read -r file; do
        mkdir -p "$1/$(dirname "$file")"
        cp "$KERNEL_SOURCE/$file" "$1/$file"
    done
}

fill_patched_kernel() {
    local dir=$1 dest=$2 tree=$1/kdir abi
    cp -r "$KERNEL_SOURCE" "$tree"
    apply_kernel_patches "$tree"
    make -C "$tree" ARCH=x86_64 KCONFIG_ALLCONFIG="$HPB_TOP/scripts/kernel.config" allnoconfig
    make -C "$tree" ARCH=x86_64 -j "$HPB_JOBS" bzImage modules
    abi=$(cat "$tree/include/config/kernel.release")
    make -C "$tree" ARCH=x86_64 INSTALL_MOD_PATH="$dir/root" modules_install
    rm -f "$dir/root/lib/modules/$abi/build" "$dir/root/lib/modules/$abi/source"
    ln -s kdir/arch/x86/boot/bzImage "$dir/vmlinuz"
    printf '%s\n' "$abi" >"$dir/abi"
    echo "kernel $abi for $dest"
}

# need_patched_kernel: set KERNEL_DIR as need_kernel does.
need_patched_kernel() {
    local key
    KERNEL_DIR=$(kernel_dir "$HPB_PATCHED")
    key=$(cat "$HPB_TOP"/guest/linux/patches/*.patch "$HPB_TOP/scripts/kernel.config" | sha256sum | cut -c1-16)
    [ -f "$KERNEL_DIR/.hpb-stamp" ] && [ "$(cat "$KERNEL_DIR/.hpb-stamp")" = "$key $KERNEL_DIR" ] && return 0
    need_kernel_source
    cached "$KERNEL_DIR" "$key $KERNEL_DIR" 6000 "Guest kernel 6.12 with our patches" fill_patched_kernel "$KERNEL_DIR"
}
