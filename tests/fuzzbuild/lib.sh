# What the scripts of this folder share; sourced, never run.
# shellcheck shell=bash disable=SC2034
#
# In:  FIRN_BUILD  the build folder
# Out: lines "ok NAME", "not ok NAME: REASON", "ok NAME # SKIP REASON"; status 1 after a "not ok".
set -u
export LC_ALL=C
lib=${FIRN_FUZZ_LIB:-$FIRN_BUILD/libfirn-fuzz.so}
programs=${FIRN_FUZZ_PROGRAMS:-$FIRN_BUILD/tests/fuzzbuild}
dislocator=/usr/lib/afl/libdislocator.so
work=$(mktemp -d "${TMPDIR:-/tmp}/firn-fuzzbuild.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
unset LD_PRELOAD FIRN_OPTIONS FIRN_SEED AFL_LD_LIMIT_MB AFL_LD_HARD_FAIL AFL_LD_NO_CALLOC_OVER \
    AFL_ALIGNED_ALLOC AFL_LD_VERBOSE
failures=0
ulimit -c 0

ok() { # NAME
    printf 'ok %s\n' "$1"
}

not_ok() { # NAME REASON
    printf 'not ok %s: %s\n' "$1" "$2"
    failures=$((failures + 1))
}

skip() { # NAME REASON
    printf 'ok %s # SKIP %s\n' "$1" "$2"
}

check() { # NAME REASON COMMAND...: ok if the command succeeds
    local name=$1 reason=$2
    shift 2
    if "$@"; then ok "$name"; else not_ok "$name" "$reason"; fi
}

# Runs a program under a library; leaves $out, $err (files) and $status. Signals count 128 + number.
# The braces keep bash's own "Aborted" out of the log.
under() { # LIBRARY OPTIONS PROGRAM ARG...
    local library=$1 options=$2
    shift 2
    out=$work/out err=$work/err
    { timeout -k 5 60 env FIRN_OPTIONS="$options" LD_PRELOAD="$library" "$@" >"$out" 2>"$err" \
        </dev/null; } 2>/dev/null
    status=$?
}

finish() {
    [ "$failures" = 0 ]
    exit
}
