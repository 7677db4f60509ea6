/*
 * mesh: what is left of a heap when most of it was freed at random, and compaction was asked for.
 *
 *   mesh [MIB LEAST MOST FREED_OF_100 SECONDS EVERY_SECOND]      256 16 512 90 0 0 by default
 *
 * Allocates, writes every byte, frees at random (or, if EVERY_SECOND is 1, every second object), calls
 * firn_compact where the allocator has it (or malloc_trim) or, if SECONDS is not 0, does nothing at all for
 * so long, and prints the process's PSS over the bytes still live, before and after; how long the
 * call took, and, with the call, how long another thread took to write to each of 64 live objects
 * meanwhile: the longest, and what 999 of 1,000 did not exceed, and the longest of as many rounds after it
 * was over: that thread runs on the other CPU, if there is one, and its times include whatever else the
 * machine does. Every live byte is checked at the end. The table of pointers is counted
 * with the program's own pages and subtracted.
 */
#include "bench/bench.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

#pragma weak firn_compact
size_t firn_compact(void);

enum { TOUCHED = 64, BUCKETS = 20000, BUCKET_NS = 1000 };

struct object {
    unsigned char *p;
    size_t size;
};

static unsigned char *touched[TOUCHED];
static atomic_bool is_over;
static uint64_t longest_ns, longest_after_ns, rounds, buckets[BUCKETS];

static uint64_t touch_once(void) {
    uint64_t began = bench_clock_ns(CLOCK_MONOTONIC);
    for (unsigned i = 0; i < TOUCHED; i++) {
        volatile unsigned char *byte = touched[i];
        *byte = *byte; /* a write that changes nothing */
    }
    return bench_clock_ns(CLOCK_MONOTONIC) - began;
}

static void *touch(void *unused) {
    bench_pin(1);
    for (; !atomic_load_explicit(&is_over, memory_order_relaxed); rounds++) {
        uint64_t took = touch_once();
        longest_ns = took > longest_ns ? took : longest_ns;
        buckets[took / BUCKET_NS < BUCKETS ? took / BUCKET_NS : BUCKETS - 1]++;
    }
    for (uint64_t i = 0; i < rounds; i++) {
        uint64_t took = touch_once();
        longest_after_ns = took > longest_after_ns ? took : longest_after_ns;
    }
    return unused;
}

static double p999_ms(void) {
    uint64_t seen = 0;
    unsigned i = 0;
    while (i < BUCKETS && (seen += buckets[i]) * 1000 < rounds * 999) {
        i++;
    }
    return (double)(i + 1) * BUCKET_NS / 1e6;
}

static size_t argument(int argc, char **argv, int i, size_t otherwise) {
    return argc > i ? (size_t)strtoul(argv[i], NULL, 10) : otherwise;
}

static double ratio(long base_kib, size_t live_bytes) {
    return (double)(bench_pss_kib() - base_kib) * 1024.0 / (double)live_bytes;
}

static void check(const struct object *objects, size_t n) {
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; objects[i].p != NULL && j < objects[i].size; j++) {
            if (objects[i].p[j] != (unsigned char)i) {
                bench_die("an object has lost its content");
            }
        }
    }
}

int main(int argc, char **argv) {
    size_t total = argument(argc, argv, 1, 256) << 20;
    size_t least = argument(argc, argv, 2, 16);
    size_t most = argument(argc, argv, 3, 512);
    size_t freed = argument(argc, argv, 4, 90);
    size_t seconds = argument(argc, argv, 5, 0);
    bool is_regular = argument(argc, argv, 6, 0) != 0;
    struct bench_rng rng = {.state = 42};
    size_t capacity = total / least + 1;
    struct object *objects = bench_alloc(capacity * sizeof *objects);
    size_t n = 0, live_bytes = 0;
    pthread_t toucher;

    memset(objects, 1, capacity * sizeof *objects);
    long base_kib = bench_pss_kib();
    for (size_t bytes = 0; bytes < total; n++) {
        objects[n].size = bench_rng_range(&rng, least, most);
        objects[n].p = bench_alloc(objects[n].size);
        memset(objects[n].p, (int)n, objects[n].size);
        bytes += objects[n].size;
    }
    for (size_t i = 0; i < n; i++) {
        if (is_regular ? i % 2 == 0 : bench_rng_range(&rng, 1, 100) <= freed) {
            free(objects[i].p);
            objects[i].p = NULL;
        } else {
            touched[live_bytes % TOUCHED] = objects[i].p;
            live_bytes += objects[i].size;
        }
    }
    for (unsigned i = 0; i < TOUCHED; i++) {
        touched[i] = touched[i] != NULL ? touched[i] : (unsigned char *)touched;
    }
    bench_print("mesh_before", ratio(base_kib, live_bytes), "x");
    if (seconds == 0 && pthread_create(&toucher, NULL, touch, NULL) != 0) {
        bench_die("no thread");
    }
    bench_pin(0);
    uint64_t began = bench_clock_ns(CLOCK_MONOTONIC);
    if (seconds != 0) {
        struct timespec silence = {.tv_sec = (time_t)seconds};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &silence, NULL);
    } else if (firn_compact != NULL) {
        (void)firn_compact();
    } else {
        (void)malloc_trim(0);
    }
    uint64_t took = bench_clock_ns(CLOCK_MONOTONIC) - began;
    atomic_store(&is_over, true);
    bench_print("mesh_after", ratio(base_kib, live_bytes), "x");
    if (seconds == 0) {
        (void)pthread_join(toucher, NULL);
        bench_print("mesh_call", (double)took / 1e6, "ms");
        bench_print("mesh_longest", (double)longest_ns / 1e6, "ms");
        bench_print("mesh_p999", p999_ms(), "ms");
        bench_print("mesh_longest_after", (double)longest_after_ns / 1e6, "ms");
    }
    check(objects, n);
    return 0;
}
