#!/usr/bin/env bash
# How a process may start: options right and wrong, set-user-ID, no environment, closed or few
# descriptors, odd address spaces and resource limits.
# firn-test: share=2,3 levels=0,1,2,3 timeout=300
. "$(dirname "$0")/lib.sh"
. "$here/lib_programs.sh"

seconds=100

# ---- FIRN_OPTIONS ----

options() { # TEXT: output in $work/firn.out and $work/firn.err, its status the program's
    FIRN_OPTIONS=$1 firn echo ran >"$work/firn.out" 2>"$work/firn.err"
}

expect_options() { # NAME TEXT STATUS PATTERN: one complaint that matches
    local status
    options "$2"
    status=$?
    if [ "$status" != "$3" ]; then
        not_ok "$1" "status $status, expected $3"
    elif ! grep -qE "^firn:.*$4" "$work/firn.err"; then
        not_ok "$1" "no line 'firn: ... $4' for FIRN_OPTIONS=$2: $(head -n 1 "$work/firn.err")"
    elif [ "$status" = 0 ] && ! grep -qx ran "$work/firn.out"; then
        not_ok "$1" "the program did not run"
    else
        ok "$1"
    fi
}

check_options() {
    expect_options option-misspelt stat=exit 0 "'stats'"
    expect_options option-misspelt-second purge_delay=5:verbos=1 0 "'verbose'"
    expect_options option-comma purge_dely=5,stats=exit 0 "'purge_delay'"
    expect_options option-out-of-range purge_delay=99999999999 0 'purge_delay.*600000'
    expect_options option-abort-conf verbos=1:abort_conf=1 134 "'verbose'"
    expect_options option-verbose verbose=1 0 'level'
    expect_options option-stats stats=exit 0 '.'
    if options purge_delay=5 && [ ! -s "$work/firn.err" ]; then
        ok option-right-is-silent
    else
        not_ok option-right-is-silent "$(head -n 1 "$work/firn.err")"
    fi
    # Hostile text: long, empty items, control characters; it may complain, it must run.
    local text
    for text in "$(printf 'x%.0s' $(seq 5000))" '::,,::' $'a\x1b[31m=\x07' '=' '=1' 'stats' \
        "purge_delay=$(printf '9%.0s' $(seq 400))"; do
        if options "$text" && grep -qx ran "$work/firn.out" &&
            ! LC_ALL=C grep -q $'[\x01-\x08\x0b-\x1f]' "$work/firn.err"; then
            ok "option-hostile-$((++hostile))"
        else
            not_ok "option-hostile-$((++hostile))" "FIRN_OPTIONS=${text:0:20}...: $(head -c 200 \
                "$work/firn.err" | tr -d '\000-\037')"
        fi
    done
}

# ---- set-user-ID ----

# ld.so ignores the preload then; a program linked with Firn must not read its options from an
# environment that someone else controls.
check_secure() {
    if [ "$(id -u)" != 0 ] || ! command -v setpriv >/dev/null; then
        skip at-secure "needs root and setpriv"
        return
    fi
    chmod 755 "$work"
    install -m 755 "$FIRN_LIB" "$work/$(basename "$FIRN_LIB")"
    if ! "${CC:-gcc}" -fno-builtin -o "$work/secure" "$here/programs/secure.c" \
        -Wl,--no-as-needed "$work/$(basename "$FIRN_LIB")" -Wl,-rpath,"$work" 2>"$work/cc.err"; then
        not_ok at-secure "cannot build: $(head -n 1 "$work/cc.err")"
        return
    fi
    chmod 755 "$work/secure"
    local nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    nobody+=(env FIRN_OPTIONS=verbose=1:stats=exit:nonsense=1)
    # First without the bit: the options must work, or their silence would say nothing.
    "${nobody[@]}" "$work/secure" >"$work/firn.out" 2>"$work/firn.err"
    if ! grep -qx secure=0 "$work/firn.out" || ! grep -q '^firn:' "$work/firn.err"; then
        not_ok at-secure "the options do not work in the plain program: $(cat "$work/firn.out")"
        return
    fi
    chmod 4755 "$work/secure"
    "${nobody[@]}" "$work/secure" >"$work/firn.out" 2>"$work/firn.err"
    local status=$?
    if grep -qx secure=0 "$work/firn.out"; then
        skip at-secure "$work is on a file system that ignores set-user-ID"
    elif [ "$status" != 0 ] || ! grep -qx secure=1 "$work/firn.out"; then
        not_ok at-secure "status $status: $(cat "$work/firn.out" "$work/firn.err" | tr '\n' ' ')"
    elif [ -s "$work/firn.err" ]; then
        not_ok at-secure "read its options: $(head -n 1 "$work/firn.err")"
    else
        ok at-secure
    fi
}

# ---- surroundings ----

