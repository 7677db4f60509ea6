#!/usr/bin/env bash
# Calls by which a program hands the kernel its memory say what they say without Firn, whatever page it is in; also
# when that page is away and the kernel could not fetch it.
# firn-test: levels=1,2,3 share=2 timeout=300
. "$(dirname "$0")/lib.sh"

say() { # PROGRAM [cold]
    rm -rf "$work/folder" && mkdir -m 777 "$work/folder"
    HANDED=$work/folder timeout -k 5 60 "${user[@]}" env LD_PRELOAD="${preload:-}" FIRN_OPTIONS="${options:-}" \
        "$FIRN_BUILD/tests/preload/$1" ${2:+"$2"} 2>&1
}

check_handed() { # LABEL PROGRAM [ENGINE]
    local want got status
    want=$(say "$2")
    if ! grep -q ' 0$' <<<"$want"; then
        not_ok "$1" "without Firn: $(tail -n 1 <<<"$want")"
        return
    fi
    got=$(preload=$FIRN_LIB options=${3:+cold=on:cold_after=1:fault=$3} say "$2" "${3:+cold}")
    status=$?
    if [ "$status $2 ${3:-}" = '2 handed_aio protect' ]; then
        got=$(grep -v '^pages are still here ' <<<"$got") && status=0 # as it should be
    elif [ "$2 ${3:-}" = 'handed_aio protect' ]; then
        got="pages went again $got"
    fi
    if [ $status = 4 ]; then
        skip "$1" "no cold tier: $(tail -n 1 <<<"$got")"
    elif [ $status != 0 ]; then
        not_ok "$1" "status $status: $(tail -n 1 <<<"$got")"
    elif [ "$want" != "$got" ]; then
        not_ok "$1" "$(diff <(echo "$want") <(echo "$got") | grep '^[<>]' | head -n 6 | tr '\n' ' ')"
    else
        ok "$1"
    fi
}

check_all() { # LABEL
    local program engine
    for program in handed handed_paths handed_aio; do
        check_handed "$1$program" "$program"
        for engine in signal protect; do
            check_handed "$1$program, $engine" "$program" $engine
        done
    done
}

check_fallen_through() { # LABEL ENGINE REASON: with the best engine there is
    local said program
    said=$(preload=$FIRN_LIB options=cold=on:cold_after=1:stats=exit say handed cold)
    if grep -q "^firn:   cold: engine=$2 " <<<"$said" && grep -q "no better engine: $3" <<<"$said"; then
        ok "$1engine"
    else
        not_ok "$1engine" "$(grep cold: <<<"$said" | head -n 2 | tr '\n' ' ')"
    fi
    for program in handed handed_paths; do
        check_handed "$1$program, auto" "$program" auto
    done
    said=$(preload=$FIRN_LIB options=cold=auto:cold_after=1 say handed cold | tail -n 1)
    if grep -q '^no userfaultfd that serves system calls' <<<"$said"; then
        ok "$1cold=auto"
    else
        not_ok "$1cold=auto" "$said"
    fi
}

user=()
check_all ''
# The lesser engines need no right, and `protect` not even a userfaultfd.
if [ "$(id -u)" = 0 ]; then
    chmod 755 "$work"
    user=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all)
    if "${user[@]}" test -x "$FIRN_BUILD/tests/preload/handed" -a -r "$FIRN_LIB"; then
        check_all 'without rights: '
        check_fallen_through 'without rights: ' signal 'no userfaultfd that serves system calls: that takes CAP_SYS_PTRACE$'
        user+=("$FIRN_BUILD/tests/preload/filtered")
        check_fallen_through 'in a container: ' protect 'no userfaultfd$'
    fi
fi
finish
