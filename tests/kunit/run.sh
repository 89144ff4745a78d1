#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Builds the guest driver and its KUnit suites into a User-Mode Linux kernel
# and runs them: path steps [1]-[3] of the guest, with no virtual machine.
#
#   run.sh KERNEL-SOURCE BUILD-DIR [SUITE-GLOB[.TEST-GLOB]]
#
# KERNEL-SOURCE (Linux 6.12) is never written to. BUILD-DIR/src is a shadow of
# it: symbolic links, except for the one directory that the driver is dropped
# into, so that the shadow costs nothing and a second run only compiles what
# changed. (kunit.py is not used: it resolves links and would build in the
# source tree; a copy of the tree costs 1.7 GB.)
#
# The output on stdout is KTAP as the kernel prints it. Exit status: 0 all
# passed, 1 a test failed, 2 could not build, 3 the kernel crashed, hung or
# lost tests. Environment: HPB_KUNIT_TIMEOUT (s of host time, default 600),
# HPB_KUNIT_JOBS (default: all processors), HPB_KUNIT_ARGS (more kernel
# arguments), HPB_KUNIT_DRIVER (driver directory, default guest/linux; lets a
# mutated copy be tested).

set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
driver=$(realpath "${HPB_KUNIT_DRIVER:-$top/guest/linux}")
timeout=${HPB_KUNIT_TIMEOUT:-600}
jobs=${HPB_KUNIT_JOBS:-$(nproc)}

die() {
	echo "kunit: $2" >&2
	exit "$1"
}

[ $# -ge 2 ] || die 2 "usage: $0 KERNEL-SOURCE BUILD-DIR [SUITE-GLOB[.TEST-GLOB]]"
[ -e "$1/drivers/vhost/vringh.c" ] ||
	die 2 "$1: no Linux source tree there; name the unpacked linux-source-6.12"
if [ -e "$1/.config" ] || [ -d "$1/include/config" ]; then
	die 2 "$1: was built in place; run 'make mrproper' there or unpack a fresh tree"
fi
source=$(realpath "$1")
mkdir -p "$2" || die 2 "$2: cannot be created; name a writable directory"
build=$(realpath "$2")
filter=${3:-*balloon_hp*}
shadow=$build/src
obj=$build/obj

# link_dir FROM TO [NAME...]: TO becomes a directory of links to everything in
# FROM but the NAMEs, which stay the caller's business.
link_dir() {
	local from=$1 to=$2 f name
	shift 2
	mkdir -p "$to"
	for f in "$from"/* "$from"/.[a-z]*; do
		name=${f##*/}
		[ -e "$f" ] || continue
		case " $* " in *" $name "*) continue ;; esac
		ln -sfn "$f" "$to/$name"
	done
}