words=("$here/programs/words.pl" 5000)

check_surroundings() {
    limit=(env -i)
    same empty-environment perl "${words[@]}"
    limit=()
    # shellcheck disable=SC2016
    same closed-descriptors perl -MPOSIX -e 'POSIX::close($_) for 3 .. 1023;
        my @a = map { "x" x ($_ % 5000) } 1 .. 20000; my $p = fork // die;
        if (!$p) { @a = map { "$_" x 3 } @a[0 .. 500]; print scalar(@a), "\n"; exit 0 }
        waitpid $p, 0; print "$? ", length(join "", @a), "\n"'
    # shellcheck disable=SC2016
    same closed-standard-streams bash -c 'perl "$@" <&- >&- 2>&-; echo $?' bash "${words[@]}"
    limit=(prlimit --nofile=6)
    same few-descriptors perl "${words[@]}"
    limit=(prlimit --memlock=0)
    same no-locked-memory perl "${words[@]}"
    limit=(prlimit --data=67108864)
    same data-64M perl "${words[@]}"
    limit=(prlimit --nproc=64)
    same few-processes perl -e 'print "one ", 2 x 100000, "\n"'
    limit=(prlimit --stack=unlimited)
    same unlimited-stack perl "${words[@]}"
    limit=(prlimit --stack=262144)
    same small-stack perl "${words[@]}"
    if command -v setarch >/dev/null; then
        limit=(setarch -R)
        same no-address-randomisation perl "${words[@]}"
        limit=(setarch -L)
        same old-address-layout perl "${words[@]}"
    fi
    limit=(unshare --user --map-root-user)
    same user-namespace perl "${words[@]}"
    limit=()
    # unshare(CLONE_NEWUSER) is refused to a process with a second thread: Firn must not start one.
    # shellcheck disable=SC2016
    same unshare-inside perl -e 'my @a = map { "x" x $_ } 1 .. 3000; my $r = syscall(272, 0x10000000);
        print scalar(@a), " ", $r == 0 ? "done" : "refused: $!", "\n"'
    if [ "$(id -u)" = 0 ]; then
        # shellcheck disable=SC2016
        same setuid-inside perl -MPOSIX -e 'my @a = map { "x" x $_ } 1 .. 2000; POSIX::setuid(65534)
            or die "setuid: $!"; @a = map { "y" x $_ } 1 .. 4000; print scalar(@a), " $<\n"'
    fi
}

# ---- memory ----

figure() { # COMMAND-PREFIX FILE PATTERN: KiB, the least of three (other processes share pages)
    local prefix=$1 i
    for i in 1 2 3; do
        "$prefix" cat "$2" | awk -v pattern="$3" '$1 == pattern { print $2 }'
    done | sort -n | head -n 1
}

# A small program stays small: pages of its own, and page tables for a sparse heap.
check_small_program() {
    local name file pattern with without
    for name in Pss VmPTE; do
        file=/proc/self/status pattern=$name:
        [ "$name" = VmPTE ] || file=/proc/self/smaps_rollup
        with=$(figure firn $file $pattern)
        without=$(figure plain $file $pattern)
        if [ -z "$with" ] || [ -z "$without" ]; then
            skip "small-program-$name" "$file does not say"
        elif [ "$with" -le $((without + 1024)) ]; then
            ok "small-program-$name ($without KiB, with Firn $with KiB)"
        else
            not_ok "small-program-$name" "$with KiB, $without without Firn; 1024 more are allowed"
        fi
    done
}

# What few processes use (merging, freezing, reports) has mappings of its own, src/preload/firn.ld: of its
# code nothing is resident in a process that does not use it. Between it and what every process runs is the
# rest of the same files, of which a process may need some.
check_cold_code() {
    # A process that allocates for a while, and then reads its own mappings.
    # shellcheck disable=SC2016
    firn perl -e 'my @a = map { "x" x ($_ % 3000) } 1 .. 20000; open F, "/proc/self/smaps"; print <F>' |
        awk -v library="$(basename "$FIRN_LIB")" '
            /^[0-9a-f]+-[0-9a-f]+ / { is_code = $2 == "r-xp" && $6 ~ "/" library "$" }
            is_code && $1 == "Rss:" { print $2 }' >"$work/code"
    if [ "$(wc -l <"$work/code")" != 3 ] || [ "$(head -n 1 "$work/code")" = 0 ]; then
        not_ok cold-code "three mappings of code, the first one in use, were expected; resident:" \
            "$(paste -sd ' ' "$work/code") KiB"
    elif [ "$(tail -n 1 "$work/code")" != 0 ]; then
        not_ok cold-code "$(tail -n 1 "$work/code") KiB of it are resident"
    else
        ok cold-code
    fi
}

hostile=0
check_small_program
check_cold_code
check_surroundings
check_secure
check_options
finish
