#!/usr/bin/env bash
# firn-test: levels=2 timeout=300
#
# tools/firn.c as a user meets it: which library it picks, what it passes on, how it fails.
set -u
firn=$FIRN_BUILD/firn
failures=0
sleeper=
trap '[ -z "$sleeper" ] || kill "$sleeper" 2>/dev/null' EXIT
unset LD_PRELOAD FIRN_OPTIONS

expect() { # NAME WANTED GOT
    if [ "$2" = "$3" ]; then
        echo "ok $1"
    else
        failures=$((failures + 1))
        echo "not ok $1: wanted '$2', got '$3'"
    fi
}

status_of() { # COMMAND...: its status, and the first line it wrote to standard error
    local said status
    said=$("$@" 2>&1 >/dev/null)
    status=$?
    echo "$status ${said%%$'\n'*}"
}

while read -r level library; do
    # shellcheck disable=SC2016
    expect "run --level $level" "$FIRN_BUILD/$library" \
        "$("$firn" run --level "$level" -- sh -c 'echo "$LD_PRELOAD"')"
done <<'LEVELS'
0 libfirn-bare.so
bare libfirn-bare.so
1 libfirn-light.so
light libfirn-light.so
2 libfirn.so
default libfirn.so
3 libfirn-strict.so
strict libfirn-strict.so
LEVELS
while read -r level library; do
    # shellcheck disable=SC2016
    expect "run --checked --level $level" "$FIRN_BUILD/$library" \
        "$("$firn" run --checked --level "$level" -- sh -c 'echo "$LD_PRELOAD"')"
done <<'LEVELS'
1 libfirn-light-checked.so
2 libfirn-checked.so
3 libfirn-strict.so
LEVELS
expect "nothing to check at level 0" "2 firn: level 0 checks nothing: --checked" \
    "$(status_of "$firn" run --level=0 --checked true)"
# shellcheck disable=SC2016
show='echo "$LD_PRELOAD $FIRN_OPTIONS $1"'
expect "the default level" "$FIRN_BUILD/libfirn.so  x" "$("$firn" run sh -c "$show" sh x)"
expect "options, with =" "$FIRN_BUILD/libfirn.so verbose=0 x" \
    "$("$firn" run --options=verbose=0 sh -c "$show" sh x)"
expect "the command's own options" "--level" "$("$firn" run -- echo --level)"
libm=$(ldconfig -p | awk '/libm\.so\.6.*x86-64/ { print $NF; exit }')
expect "an older LD_PRELOAD stays" "$FIRN_BUILD/libfirn.so:$libm  x" \
    "$(LD_PRELOAD=$libm "$firn" run sh -c "$show" sh x)"
expect "the status of the command" 7 "$("$firn" run sh -c 'exit 7'; echo $?)"

expect "no command" "2 firn: run needs a command" "$(status_of "$firn" run --level 1)"
expect "no such level" "2 firn: no such level: 4" "$(status_of "$firn" run --level 4 true)"
expect "no such option" "2 firn: unknown option: --lvl" "$(status_of "$firn" run --lvl 1 true)"
expect "no value" "2 firn: this option needs a value: --level" "$(status_of "$firn" run --level)"
expect "no such subcommand" "2 firn: unknown command: rnu" "$(status_of "$firn" rnu true)"
expect "no such program" "127 firn: cannot run /nonexistent: No such file or directory" \
    "$(status_of "$firn" run /nonexistent)"
expect "not executable" "126 firn: cannot run /etc/passwd: Permission denied" \
    "$(status_of "$firn" run /etc/passwd)"
expect "help" "0 " "$(status_of "$firn" --help)"

mkdir -p "$TMPDIR/tree/bin" "$TMPDIR/tree/lib" "$TMPDIR/a b"
cp "$firn" "$TMPDIR/tree/bin"
if [ ! -e "${PREFIX:-/usr/local}/lib/libfirn-bare.so" ]; then
    cp "$firn" "$TMPDIR"
    expect "no library" 126 "$("$TMPDIR/firn" run --level bare true 2>/dev/null; echo $?)"
fi
cp "$FIRN_LIB" "$TMPDIR/tree/lib"
expect "a tree that was moved" "$(realpath "$TMPDIR")/tree/lib/libfirn.so  x" \
    "$("$TMPDIR/tree/bin/firn" run sh -c "$show" sh x)"
cp "$firn" "$FIRN_LIB" "$TMPDIR/a b"
expect "a path that cannot be preloaded" \
    "126 firn: $TMPDIR/a b/libfirn.so: a path with a space or a colon cannot be preloaded" \
    "$(status_of "$TMPDIR/a b/firn" run true)"

"$firn" run sleep 60 &
sleeper=$!
for _ in $(seq 300); do
    [ "$(cat /proc/$sleeper/comm)" = sleep ] && grep -q libfirn /proc/$sleeper/maps && break
    sleep 0.1
done
expect "stat of a process with Firn" "$sleeper: Firn is loaded from $FIRN_BUILD/libfirn.so" \
    "$("$firn" stat $sleeper)"
expect "stat of a process without" 1 "$("$firn" stat $$ >/dev/null; echo $?)"
expect "stat of no process" "2 firn: process 2147483647: no such process" \
    "$(status_of "$firn" stat 2147483647)"
expect "stat of nonsense" "2 firn: not a process id: 12x" "$(status_of "$firn" stat 12x)"
[ $failures = 0 ]
