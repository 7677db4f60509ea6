#!/usr/bin/env bash
# Python's own tests of json, threading, subprocess, dict and list under the preload.
#
# They come with Debian's libpython3.11-testsuite. A test that fails without Firn on this machine
# (as some do for root) is no complaint against Firn: the lists of failures are compared.
# firn-test: levels=0,1,2,3 timeout=600
. "$(dirname "$0")/lib.sh"

seconds=300
modules="test_json test_threading test_subprocess test_dict test_list"
[ "$short" = 0 ] || modules="test_json test_dict test_list"

# The first python3 that has its test modules.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 $(type -ap python3); do
        # shellcheck disable=SC2086
        if "$candidate" -c 'import test.test_json, test.test_list' 2>/dev/null; then
            # Not a version manager's shell script that would be what gets measured.
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

# Lines "test_name (class) ... FAIL" and ERROR, with the reasons left out.
failed_tests() { # LOG
    grep -aE '^(FAIL|ERROR): ' "$1" | sort -u
}

check_module() { # MODULE
    local status at=$work/$1
    mkdir -p "$at/run"
    (cd "$at/run" && firn "$python" -W ignore -m unittest "test.$1") >"$at/firn.log" 2>&1
    status=$?
    if grep -aq '^firn:' "$at/firn.log"; then
        not_ok "python3-$1" "$(grep -am 1 '^firn:' "$at/firn.log")"
        return
    elif [ "$status" = 0 ] && grep -aqE '^Ran [1-9][0-9]* tests' "$at/firn.log"; then
        ok "python3-$1"
        return
    fi
    (cd "$at/run" && plain "$python" -W ignore -m unittest "test.$1") >"$at/plain.log" 2>&1
    failed_tests "$at/plain.log" >"$at/plain.failed"
    failed_tests "$at/firn.log" >"$at/firn.failed"
    if [ -s "$at/plain.failed" ] && cmp -s "$at/plain.failed" "$at/firn.failed"; then
        ok "python3-$1 ($(wc -l <"$at/firn.failed") of its tests fail here without Firn too)"
    else
        not_ok "python3-$1" "status $status; $(comm -13 "$at/plain.failed" "$at/firn.failed" |
            tr '\n' ' ' | cut -c 1-300) $(tail -n 1 "$at/firn.log")"
    fi
}

if ! python=$(find_python); then
    for module in $modules; do
        skip "python3-$module" "no python3 here has its test modules (libpython3.11-testsuite)"
    done
    finish
fi
# test_subprocess sleeps most of its time: it runs beside the others.
for module in $modules; do
    if [ "$module" = test_subprocess ]; then
        check_module "$module" >"$work/beside" &
    else
        check_module "$module"
    fi
done
wait
if [ -e "$work/beside" ]; then
    cat "$work/beside"
    ! grep -q '^not ok' "$work/beside" || failures=$((failures + 1))
fi
finish
