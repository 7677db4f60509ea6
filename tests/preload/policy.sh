#!/usr/bin/env bash
# P-POLICY: /etc/firn.conf as a process meets it, in a mount namespace with an /etc of its own; FIRN_OPTIONS=off.
# firn-test: levels=2,3 timeout=300
. "$(dirname "$0")/lib.sh"

# A process that stands aside makes none of Firn's calls but those that read what it shall do.
check_off() {
    local said
    said=$(FIRN_OPTIONS=verbose:off firn perl -e 'my @a = map { "x" x $_ } 1 .. 3000; print scalar(@a)' 2>&1)
    case $said in
    "firn: "*" off"*3000) ok off ;;
    *) not_ok off "$said" ;;
    esac
    if ! command -v strace >/dev/null; then
        skip off-calls "no strace"
        return
    fi
    for how in plain firn; do
        FIRN_OPTIONS=off strace -f -qq -o "$work/$how.trace" -e trace=memory,userfaultfd \
            -E ${how/firn/LD_PRELOAD=$FIRN_LIB} perl -e 'my @a = map { "x" x $_ } 1 .. 3000' 2>/dev/null
        # What the loader maps it does before the first line of the program's: terabytes would be seen.
        sed 's/^[0-9]* //' "$work/$how.trace" | grep -c 'madvise\|mremap\|PROT_NONE, MAP_PRIVATE|MAP_ANON' \
            >"$work/$how.count"
    done
    if [ "$(cat "$work/plain.count")" = "$(cat "$work/firn.count")" ]; then
        ok off-calls
    else
        not_ok off-calls "$(cat "$work/firn.count") calls, $(cat "$work/plain.count") without Firn"
    fi
}

# libc's own block given to its own functions, from each of ours.
check_off_functions() {
    cat >"$work/aside.c" <<'C'
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
void *__libc_memalign(size_t, size_t);
static void *thread(void *p) {
    free(p);
    return malloc(70000);
}
int main(void) {
    char *p = malloc(100), *q;
    pthread_t t;
    // glibc's way: the size of the chunk stands before it.
    if ((((size_t *)p)[-1] & ~7ul) != 112 || malloc_usable_size(p) != 104) return 1;
    p = realloc(p, 200000);
    q = calloc(300, 1000);
    memset(p, 1, 200000), memset(q, 2, 300000);
    free(p), free(q);
    if (posix_memalign((void **)&p, 4096, 100) != 0 || (size_t)p % 4096 != 0) return 2;
    free(p);
    free(aligned_alloc(64, 128)), free(memalign(32, 5)), free(valloc(3)), free(pvalloc(3));
    free(__libc_memalign(128, 10));
    if (malloc((size_t)-5) != NULL || errno != ENOMEM) return 3;
    p = malloc(10);
    if (pthread_create(&t, NULL, thread, p) != 0 || pthread_join(t, (void **)&p) != 0) return 4;
    free(p);
    if (mallinfo2().arena == 0 || malloc_info(0, stdout) != 0) return 5;
    malloc_trim(0);
    if (fork() == 0) free(malloc(1000)), _exit(7);
    int status;
    wait(&status);
    return WEXITSTATUS(status) == 7 ? 0 : 6;
}
C
    "${CC:-gcc}" -fno-builtin -w -o "$work/aside" "$work/aside.c" -lpthread || return
    if FIRN_OPTIONS=off firn "$work/aside" >"$work/firn.out" 2>"$work/firn.err" && [ ! -s "$work/firn.err" ]; then
        ok off-functions
    else
        not_ok off-functions "status $?: $(head -n 1 "$work/firn.err")"
    fi
    if command -v g++ >/dev/null; then
        printf '%s\n' '#include <map>' '#include <string>' '#include <cstdio>' \
            'int main() { std::map<std::string, int> m; for (int i = 0; i < 5000; i++) m[std::to_string(i)] = i;' \
            'try { char *volatile p = new char[1ul << 62]; delete[] p; } catch (...) { puts("thrown"); } return m.size() != 5000; }' \
            >"$work/aside.cc"
        g++ -w -O1 -o "$work/asidexx" "$work/aside.cc"
        if [ "$(FIRN_OPTIONS=off firn "$work/asidexx" 2>&1)" = thrown ]; then
            ok off-cxx
        else
            not_ok off-cxx "$(FIRN_OPTIONS=off firn "$work/asidexx" 2>&1 | head -n 1)"
        fi
    fi
}

# ---- with an /etc of our own ----

# COMMAND with these lines in /etc/firn.conf; $mode its mode, $folder lines of firn.conf.d/a.conf.
mode=644 folder=
with() { # LINES COMMAND...
    local lines=$1
    shift
    unshare -m bash -c 'mount -t tmpfs none /mnt && cp -a /etc/passwd /etc/group /etc/ld.so.cache /mnt/ &&
        printf "%s\n" "$0" >/mnt/firn.conf && chmod "$1" /mnt/firn.conf && chmod 755 /mnt &&
        if [ -n "$2" ]; then mkdir -m 755 /mnt/firn.conf.d && printf "%s\n" "$2" >/mnt/firn.conf.d/a.conf &&
            chmod 644 /mnt/firn.conf.d/a.conf; fi && mount --bind /mnt /etc && shift 2 && exec "$@"' \
        "$lines" "$mode" "$folder" "$@"
}

