// A storm of SIGUSR1 on threads that allocate all the time. The handlers do not allocate; they
// read blocks, and spoil errno on purpose before they put it back. What must hold: no block is
// damaged, no thread hangs, free leaves errno alone even when a signal lands inside it.
//
// firn-test: levels=0,1,2,3 timeout=300 sanitize=address,thread

#include "tests/stress/stress.h"

#include <signal.h>
#include <stdatomic.h>

#define THREADS 3u
#define BLOCKS 128u
#define ALTERNATE_STACK_BYTES ((size_t)64 * 1024)

struct worker {
    pthread_t thread;
    struct rng rng;
    bool on_alternate_stack;
    uint64_t operations;
    void *blocks[BLOCKS];
};

static struct worker workers[THREADS];
static atomic_ulong signals;
static atomic_uint ended;
static void *constant_block;
// Lock-free, so that the handler may write it.
static atomic_bool damaged;

static void on_signal(int number) {
    int saved = errno;
    (void)number;
    const struct block *b = constant_block;
    if (pattern_check(b, BLOCK_MIN, b->size, b->tag) != b->size) {
        atomic_store_explicit(&damaged, true, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&signals, 1, memory_order_relaxed);
    errno = EILSEQ;
    errno = saved;
}

static void step(struct worker *w) {
    void **place = &w->blocks[rng_below(&w->rng, BLOCKS)];
    if (*place == NULL) {
        *place = block_new(&w->rng, rng_size(&w->rng));
        return;
    }
    block_verify(*place, "before free");
    errno = EBADMSG;
    mem_free(*place);
    STRESS_CHECK(errno == EBADMSG, "free changed errno to %d", errno);
    *place = NULL;
}

static void *run(void *arg) {
    struct worker *w = arg;
    stack_t stack = {.ss_size = ALTERNATE_STACK_BYTES};
    if (w->on_alternate_stack) {
        stack.ss_sp = mem_alloc(ALTERNATE_STACK_BYTES);
        STRESS_CHECK(stack.ss_sp != NULL && sigaltstack(&stack, NULL) == 0, "no alternate stack");
    }
    while (!stress_time_is_up()) {
        step(w);
        w->operations++;
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (w->blocks[i] != NULL) {
            block_free(w->blocks[i], "at the end");
        }
    }
    // Still a target of the storm until main has joined the storm's thread.
    atomic_fetch_add_explicit(&ended, 1, memory_order_release);
    while (atomic_load_explicit(&ended, memory_order_acquire) <= THREADS) {
        stress_sleep_ms(1);
    }
    if (w->on_alternate_stack) {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_BLOCK, &all, NULL);
        sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, NULL);
        mem_free(stack.ss_sp);
    }
    return NULL;
}

static void *storm(void *arg) {
    (void)arg;
    struct rng rng = rng_for(77);
    while (atomic_load_explicit(&ended, memory_order_acquire) < THREADS) {
        pthread_kill(workers[rng_below(&rng, THREADS)].thread, SIGUSR1);
        if (rng_below(&rng, 8) == 0) {
            stress_sleep_ms(0);
            sched_yield();
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    stress_start("stress_signal", argc, argv);
    struct rng rng = rng_for(0);
    constant_block = block_new(&rng, 200);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_ONSTACK};
    STRESS_CHECK(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction: %s", strerror(errno));
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].rng = rng_for(i + 1);
        workers[i].on_alternate_stack = i % 2 == 1;
        workers[i].thread = stress_thread(run, &workers[i]);
    }
    stress_join(stress_thread(storm, NULL));
    atomic_fetch_add_explicit(&ended, 1, memory_order_release);
    uint64_t operations = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        stress_join(workers[i].thread);
        operations += workers[i].operations;
    }
    STRESS_CHECK(!atomic_load(&damaged), "a handler saw a damaged block");
    unsigned long count = atomic_load(&signals);
    STRESS_CHECK(count >= 100, "only %lu signals arrived", count);
    block_free(constant_block, "constant block");
    printf("ok %s operations=%" PRIu64 " signals=%lu seed=%" PRIu64 "\n", stress_name, operations,
           count, stress_seed);
    return 0;
}
