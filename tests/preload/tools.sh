#!/usr/bin/env bash
# git, sqlite3, gcc and g++ under the preload: the same hashes, rows and object files.
# firn-test: levels=0,1,2,3 timeout=600
. "$(dirname "$0")/lib.sh"
. "$here/lib_programs.sh"

check_git ''
check_sqlite ''
check_gcc ''
check_gxx ''
# The largest of Firn's own sources: real code in quantity.
if [ "$short" = 0 ]; then
    for source in $(find "$root/src" -name '*.c' -printf '%s %p\n' | sort -rn | head -n 12 |
        cut -d ' ' -f 2-); do
        check_compiler "$(basename "$source"):" gcc -std=c17 -D_GNU_SOURCE -I. -Iinclude -w "$source"
    done
fi
finish
