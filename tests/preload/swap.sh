#!/usr/bin/env bash
# cold_store=swap: idle pages go into the kernel's swap, here on zram, and come back as they were; where there is no swap,
# or no room in it, the program runs on and is told why.
# firn-test: levels=1,2,3 share=2 timeout=300 run=alone
. "$(dirname "$0")/lib.sh"

swapped=$FIRN_BUILD/tests/preload/swapped
zram=/sys/block/zram0

# NAME STATUS PATTERN [ARGUMENT...]: with $options beside what is tested. The pattern is of a line of its output.
runs() {
    local name=$1 want=$2 pattern=$3 status
    shift 3
    timeout -k 5 100 "${user[@]}" env LD_PRELOAD="$FIRN_LIB" \
        FIRN_OPTIONS="cold=on:cold_store=swap:cold_after=1:stats=exit${options:+:$options}" \
        "$swapped" "$@" >"$work/out" 2>&1
    status=$?
    if [ $status = "$want" ] && grep -qE "$pattern" "$work/out"; then
        ok "$name"
    else
        not_ok "$name" "status $status, $(grep -E '^(wrong|none|swap|out|hot|firn: *cold:)' "$work/out" | head -c 500)"
    fi
}

user=() options=
if [ "${FIRN_LEVEL:-2}" = 3 ]; then
    runs refused 0 '^firn: FIRN_OPTIONS: cold_store: refused at level 3' never
    finish
fi

# One at a time: others may measure with the same device.
exec 9>/tmp/zram.lock
swap_on() { # SIZE
    echo "$1" >$zram/disksize && mkswap /dev/zram0 >/dev/null && swapon /dev/zram0 && is_on=1
}
swap_off() {
    [ -z "$is_on" ] || swapoff /dev/zram0
    is_on=
    echo 1 >$zram/reset
}
is_on=
if [ "$(id -u)" != 0 ] || [ ! -w $zram/disksize ]; then
    skip swap "no zram device that we may set up"
    finish
elif ! flock -w 200 9 || [ "$(cat $zram/disksize)" != 0 ] || [ "$(wc -l </proc/swaps)" != 1 ]; then
    skip swap "zram or swap is in use here"
    finish
fi
trap 'swap_off; cleanup' EXIT

runs none 0 '^swap: no swap is on: swapon some' never
if ! swap_on 512M; then
    skip swap "zram cannot be set up"
    finish
fi
runs swap 0 '^well$' hot
options=mesh=auto:fault=signal runs busy 0 '^well$'
options=seal=aead runs sealed 0 '^none: swap cannot be sealed' never
user=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
runs unprivileged 0 '^well$'
user=()
swap_off
swap_on 4M || not_ok small "zram cannot be set up again"
runs full 0 '^swap: swap is full$' never
finish
