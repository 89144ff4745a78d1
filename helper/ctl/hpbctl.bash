# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# Completion of hpbctl for bash. Names of VMs are those that hpbctl itself finds
# where the words before say; QEMU is not asked, whose socket may be in use.

_hpbctl_vms() {
    local IFS=$'\n'
    # Names of domains can have spaces
    mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" --answer 2 "${@:2}" list --names 2>/dev/null)" -- "$1")
}

_hpbctl() {
    local line word previous command='' i
    local -a words place=() names=()

    # By spaces: readline also splits at ':' and '=', and URIs have both
    line=${COMP_LINE:0:COMP_POINT}
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=('')
    word=${words[-1]}
    previous=${words[-2]}
    case $previous in
    --svg | --png) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    -d | --dir) mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
    -e | --emulator) mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    -c | --connect | --answer | --timeout | --watch | --node | --pid) return ;;
    esac
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        case ${words[i]} in
        -d | --dir | -c | --connect) place=("${words[i]}" "${words[i + 1]}") ;;
        --dir=* | --connect=*) place=("${words[i]}") ;;
        list | status | resize | stats | map | host | libvirt) command=${words[i]}; break ;;
        esac
    done
    case $command:$word in
    :-*) names=(--json --dir --connect --answer --version --help) ;;
    :*) names=(list status resize stats map host libvirt) ;;
    list:-*) names=(--names --help) ;;
    resize:-*) names=(--node --wait --timeout --help) ;;
    stats:-*) names=(--watch --help) ;;
    map:-*) names=(--svg --png --pid --help) ;;
    libvirt:-*) names=(--emulator --help) ;;
    *:-*) names=(--help) ;;
    libvirt:*)
        if [[ $previous != libvirt ]]; then
            _hpbctl_vms "$word" "${place[@]}"
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$word")
            return
        fi
        names=(enable disable check) ;;
    status:* | resize:* | stats:* | map:*)
        if [[ $word == */* ]]; then
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
        else
            _hpbctl_vms "$word" "${place[@]}"
        fi
        return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "${names[*]}" -- "$word")
}
complete -F _hpbctl hpbctl
