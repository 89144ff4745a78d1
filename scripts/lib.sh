# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Ground that every step of ./hpb stands on: messages, the step engine, cached
# directories, locks and disk checks. Sourced, never run.
#
# Invariants:
#  - What a cached directory holds is complete: it is built beside its place
#    and renamed into it, and its stamp names a hash of everything it was
#    made from. A step that dies leaves nothing that a later run takes for good.
#  - One run at a time changes the cache (flock on $HPB_CACHE/lock).
#  - A step's full output is in $HPB_LOGS; the terminal gets a line a step.
#
# make or ninja for the whole set-up was rejected: they know files, while most
# of these inputs are "the newest version the mirror has", and they leave half
# written outputs behind when the disk fills.

HPB_CACHE=${HPB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hpb}
HPB_BUILD=$HPB_TOP/build
HPB_LOGS=$HPB_BUILD/logs
HPB_JOBS=${HPB_JOBS:-$(nproc)}
HPB_LOCK_FD=

# hpb_start: make the directories that everything else takes for granted.
hpb_start() {
    local d
    for d in "$HPB_CACHE" "$HPB_LOGS"; do
        mkdir -p "$d" || die "cannot create $d: check permissions and free disk space" \
            "(the cache can be moved with XDG_CACHE_HOME or HPB_CACHE)"
    done
}

say() { printf '%s\n' "$*" >&2; }
warn() { printf 'hpb: warning: %s\n' "$*" >&2; }
die() { printf 'hpb: error: %s\n' "$*" >&2; exit 1; }
usage_error() { printf 'hpb: %s\nTry: ./hpb help\n' "$*" >&2; exit 2; }

# have COMMAND: is it there?
have() { command -v "$1" >/dev/null 2>&1; }

# hash_of: short hash of standard input.
hash_of() { sha256sum | cut -c1-16; }

# hash_files FILE|DIR...: hash of names and contents of the files below.
hash_files() {
    find "$@" -type f -print0 2>/dev/null | LC_ALL=C sort -z | xargs -0 -r sha256sum | hash_of
}

# need_disk MIB WHERE STEP: die unless the file system of WHERE has that much free.
need_disk() {
    local avail
    avail=$(df --output=avail -m "$2" | tail -n 1 | tr -d ' ')
    [ "$avail" -ge "$1" ] || die "step '$3' needs $1 MiB free in $2, which has $avail MiB." \
        "Free some space, or set XDG_CACHE_HOME to a larger disk, and run the same command again: it resumes."
}

# take_lock: wait until no other hpb changes the cache; held until drop_lock or exit.
take_lock() {
    [ -z "$HPB_LOCK_FD" ] || return 0
    exec {HPB_LOCK_FD}>>"$HPB_CACHE/lock"
    if ! flock -n "$HPB_LOCK_FD"; then
        say "--  waiting for another hpb that is using $HPB_CACHE"
        flock "$HPB_LOCK_FD"
    fi
}

drop_lock() {
    [ -n "$HPB_LOCK_FD" ] || return 0
    exec {HPB_LOCK_FD}>&-
    HPB_LOCK_FD=
}

# log_progress LOG: newest "[n/m]" or "n %" a build tool wrote there.
log_progress() {
    tail -c 4096 "$1" 2>/dev/null | tr '\r' '\n' | grep -oE '^\[[0-9]+/[0-9]+\]' | tail -n 1 || true
}

# ticker LOG TITLE: say that the step is alive; every second on a terminal, else every ten.
ticker() {
    local log=$1 title=$2 start=$SECONDS period=10
    [ -t 2 ] && period=1
    while read -r -t "$period" _ || [ $? -gt 128 ]; do
        if [ -t 2 ]; then
            printf '\r\033[K    %s: %s %d s' "$title" "$(log_progress "$log")" $((SECONDS - start)) >&2
        else
            say "    $title: $(log_progress "$log") $((SECONDS - start)) s"
        fi
    done
}

# explain_failure LOG TITLE: what went wrong, where the log is, what to do.
explain_failure() {
    local hint="Read the log; when the cause is gone run the same command again, it resumes at this step."
    if grep -qiE 'no space left on device|disk quota exceeded' "$1"; then
        hint="The disk is full. Free some space (./hpb clean --cache removes all of hpb's own), then run the same command again."
    elif grep -qiE 'could not resolve|temporary failure|failed to fetch|cannot initiate the connection|network is unreachable|unable to connect|timed out' "$1"; then
        hint="A download failed. Check the network and the Debian mirror in the machine's apt sources, then run the same command again: what is already there is kept."
    fi
    {
        printf 'hpb: error: step failed: %s\n' "$2"
        printf -- '---- last lines of %s\n' "$1"
        tail -n 25 "$1"
        printf -- '----\n%s\n' "$hint"
    } >&2
}

# run_step TITLE CMD...: run with its output in a log, one line on the terminal.
# Must not be called in a condition: the command runs under set -e.
run_step() {
    local title=$1 log rc start=$SECONDS tick pipe
    shift
    log=$HPB_LOGS/$(printf '%s' "$title" | tr -cs 'A-Za-z0-9.\n' '-').log
    say "==> $title"
    # The ticker reads a pipe that only we hold open for writing: it ends with us, however we end.
    exec {pipe}> >(ticker "$log" "$title")
    tick=$!
    set +e
    (exec {pipe}>&-; set -e; "$@") >"$log" 2>&1 </dev/null
    rc=$?
    set -e
    exec {pipe}>&-
    wait "$tick" 2>/dev/null || true
    [ -t 2 ] && printf '\r\033[K' >&2
    if [ $rc -ne 0 ]; then
        explain_failure "$log" "$title"
        exit 1
    fi
    say "    done in $((SECONDS - start)) s"
}

# cached DEST KEY MIB TITLE FUNC ARGS...: make directory DEST by FUNC, unless it
# was made from the same KEY. FUNC gets the directory to fill as its first
# argument; DEST is where that directory will be.
cached() {
    local dest=$1 key=$2 mib=$3 title=$4 func=$5 tmp
    shift 5
    if [ -f "$dest/.hpb-stamp" ] && [ "$(cat "$dest/.hpb-stamp")" = "$key" ]; then
        return 0
    fi
    mkdir -p "$(dirname "$dest")"
    need_disk "$mib" "$(dirname "$dest")" "$title"
    tmp=$dest.new
    rm -rf "$tmp"
    mkdir -p "$tmp"
    run_step "$title" "$func" "$tmp" "$@"
    printf '%s\n' "$key" >"$tmp/.hpb-stamp"
    rm -rf "$dest"
    mv "$tmp" "$dest"
}

# install_if_changed FROM TO: copy atomically, and only when the contents differ.
install_if_changed() {
    cmp -s "$1" "$2" && return 0
    mkdir -p "$(dirname "$2")"
    cp -p "$1" "$2.tmp$$"
    mv -f "$2.tmp$$" "$2"
}
