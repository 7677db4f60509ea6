#!/usr/bin/env bash
# firn-test: levels=1,2 timeout=300
#
# libfirn-checked.so and libfirn-light-checked.so: the checked functions of level 3, and nothing else
# changed. The programs are those that test level 3.
. "$(dirname "$0")/lib.sh"
lib=${FIRN_LIB%.so}-checked.so

forward() { # PROGRAM: its verdicts are this test's
    LD_PRELOAD=$lib CMOCKA_MESSAGE_OUTPUT=TAP "$FIRN_BUILD/tests/$1" >"$work/out" 2>&1
    local status=$?
    grep -aE '^(not )?ok' "$work/out" | sed "s|ok [0-9]* *-* *|&${1##*/}: |"
    if [ $status != 0 ] || ! grep -q '^ok' "$work/out"; then
        not_ok "$1" "status $status: $(tail -n 3 "$work/out" | tr '\n' ' ')"
    fi
}

forward api/test_checked
forward death/test_bounds
# Not without being asked: the plain library leaves memcpy to libc.
if nm -D --defined-only "$FIRN_LIB" | grep -qE ' (memcpy|memset|strcpy)$'; then
    not_ok "the plain library" "exports memcpy"
else
    ok "the plain library leaves memcpy alone"
fi
finish
