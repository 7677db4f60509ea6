#!/usr/bin/env bash
# Programs under limits: address space, one core, threads beyond the cores, no new privileges, locked
# memory. What runs with the C library's malloc must run with Firn.
# firn-test: levels=0,1,2,3 timeout=900
. "$(dirname "$0")/lib.sh"
. "$here/lib_programs.sh"
. "$here/lib_daemons.sh"
. "$here/lib_limits.sh"

# $1 KiB of address space, by the shell's own limit.
under_ulimit_v() { # KIB
    # shellcheck disable=SC2016
    limit=(bash -c 'ulimit -v "$0" && exec "$@"' "$1")
}

check_address_space() {
    limit=(prlimit --as=4294967296)
    check_all as-4G:
    under_ulimit_v 1048576
    check_some ulimit-v-1G:
    # Little more than the C library itself needs.
    under_ulimit_v 65536
    check_perl ulimit-v-64M:
    check_bash ulimit-v-64M:
    check_lua ulimit-v-64M:
    limit=()
}

check_cores() {
    need taskset taskset || return
    limit=(taskset -c 0)
    check_few one-core:
    check_sort one-core:
    if [ "$(nproc)" -ge 2 ]; then
        limit=(taskset -c "0,1")
        check_sort two-cores:
        check_eight_threads
    fi
    limit=()
}

# The stress program, if it was built beside the library.
check_eight_threads() {
    local program=${FIRN_BUILD:-$root/build}/tests/stress/stress_threads
    if [ -x "$program" ]; then
        if firn "$program" 2 >"$work/firn.out" 2>&1; then
            ok two-cores:stress_threads
        else
            not_ok two-cores:stress_threads "$(tail -n 1 "$work/firn.out")"
        fi
    else
        skip two-cores:stress_threads "$program is not built"
    fi
}

check_privileges() {
    need setpriv setpriv || return
    limit=(setpriv --no-new-privs)
    check_few no-new-privs:
    if [ "$(id -u)" = 0 ]; then
        chmod 755 "$work"
        limit=(setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs)
        # The library must be readable for nobody.
        if "${limit[@]}" test -r "$FIRN_LIB" && "${limit[@]}" test -r "$here/programs/words.pl"; then
            check_perl nobody:
            check_bash nobody:
        else
            skip nobody "the library lies where nobody cannot read"
        fi
    fi
    limit=()
}

# MCL_CURRENT | MCL_FUTURE: what is mapped and readable is populated and locked at once, now and
# later, with page tables for all of it. An inaccessible reservation costs nothing, a readable one
# does. 160 MiB is over twice what this script takes with the C library's malloc.
check_mlockall() {
    # shellcheck disable=SC2016
    local code='$| = 1; syscall(151, 3) == 0 or do { print "no lock: $!\n"; exit 0 };
        my @a; for my $i (1 .. 20000) { push @a, "x" x ($i % 3000); splice @a, 0, 50 if @a > 2000 }
        my $big = "y" x 30_000_000; my $pid = fork; if (!$pid) { print length($big), "\n"; exit 0 }
        waitpid $pid, 0; open my $f, "<", "/proc/self/status"; my ($rss, $tables);
        while (<$f>) { $rss = $1 if /VmRSS:\s+(\d+)/; $tables = $1 if /VmPTE:\s+(\d+)/ }
        print scalar(@a), " ", $rss + $tables > 160 * 1024
            ? "too much: $rss KiB resident, $tables KiB of page tables" : "bounded", "\n"'
    same mlockall:perl perl -e "$code"
    check_memcached mlockall: -k
}

check_address_space
check_cores
check_privileges
check_mlockall
finish