expect() { # NAME WANTED LINES COMMAND...: what it says, all of it; versions and process ids taken out
    local name=$1 wanted=$2 said
    shift 2
    said=$(with "$@" 2>&1 | sed -e 's/pid=[0-9]*/pid=N/' -e 's/firn: [0-9.]* /firn: V /' | tr '\n' '|')
    if [ "$said" = "$wanted" ]; then
        ok "$name"
    else
        not_ok "$name" "wanted '$wanted', got '$said'"
    fi
}

check_files() {
    local run=(env LD_PRELOAD="$FIRN_LIB" "$work/id" -u) me="$work/id"
    # A program of our own: what coreutils' id resolves to is another machine's business.
    printf '%s\n' '#include <stdio.h>' '#include <stdlib.h>' \
        'int main(void) { free(malloc(3)); puts("ran"); return 0; }' >"$work/id.c"
    "${CC:-gcc}" -fno-builtin -w -o "$work/id" "$work/id.c" || return
    chmod 755 "$work" "$work/id"
    local hello="firn: V level=${FIRN_LEVEL:-2} pid=N"
    expect conf-absent-program 'ran|' "/bin/other verbose" "${run[@]}"
    expect conf-options "$hello|ran|" "$me verbose # why" "${run[@]}"
    expect conf-off "$hello off|ran|" "${me%/id}/* off  verbose" "${run[@]}"
    expect conf-environment-wins "$hello|ran|" "** off" env FIRN_OPTIONS=off=0:verbose "${run[@]}"
    expect conf-later-wins "$hello|ran|" "** off
$me off=0 verbose" "${run[@]}"
    expect conf-wrong-key "firn: /etc/firn.conf:3: unknown option 'verbos' ignored; closest is 'verbose'|ran|" \
        "# first

$me verbos" "${run[@]}"
    expect conf-wrong-pattern \
        "firn: /etc/firn.conf:1: ignored, the pattern 'id' begins neither with / nor with **|ran|" "id off" "${run[@]}"
    folder="$me verbose"
    expect conf-folder "$hello|ran|" "# nothing" "${run[@]}"
    folder=
    mode=666
    expect conf-untrusted "firn: /etc/firn.conf: ignored, others than its owner may write to it|ran|" \
        "$me off" "${run[@]}"
    mode=644
    if [ "${FIRN_LEVEL:-2}" = 2 ]; then
        expect conf-level "firn: /etc/firn.conf:1: level: this process has level 2; preload \
libfirn-strict.so, or start it with firn run|ran|" "$me level=3" "${run[@]}"
        expect conf-launcher "firn: V level=3 pid=N|ran|" "$me level=strict verbose" "$FIRN_BUILD/firn" run "$me"
        expect conf-launcher-option "firn: V level=1 pid=N|ran|" "$me verbose level=1" "$FIRN_BUILD/firn" run \
            --level 1 "$me"
        expect conf-show "$me|/etc/firn.conf:2: of:level=1|firn: /etc/firn.conf:2: unknown option 'of' ignored; \
closest is 'off'|" "/bin/x off
$me of level=1" "$FIRN_BUILD/firn" conf "$me"
    fi
    # In a chroot without /proc: better no policy than the wrong one; what is for all still holds.
    if command -v strace >/dev/null; then
        expect conf-no-proc "firn: /etc/firn.conf:1: ignored, /proc/self/exe does not say which program this \
is|$hello|ran|" "$me off
** verbose" strace -f -qq -o /dev/null -e trace=readlink -e inject=readlink:error=ENOENT "${run[@]}"
    fi
}

# The environment is not read there, the policy is.
check_secure() {
    local user=(setpriv --reuid=65534 --regid=65534 --clear-groups env FIRN_OPTIONS=stats=exit)
    cp "$FIRN_LIB" "$work/" && chmod 755 "$work/$(basename "$FIRN_LIB")"
    "${CC:-gcc}" -fno-builtin -o "$work/secure" "$here/programs/secure.c" -Wl,--no-as-needed \
        "$work/$(basename "$FIRN_LIB")" -Wl,-rpath,"$work" || return
    chmod 4755 "$work/secure"
    if ! "${user[@]}" "$work/secure" 2>/dev/null | grep -qx secure=1; then
        skip conf-secure "$work is on a file system that ignores set-user-ID"
        return
    fi
    expect conf-secure "firn: V level=${FIRN_LEVEL:-2} pid=N|secure=1|" "$work/secure verbose" "${user[@]}" "$work/secure"
    expect conf-secure-off "firn: V level=${FIRN_LEVEL:-2} pid=N off|secure=1|" "$work/secure verbose off" \
        "${user[@]}" "$work/secure"
}

check_off
check_off_functions
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
    check_files
    check_secure
else
    skip conf "needs root and mount namespaces"
fi
finish
