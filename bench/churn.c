/*
 * churn [THREADS]: each thread keeps 10,000 objects of 16 to 256 bytes and replaces one at
 * random: one operation is one free and one malloc.
 *
 * With one thread the figure is CPU time per operation, on the main thread of a process that
 * never started another (glibc is faster there). With more it is wall time over all operations
 * of all threads, because waiting for a lock is part of the price; a second line, `churnN_cpu`,
 * is CPU time per operation, which misses such waits but holds on a busy machine. Every thread
 * frees only what it allocated; `prodcons` is the opposite case.
 */
#include "bench/bench.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    CHURN_LIVE = 10000,
    CHURN_LOW = 16,
    CHURN_HIGH = 256,
    CHURN_BATCH = 2000,
    CHURN_WARM_BATCHES = 20,
    CHURN_THREADS_MAX = 64
};

struct churn {
    _Alignas(BENCH_CACHE_LINE) atomic_uint_fast64_t operations; /* written by its thread only */
    struct bench_rng rng;
    pthread_t thread;
    void *live[CHURN_LIVE];
};

static struct churn churns[CHURN_THREADS_MAX];
static pthread_barrier_t churn_barrier;
static atomic_bool churn_stop;
static bool churn_is_pinned; /* set before the threads start: two threads get a CPU each */

static void churn_run_batch(struct churn *churn) {
    for (int i = 0; i < CHURN_BATCH; i++) {
        size_t victim = bench_rng_range(&churn->rng, 0, CHURN_LIVE - 1);
        size_t size = bench_rng_range(&churn->rng, CHURN_LOW, CHURN_HIGH);
        free(churn->live[victim]);
        churn->live[victim] = bench_alloc(size);
    }
}

static void churn_prepare(struct churn *churn, uint64_t seed) {
    churn->rng.state = seed;
    for (int i = 0; i < CHURN_LIVE; i++) {
        churn->live[i] = bench_alloc(bench_rng_range(&churn->rng, CHURN_LOW, CHURN_HIGH));
    }
    for (int i = 0; i < CHURN_WARM_BATCHES; i++) {
        churn_run_batch(churn);
    }
}

static void *churn_thread(void *argument) {
    struct churn *churn = argument;

    if (churn_is_pinned) {
        bench_pin((unsigned)(churn - churns));
    }
    churn_prepare(churn, 42 + (uint64_t)(churn - churns));
    (void)pthread_barrier_wait(&churn_barrier);
    uint64_t operations = 0;
    while (!atomic_load_explicit(&churn_stop, memory_order_relaxed)) {
        churn_run_batch(churn);
        operations += CHURN_BATCH;
        atomic_store_explicit(&churn->operations, operations, memory_order_relaxed);
    }
    return NULL;
}

static void churn_run_alone(void) {
    uint64_t budget_ns = bench_budget_ns();
    uint64_t operations = 0;

    churn_prepare(&churns[0], 42);
    uint64_t start_ns = bench_cpu_ns();
    uint64_t spent_ns = 0;
    while (spent_ns < budget_ns) {
        churn_run_batch(&churns[0]);
        operations += CHURN_BATCH;
        spent_ns = bench_cpu_ns() - start_ns;
    }
    bench_print("churn1", (double)spent_ns / (double)operations, "ns/op");
}

static void churn_run_threads(unsigned threads) {
    struct timespec nap = {.tv_sec = 0, .tv_nsec = 10000000};
    uint64_t budget_ns = bench_budget_ns();
    uint64_t operations = 0;
    uint64_t spent_ns = 0;
    char name[32];

    churn_is_pinned = threads == 2;
    (void)pthread_barrier_init(&churn_barrier, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        if (pthread_create(&churns[i].thread, NULL, churn_thread, &churns[i]) != 0) {
            bench_die("cannot start a thread");
        }
    }
    (void)pthread_barrier_wait(&churn_barrier);
    uint64_t start_ns = bench_wall_ns();
    uint64_t start_cpu_ns = bench_cpu_ns();
    while (spent_ns < budget_ns) {
        (void)nanosleep(&nap, NULL);
        spent_ns = bench_wall_ns() - start_ns;
    }
    for (unsigned i = 0; i < threads; i++) {
        operations += atomic_load_explicit(&churns[i].operations, memory_order_relaxed);
    }
    uint64_t cpu_ns = bench_cpu_ns() - start_cpu_ns;
    atomic_store_explicit(&churn_stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < threads; i++) {
        (void)pthread_join(churns[i].thread, NULL);
    }
    (void)snprintf(name, sizeof name, "churn%u", threads);
    bench_print(name, (double)spent_ns / (double)operations, "ns/op");
    (void)snprintf(name, sizeof name, "churn%u_cpu", threads);
    bench_print(name, (double)cpu_ns / (double)operations, "ns/op");
}

int main(int argc, char **argv) {
    long threads = argc > 1 ? strtol(argv[1], NULL, 10) : 1;

    if (threads < 1 || threads > CHURN_THREADS_MAX) {
        bench_die("usage: churn [THREADS], 1 to 64");
    }
    if (threads == 1) {
        churn_run_alone();
    } else {
        churn_run_threads((unsigned)threads);
    }
    return 0;
}
