#!/usr/bin/env bash
# Python's own tests of json, threading, subprocess, dict and list under the preload.
#
# They come with Debian's libpython3.11-testsuite. A test that fails without Firn on this machine
# (as some do for root) is no complaint against Firn: the lists of failures are compared.
# firn-test: levels=0,1,2,3 timeout=300
. "$(dirname "$0")/lib.sh"

seconds=120
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
    local status
    mkdir -p "$work/run"
    (cd "$work/run" && firn "$python" -W ignore -m unittest "test.$1") >"$work/firn.log" 2>&1
    status=$?
    if grep -aq '^firn:' "$work/firn.log"; then
        not_ok "python3-$1" "$(grep -am 1 '^firn:' "$work/firn.log")"
        return
    elif [ "$status" = 0 ] && grep -aqE '^Ran [1-9][0-9]* tests' "$work/firn.log"; then
        ok "python3-$1"
        return
    fi
    (cd "$work/run" && plain "$python" -W ignore -m unittest "test.$1") >"$work/plain.log" 2>&1
    failed_tests "$work/plain.log" >"$work/plain.failed"
    failed_tests "$work/firn.log" >"$work/firn.failed"
    if [ -s "$work/plain.failed" ] && cmp -s "$work/plain.failed" "$work/firn.failed"; then
        ok "python3-$1 ($(wc -l <"$work/firn.failed") of its tests fail here without Firn too)"
    else
        not_ok "python3-$1" "status $status; $(comm -13 "$work/plain.failed" "$work/firn.failed" |
            tr '\n' ' ' | cut -c 1-300) $(tail -n 1 "$work/firn.log")"
    fi
}

if ! python=$(find_python); then
    for module in $modules; do
        skip "python3-$module" "no python3 here has its test modules (libpython3.11-testsuite)"
    done
    finish
fi
for module in $modules; do
    check_module "$module"
done
finish
