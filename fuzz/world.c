#include "fuzz/world.h"

#include "fuzz/fuzz.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

FIRN_NORETURN void __real_fatal(enum fatal_id id, const struct fatal_info *info);
FIRN_NORETURN void __wrap_fatal(enum fatal_id id, const struct fatal_info *info);
FIRN_NORETURN void __real_abort(void);
FIRN_NORETURN void __wrap_abort(void);
void __real_sys_write(int fd, const char *data, size_t n);
void __wrap_sys_write(int fd, const char *data, size_t n);
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
uint64_t __wrap_clock_coarse_ns(void);

static jmp_buf escape;
static bool is_expecting;
static struct world_death last_death;

static bool is_listening;
static char heard[(64 << 10) + 1];
static size_t heard_bytes;

static uint64_t seed_state;
static uint64_t now_ns;

void fuzz_fail(const char *what, const char *file, int line) {
    fprintf(stderr, "fuzz: %s:%d: not %s\n", file, line, what);
    __real_abort();
}

int firn_fuzz_planted(const uint8_t *data, size_t size) {
    FUZZ_ENSURE(size < 5 || memcmp(data, "crash", 5) != 0);
    return 0;
}

// ---- deaths -----------------------------------------------------------------------------------

bool world_dies(void (*body)(void *), void *context, struct world_death *death) {
    FUZZ_ENSURE(!is_expecting);
    *death = (struct world_death){0};
    is_expecting = true;
    if (setjmp(escape) == 0) {
        body(context);
        is_expecting = false;
        return false;
    }
    *death = last_death;
    return true;
}

void __wrap_fatal(enum fatal_id id, const struct fatal_info *info) {
    if (!is_expecting) {
        __real_fatal(id, info);
    }
    is_expecting = false;
    last_death = (struct world_death){false, id, info->address};
    longjmp(escape, 1);
}

void __wrap_abort(void) {
    if (!is_expecting) {
        __real_abort();
    }
    is_expecting = false;
    last_death = (struct world_death){.is_abort = true};
    longjmp(escape, 1);
}

// ---- words ------------------------------------------------------------------------------------

void world_listen(void) {
    is_listening = true;
    heard_bytes = 0;
}

const char *world_heard(size_t *n) {
    is_listening = false;
    *n = heard_bytes;
    heard[heard_bytes < sizeof(heard) ? heard_bytes : sizeof(heard) - 1] = '\0';
    return heard;
}

void __wrap_sys_write(int fd, const char *data, size_t n) {
    if (!is_listening) {
        __real_sys_write(fd, data, n);
        return;
    }
    for (size_t i = 0; i < n && heard_bytes + i < sizeof(heard) - 1; i++) {
        heard[heard_bytes + i] = data[i];
    }
    heard_bytes += n;
}

// ---- time and chance --------------------------------------------------------------------------

void world_reset(void) {
    const uint64_t hour_ns = (uint64_t)3600 * 1000000000;
    seed_state = 0;
    // Never back: the heap kept times from before. The next full hour is the same to it as any other.
    now_ns = (now_ns / hour_ns + 1) * hour_ns;
}

void world_wait(uint64_t ns) {
    now_ns += ns;
}

uint64_t __wrap_clock_coarse_ns(void) {
    return now_ns;
}

// Only as good as it must be: different bytes each time.
static long fixed_random(uint8_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        seed_state = seed_state * 6364136223846793005u + 1442695040888963407u;
        out[i] = (uint8_t)(seed_state >> 56);
    }
    return (long)n;
}

// Passes on six words, as syscall itself does, however many there are.
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...) {
    va_list list;
    long a[6];
    va_start(list, number);
    for (unsigned i = 0; i < 6; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    if (number == SYS_getrandom) {
        return fixed_random((uint8_t *)a[0], (size_t)a[1]);
    }
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
