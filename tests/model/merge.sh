#!/usr/bin/env bash
# firn-test: levels=2 timeout=300
# Checks merge.pml exhaustively with spin, and that its mutants fail: a model that cannot fail proves
# nothing.
set -u
cd "$(dirname "$0")" || exit 1
model=$PWD/merge.pml
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
if ! command -v spin >/dev/null; then
    echo "ok - merge # SKIP spin is not installed"
    exit 0
fi

# Prints spin's count of violated assertions, or nothing when it could not be run to the end.
errors() { # [OPTION...]
    spin "$@" -a "$model" >spin.log 2>&1 && ${CC:-cc} -O1 -w -DSAFETY -o pan pan.c &&
        ./pan -m100000 >pan.log 2>&1
    grep -q 'max search depth too small' pan.log && return
    sed -n 's/.*errors: \([0-9]*\)$/\1/p' pan.log
}

judge() { # WHAT FOUND EXPECTED
    if [ "$2" = "$3" ]; then
        echo "ok - $1"
    else
        echo "not ok - $1: '$2' errors, not $3"
        tail -n 20 spin.log pan.log 2>/dev/null | sed 's/^/# /'
    fi
}

judge "no interleaving of the merge loses a write" "$(errors)" 0
judge "without staging a write is lost" "$(errors -DNO_STAGE)" 1
judge "pages taken away are read as zeros if reads do not wait" "$(errors -DNO_COVER)" 1
judge "without the lock a slot is lost" "$(errors -DNO_LOCK)" 1
judge "taking slots of a meshed span harms the partner" "$(errors -DTAKES_FROM_MESHED)" 1
