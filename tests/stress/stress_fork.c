// fork from a program whose threads allocate without pause, so that each child starts in some
// state of their locks and caches. A child checks what it inherited, frees and resizes blocks made
// by every thread of its parent, starts threads of its own, and exits; it never may hang.
//
// Also: _Fork (whose child may use the heap only if the parent had one thread), vfork and exec,
// posix_spawn, a child that forks again; and two children of one moment must not make the same
// random choices.
//
// firn-test: levels=0,1,2,3 timeout=300 sanitize=address

#include "tests/stress/stress.h"

#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/wait.h>

#define THREADS 4u
#define SHARED 256u
#define CHILD_THREADS 2u
#define CHILD_SECONDS 20u
#define CHILD_BLOCKS 200u
#define TWIN_BLOCKS 32u
#define TWIN_PAIRS 16u

extern char **environ;

static _Atomic(void *) shared[SHARED];
static atomic_bool stop;
static char true_program[] = "/bin/true";

static void *churn(void *arg) {
    struct rng rng = rng_for((uint64_t)(uintptr_t)arg);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        // A block is complete before it is published, so that a child sees whole blocks only.
        void *p = block_new(&rng, rng_size(&rng) % 20000);
        _Atomic(void *) *place = &shared[rng_below(&rng, SHARED)];
        p = atomic_exchange_explicit(place, p, memory_order_acq_rel);
        if (p != NULL) {
            block_free(p, "parent");
        }
    }
    return NULL;
}

// ---- children ----

static void *child_thread(void *arg) {
    struct rng rng = rng_for((uint64_t)getpid() + (uint64_t)(uintptr_t)arg);
    void *blocks[CHILD_BLOCKS];
    for (unsigned i = 0; i < CHILD_BLOCKS; i++) {
        blocks[i] = block_new(&rng, rng_size(&rng) % 4096);
    }
    for (unsigned i = 0; i < CHILD_BLOCKS; i++) {
        block_free(blocks[i], "thread of a child");
    }
    // Takes its share of what the parent's threads left.
    for (unsigned i = 0; i < SHARED; i++) {
        if (rng_below(&rng, 4) == 0) {
            void *p = atomic_exchange_explicit(&shared[i], NULL, memory_order_acq_rel);
            if (p != NULL) {
                block_free(p, "inherited, freed by a thread of the child");
            }
        }
    }
    return NULL;
}

static void resize_inherited(struct rng *rng) {
    for (unsigned i = 0; i < SHARED; i++) {
        struct block *b = atomic_load_explicit(&shared[i], memory_order_relaxed);
        if (b == NULL) {
            continue;
        }
        block_verify(b, "inherited");
        uint64_t roll = rng_below(rng, 3);
        if (roll == 0) {
            mem_free(b);
            atomic_store_explicit(&shared[i], NULL, memory_order_relaxed);
        } else if (roll == 1) {
            size_t size = b->size + 1 + rng_below(rng, 2000);
            b = mem_resize(b, size);
            STRESS_CHECK(b != NULL, "realloc of an inherited block failed");
            block_verify(b, "inherited, resized");
            block_stamp(b, size, rng_next(rng));
            atomic_store_explicit(&shared[i], b, memory_order_relaxed);
        }
    }
}

static void wait_for(pid_t child, const char *what) {
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        STRESS_CHECK(errno == EINTR, "waitpid: %s", strerror(errno));
    }
    STRESS_CHECK(!WIFSIGNALED(status) || WTERMSIG(status) != SIGALRM, "%s hung", what);
    STRESS_CHECK(!WIFSIGNALED(status), "%s died of signal %d", what, WTERMSIG(status));
    STRESS_CHECK(WEXITSTATUS(status) == 0, "%s ended with status %d", what, WEXITSTATUS(status));
}

// Threads in one child of four: creating them costs more than all the rest.
__attribute__((noreturn)) static void be_child(uint64_t number, bool may_fork) {
    alarm(CHILD_SECONDS);
    struct rng rng = rng_for(1000 + number);
    resize_inherited(&rng);
#ifdef FIRN_DIRECT
    // Starting a thread allocates from the sanitizer's own heap, whose locks a thread of the parent
    // may have held at the fork (gcc 12's runtime does not look after them).
    bool has_threads = false;
#else
    bool has_threads = number % 4 == 0;
#endif
    if (has_threads) {
        pthread_t threads[CHILD_THREADS];
        for (unsigned i = 0; i < CHILD_THREADS; i++) {
            threads[i] = stress_thread(child_thread, (void *)(uintptr_t)(i + 1));
        }
        for (unsigned i = 0; i < CHILD_THREADS; i++) {
            stress_join(threads[i]);
        }
    } else {
        child_thread((void *)(uintptr_t)9);
    }
    if (may_fork && number % 8 == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0) {
            be_child(number + 1, false);
        }
        wait_for(grandchild, "grandchild");
    }
    if (number % 16 == 0) {
        exit(0); // with exit handlers and destructors
    }
    _exit(0);
}

// ---- ways to start a child ----

