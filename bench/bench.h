/*
 * What every workload shares: a clock, a cheap generator, and an allocation that the compiler
 * can neither remove nor move.
 *
 * Everything is static inline: a workload is one .c file that links against libc alone, so that
 * the allocator under LD_PRELOAD is the only thing that differs between two runs of it.
 *
 * Output contract: every line a workload prints on stdout is `NAME VALUE UNIT`. Units starting
 * with "ns", "us", "ms", "KiB" or "x" are better when smaller; "M/s" is better when larger.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BENCH_CACHE_LINE = 64, BENCH_DEFAULT_MS = 400 };

static inline uint64_t bench_clock_ns(clockid_t clock) {
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Wall clock in nanoseconds; for anything where threads wait for one another. */
static inline uint64_t bench_wall_ns(void) {
    return bench_clock_ns(CLOCK_MONOTONIC);
}

/*
 * CPU time of the whole process in nanoseconds, an allocator's background threads included.
 * For workloads of one thread: what a neighbour on a shared machine takes is not counted.
 */
static inline uint64_t bench_cpu_ns(void) {
    return bench_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* CPU time of the calling thread in nanoseconds. */
static inline uint64_t bench_thread_cpu_ns(void) {
    return bench_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* How long a measured phase lasts, in nanoseconds; BENCH_MS in the environment overrides. */
static inline uint64_t bench_budget_ns(void) {
    const char *text = getenv("BENCH_MS");
    long ms = text != NULL ? strtol(text, NULL, 10) : 0;

    return (uint64_t)(ms > 0 ? ms : BENCH_DEFAULT_MS) * 1000000u;
}

/*
 * Moves the calling thread to the index-th CPU it may run on; does nothing when there are fewer.
 * Left alone, the scheduler puts two threads that wake each other on one CPU in some runs and
 * on two in others, and the figure has two values a factor of five apart.
 */
static inline void bench_pin(unsigned index) {
    cpu_set_t allowed;
    cpu_set_t one;

    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return;
    }
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && index-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            (void)sched_setaffinity(0, sizeof one, &one);
            return;
        }
    }
}

_Noreturn static inline void bench_die(const char *what) {
    (void)fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

/*
 * A 64-bit linear congruential generator, upper half used: one multiply-add a draw, so that the
 * allocator dominates. Its statistical weakness does not matter here; its repeatability does.
 */
struct bench_rng {
    uint64_t state;
};

static inline uint32_t bench_rng_next(struct bench_rng *rng) {
    rng->state = rng->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng->state >> 32);
}

/* Uniform in [low, high], both included; the bias of the multiply is below 2^-20 here. */
static inline size_t bench_rng_range(struct bench_rng *rng, size_t low, size_t high) {
    return low + (size_t)(((uint64_t)bench_rng_next(rng) * (high - low + 1)) >> 32);
}

/*
 * malloc, first eight bytes written (size >= 8). The empty assembly makes the pointer escape:
 * without it gcc and clang remove a malloc/free pair altogether.
 */
static inline void *bench_alloc(size_t size) {
    void *block = malloc(size);

    if (__builtin_expect(block == NULL, 0)) {
        bench_die("out of memory");
    }
    *(volatile uint64_t *)block = size;
    __asm__ volatile("" : "+r"(block) : : "memory");
    return block;
}

static inline void bench_print(const char *name, double value, const char *unit) {
    (void)printf("%s %.3f %s\n", name, value, unit);
    (void)fflush(stdout);
}

/*
 * Pss of this process in KiB from /proc/self/smaps_rollup, or 0. Reads with plain system calls
 * into the stack: stdio would allocate its buffer with the allocator being measured.
 */
static inline long bench_pss_kib(void) {
    char text[4096];
    int fd = open("/proc/self/smaps_rollup", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;

    if (fd >= 0) {
        (void)close(fd);
    }
    if (length <= 0) {
        return 0;
    }
    text[length] = '\0';
    const char *field = strstr(text, "\nPss:");
    return field != NULL ? strtol(field + 5, NULL, 10) : 0;
}

#endif
