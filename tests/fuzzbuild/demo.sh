#!/usr/bin/env bash
# firn-test: levels=2 timeout=600 run=alone
# make fuzz-demo from end to end: afl-fuzz finds the planted bug under the library, the replay names it.
. "$(dirname "$0")/lib.sh"
cd "$(dirname "$0")/../.." || exit 1
if ! command -v afl-fuzz >/dev/null || ! command -v afl-clang-fast >/dev/null; then
    skip "fuzz/demo" "afl-fuzz or afl-clang-fast is not installed (package afl++)"
    finish
fi
# Longer than the demo's own minute: other tests may be running.
FIRN_FUZZ_LIB=$lib SECONDS_MOST=150 fuzz/demo >"$work/out" 2>&1
check "fuzz/demo" "status $?: $(tail -n 20 "$work/out")" grep -q '^== found: the planted bug' "$work/out"
check "without the library the input does nothing" "$(tail -n 40 "$work/out")" \
    grep -q 'the program ends with status 0' "$work/out"
check "source lines of the access" "$(tail -n 40 "$work/out")" \
    grep -q '#0 unescape at demo_target.c' "$work/out"
finish
