#!/usr/bin/env bash
# Programs while the kernel gives no more memory than there is, vm.overcommit_memory=2: that is the whole
# machine's, so nothing else may run.
# firn-test: levels=0,1,2,3 timeout=600 run=alone
. "$(dirname "$0")/lib.sh"
. "$here/lib_programs.sh"
. "$here/lib_daemons.sh"
. "$here/lib_limits.sh"

# Two of /proc/sys/vm's files decide for the whole machine. They are put back by a process of its
# own that reads a pipe until nobody is left to write: when the checks are done, or when this
# script is gone, however it went.
check_overcommit() {
    local mode=/proc/sys/vm/overcommit_memory ratio=/proc/sys/vm/overcommit_ratio
    exec 8<$mode
    if ! flock -w 60 8; then
        skip overcommit-2 "another run is at it"
        return
    fi
    local was
    was=$(cat $mode)
    if ! { echo "$was" >$mode; } 2>/dev/null; then
        skip overcommit-2 "only root of the machine itself may set vm.overcommit_memory"
        return
    fi
    # shellcheck disable=SC2016
    exec 9> >(exec setsid bash -c 'trap "" HUP INT TERM; mode=$(cat "$1") ratio=$(cat "$2")
        echo 95 >"$2"; echo 2 >"$1"; cat; echo "$mode" >"$1"; echo "$ratio" >"$2"' \
        bash $mode $ratio >/dev/null 2>&1 8<&-)
    local keeper=$! i
    for ((i = 0; i < 50; i++)); do
        [ "$(cat $mode)" = 2 ] && break
        sleep 0.1
    done
    check_some overcommit-2:
    [ "$short" = 1 ] || check_redis overcommit-2: # forks, with the whole data set
    [ "$(cat $mode)" = 2 ] || not_ok overcommit-2 "strict mode was not on while the checks ran"
    exec 9>&-
    wait $keeper
    [ "$(cat $mode)" != 2 ] || not_ok overcommit-2 "strict mode is still on"
    exec 8<&-
}

check_overcommit
finish
