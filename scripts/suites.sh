# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# ./hpb test: the suites, and how their results are put together.
#
# A suite writes TAP (.tap) or JUnit (.xml) files named after itself into
# $HPB_RESULTS; scripts/tally.py counts. A suite runs in a subshell: if it dies
# (a build step failed), that is one failed test and the other suites still run.

# shellcheck source=scripts/lint.sh
. "$HPB_TOP/scripts/lint.sh"

HPB_SUITES="lint spec unit kunit qtest e2e"
# Of what users do not run: only when it is asked for.
HPB_SUITES_MORE="libvirt"
HPB_RESULTS=$HPB_BUILD/results

# record_program NAME SECONDS CMD...: run a program that prints TAP; a crash or time-out is a result too.
record_program() {
    local tap=$HPB_RESULTS/$1.tap log=$HPB_RESULTS/$1.log limit=$2 rc=0
    shift 2
    timeout --kill-after=10 "$limit" "$@" >"$tap" 2>"$log" </dev/null || rc=$?
    if [ $rc -eq 124 ]; then
        printf '\nnot ok 999999 - not finished within %s s\n' "$limit" >>"$tap"
    elif [ $rc -gt 128 ] || { [ $rc -ne 0 ] && ! grep -q '^ *not ok' "$tap"; }; then
        printf '\nnot ok 999999 - ended with status %s: %s\n' "$rc" "$(tail -n 1 "$log")" >>"$tap"
    fi
}

# raise_huge_pages N: N more 2 MiB huge pages until the suite (a subshell) ends, however it ends. Without
# the right to, or without memory for them, the tests that need them say so and are skipped.
raise_huge_pages() {
    local file=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages before
    [ -w $file ] || return 0
    before=$(<$file)
    echo $((before + $1)) >$file
    HPB_RAISED=$(($(<$file) - before))
    trap 'exit 130' INT TERM HUP
    # shellcheck disable=SC2064 # now, not then
    trap "left=\$((\$(<$file) - $HPB_RAISED)); echo \$((left > 0 ? left : 0)) >$file" EXIT
}

suite_lint() {
    take_lock
    need_kernel_source
    need_qemu_source
    need_meson
    qemu_set_paths plain
    for series in $HPB_KERNELS; do need_kernel "$series"; done
    [ ! -f "$HPB_TOP/meson.build" ] || run_step "Helper library (plain)" build_helper plain
    drop_lock
    say "==> lint"
    rm -rf "$HPB_BUILD/lint-patches"
    mkdir -p "$HPB_BUILD/lint-patches"
    set +e # checks report, they do not end the run
    run_lint >"$HPB_RESULTS/lint.tap"
    set -e
    /usr/bin/python3 "$HPB_TOP/scripts/check_tree.py" "$HPB_TOP" >"$HPB_RESULTS/lint-tree.tap" || true
}

suite_spec() {
    say "==> spec"
    /usr/bin/python3 "$HPB_TOP/scripts/check_spec.py" "$HPB_TOP" "$HPB_BUILD/spec" >"$HPB_RESULTS/spec.tap" || true
}

# suite_unit: the helper's own tests, optimised and under sanitizers.
suite_unit() {
    local flavour
    take_lock
    need_meson
    need_qemu_source
    for flavour in plain asan; do
        qemu_set_paths "$flavour"
        run_step "Helper library ($flavour)" build_helper "$flavour"
    done
    drop_lock
    for flavour in plain asan; do
        say "==> unit ($flavour)"
        $MESON test -C "$HPB_BUILD/helper-$flavour" --no-rebuild >"$HPB_RESULTS/unit-$flavour.log" 2>&1 || true
        cp "$HPB_BUILD/helper-$flavour/meson-logs/testlog.junit.xml" "$HPB_RESULTS/unit-$flavour.xml"
    done
}

# suite_kunit: the driver in a User-Mode Linux kernel.
suite_kunit() {
    take_lock
    need_kernel_source
    mkdir -p "$HPB_CACHE/kunit"
    [ -f "$HPB_CACHE/kunit/.config" ] || need_disk 1500 "$HPB_CACHE" "KUnit kernel"
    say "==> kunit (builds a User-Mode Linux kernel; several minutes the first time)"
    record_program kunit 2400 "$HPB_TOP/tests/kunit/run.sh" "$KERNEL_SOURCE" "$HPB_CACHE/kunit"
    drop_lock
}

