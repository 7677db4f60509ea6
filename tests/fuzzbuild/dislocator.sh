#!/usr/bin/env bash
# firn-test: levels=2 timeout=300
# Whatever libdislocator finds, the fuzz build finds on the same input: with exact placement against
# libdislocator's default, with align=16 against its AFL_ALIGNED_ALLOC. "Finds" is: the wrong case dies.
. "$(dirname "$0")/lib.sh"

dies() { # LIBRARY OPTIONS PROGRAM CASE
    under "$1" "$2" "$programs/$3" "$4" wrong
    [ "$status" -gt 128 ]
}

both=0 only_theirs=0 only_ours=0
compare() { # LABEL OPTIONS
    local program case
    for program in bugs mismatch; do
        for case in $("${program}_cases"); do
            local theirs=0 ours=0
            dies "$dislocator" "" "$program" "$case" && theirs=1
            dies "$lib" "$2" "$program" "$case" && ours=1
            case $theirs$ours in
            11) both=$((both + 1)) && ok "$1: $case" ;;
            10) only_theirs=$((only_theirs + 1)) && not_ok "$1: $case" "libdislocator alone finds it" ;;
            01) only_ours=$((only_ours + 1)) ;;
            esac
        done
    done
}

# A program that runs out of stack dies under anything: it says nothing about an allocator.
bugs_cases() {
    "$programs/bugs" --list | grep -v -e null_ -e wild_read -e stack_
}

mismatch_cases() {
    sed -n 's/^    {"\(.*\)", .*/\1/p' "$(dirname "$0")/mismatch.cc" | grep -v -e refused -e handled
}

if [ ! -e "$dislocator" ]; then
    skip "comparison with libdislocator" "$dislocator is not installed (package afl++)"
    finish
fi
compare "exact" "align=1"
compare "exact, every free revoked" "align=1:revoke=all"
export AFL_ALIGNED_ALLOC=1
compare "aligned" ""
echo "# found by both $both, by libdislocator alone $only_theirs, by the fuzz build alone $only_ours"
check "libdislocator found something to compare with" "it found $both" test "$both" -gt 100
finish
