#!/usr/bin/env bash
# Where a touch of a page that is away is a signal, libc blocks signals and touches the heap as it likes.
# firn-test: levels=1,2,3 share=2 timeout=300
. "$(dirname "$0")/lib.sh"

say() { # ENVIRONMENT...
    env "$@" timeout -k 5 90 "$FIRN_BUILD/tests/preload/marked" 2>&1
}

want=$(say)
got=$(say LD_PRELOAD="$FIRN_LIB" FIRN_OPTIONS=cold=on:cold_after=1:fault=signal)
status=$?
if grep -q WRONG <<<"$want" || [ "$(wc -l <<<"$want")" != 12 ]; then
    not_ok marked "without Firn: $(tr '\n' ' ' <<<"$want")"
elif [ $status = 4 ]; then
    skip marked "$(tail -n 1 <<<"$got")"
elif [ "$want" != "$got" ] || [ $status != 0 ]; then
    not_ok marked "status $status: $(diff <(echo "$want") <(echo "$got") | grep '^[<>]' | head -n 6 | tr '\n' ' ')"
else
    ok marked
fi
finish
