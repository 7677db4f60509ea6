#!/usr/bin/env bash
# firn-test: levels=2 timeout=300
#
# make install, what README says about it, and that uninstall leaves nothing.
set -u
failures=0
destination=$TMPDIR/root
verdict() { # NAME STATUS
    if [ "$2" = 0 ]; then
        echo "ok $1"
    else
        failures=$((failures + 1))
        echo "not ok $1: $(tail -n 3 "$TMPDIR/said" | tr '\n' ' ' | cut -c 1-300)"
    fi
}
# The environment holds the flags and the PREFIX this build folder was made with, so that nothing is
# built anew.
prefix=$destination${PREFIX:-/usr/local}
run_make() {
    make --no-print-directory BUILD="$FIRN_BUILD" DESTDIR="$destination" "$@" >"$TMPDIR/said" 2>&1
}

run_make install
verdict "make install" $?
# Or programs that other tests start now would find half a library.
! grep -E '^  (CC|LD|AR) ' "$TMPDIR/said"
verdict "make install builds nothing anew" $?
for file in lib/libfirn.so lib/libfirn-bare.so lib/libfirn-light.so lib/libfirn-strict.so \
    lib/libfirn.a bin/firn include/firn/firn.h share/man/man1/firn.1 share/man/man5/firn.conf.5 share/man/man7/firn.7; do
    [ -s "$prefix/$file" ]
    verdict "installs $file" $?
done
[ "$("$prefix/bin/firn" run sh -c 'echo $LD_PRELOAD')" = \
    "$(realpath "$prefix")/lib/libfirn.so" ]
verdict "the installed launcher finds the installed library" $?
cat >"$TMPDIR/prog.c" <<'C'
#include <firn/firn.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    puts(firn_version());
    return strstr(firn_version(), "level=2") == NULL;
}
C
"${CC:-gcc}" -I"$prefix/include" -o "$TMPDIR/prog" "$TMPDIR/prog.c" \
    -L"$prefix/lib" -lfirn >"$TMPDIR/said" 2>&1 &&
    LD_LIBRARY_PATH=$prefix/lib "$TMPDIR/prog" >"$TMPDIR/said" 2>&1
verdict "-lfirn links and runs" $?
run_make uninstall
verdict "make uninstall" $?
left=$(find "$destination" -type f)
echo "left over: $left" >"$TMPDIR/said"
[ -z "$left" ]
verdict "uninstall leaves nothing" $?
[ $failures = 0 ]
