#!/usr/bin/env bash
# Programs that bring their own malloc, and those that a preload does not reach: told in one line, and they run.
# firn-test: levels=2,3 timeout=300
. "$(dirname "$0")/lib.sh"

cc=${CC:-cc}

# What it prints is right only if one allocator serves all of it, libc's own calls included.
cat >"$work/use.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static void *work(void *unused) {
    (void)unused;
    for (int i = 0; i < 1000; i++) {
        char *s = NULL;
        if (asprintf(&s, "%d", i) < 1 || atoi(s) != i) {
            abort();
        }
        s = realloc(s, 5000);
        void *aligned;
        if (posix_memalign(&aligned, 256, 100) != 0) {
            abort();
        }
        free(s);
        free(aligned);
    }
    return NULL;
}
int main(void) {
    pthread_t thread;
    work(NULL);
    if (pthread_create(&thread, NULL, work, NULL) != 0 || pthread_join(thread, NULL) != 0) {
        return 1;
    }
    char *line = NULL;
    size_t n = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (getline(&line, &n, maps) > 0) {
    }
    free(line);
    fclose(maps);
    int status = 1;
    if (fork() == 0) {
        work(NULL);
        _exit(0);
    }
    if (wait(&status) < 0 || status != 0) {
        return 2;
    }
    void *other = dlmopen(LM_ID_NEWLM, "libm.so.6", RTLD_NOW); // with a libc of its own
    if (other == NULL || dlclose(other) != 0) {
        return 3;
    }
#ifdef STUB
    void *(*volatile stub)(size_t) = malloc;
    Dl_info module;
    if (dladdr((void *)stub, &module) == 0 || strstr(module.dli_fname, "stub") == NULL) {
        return 4;
    }
    free(stub(10));
#endif
    puts("well");
    return 0;
}
C
# An allocator as small as one can be: blocks from one array, each after its size; free does nothing. It
# notices a block that is not its own.
cat >"$work/own.c" <<'C'
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
static _Alignas(4096) unsigned char pool[128 << 20];
static size_t used;
static void *take(size_t align, size_t size) {
    align = align < 16 ? 16 : align;
    size_t at = __atomic_fetch_add(&used, size + align + 32, __ATOMIC_RELAXED);
    if (size > sizeof pool || at > sizeof pool - size - align - 32) {
        errno = ENOMEM;
        return NULL;
    }
    at = (at + 16 + align - 1) / align * align;
    memcpy(pool + at - sizeof size, &size, sizeof size);
    return pool + at;
}
static size_t size_of(void *p) {
    size_t size;
    if ((uintptr_t)p - (uintptr_t)pool >= sizeof pool) {
        __builtin_trap();
    }
    memcpy(&size, (unsigned char *)p - sizeof size, sizeof size);
    return size;
}
void *malloc(size_t size) { return take(16, size); }
void free(void *p) { if (p != NULL) { (void)size_of(p); } }
void *calloc(size_t n, size_t size) { return take(16, n * size); }
void *realloc(void *p, size_t size) {
    void *q = take(16, size);
    if (p != NULL && q != NULL) {
        size_t old = size_of(p);
        memcpy(q, p, old < size ? old : size);
    }
    return q;
}
int posix_memalign(void **out, size_t align, size_t size) {
    *out = take(align, size);
    return *out != NULL ? 0 : ENOMEM;
}
void *aligned_alloc(size_t align, size_t size) { return take(align, size); }
void *memalign(size_t align, size_t size) { return take(align, size); }
C

# NAME WANTED-LINE COMMAND...: prints "well", and on stderr that line and nothing else; "" for none.
runs() {
    local name=$1 line=$2 status
    shift 2
    LD_PRELOAD=${preload-$FIRN_LIB} "$@" >"$work/out" 2>"$work/err"
    status=$?
    if [ "$status" = 0 ] && [ "$(cat "$work/out")" = well ] && [ "$(cat "$work/err")" = "$line" ]; then
        ok "$name"
    else
        not_ok "$name" "status $status, $(head -c 300 "$work/out"), $(head -c 600 "$work/err")"
    fi
}

