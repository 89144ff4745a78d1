# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The commands of ./hpb: what each takes, and which steps it is made of.

cmd_help() {
    cat <<HELP
usage: ./hpb COMMAND

  demo              set everything up, then show the stock balloon and this one
                    side by side in the same guest, and migrate it
  build [WHAT...]   build: helper qemu qemu-asan module initrd kernel-source
                    (default: helper qemu module initrd, all guest kernels)
  test [SUITE...]   run tests: lint unit kunit qtest e2e spec (default: all);
                    and libvirt: libvirt/patches, built into libvirt itself
  bench [NAME...] [--quick | --full | --rounds N] [--accel kvm|tcg] [--no-update]
                    measure side by side: resize sizes stages hugepages
                    interference backings choosing migration lending libvirt
                    stalls monitor scale device library, or all (default:
                    resize); JSON, CSV and drawings go to build/bench, and
                    the chapter to docs/benchmarks.md, but not of one round
                    (--quick) unless --update is given, nor with --no-update
  run [--kernel K] [-- ARGS]
                    boot the test guest with a console; ARGS go to QEMU
                    (leave with Ctrl-A X)
  env [--kernel K]  print HPB_QEMU, HPB_KERNEL, HPB_INITRD, HPB_MODULE
  install [--prefix DIR]
                    put QEMU with the device, hpbctl and the helper library
                    below DIR (default: /usr/local); DESTDIR is heeded
  uninstall [--prefix DIR]
                    remove them again
  clean [--cache]   remove build outputs; --cache: downloads and QEMU too
  help              this text

K is a guest kernel series: $HPB_KERNELS (default ${HPB_KERNELS%% *}), or
$HPB_PATCHED, built with guest/linux/patches.

Settings (environment):
  HPB_QEMU_SRC=DIR  build this QEMU $HPB_QEMU_SERIES.x tree instead of Debian's
  HPB_ACCEL=tcg|kvm accelerator for guests (default: try KVM by booting, else TCG)
  HPB_JOBS=N        parallel compilations (default: all processors)
  XDG_CACHE_HOME    downloads and the QEMU build are in its folder hpb
HELP
}

# split_kernel ARGS...: set SERIES from --kernel K, REST to what follows.
split_kernel() {
    SERIES=${HPB_KERNELS%% *}
    REST=()
    while [ $# -gt 0 ]; do
        case $1 in
        --kernel)
            [ $# -ge 2 ] || usage_error "--kernel needs a series (there are: $HPB_KERNELS)"
            SERIES=$2
            shift 2
            ;;
        --kernel=*) SERIES=${1#*=}; shift ;;
        --) shift; REST=("$@"); break ;;
        *) usage_error "unexpected argument '$1'" ;;
        esac
    done
    check_kernel "$SERIES"
}

# prepare SERIES...: QEMU, and module and initrd for each kernel series.
prepare() {
    local series
    hpb_start
    take_lock
    # shellcheck disable=SC2086 # a list of words
    need_packages $HPB_PACKAGES_BUILD
    if [[ " $* " == *" $HPB_PATCHED "* ]]; then
        # shellcheck disable=SC2086 # a list of words
        need_packages $HPB_PACKAGES_KERNEL
    fi
    build_qemu plain
    for series in "$@"; do
        build_initrd "$series"
    done
    drop_lock
}

cmd_build() {
    local what series
    local -a all=(helper qemu module initrd)
    for what in "$@"; do
        case $what in
        helper | qemu | qemu-asan | module | initrd | kernel-source) ;;
        *) usage_error "cannot build '$what' (there are: helper qemu qemu-asan module initrd kernel-source)" ;;
        esac
    done
    [ $# -gt 0 ] || set -- "${all[@]}"
    hpb_start
    take_lock
    # shellcheck disable=SC2086 # a list of words
    need_packages $HPB_PACKAGES_BUILD
    for what in "$@"; do
        case $what in
        helper) need_meson; need_qemu_source; qemu_set_paths plain
            [ ! -f "$HPB_TOP/meson.build" ] || run_step "Helper library (plain)" build_helper plain ;;
        qemu) build_qemu plain ;;
        qemu-asan) build_qemu asan ;;
        module) for series in $HPB_KERNELS; do build_module "$series"; done ;;
        initrd) for series in $HPB_KERNELS; do build_initrd "$series"; done ;;
        kernel-source) need_kernel_source; printf 'HPB_KERNEL_SOURCE=%s\n' "$KERNEL_SOURCE" ;;
        esac
    done
    drop_lock
}

cmd_env() {
    split_kernel "$@"
    prepare "$SERIES" >&2
    printf 'HPB_QEMU=%s\nHPB_KERNEL=%s\nHPB_INITRD=%s\nHPB_MODULE=%s\n' \
        "$HPB_QEMU" "$HPB_KERNEL" "$HPB_INITRD" "$HPB_MODULE"
}

# become PROGRAM ARGS...: this process goes on as a Python program of ours that is told what it needs to know.
# A signal to the command reaches it then.
become() {
    export HPB_QEMU HPB_BUILD HPB_CACHE
    exec env PYTHONPATH="$HPB_TOP/tests/e2e" PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 "$@"
}

# harness PROGRAM ARGS...: the same, and come back.
harness() {
    (become "$@")
}

cmd_run() {
    split_kernel "$@"
    prepare "$SERIES" >&2
    export HPB_KERNEL HPB_INITRD
    become -m hpbtest.interactive "${REST[@]}"
}

cmd_demo() {
    [ $# -eq 0 ] || usage_error "demo takes no arguments"
    prepare "${HPB_KERNELS%% *}"
    export HPB_KERNEL HPB_INITRD
    become "$HPB_TOP/bench/demo.py"
}

cmd_bench() {
    local -a kernels=("${HPB_KERNELS%% *}")
    # Wrong arguments, and --help, need nothing to be built.
    if [ -x /usr/bin/python3 ]; then
        harness "$HPB_TOP/bench/bench.py" --check "$@"
        [[ " $* " != *" --help "* && " $* " != *" -h "* ]] || return 0
    fi
    # Only what is measured with it is worth building a kernel.
    [[ ! " $* " =~ " choosing "|" all " ]] || kernels+=("$HPB_PATCHED")
    prepare "${kernels[@]}"
    take_lock
    # shellcheck disable=SC2086 # a list of words
    need_packages $HPB_PACKAGES_BENCH
    if [[ " $* " =~ " libvirt "|" all " ]]; then
        # shellcheck disable=SC2086 # a list of words
        need_packages $HPB_PACKAGES_TEST
    fi
    drop_lock
    become "$HPB_TOP/bench/bench.py" --out "$HPB_BUILD/bench" "$@"
}

cmd_clean() {
    case ${1:-} in
    "") rm -rf "$HPB_BUILD" ;;
    --cache)
        hpb_start
        take_lock
        rm -rf "$HPB_BUILD" "${HPB_CACHE:?}"/{apt,src,qemu,kernels,meson,kunit,libvirt,libvirt-native}
        ;;
    *) usage_error "unexpected argument '$1'" ;;
    esac
}
