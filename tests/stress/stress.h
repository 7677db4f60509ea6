// What every stress program needs: a seeded generator, blocks that describe and check themselves,
// a deadline, the process's memory, and one way to fail.
//
// Usage of every program:  stress_X [SECONDS [SEED]]
// Output: "ok stress_X ..." and status 0, or "not ok stress_X: REASON (seed N)" and status 1.
// The seed fixes each thread's sequence of operations, not how the threads interleave.
//
// Header-only, so that each program is one source file.
#ifndef FIRN_TESTS_STRESS_STRESS_H
#define FIRN_TESTS_STRESS_STRESS_H

#include "tests/stress/mem.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *stress_name = "stress";
static uint64_t stress_seed;
static uint64_t stress_deadline_ns;
static unsigned stress_seconds; // unless the program chose: a few

// ---- failing ----

// No allocation: the heap may be what is broken.
__attribute__((noreturn, format(printf, 1, 2))) static inline void stress_fail(const char *format,
                                                                               ...) {
    char text[512];
    int n = snprintf(text, sizeof text, "not ok %s: ", stress_name);
    va_list args;
    va_start(args, format);
    n += vsnprintf(text + n, sizeof text - (size_t)n - 40, format, args);
    va_end(args);
    if (n > (int)sizeof text - 40) {
        n = (int)sizeof text - 40;
    }
    n += snprintf(text + n, sizeof text - (size_t)n, " (seed %" PRIu64 ")\n", stress_seed);
    // Standard output, where the runner looks for the verdict; nothing can be done if it fails.
    ssize_t written = write(STDOUT_FILENO, text, (size_t)n);
    _exit(written > 0 ? 1 : 2);
}

#define STRESS_CHECK(cond, ...)                                                                    \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            stress_fail(__VA_ARGS__);                                                              \
        }                                                                                          \
    } while (0)

// ---- time ----

static inline uint64_t stress_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline bool stress_time_is_up(void) {
    return stress_now_ns() >= stress_deadline_ns;
}

static inline void stress_sleep_ms(unsigned ms) {
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&pause, &pause) != 0 && errno == EINTR) {
    }
}

static inline void stress_start(const char *name, int argc, char **argv) {
    stress_name = name;
    // Beside other tests; longer in CI (tests/README.md).
    if (stress_seconds == 0) {
        stress_seconds = getenv("FIRN_THOROUGH") != NULL ? 4 : 2;
    }
    stress_seed = stress_now_ns() ^ ((uint64_t)getpid() << 40);
    if (argc > 1) {
        stress_seconds = (unsigned)strtoul(argv[1], NULL, 10);
    }
    if (argc > 2) {
        stress_seed = strtoull(argv[2], NULL, 10);
    }
    mem_start();
    stress_deadline_ns = stress_now_ns() + (uint64_t)stress_seconds * 1000000000u;
}

// ---- random numbers: splitmix64, one state per thread ----

struct rng {
    uint64_t state;
};

static inline struct rng rng_for(uint64_t stream) {
    return (struct rng){.state = stress_seed + stream * 0xd1342543de82ef95u};
}

