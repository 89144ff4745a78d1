# shellcheck shell=bash disable=SC2034,SC2153 # the parts use each other's variables
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Debian packages: those installed on the machine (from the machine's own
# sources), and those only downloaded into the cache through an apt
# configuration of our own, so that the user's system is not changed.
#
# Needs from apt what apt already does well: signatures, hashes, proxies. So
# nothing here checks them again, and no mirror is named (see apt_sources.py).

# Installed for every command: build QEMU, a kernel module, an initrd, run them.
HPB_PACKAGES_BUILD="gcc make libc6-dev pkgconf ninja-build python3 python3-venv python3-setuptools
    dpkg-dev patch rsync xz-utils cpio kmod bc flex bison perl
    libglib2.0-dev libjson-glib-dev libcairo2-dev libxml2-dev libvirt-dev libpixman-1-dev libfdt-dev libnuma-dev libhugetlbfs-dev libseccomp-dev zlib1g-dev
    seabios busybox-static"
# A guest kernel of our own is built with these, see kernel.sh.
HPB_PACKAGES_KERNEL="libelf-dev libssl-dev"
# Further ones for ./hpb test.
HPB_PACKAGES_TEST="sparse shellcheck clang-tidy pyflakes3 python3-pytest python3-docutils
    git libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients"
# And for ./hpb bench, which draws.
HPB_PACKAGES_BENCH="python3-matplotlib"

# missing_packages NAME...: those of the packages that are not installed.
missing_packages() {
    local name
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$name" 2>/dev/null | grep -q '^ii' || printf '%s ' "$name"
    done
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    "$@" apt-get update
    "$@" apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}"
}

# need_packages NAME...: install what is missing, or say what to install.
need_packages() {
    local -a missing sudo=()
    have dpkg-query || die "this needs Debian 12 or 13 (no dpkg here)." \
        "On another system set HPB_QEMU_SRC and install the tools listed in docs/HACKING.md by hand."
    read -ra missing <<<"$(missing_packages "$@")"
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if have sudo && sudo -n true 2>/dev/null; then
            sudo=(sudo DEBIAN_FRONTEND=noninteractive)
        else
            die "these Debian packages are needed and you are not root. Install them, then run the same command again:
    apt-get install --no-install-recommends ${missing[*]}"
        fi
    fi
    need_disk 1500 /usr "Debian packages"
    run_step "Debian packages (${#missing[@]} to install)" apt_install "${sudo[@]}"
}

# host_codename: release of this machine, among those that hpb knows.
host_codename() {
    local ID='' VERSION_CODENAME=''
    # shellcheck source=/dev/null
    . /etc/os-release
    case "$ID:$VERSION_CODENAME" in
    debian:bookworm | debian:trixie) printf '%s\n' "$VERSION_CODENAME" ;;
    *) die "packages can be fetched on Debian 12 (bookworm) and 13 (trixie); this is '$ID ${VERSION_CODENAME:-without a release}'." ;;
    esac
}

# own_apt get|cache ARGS...: apt with our own sources, lists and cache.
own_apt() {
    local tool=$1 dir=$HPB_CACHE/apt
    shift
    "apt-$tool" -q -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache" -o Dir::Cache::archives="$dir/cache" \
        -o APT::Sandbox::User=root -o APT::Get::List-Cleanup=true -o Acquire::Retries=2 \
        -o Acquire::Languages=none -o APT::Default-Release= "$@"
}

# apt_refresh: write our source list and fetch the package lists. Suites that
# the mirror does not have are dropped with a warning.
apt_refresh() {
    local dir=$HPB_CACHE/apt codename suites suite kept=0
    codename=$(host_codename)
    mkdir -p "$dir/lists/partial" "$dir/cache"
    suites="bookworm:deb bookworm-updates:deb bookworm-security:deb bookworm-backports:deb,deb-src
        trixie:deb-src trixie-updates:deb-src trixie-security:deb-src"
    if [ "$codename" = trixie ]; then
        suites="bookworm:deb bookworm-updates:deb bookworm-security:deb
            trixie:deb,deb-src trixie-updates:deb,deb-src trixie-security:deb,deb-src"
    fi
    # shellcheck disable=SC2086 # a list of words
    /usr/bin/python3 "$HPB_TOP/scripts/apt_sources.py" "$codename" "$dir" $suites >"$dir/wanted.list"
    cp "$dir/wanted.list" "$dir/sources.list"
    own_apt get update || true
    : >"$dir/sources.list.new"
    for suite in $suites; do
        suite=${suite%%:*}
        if ls "$dir"/lists/*_dists_"${suite}"_InRelease >/dev/null 2>&1; then
            grep " $suite main\$" "$dir/wanted.list" >>"$dir/sources.list.new" && kept=$((kept + 1))
        else
            echo "suite $suite: not to be had from this machine's mirror, left out"
        fi
    done
    mv "$dir/sources.list.new" "$dir/sources.list"
    if [ "$kept" -eq 0 ]; then
        echo "Failed to fetch any package list: no network, or the mirror is down."
        return 1
    fi
    date +%s >"$dir/refreshed"
}

# apt_lists: package lists no older than a day; called by steps that download.
apt_lists() {
    local last=0
    [ -f "$HPB_CACHE/apt/refreshed" ] && last=$(cat "$HPB_CACHE/apt/refreshed")
    [ $(($(date +%s) - last)) -lt 86400 ] && [ -s "$HPB_CACHE/apt/sources.list" ] && return 0
    need_disk 400 "$HPB_CACHE" "package lists"
    run_step "Package lists of the Debian archive" apt_refresh
}

# apt_forget: a download failed; the lists may be older than the mirror, so fetch them anew next time.
apt_forget() { rm -f "$HPB_CACHE/apt/refreshed"; }

# fetch_debs DIR NAME...: download packages into DIR and unpack them there under root/.
fetch_debs() {
    local dir=$1 deb
    shift
    mkdir -p "$dir/debs" "$dir/root"
    (cd "$dir/debs" && own_apt get download "$@") || { apt_forget; return 1; }
    for deb in "$dir"/debs/*.deb; do
        dpkg-deb -x "$deb" "$dir/root" || return 1
    done
    rm -rf "$dir/debs"
}