# link_sources FROM TO: links to the source files of FROM, and to nothing that
# an out-of-tree build may have left there. Files that are gone lose their link.
link_sources() {
	local f
	mkdir -p "$2"
	find "$2" -maxdepth 1 -type l -delete
	for f in "$1"/*.[ch] "$1"/Kbuild "$1"/Kconfig "$1"/Makefile; do
		case $f in *.mod.c) continue ;; esac
		[ ! -e "$f" ] || ln -s "$f" "$2/"
	done
}

# write_if_changed FILE: stdin to FILE; an unchanged FILE keeps its time.
write_if_changed() {
	cat >"$1.new"
	if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

make_shadow() {
	local v=$shadow/drivers/virtio

	if [ "$(cat "$build/source" 2>/dev/null)" != "$source" ]; then
		rm -rf "$shadow" "$obj"
		link_dir "$source" "$shadow" drivers
		link_dir "$source/drivers" "$shadow/drivers" virtio
		link_dir "$source/drivers/virtio" "$v" Kconfig Makefile
		echo "$source" >"$build/source"
	fi
	link_sources "$driver" "$v/balloon_hp"
	ln -s "$top/spec/virtio_balloon_hp.h" "$v/balloon_hp/"
	link_sources "$here" "$v/balloon_hp_kunit"
	{
		cat "$source/drivers/virtio/Kconfig"
		echo 'source "drivers/virtio/balloon_hp/Kconfig"'
		echo 'source "drivers/virtio/balloon_hp_kunit/Kconfig"'
	} | write_if_changed "$v/Kconfig"
	# shellcheck disable=SC2016
	{
		cat "$source/drivers/virtio/Makefile"
		echo 'obj-$(CONFIG_VIRTIO_BALLOON_HP) += balloon_hp/'
		echo 'obj-$(CONFIG_VIRTIO_BALLOON_HP_KUNIT_TEST) += balloon_hp_kunit/'
	} | write_if_changed "$v/Makefile"
}

kmake() {
	make -s -C "$shadow" O="$obj" ARCH=um -j"$jobs" "$@"
}

configure() {
	local line missing=

	mkdir -p "$obj"
	if ! cmp -s "$here/.kunitconfig" "$obj/kunitconfig" ||
	   [ ! -e "$obj/.config" ]; then
		cp "$here/.kunitconfig" "$obj/.config"
		kmake olddefconfig
	fi
	while read -r line; do
		case $line in
		CONFIG_*) grep -qx "$line" "$obj/.config" || missing+=" $line" ;;
		esac
	done <"$here/.kunitconfig"
	[ -z "$missing" ] ||
		die 2 "the kernel configuration lost$missing; look for unmet dependencies in $here/.kunitconfig"
	cp "$here/.kunitconfig" "$obj/kunitconfig"
}

# Memory that a test may call guest memory: 2 GiB, of which the host only holds
# what is touched (a file that UML makes and unlinks in TMPDIR).
run_kernel() {
	local rc=0

	# shellcheck disable=SC2086
	setsid timeout -k 10 "$timeout" "$obj/linux" mem=2G console=tty0 \
		kunit_shutdown=halt time-travel=inf-cpu init_on_alloc=0 \
		panic=-1 kunit.filter_glob="$filter" ${HPB_KUNIT_ARGS:-} \
		</dev/null >"$build/kunit.log" 2>&1 &
	kernel=$!
	# the kernel is a session of its own and would outlive us
	trap 'kill -- -$kernel 2>/dev/null || true' EXIT
	trap 'exit 3' INT TERM HUP
	wait $kernel || rc=$?
	tr -d '\r' <"$build/kunit.log" >"$build/kunit.ktap"
	cat "$build/kunit.ktap"
	return $rc
}

# A kernel that dies takes its remaining tests with it, so the plan (1..N) of
# the top level is checked against the suites that reported.
judge() {
	local rc=$1 log=$build/kunit.ktap plan suites

	if [ "$rc" = 124 ] || [ "$rc" = 137 ]; then
		die 3 "the kernel hung: no end after $timeout s; the log is $log"
	fi
	plan=$(sed -n 's/^1\.\.\([0-9]*\)$/\1/p' "$log" | head -n1)
	suites=$(grep -cE '^(not )?ok [0-9]+ ' "$log" || true)
	if [ -z "$plan" ] || [ "$plan" != "$suites" ]; then
		echo "kunit: last lines of $log:" >&2
		tail -n 40 "$log" >&2
		die 3 "the kernel ended early (status $rc): ${suites:-0} of ${plan:-an unknown number of} suites reported"
	fi
	[ "$plan" != 0 ] || die 2 "no suite matches '$filter'"
	if grep -qE '^(BUG:|WARNING:|Kernel panic|INFO: (task|possible)|=+\[ cut)' "$log" ||
	   grep -qE '(BUG: KASAN|WARNING: CPU|WARNING: possible|BUG: sleeping|WARNING: inconsistent)' "$log"; then
		die 1 "the kernel's own checkers complained (see WARNING or BUG in $log)"
	fi
	! grep -qE '^ *not ok ' "$log" || die 1 "tests failed (see 'not ok' in $log)"
}

make_shadow
configure
kmake >"$build/build.log" 2>&1 || {
	tail -n 60 "$build/build.log" >&2
	die 2 "the kernel does not build; the log is $build/build.log"
}
! grep -E 'balloon_hp.*warning:' "$build/build.log" >&2 ||
	die 2 "the compiler warns about our files"
rc=0
run_kernel || rc=$?
judge $rc
