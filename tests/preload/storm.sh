#!/usr/bin/env bash
# Real programs while a thread of Firn's own stages pages of their heap at random, all the time, under
# each engine: the same output, and no system call that fails.
# firn-test: levels=2 timeout=900
. "$(dirname "$0")/lib.sh"
. "$here/lib_programs.sh"
FIRN_LIB=$FIRN_TEST_LIB
few=1
export FIRN_TEST_ARM=storm

# Under `event` the kernel waits for whoever calls it; else only pinned calls are safe, and the others meet a page
# that is away sooner or later: on a busy machine, later.
check_calls() { # LABEL EXPECTED
    local said try
    for try in 1 2 3 4 5 6; do
        said=$(firn "$FIRN_BUILD/tests/preload/calls" "$((2 * try))" 2>&1)
        [ "$said" != "$2" ] && [ "$said" = 'fine, no raw EFAULT' ] || break
    done
    [ "$said" = "$2" ] && ok "${1}system calls" || not_ok "${1}system calls" "$said"
}

# Each program under each engine with FIRN_THOROUGH=1, else under one of them. fread may read straight into its
# caller's block, by a call inside libc that cannot be wrapped: sort has event only.
programs=(perl lua python node bash git sqlite gcc)
number=0
for engine in event:ffffffff signal:ffffff7f protect:fffffe7f; do
    export FIRN_TEST_CAPS=${engine#*:}
    label="${engine%:*}: "
    if [ "${engine%:*}" = event ]; then
        check_calls "$label" 'fine, no raw EFAULT'
        check_sort "$label"
    else
        check_calls "$label" 'fine, raw EFAULT seen'
    fi
    for ((i = 0; i < ${#programs[@]}; i++)); do
        if [ -n "${FIRN_THOROUGH:-}" ] || [ $((i % 3)) = "$number" ]; then
            "check_${programs[i]}" "$label"
        fi
    done
    number=$((number + 1))
done

# By option, where a better one would work.
unset FIRN_TEST_CAPS
for engine in signal protect; do
    FIRN_OPTIONS=fault=$engine check_calls "fault=$engine: " 'fine, raw EFAULT seen'
done
finish