# suite_qtest: the device against a scripted driver, optimised and under sanitizers.
suite_qtest() {
    local flavour target name
    local -a targets
    mapfile -t targets < <(qtest_targets)
    [ ${#targets[@]} -gt 0 ] || { echo "no tests/qtest/*-test.c"; return 1; }
    raise_huge_pages 64
    for flavour in plain asan; do
        take_lock
        build_qemu "$flavour" "${targets[@]}"
        record_program "qtest-$flavour-warnings" 600 /usr/bin/python3 "$HPB_TOP/scripts/compile_strictly.py" \
            "$QEMU_BUILD/compile_commands.json" "$HPB_TOP/qemu" "$HPB_TOP/tests/qtest"
        drop_lock
        for target in "${targets[@]}"; do
            name=$(basename "$target")
            say "==> qtest $name ($flavour)"
            QTEST_QEMU_BINARY=$HPB_QEMU MALLOC_PERTURB_=165 \
                ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
                record_program "qtest-$flavour-$name" 1200 "$QEMU_BUILD/$target" --tap -k
        done
    done
}

# More failed tests than these are no accident, and not repeated.
HPB_REPEAT_MAX=3

# suite_e2e: real guests. An emulated guest on a machine that others use can be late for anything, and a run
# takes long: a few tests that failed are repeated once, by themselves. The result names them either way.
suite_e2e() {
    local -a pytest=(-m pytest "$HPB_TOP/tests/e2e" -o "cache_dir=$HPB_BUILD/e2e-cache" -q --durations=10)
    local failed=$HPB_BUILD/e2e-cache/v/cache/lastfailed rc=0
    # shellcheck disable=SC2086 # a list of words
    prepare $HPB_KERNELS "$HPB_PATCHED"
    take_lock
    need_newer_libvirt
    drop_lock
    rm -rf "$HPB_BUILD/e2e" "$HPB_BUILD/e2e-cache"
    raise_huge_pages 600
    say "==> e2e (real guests; several minutes)"
    harness "${pytest[@]}" --junitxml="$HPB_RESULTS/e2e.xml" >"$HPB_RESULTS/e2e.log" 2>&1 || rc=$?
    # 1: a test failed. More: it was ended, and its results are of a part only.
    [ $rc -le 1 ] || say "    ended with status $rc, see $HPB_RESULTS/e2e.log"
    [ $rc -eq 1 ] || return $rc
    [ -f "$failed" ] && [ "$(grep -c : "$failed")" -le $HPB_REPEAT_MAX ] || return 0
    say "==> e2e: what failed, once more"
    harness "${pytest[@]}" --last-failed --junitxml="$HPB_RESULTS/e2e-again.xml" >"$HPB_RESULTS/e2e-again.log" 2>&1 || true
}

cmd_test() {
    local suite start rc
    for suite in "$@"; do
        [[ " $HPB_SUITES $HPB_SUITES_MORE " == *" $suite "* ]] || usage_error "unknown test suite '$suite' (there are: $HPB_SUITES $HPB_SUITES_MORE)"
    done
    # shellcheck disable=SC2086 # a list of words
    [ $# -gt 0 ] || set -- $HPB_SUITES
    hpb_start
    take_lock
    # shellcheck disable=SC2086 # a list of words
    need_packages $HPB_PACKAGES_BUILD $HPB_PACKAGES_KERNEL $HPB_PACKAGES_TEST $HPB_PACKAGES_BENCH
    drop_lock
    rm -rf "$HPB_RESULTS"
    mkdir -p "$HPB_RESULTS"
    for suite in "$@"; do
        start=$SECONDS
        set +e
        (set -e; "suite_$suite")
        rc=$?
        set -e
        if [ $rc -ne 0 ]; then
            printf '1..1\nnot ok 1 - suite could not be built or run (status %d, see the messages above)\n' $rc \
                >"$HPB_RESULTS/$suite-setup.tap"
        fi
        say "    $suite: $((SECONDS - start)) s"
    done
    /usr/bin/python3 "$HPB_TOP/scripts/tally.py" "$HPB_RESULTS" "$@"
}