static inline uint64_t rng_next(struct rng *rng) {
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// `bound` is at most 2^32.
static inline uint64_t rng_below(struct rng *rng, uint64_t bound) {
    return ((rng_next(rng) >> 32) * bound) >> 32;
}

// Mostly small, like programs; now and then beyond the largest small class (32 KiB).
static inline size_t rng_size(struct rng *rng) {
    uint64_t roll = rng_below(rng, 1000);
    if (roll < 700) {
        return 1 + rng_below(rng, 256);
    }
    if (roll < 900) {
        return 1 + rng_below(rng, 4096);
    }
    if (roll < 990) {
        return 1 + rng_below(rng, 65536);
    }
    return 1 + rng_below(rng, 512 * 1024);
}

// ---- patterns: every byte of a block follows from its tag and its offset ----

static inline uint64_t pattern_word(uint64_t tag, size_t index) {
    return (tag + index) * 0x9e3779b97f4a7c15u;
}

static inline void pattern_fill(void *block, size_t from, size_t to, uint64_t tag) {
    unsigned char *bytes = block;
    size_t at = from;
    while (at < to) {
        uint64_t word = pattern_word(tag, at / 8);
        if (at % 8 == 0 && to - at >= 8) {
            memcpy(bytes + at, &word, 8);
            at += 8;
        } else {
            bytes[at] = (unsigned char)(word >> (at % 8 * 8));
            at++;
        }
    }
}

// Offset of the first wrong byte in [from, to), or `to`.
static inline size_t pattern_check(const void *block, size_t from, size_t to, uint64_t tag) {
    const unsigned char *bytes = block;
    size_t at = from;
    while (at < to) {
        uint64_t word = pattern_word(tag, at / 8);
        if (at % 8 == 0 && to - at >= 8 && memcmp(bytes + at, &word, 8) == 0) {
            at += 8;
        } else if (bytes[at] == (unsigned char)(word >> (at % 8 * 8))) {
            at++;
        } else {
            return at;
        }
    }
    return to;
}

// ---- blocks: header (size, tag) and pattern, so that any thread can check any block ----

struct block {
    uint64_t size; // of the whole block, header included
    uint64_t tag;
};

#define BLOCK_MIN sizeof(struct block)

static inline void block_stamp(void *p, size_t size, uint64_t tag) {
    struct block *b = p;
    b->size = size;
    b->tag = tag;
    pattern_fill(p, BLOCK_MIN, size, tag);
}

static inline void *block_new(struct rng *rng, size_t size) {
    if (size < BLOCK_MIN) {
        size = BLOCK_MIN;
    }
    void *p = mem_alloc(size);
    STRESS_CHECK(p != NULL, "out of memory for %zu bytes", size);
    STRESS_CHECK((uintptr_t)p % 16 == 0, "%p of %zu bytes is not aligned to 16", p, size);
    block_stamp(p, size, rng_next(rng));
    return p;
}

static inline void block_verify(const void *p, const char *where) {
    const struct block *b = p;
    size_t size = b->size;
    STRESS_CHECK(size >= BLOCK_MIN && size < (1u << 30), "%s: header of %p is wrong (%zu)", where,
                 p, size);
    size_t bad = pattern_check(p, BLOCK_MIN, size, b->tag);
    STRESS_CHECK(bad == size, "%s: byte %zu of %zu at %p is wrong", where, bad, size, p);
}

static inline void block_free(void *p, const char *where) {
    block_verify(p, where);
    mem_free(p);
}

// ---- threads ----

static inline pthread_t stress_thread(void *(*run)(void *), void *arg) {
    pthread_t thread;
    int error = pthread_create(&thread, NULL, run, arg);
    STRESS_CHECK(error == 0, "pthread_create: %s", strerror(error));
    return thread;
}

static inline void stress_join(pthread_t thread) {
    int error = pthread_join(thread, NULL);
    STRESS_CHECK(error == 0, "pthread_join: %s", strerror(error));
}

// ---- memory of this process ----

// Pss in KiB (VmRSS would count shared pages once per mapping). 0 where the kernel hides it.
static inline size_t stress_pss_kib(void) {
    char text[4096];
    int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) {
        return 0;
    }
    text[n] = '\0';
    const char *line = strstr(text, "\nPss:");
    return line == NULL ? 0 : strtoul(line + 5, NULL, 10);
}

// After everything was freed: give memory back, wait out the purge delay, measure.
static inline size_t stress_pss_settled_kib(void) {
    mem_trim();
    stress_sleep_ms(1300);
    mem_free(mem_alloc(64));
    mem_trim();
    return stress_pss_kib();
}

// True where Pss is the allocator's and the program's alone. A sanitizer's shadow and its records of
// blocks and threads dwarf both.
static inline bool stress_pss_counts(void) {
#ifdef FIRN_DIRECT
    return false;
#else
    return true;
#endif
}

// ---- which allocator answers ----

// Firn's level (0 to 3), or -1 when another allocator is in use.
static inline int stress_firn_level(void) {
#ifdef FIRN_DIRECT
    return FIRN_LEVEL;
#else
    // Through a union: ISO C has no cast from an object pointer to a function pointer.
    union {
        void *object;
        const char *(*call)(void);
    } version = {.object = dlsym(RTLD_DEFAULT, "firn_version")};
    const char *level = version.object == NULL ? NULL : strstr(version.call(), "level=");
    return level == NULL ? -1 : level[6] - '0';
#endif
}

#endif
