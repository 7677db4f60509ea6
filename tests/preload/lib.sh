# What the scripts of this folder share; sourced, never run.
# shellcheck shell=bash disable=SC2034
#
# In:  FIRN_LIB   the library to preload (absolute path)
#      FIRN_LEVEL its level; other than 2 means the short form, unless FIRN_SHORT says 0 or 1
# Out: lines "ok NAME", "not ok NAME: REASON", "ok NAME # SKIP REASON"; status 1 after a "not ok".
#
# Everything happens in $work and on loopback, and is gone when the script ends, however it ends.
set -u
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
: "${FIRN_LIB:?is the library to preload}"
short=${FIRN_SHORT:-$([ "${FIRN_LEVEL:-2}" = 2 ] && echo 0 || echo 1)}
# Few rows, keys and rounds of everything: in the short form, and unless all is wanted.
few=$([ -n "${FIRN_THOROUGH:-}" ] && echo "$short" || echo 1)
unset LD_PRELOAD FIRN_OPTIONS

work=$(mktemp -d "${TMPDIR:-/tmp}/firn-preload.XXXXXX") || exit 1
failures=0
daemons=() # process ids of what start_daemon started
limit=()   # a command prefix under which programs run, for example (prlimit --as=4G)
seconds=200 # bound of one program; others may have the processors

cleanup() {
    local pid
    for pid in "${daemons[@]}"; do
        [ -n "$pid" ] || continue
        kill "$pid" 2>/dev/null && sleep 0.1
        kill -9 "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
    done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

ok() { # NAME
    printf 'ok %s\n' "$1"
}

not_ok() { # NAME REASON
    failures=$((failures + 1))
    printf 'not ok %s: %s\n' "$1" "$2"
}

skip() { # NAME REASON
    printf 'ok %s # SKIP %s\n' "$1" "$2"
}

finish() {
    [ "$failures" = 0 ]
    exit
}

# True when each program is there; otherwise says so. Debian 12 has them all after `make setup`,
# so that a skip means an unusual machine.
need() { # NAME PROGRAM...
    local name=$1 program
    shift
    for program; do
        if ! command -v "$program" >/dev/null; then
            skip "$name" "$program is not installed"
            return 1
        fi
    done
}

plain() { # COMMAND...
    timeout -k 5 "$seconds" "${limit[@]}" "$@"
}

firn() { # COMMAND...
    timeout -k 5 "$seconds" "${limit[@]}" env LD_PRELOAD="$FIRN_LIB" "$@"
}

# What went wrong with a preloaded run, in one line; nothing when it went well.
complaint() { # STATUS STDERR-FILE
    if grep -am 1 '^firn:' "$2"; then
        return
    fi
    case $1 in
    0) ;;
    124 | 137) echo "no end within $seconds s" ;;
    *) echo "status $1, stderr: $(tail -n 2 "$2" | tr '\n' ' ' | cut -c 1-300)" ;;
    esac
}

# The same output and status as without the preload, and not a word from Firn.
# Standard input: $work/input if it exists. Leaves the preloaded output in $work/firn.out.
same() { # NAME COMMAND...
    local name=$1 want got input=/dev/null
    shift
    [ -e "$work/input" ] && input=$work/input
    plain "$@" <"$input" >"$work/plain.out" 2>"$work/plain.err"
    want=$?
    firn "$@" <"$input" >"$work/firn.out" 2>"$work/firn.err"
    got=$?
    rm -f "$work/input"
    if [ "$want" != 0 ] && [ ${#limit[@]} != 0 ]; then
        skip "$name" "fails without Firn too (status $want)"
    elif [ "$want" != 0 ]; then
        not_ok "$name" "fails without Firn: $(complaint "$want" "$work/plain.err")"
    elif [ "$got" != 0 ] || grep -q '^firn:' "$work/firn.err"; then
        not_ok "$name" "$(complaint "$got" "$work/firn.err")"
    elif ! cmp -s "$work/plain.out" "$work/firn.out"; then
        not_ok "$name" "other output: $(diff -a "$work/plain.out" "$work/firn.out" | head -n 4 |
            tr '\n' ' ' | cut -c 1-300)"
    elif [ ! -s "$work/firn.out" ]; then
        not_ok "$name" "no output to compare"
    else
        ok "$name"
    fi
}

# None that the kernel gives to connections on its own, and that is free: other tests have servers, too.
free_port() {
    perl -MIO::Socket::INET -e 'for (1 .. 100) {
        my $port = 10000 + int rand 20000;
        print($port), exit if IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1", LocalPort => $port) }'
}

# Starts COMMAND under Firn with output in $work/daemon.log; waits until PORT answers, at most 60 s.
# Sets $pid. False when it ended, or is not running with the library.
start_daemon() { # PORT COMMAND...
    local port=$1 i
    shift
    # exec, so that $! is the daemon itself; without `timeout`, since the caller stops it.
    (exec "${limit[@]}" env LD_PRELOAD="$FIRN_LIB" "$@" >"$work/daemon.log" 2>&1) &
    pid=$!
    daemons+=("$pid")
    for ((i = 0; i < 600; i++)); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            grep -qF "$FIRN_LIB" "/proc/$pid/maps"
            return
        fi
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

# Stops a daemon; a verdict on how it ended, and on whether Firn said anything in its log.
end_daemon() { # NAME PID
    local pid=$2 i status reason=
    kill "$pid" 2>/dev/null || reason="ended by itself"
    for ((i = 0; i < 600; i++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null && reason="did not end within 60 s of SIGTERM"
    wait "$pid" 2>/dev/null
    status=$?
    daemons=("${daemons[@]/$pid/}")
    [ "$status" = 0 ] || [ "$status" = 143 ] || reason="${reason:-ended} (status $status)"
    if grep -am 1 '^firn:' "$work/daemon.log" >"$work/complaint"; then
        reason=$(cat "$work/complaint")
    fi
    if [ -z "$reason" ]; then
        ok "$1"
    else
        not_ok "$1" "$reason"
    fi
}

# Without this, every check below could pass on a library that never got loaded.
if ! firn cat /proc/self/maps 2>/dev/null | grep -qF "$FIRN_LIB"; then
    not_ok preload "a program started with LD_PRELOAD=$FIRN_LIB does not have it mapped"
    exit 1
fi
