#!/usr/bin/env bash
# firn-test: timeout=300
#
# The static archive in a program that was not made for it: its internal names may not clash, and
# both C and C++ must end up in Firn. Then an installed tree, used as README says.
set -u
failures=0
CC=${CC:-gcc}
CXX=${CXX:-g++}
archive=${FIRN_LIB%.so}.a

check() { # NAME COMMAND...
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "ok $name"
    else
        failures=$((failures + 1))
        echo "not ok $name: $(tail -n 3 <<<"$said" | tr '\n' ' ' | cut -c 1-300)"
    fi
}

cat >"$TMPDIR/c.c" <<'C'
#include <firn/firn.h>
#include <stdlib.h>
#include <string.h>
/* Names that Firn uses inside, meaning something else here. */
int fatal = 1, heap_alloc = 2, map_commit = 3, front_start = 4;
int main(int argc, char **argv) {
    struct firn_stats before = {.struct_bytes = sizeof before}, after = before;
    firn_stats(&before);
    char *p = malloc(100000);
    memset(p, 1, 100000);
    if (firn_stats(&after) != 0 || after.large_blocks != before.large_blocks + 1) return 3;
    free(p);
    p = strdup(argv[0]); /* libc's own calls, too */
    free(p);
    if (argc > 1) free(p);
    return fatal + heap_alloc + map_commit + front_start != 10;
}
C
cat >"$TMPDIR/cc.cc" <<'CC'
#include <new>
#include <string>
#include <vector>
extern "C" {
#include <firn/firn.h>
}
int main() {
    std::vector<std::string> all(1000, std::string(100, 'x'));
    struct firn_stats s {};
    s.struct_bytes = sizeof s;
    bool is_thrown = false;
    try {
        volatile std::size_t huge = ~std::size_t(0) / 2;
        delete[] new char[huge];
    } catch (const std::bad_alloc &) {
        is_thrown = true;
    }
    return firn_stats(&s) != 0 || s.small_blocks < 1000 || !is_thrown;
}
CC

check "C links with the archive" \
    "$CC" -Iinclude -fno-builtin -o "$TMPDIR/c" "$TMPDIR/c.c" "$archive"
check "C runs" "$TMPDIR/c"
check "C++ links with the archive" "$CXX" -Iinclude -o "$TMPDIR/cc" "$TMPDIR/cc.cc" "$archive"
check "C++ runs" "$TMPDIR/cc"
check "fully static C links" \
    "$CC" -static -Iinclude -fno-builtin -o "$TMPDIR/static" "$TMPDIR/c.c" "$archive"
check "fully static C runs" "$TMPDIR/static"
"$TMPDIR/c" again >"$TMPDIR/said" 2>&1
if [ $? = 134 ] && grep -q '^firn: double-free: free(' "$TMPDIR/said"; then
    echo "ok a double free is found"
else
    failures=$((failures + 1))
    echo "not ok a double free is found: $(tail -n 2 "$TMPDIR/said" | tr '\n' ' ')"
fi
[ $failures = 0 ]
