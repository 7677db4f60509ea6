// Thousands of short-lived threads: each allocates, frees a part, hands the rest to main and ends,
// some of them detached, some allocating in a thread-specific destructor (which may run after the
// allocator's own end-of-thread work).
//
// What a thread leaves behind must be taken over: Pss must not grow from round to round.
//
// firn-test: levels=0,1,2,3 timeout=300 sanitize=address,thread

#include "tests/stress/stress.h"

#include <stdatomic.h>

#define ROUND_THREADS 192u
#define TOGETHER 8u
#define BLOCKS 64u
// While caches, stacks and arenas warm up (half of the time, and no fewer rounds than this), memory
// may grow; afterwards it may not.
#define WARM_ROUNDS 16u
#define MORE_ROUNDS 4u
#define GROWTH_KIB (6u * 1024)
// The sanitizers end their own part of a thread in the same rounds of destructors; instrumented code
// that runs later crashes in theirs.
#ifdef FIRN_DIRECT
#define FAREWELLS 1u
#else
#define FAREWELLS 3u
#endif

struct visitor {
    pthread_t thread;
    struct rng rng;
    bool detached;
    atomic_bool done;
    void *blocks[BLOCKS];
};

static pthread_key_t farewell;
static atomic_uint farewells;

// Runs as the thread ends, FAREWELLS times: it leaves a value behind and is called again, which puts
// its calls before and after the allocator's own destructor, wherever that one stands.
static void on_thread_end(void *value) {
    static _Thread_local unsigned calls_here;
    unsigned calls = atomic_fetch_add_explicit(&farewells, 1, memory_order_relaxed);
    struct rng rng = rng_for(calls);
    void *p = mem_resize(value, ((struct block *)value)->size + rng_below(&rng, 200));
    STRESS_CHECK(p != NULL, "realloc in a thread destructor failed");
    block_verify(p, "thread destructor");
    void *q = block_new(&rng, rng_size(&rng));
    if (++calls_here < FAREWELLS) {
        block_free(q, "thread destructor");
        pthread_setspecific(farewell, p);
    } else {
        block_free(p, "last thread destructor");
        block_free(q, "last thread destructor");
    }
}

static void *visit(void *arg) {
    struct visitor *v = arg;
    for (unsigned i = 0; i < BLOCKS; i++) {
        v->blocks[i] = block_new(&v->rng, rng_size(&v->rng) % 8192);
    }
    for (unsigned i = 0; i < BLOCKS; i += 2) {
        block_free(v->blocks[i], "own block");
        v->blocks[i] = NULL;
    }
    int error = pthread_setspecific(farewell, block_new(&v->rng, 40));
    STRESS_CHECK(error == 0, "pthread_setspecific: %s", strerror(error));
    // Release: main reads the blocks of a detached thread after it sees this.
    atomic_store_explicit(&v->done, true, memory_order_release);
    return NULL;
}

static void start_visitor(struct visitor *v, struct rng *rng) {
    memset(v, 0, sizeof *v);
    v->rng = (struct rng){.state = rng_next(rng)};
    v->detached = rng_below(rng, 4) == 0;
    v->thread = stress_thread(visit, v);
    if (v->detached) {
        pthread_detach(v->thread);
    }
}

static void await_visitor(struct visitor *v) {
    if (!v->detached) {
        stress_join(v->thread);
    }
    while (!atomic_load_explicit(&v->done, memory_order_acquire)) {
        sched_yield();
    }
    for (unsigned i = 1; i < BLOCKS; i += 2) {
        block_free(v->blocks[i], "block of an ended thread");
    }
}

static void run_round(struct rng *rng) {
    static struct visitor visitors[TOGETHER];
    for (unsigned n = 0; n < ROUND_THREADS; n += TOGETHER) {
        for (unsigned i = 0; i < TOGETHER; i++) {
            start_visitor(&visitors[i], rng);
        }
        for (unsigned i = 0; i < TOGETHER; i++) {
            await_visitor(&visitors[i]);
        }
    }
}

int main(int argc, char **argv) {
    stress_start("stress_exit", argc, argv);
    int error = pthread_key_create(&farewell, on_thread_end);
    STRESS_CHECK(error == 0, "pthread_key_create: %s", strerror(error));
    struct rng rng = rng_for(0);
    uint64_t midpoint_ns = stress_deadline_ns - (uint64_t)stress_seconds * 500000000u;
    size_t warm = 0;
    unsigned warm_rounds = 0;
    unsigned rounds = 0;
    while (rounds < warm_rounds + MORE_ROUNDS || !stress_time_is_up()) {
        run_round(&rng);
        rounds++;
        if (rounds <= WARM_ROUNDS || stress_now_ns() < midpoint_ns) {
            size_t now = stress_pss_kib();
            warm = now > warm ? now : warm;
            warm_rounds = rounds;
        }
    }
    size_t end = stress_pss_kib();
    STRESS_CHECK(atomic_load_explicit(&farewells, memory_order_relaxed) > 0,
                 "no thread destructor ran");
    STRESS_CHECK(!stress_pss_counts() || end <= warm + GROWTH_KIB,
                 "Pss grew from %zu to %zu KiB over %u threads", warm, end,
                 (rounds - warm_rounds) * ROUND_THREADS);
    printf("ok %s threads=%u pss=%zuK..%zuK seed=%" PRIu64 "\n", stress_name,
           rounds * ROUND_THREADS, warm, end, stress_seed);
    return 0;
}