static void fork_and_use(uint64_t number) {
    pid_t child = fork();
    STRESS_CHECK(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        be_child(number, true);
    }
    wait_for(child, "forked child");
}

// Of a threaded parent: no fork handlers run, so the child only reads.
static void raw_fork_and_read(void) {
    pid_t child = _Fork();
    STRESS_CHECK(child >= 0, "_Fork: %s", strerror(errno));
    if (child == 0) {
        alarm(CHILD_SECONDS);
        for (unsigned i = 0; i < SHARED; i++) {
            void *p = atomic_load_explicit(&shared[i], memory_order_acquire);
            if (p != NULL) {
                block_verify(p, "inherited over _Fork");
            }
        }
        _exit(0);
    }
    wait_for(child, "child of _Fork");
}

// Of a parent with one thread: the child may use the heap.
static void raw_fork_and_use(uint64_t number) {
    pid_t child = _Fork();
    STRESS_CHECK(child >= 0, "_Fork: %s", strerror(errno));
    if (child == 0) {
        alarm(CHILD_SECONDS);
        struct rng rng = rng_for(number);
        resize_inherited(&rng);
        child_thread((void *)(uintptr_t)3);
        _exit(0);
    }
    wait_for(child, "child of _Fork with one thread");
}

static void vfork_and_exec(void) {
    char *argv[] = {true_program, NULL};
    pid_t child = vfork();
    STRESS_CHECK(child >= 0, "vfork: %s", strerror(errno));
    if (child == 0) {
        execve(true_program, argv, environ);
        _exit(127);
    }
    wait_for(child, "child of vfork");
}

static void spawn(void) {
    char *argv[] = {true_program, NULL};
    pid_t child = 0;
    int error = posix_spawn(&child, true_program, NULL, NULL, argv, environ);
    STRESS_CHECK(error == 0, "posix_spawn: %s", strerror(error));
    wait_for(child, "spawned child");
}

// ---- randomness ----

// Where a child's next blocks lie. Half of the sizes are ones the parent's cache holds already.
static void twin_addresses(uintptr_t *out) {
    int ends[2];
    STRESS_CHECK(pipe(ends) == 0, "pipe: %s", strerror(errno));
    pid_t child = fork();
    STRESS_CHECK(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        alarm(CHILD_SECONDS);
        uintptr_t addresses[TWIN_BLOCKS];
        for (unsigned i = 0; i < TWIN_BLOCKS; i++) {
            addresses[i] = (uintptr_t)mem_alloc(i % 2 == 0 ? 48 : 176);
        }
        bool whole = write(ends[1], addresses, sizeof addresses) == (ssize_t)sizeof addresses;
        _exit(whole ? 0 : 1);
    }
    close(ends[1]);
    ssize_t n = read(ends[0], out, TWIN_BLOCKS * sizeof *out);
    STRESS_CHECK(n == (ssize_t)(TWIN_BLOCKS * sizeof *out), "a twin wrote %zd bytes", n);
    close(ends[0]);
    wait_for(child, "twin");
}

// Pairs of children of one unchanged parent: pairs that chose mostly the same addresses.
static unsigned count_equal_twins(void) {
    unsigned equal_pairs = 0;
    mem_free(mem_alloc(48)); // the class has a cache before the fork
    for (unsigned pair = 0; pair < TWIN_PAIRS; pair++) {
        uintptr_t one[TWIN_BLOCKS];
        uintptr_t two[TWIN_BLOCKS];
        twin_addresses(one);
        twin_addresses(two);
        unsigned same = 0;
        for (unsigned i = 0; i < TWIN_BLOCKS; i++) {
            same += one[i] == two[i];
        }
        equal_pairs += same > TWIN_BLOCKS / 2;
    }
    return equal_pairs;
}

static void check_twins(void) {
    unsigned equal_pairs = count_equal_twins();
    if (stress_firn_level() >= 1) {
        STRESS_CHECK(equal_pairs <= TWIN_PAIRS / 4,
                     "%u of %u pairs of children made the same random choices", equal_pairs,
                     TWIN_PAIRS);
    }
}

int main(int argc, char **argv) {
    stress_start("stress_fork", argc, argv);
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = stress_thread(churn, (void *)(uintptr_t)(i + 1));
    }
    uint64_t forks = 0;
    do {
        fork_and_use(forks);
        if (forks % 8 == 1) {
            raw_fork_and_read();
            vfork_and_exec();
            spawn();
        }
        forks++;
    } while (!stress_time_is_up());
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < THREADS; i++) {
        stress_join(threads[i]);
    }
    for (uint64_t i = 0; i < 8; i++) {
        raw_fork_and_use(i);
    }
    check_twins();
    for (unsigned i = 0; i < SHARED; i++) {
        void *p = atomic_load_explicit(&shared[i], memory_order_relaxed);
        if (p != NULL) {
            block_free(p, "parent, at the end");
        }
    }
    printf("ok %s forks=%" PRIu64 " seed=%" PRIu64 "\n", stress_name, forks, stress_seed);
    return 0;
}
