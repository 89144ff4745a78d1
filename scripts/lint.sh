#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The lint suite: every check of sources that needs no running code, as TAP.
# Run by ./hpb test lint, which sets KERNEL_SOURCE, QEMU_PRISTINE and HPB_*.
#
# Each check prints what is wrong and returns non-zero; a check whose subject is
# not there is skipped with a reason. Style is judged by each tree's own tool.

number=0

# check NAME FUNC ARGS...: one TAP line. A function may return 77 to skip (its last line says why).
check() {
    local name=$1 out rc=0
    shift
    number=$((number + 1))
    out=$("$@" 2>&1) || rc=$?
    case $rc in
    0) printf 'ok %d - %s\n' "$number" "$name" ;;
    77) printf 'ok %d - %s # SKIP %s\n' "$number" "$name" "$(tail -n 1 <<<"$out")" ;;
    *)
        printf '%s\n' "$out" | sed 's/^/# /'
        printf 'not ok %d - %s\n' "$number" "$name"
        ;;
    esac
}

# sources DIR... -- PATTERN...: files below DIRs whose names match.
sources() {
    local -a dirs=() names=()
    while [ "$1" != -- ]; do
        [ ! -d "$HPB_TOP/$1" ] || dirs+=("$HPB_TOP/$1")
        shift
    done
    shift
    [ ${#dirs[@]} -gt 0 ] || return 0
    while [ $# -gt 0 ]; do names+=(-o -name "$1"); shift; done
    find "${dirs[@]}" -type f \( "${names[@]:1}" \) | sort
}

# Kernel's checkpatch. The tree is built out of tree for two kernels, hence the
# version checks; MAINTAINERS and the like do not exist here.
kernel_checkpatch() {
    local -a files
    mapfile -t files < <(sources guest/linux tests/kunit -- '*.[ch]')
    [ ${#files[@]} -gt 0 ] || { echo "no kernel sources yet"; return 77; }
    # checkpatch leaves a cache file in its working directory.
    (cd "$HPB_BUILD" && printf '%s\n' "${files[@]}" | while read -r file; do
        ignore=LINUX_VERSION_CODE,FILE_PATH_CHANGES
        # Comparing kernel versions and giving old kernels new macros is what this file is for.
        [[ $file == */compat.h ]] && ignore+=,CONSTANT_COMPARISON,EXPORT_SYMBOL,MACRO_ARG_UNUSED
        perl "$KERNEL_SOURCE/scripts/checkpatch.pl" --root="$KERNEL_SOURCE" --no-summary --terse --show-types \
            --max-line-length=100 --ignore=$ignore -f "$file" || touch lint-checkpatch-failed
    done)
    ! rm "$HPB_BUILD/lint-checkpatch-failed" 2>/dev/null
}

# qemu_checkpatch BASE DIR...: QEMU's checkpatch; names are given relative to BASE, because the tool
# judges tests/ differently. What it says about lines of 81 to 90 columns is advice; our helper is not
# GPL and has no QEMU functions.
qemu_checkpatch() {
    local base=$1
    local -a files
    shift
    mapfile -t files < <(sources "$@" -- '*.[ch]')
    [ ${#files[@]} -gt 0 ] || { echo "no sources in $*"; return 77; }
    (cd "$HPB_TOP/$base" && perl "$QEMU_PRISTINE/scripts/checkpatch.pl" --no-tree --no-summary --terse -q \
        -f "${files[@]#"$HPB_TOP/$base"}") >"$HPB_BUILD/logs/lint-checkpatch.log" 2>&1
    ! grep -E '^[^ ]+:[0-9]+: ' "$HPB_BUILD/logs/lint-checkpatch.log" |
        grep -vE 'WARNING: (line over 80 characters|Saw acceptable license .LGPL)|use qemu_real_host_page_size'
}

# patches_apply: the series applies to the pristine source in order, without fuzz, and each is a mail git am takes.
patches_apply() {
    local file
    stage_patches "$HPB_BUILD/lint-patches" || return 1
    rm -rf "$HPB_BUILD/lint-patches"
    for file in "$HPB_TOP"/qemu/patches/*.patch; do
        [ -f "$file" ] || { echo "no patches"; return 77; }
        git mailinfo /dev/null /dev/null <"$file" | grep -q '^Subject: .*: ' || { echo "$file: not a mail with a subject 'area: what'"; return 1; }
        grep -q '^Signed-off-by: ' "$file" || { echo "$file: no Signed-off-by"; return 1; }
    done
}

# kernel_patches_apply: as git-am-able mails, in order, to the kernel they are for; and checkpatch likes them.
kernel_patches_apply() {
    local file tree=$HPB_BUILD/lint-kernel-patches
    rm -rf "$tree"
    copy_kernel_files "$tree" && apply_kernel_patches "$tree" || return 1
    rm -rf "$tree"
    for file in "$HPB_TOP"/guest/linux/patches/*.patch; do
        git mailinfo /dev/null /dev/null <"$file" | grep -q '^Subject: .*: ' || { echo "$file: not a mail with a subject 'area: what'"; return 1; }
        (cd "$KERNEL_SOURCE" && perl scripts/checkpatch.pl --no-tree --no-summary --terse -q --ignore NO_AUTHOR_SIGN_OFF "$file") || return 1
    done
}

# module_warnings SERIES: W=1 and sparse, all warnings are errors.
module_warnings() {
    local dir kdir log=$HPB_BUILD/logs/lint-module-$1.log
    [ -f "$HPB_TOP/guest/linux/Kbuild" ] || { echo "no guest/linux/Kbuild"; return 77; }
    dir=$HPB_BUILD/lint-module/$1
    kdir=$(kernel_dir "$1")/kdir
    rm -rf "$dir"
    mkdir -p "$dir/guest"
    cp -r "$HPB_TOP/guest/linux" "$dir/guest/"
    cp -r "$HPB_TOP/spec" "$dir/"
    make -C "$kdir" M="$dir/guest/linux" -j "$HPB_JOBS" W=1 C=2 KCFLAGS=-Werror modules >"$log" 2>&1 ||
        { tail -n 30 "$log"; return 1; }
    ! grep -E "$dir.*(warning|error):|^guest.*(warning|error):" "$log"
}

clang_tidy() {
    local -a files
    mapfile -t files < <(sources helper -- '*.c')
    [ ${#files[@]} -gt 0 ] || { echo "no helper sources yet"; return 77; }
    clang-tidy --quiet --warnings-as-errors='*' -p "$HPB_BUILD/helper-plain" "${files[@]}"
}

shell_check() {
    (cd "$HPB_TOP" && shellcheck -x hpb scripts/*.sh .ci/run && shellcheck -s sh tests/e2e/guest/init) || return 1
    local -a files
    mapfile -t files < <(sources tests/kunit tests/unit tests/fuzz tests/qtest -- '*.sh')
    [ ${#files[@]} -eq 0 ] || shellcheck -x "${files[@]}"
}

python_check() {
    local -a files
    mapfile -t files < <(sources scripts tests bench spec -- '*.py')
    pyflakes3 "${files[@]}"
}

# run_lint: all of it.
run_lint() {
    local series
    check "checkpatch (Linux) of guest/linux and tests/kunit" kernel_checkpatch
    check "checkpatch (QEMU) of qemu" qemu_checkpatch qemu/ qemu
    check "checkpatch (QEMU) of helper" qemu_checkpatch "" helper
    check "checkpatch (QEMU) of tests/qtest and tests/unit" qemu_checkpatch "" tests/qtest tests/unit
    check "qemu/patches apply without fuzz and are git-am-able" patches_apply
    check "guest/linux/patches apply and pass checkpatch" kernel_patches_apply
    for series in $HPB_KERNELS; do
        check "module builds for $series with W=1 and sparse, without a warning" module_warnings "$series"
    done
    check "clang-tidy of helper" clang_tidy
    check "shellcheck of shell scripts" shell_check
    check "pyflakes of Python programs" python_check
    printf '1..%d\n' "$number"
}