aside_of() { # FILE
    echo "firn: malloc is that of $1: Firn stands aside; FIRN_OPTIONS=off does so without a word"
}

"$cc" -O1 -fno-builtin -o "$work/plain" "$work/use.c" || exit 1
"$cc" -O1 -fno-builtin -o "$work/own" "$work/use.c" "$work/own.c" || exit 1
"$cc" -O1 -fno-builtin -shared -fPIC -o "$work/own.so" "$work/own.c" || exit 1
"$cc" -O1 -static -o "$work/static" "$work/use.c" 2>/dev/null

runs plain "" "$work/plain"
# Its malloc is a stub in the program itself.
"$cc" -O1 -fno-builtin -no-pie -fno-pic -DSTUB -o "$work/stub" "$work/use.c" || exit 1
runs stub "" "$work/stub"
runs linked-in "$(aside_of "$work/own")" "$work/own"
FIRN_OPTIONS=off runs linked-in-off "" "$work/own"
FIRN_OPTIONS=cold=on:mesh=auto runs linked-in-busy "$(aside_of "$work/own")" "$work/own"
preload=$work/own.so:$FIRN_LIB runs before-firn "$(aside_of "$work/own.so")" "$work/plain"
preload=$FIRN_LIB:$work/own.so runs after-firn "" "$work/plain"

# Real ones, where they are installed.
for name in jemalloc.so.2 tcmalloc_minimal.so.4 mimalloc.so.2.0; do
    library=$(ldconfig -p | awk -v n="lib$name" '$1 == n { print $NF; exit }')
    if [ -z "$library" ]; then
        skip "${name%%.*}" "not installed"
        continue
    fi
    preload=$library:$FIRN_LIB runs "${name%%.*}" "$(aside_of "$library")" "$work/plain"
    # What a program is linked with comes after Firn: that one is never asked.
    if "$cc" -O1 -fno-builtin -o "$work/linked" "$work/use.c" -Wl,--no-as-needed "$library" 2>/dev/null; then
        runs "${name%%.*}-needed" "" "$work/linked"
    fi
done
if gcc -O1 -fsanitize=address -static-libasan -o "$work/asan" "$work/use.c" 2>/dev/null; then
    ASAN_OPTIONS=detect_leaks=0 runs sanitizer "$(aside_of "$work/asan")" "$work/asan"
fi

# The launcher says what a preload cannot do.
firn=$FIRN_BUILD/firn
preload=
if [ -x "$work/static" ]; then
    cat >"$work/small.c" <<'C'
#include <stdio.h>
int main(void) { return puts("well") < 0; }
C
    "$cc" -O1 -static -o "$work/static" "$work/small.c"
    runs static "firn: $work/static is statically linked and runs without Firn: link it with libfirn.a" \
        "$firn" run "$work/static"
    "$cc" -O1 -static-pie -o "$work/static-pie" "$work/small.c" &&
        runs static-pie "firn: $work/static-pie is statically linked and runs without Firn: link it with libfirn.a" \
            "$firn" run "$work/static-pie"
    if command -v musl-gcc >/dev/null; then
        musl-gcc -O1 -o "$work/musl" "$work/small.c"
        runs musl "firn: $work/musl runs without Firn, which needs glibc: its loader is /lib/ld-musl-x86_64.so.1" \
            "$firn" run "$work/musl"
    else # the name of its loader is enough to see that Firn keeps out
        "$cc" -O1 -Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1 -o "$work/musl" "$work/small.c"
        "$firn" run "$work/musl" >"$work/out" 2>"$work/err"
        case $(cat "$work/err") in
        "firn: $work/musl runs without Firn, which needs glibc: its loader is /lib/ld-musl-x86_64.so.1"*) ok musl ;;
        *) not_ok musl "$(cat "$work/err")" ;;
        esac
    fi
else
    skip static "no static libc"
fi
runs launched "" "$firn" run "$work/plain"
finish
