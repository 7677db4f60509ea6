# What the scripts of this folder share; sourced, never run. On top of tests/preload/lib.sh.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # work, short, few, FIRN_LIB: preload/lib.sh
#
# A script drives its program twice with one function: first without Firn, then with it. The function
# starts what it needs by `start` and `run`, writes what must come out the same to $out, and ends with
# `stop`. `compare NAME FUNCTION` gives the verdict.
daemons_here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$daemons_here/../preload/lib.sh"
few=$short

# Programs that change their user have to be able to read it; and nothing else of the machine's.
chmod 711 "$work"
mkdir "$work/lib"
cp "$FIRN_LIB" "$work/lib/" && chmod 755 "$work/lib" "$work/lib/"*
FIRN_LIB=$work/lib/$(basename "$FIRN_LIB")
FIRN_DAEMON_OPTIONS=${FIRN_DAEMON_OPTIONS:-}

how=plain # or firn
out=/dev/null
user_words=() # see become
idle=$((short ? 0 : 2)) # seconds a program is left alone between two loads

# Not worth the time that looking at a stack takes: those that README lists anyway, and what servers do most.
untraced=read,write,close,futex,clock_gettime,madvise,epoll_wait,epoll_ctl,writev,recvfrom,sendto,sendmsg,recvmsg,accept4

# Words to put before a command, so that it runs as $how says; with FIRN_DAEMON_TRACE, a folder, the calls of all
# its processes go there, with who makes them (calls.py).
under() {
    if [ "$how" = firn ]; then
        [ -z "${FIRN_DAEMON_TRACE:-}" ] ||
            printf '%s\n' strace -D -f -k -qq -e "trace=!$untraced" -o "$FIRN_DAEMON_TRACE/$(basename "$0" .sh).$BASHPID"
        printf '%s\n' env "LD_PRELOAD=$FIRN_LIB" ${FIRN_DAEMON_OPTIONS:+"FIRN_OPTIONS=$FIRN_DAEMON_OPTIONS"}
    else
        printf '%s\n' env
    fi
}

# A command to its end, at most $seconds.
run() { # COMMAND...
    local words
    mapfile -t words < <(under)
    timeout -k 5 "$seconds" "${user_words[@]}" "${words[@]}" "$@"
}

# From here on `run` and `start` work as another user, without the environment getting lost (as su and sudo
# would have it).
become() { # USER
    user_words=()
    [ "$(id -u)" != 0 ] ||
        user_words=(setpriv "--reuid=$1" "--regid=$(id -g "$1")" --init-groups)
}

answers() { # PORT
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Until COMMAND succeeds, at most 30 s.
await() { # COMMAND...
    local i
    for ((i = 0; i < 300; i++)); do
        "$@" && return
        sleep 0.1
    done
    return 1
}

# Starts a server that stays in the foreground; its output goes to $work/$how.log. Sets $pid.
start() { # PORT COMMAND...
    local port=$1 words
    shift
    mapfile -t words < <(under)
    # A session of its own: some servers signal their whole process group.
    (exec setsid "${user_words[@]}" "${words[@]}" "$@" >>"$work/$how.log" 2>&1 </dev/null) &
    pid=$!
    daemons+=("$pid")
    if [ "$port" != 0 ] && ! await answers "$port"; then
        echo "did not start: $(tail -n 2 "$work/$how.log" | tr '\n' ' ')" >>"$work/$how.wrong"
        return 1
    fi
    [ "$how" = plain ] || has_firn "$pid"
}

# Whether a process has the library, or has ended: then there is nothing to read.
is_served() { # PID
    local maps
    maps=$(cat "/proc/$1/maps" 2>/dev/null)
    [ -z "$maps" ] || [[ $maps == *"$FIRN_LIB"* ]]
}

# Every process of the tree runs with the library; one that does not would prove nothing. One that has just been
# executed has nothing mapped yet.
has_firn() { # PID
    local process
    for process in "$1" $(pgrep -P "$1"); do
        await is_served "$process" ||
            echo "$(cat "/proc/$process/comm" 2>/dev/null) runs without the library" >>"$work/$how.wrong"
    done
}

# Ends a server; complains when it does not end well.
stop() { # PID [SIGNAL]
    local i status
    kill -"${2:-TERM}" "$1" 2>/dev/null || echo "ended by itself" >>"$work/$how.wrong"
    for ((i = 0; i < 300; i++)); do
        kill -0 "$1" 2>/dev/null || break
        sleep 0.1
    done
    kill -9 "$1" 2>/dev/null && echo "did not end within 30 s" >>"$work/$how.wrong"
    wait "$1" 2>/dev/null
    status=$?
    daemons=("${daemons[@]/$1/}")
    echo "end: $status" >>"$out"
}

# FUNCTION without Firn and with it, each with an empty folder $folder: the same in $out, and not a word of
# Firn's in the logs, which are $work/HOW.log and whatever lies in $folder as *.log.
compare() { # NAME FUNCTION
    local name=$1 function=$2 reason
    for how in plain firn; do
        folder=$work/$how
        out=$work/$how.out
        rm -rf "$folder" "$work/$how.log" "$work/$how.wrong"
        : >"$out"
        user_words=()
        mkdir -p "$folder"
        chmod 755 "$folder"
        "$function" || echo "status $?" >>"$out"
        if [ -n "${FIRN_DAEMON_KEEP:-}" ]; then
            mkdir -p "$FIRN_DAEMON_KEEP/$name"
            cp "$work/$how".* "$FIRN_DAEMON_KEEP/$name/"
        fi
    done
    reason=$(find "$work/firn" "$work/firn.log" "$work/firn.out" -type f \( -name '*.log' -o -name '*.out' \) \
        -exec grep -ahm 1 '^firn:\|: firn: ' {} + 2>/dev/null | head -n 1)
    if [ -e "$work/plain.wrong" ]; then
        not_ok "$name" "without Firn: $(head -n 1 "$work/plain.wrong")"
    elif [ -n "$reason" ]; then
        not_ok "$name" "$reason"
    elif [ -e "$work/firn.wrong" ]; then
        not_ok "$name" "$(head -n 1 "$work/firn.wrong"); $(tail -n 1 "$work/firn.log" 2>/dev/null)"
    elif [ "$(wc -l <"$work/plain.out")" -lt 2 ]; then
        not_ok "$name" "nothing to compare"
    elif ! cmp -s "$work/plain.out" "$work/firn.out"; then
        not_ok "$name" "other output: $(diff -a "$work/plain.out" "$work/firn.out" | head -n 4 |
            tr '\n' ' ' | cut -c 1-300)"
    else
        ok "$name"
    fi
    rm -rf "$work/plain" "$work/firn"
}

# True for root; else says that NAME is left out.
need_root() { # NAME
    [ "$(id -u)" = 0 ] && return
    skip "$1" "not root"
    return 1
}
