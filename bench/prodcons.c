/*
 * prodcons: one thread allocates objects of 16 to 256 bytes, another frees every one of them.
 *
 * Every free is remote, and between two CPUs when there are two. The threads meet in a ring of
 * pointers, published 64 at a time so that the ring's own cache misses stay below 1 ns an
 * object. The figure is a rate: objects that went all the way, in millions per second of wall
 * time. A second line, `prodcons_cpu`, is the CPU time per object of the slower side without its
 * waits for the other one. It is for orientation only: it misses sleeping for a lock, and when the
 * two sides take turns on a busy machine it also misses most of the traffic between caches.
 */
#include "bench/bench.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    RING_SLOTS = 4096, /* a power of two */
    RING_BATCH = 64,
    RING_SPINS = 200,
    OBJECT_LOW = 16,
    OBJECT_HIGH = 256
};

struct ring {
    _Alignas(BENCH_CACHE_LINE) atomic_size_t produced; /* written by the producer only */
    _Alignas(BENCH_CACHE_LINE) atomic_size_t consumed; /* written by the consumer only */
    _Alignas(BENCH_CACHE_LINE) void *slots[RING_SLOTS];
};

static struct ring ring;
static atomic_bool ring_stop;

/* One side of the ring. Time is CPU time of its thread. */
struct side {
    pthread_t thread;
    int spins;
    bool is_waiting;
    uint64_t waiting_since_ns; /* valid while is_waiting */
    uint64_t waited_ns;
    double object_ns; /* set when the thread ends: work per object */
};

/* Yields after a while: with two threads on one busy core a pure spin would measure the slice. */
static void side_wait(struct side *side) {
    if (!side->is_waiting) {
        side->is_waiting = true;
        side->waiting_since_ns = bench_thread_cpu_ns();
    }
    if (++side->spins < RING_SPINS) {
        __builtin_ia32_pause();
    } else {
        side->spins = 0;
        (void)sched_yield();
    }
}

static void side_resume(struct side *side) {
    if (side->is_waiting) {
        side->is_waiting = false;
        side->waited_ns += bench_thread_cpu_ns() - side->waiting_since_ns;
    }
}

static void side_finish(struct side *side, size_t objects) {
    side_resume(side);
    side->object_ns = (double)(bench_thread_cpu_ns() - side->waited_ns) / (double)(objects + 1);
}

static void *ring_produce(void *argument) {
    struct side *side = argument;
    struct bench_rng rng = {.state = 42};
    size_t produced = 0;

    bench_pin(0);
    while (!atomic_load_explicit(&ring_stop, memory_order_relaxed)) {
        /* Acquire pairs with the consumer's release: the slots it emptied may be overwritten. */
        size_t consumed = atomic_load_explicit(&ring.consumed, memory_order_acquire);
        if (produced + RING_BATCH - consumed > RING_SLOTS) {
            side_wait(side);
            continue;
        }
        side_resume(side);
        for (int i = 0; i < RING_BATCH; i++) {
            size_t size = bench_rng_range(&rng, OBJECT_LOW, OBJECT_HIGH);
            ring.slots[produced++ % RING_SLOTS] = bench_alloc(size);
        }
        /* Release pairs with the consumer's acquire: it sees the slots just filled. */
        atomic_store_explicit(&ring.produced, produced, memory_order_release);
    }
    side_finish(side, produced);
    return NULL;
}

static void *ring_consume(void *argument) {
    struct side *side = argument;
    size_t consumed = 0;

    bench_pin(1);
    for (;;) {
        /* Read before the count: after a stop, one more look at the count drains the rest. */
        bool is_stopping = atomic_load_explicit(&ring_stop, memory_order_relaxed);
        size_t produced = atomic_load_explicit(&ring.produced, memory_order_acquire);
        if (produced == consumed) {
            if (is_stopping) {
                break;
            }
            side_wait(side);
            continue;
        }
        side_resume(side);
        while (consumed != produced) {
            for (int i = 0; i < RING_BATCH; i++) {
                free(ring.slots[consumed++ % RING_SLOTS]);
            }
            atomic_store_explicit(&ring.consumed, consumed, memory_order_release);
        }
    }
    side_finish(side, consumed);
    return NULL;
}

int main(void) {
    struct timespec nap = {.tv_sec = 0, .tv_nsec = 10000000};
    uint64_t budget_ns = bench_budget_ns();
    uint64_t spent_ns = 0;
    struct side producer = {.spins = 0};
    struct side consumer = {.spins = 0};

    if (pthread_create(&consumer.thread, NULL, ring_consume, &consumer) != 0 ||
        pthread_create(&producer.thread, NULL, ring_produce, &producer) != 0) {
        bench_die("cannot start a thread");
    }
    (void)nanosleep(&nap, NULL);
    size_t start_count = atomic_load_explicit(&ring.consumed, memory_order_relaxed);
    uint64_t start_ns = bench_wall_ns();
    while (spent_ns < budget_ns) {
        (void)nanosleep(&nap, NULL);
        spent_ns = bench_wall_ns() - start_ns;
    }
    size_t count = atomic_load_explicit(&ring.consumed, memory_order_relaxed) - start_count;
    atomic_store_explicit(&ring_stop, true, memory_order_relaxed);
    (void)pthread_join(producer.thread, NULL);
    (void)pthread_join(consumer.thread, NULL);
    bench_print("prodcons", (double)count * 1e3 / (double)spent_ns, "M/s");
    bool is_producer_slower = producer.object_ns > consumer.object_ns;
    bench_print("prodcons_cpu", is_producer_slower ? producer.object_ns : consumer.object_ns,
                "ns/op");
    return 0;
}
