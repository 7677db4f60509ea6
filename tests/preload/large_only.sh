#!/usr/bin/env bash
# large_only=BYTES: two allocators in one process, and every block goes back to its own.
# firn-test: levels=1,2,3 timeout=300
. "$(dirname "$0")/lib.sh"
# shellcheck source=/dev/null
. "$here/lib_programs.sh"

crossing=$FIRN_BUILD/tests/preload/crossing
operators=$FIRN_BUILD/tests/preload/operators
next=$FIRN_BUILD/tests/preload/libnext.so
seconds=60

# NAME WANTED-LINE-ON-STDERR COMMAND...: prints "well".
runs() {
    local name=$1 line=$2 status
    shift 2
    timeout -k 5 $seconds env LD_PRELOAD="${preload-$FIRN_LIB}" FIRN_OPTIONS="${options-}" "$@" \
        >"$work/out" 2>"$work/err"
    status=$?
    if [ "$status" = 0 ] && [ "$(cat "$work/out")" = well ] && [ "$(cat "$work/err")" = "$line" ]; then
        ok "$name"
    else
        not_ok "$name" "status $status, $(head -c 300 "$work/out"), $(head -c 600 "$work/err")"
    fi
}

# NAME FIRST-WORD-OF-STDERR MISTAKE: ends by SIGABRT.
dies() {
    local status
    timeout -k 5 $seconds env LD_PRELOAD="$FIRN_LIB" FIRN_OPTIONS=large_only=8192 "$crossing" 8192 "$3" \
        >"$work/out" 2>"$work/err"
    status=$?
    if [ $status = 134 ] && head -n 1 "$work/err" | grep -q "^$2"; then
        ok "$1"
    else
        not_ok "$1" "status $status, $(head -c 600 "$work/err")"
    fi
}

if [ "${FIRN_LEVEL:-2}" = 3 ]; then
    options=large_only=65536 runs refused \
        "firn: FIRN_OPTIONS: large_only: refused at level 3, which promises its checks for all of the heap; ignored" \
        "$crossing"
    options=large_only=0 runs none "" "$crossing"
    finish
fi

options=large_only=0 runs off "" "$crossing"
for bytes in 4096 5000 8192 32760 32768 65536 1000000; do
    options=large_only=$bytes runs "below-$bytes" "" "$crossing" $bytes
    options=large_only=$bytes runs "operators-$bytes" "" "$operators" $bytes
done
options=large_only=65536G runs operators-65536G "" "$operators" $((1 << 46))
# Another one that comes after Firn, which ends the process for any block that is not its own.
for bytes in 4096 5000 65536; do
    preload=$FIRN_LIB:$next options=large_only=$bytes runs "next-$bytes" "" "$crossing" $bytes
done
options=large_only=16384:cold=on:cold_after=1:mesh=auto runs busy "" "$crossing" 16384
# Addresses are rationed: those in between are anybody's.
(
    ulimit -v 2000000
    options=large_only=5000 runs rationed "" "$crossing" 5000
    exit $failures
) || failures=$((failures + 1))

dies twice "firn: double-free: free(" twice
dies inside "firn: interior-pointer: free(" inside
dies size "firn: size-mismatch: free_sized(" size
dies small-twice "free(): double free" small

FIRN_OPTIONS=large_only=65536:stats=exit LD_PRELOAD=$FIRN_LIB /bin/true 2>"$work/err"
if grep -q '^firn:   large_only: requests below 65536 bytes go to the next malloc' "$work/err"; then
    ok told
else
    not_ok told "$(tail -n 3 "$work/err")"
fi

# Real programs say what they say without Firn.
export FIRN_OPTIONS
for FIRN_OPTIONS in large_only=4096 large_only=65536:cold=on:cold_after=1; do
    label="${FIRN_OPTIONS%%:*}-"
    check_python "$label"
    check_sqlite "$label"
    check_git "$label"
    check_gcc "$label"
    check_bash "$label"
    check_sort "$label"
done
finish
