// Children of a process whose sparse pages share memory, while its other threads write there without
// pause. A child has every byte as it was at one moment, and afterwards its memory is its own.
//
// One moment: a thread writes words in a fixed order, round after round, so that at any moment those up to
// some place have the number of this round, and those after it that of the round before.
//
// What libc itself does in a child before any fork handler, like writing to the locks of all streams,
// has to find its memory as well: a program with threads has thousands of streams here, on merged pages.
//
// firn-test: levels=0,1,2,3 timeout=300

#include "tests/stress/stress.h"

#include "include/firn/firn.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/wait.h>

#pragma weak firn_compact // whatever is preloaded

#define STREAMS 6000u
#define WRITERS 2u
#define WORDS 600u
#define WORD_BYTES 112u
#define HOLES 9u // freed for each that stays
#define CHILD_SECONDS 20u
#define CLONE_STACK ((size_t)64 << 10)

static FILE *streams[STREAMS];
static _Atomic uint64_t *words[WRITERS][WORDS];
static unsigned char *fill[WRITERS][WORDS];
static atomic_bool stop;

static void compact(void) {
    if (firn_compact != NULL) {
        (void)firn_compact();
    }
}

static ssize_t swallow(void *cookie, const char *text, size_t bytes) {
    (void)cookie;
    (void)text;
    return (ssize_t)bytes;
}

static void open_streams(struct rng *rng) {
    for (unsigned i = 0; i < STREAMS; i++) {
        streams[i] = fopencookie(NULL, "w", (cookie_io_functions_t){.write = swallow});
        STRESS_CHECK(streams[i] != NULL, "no stream");
    }
    for (unsigned i = 0; i < STREAMS; i++) {
        if (rng_below(rng, HOLES + 1) != 0) {
            (void)fclose(streams[i]);
            streams[i] = NULL;
        }
    }
}

static void make_words(struct rng *rng) {
    enum { ALL = WRITERS * WORDS * (HOLES + 1) };
    static void *blocks[ALL];
    for (unsigned i = 0; i < ALL; i++) {
        blocks[i] = calloc(1, WORD_BYTES);
        STRESS_CHECK(blocks[i] != NULL, "no memory");
    }
    for (unsigned i = ALL; i > 1; i--) {
        unsigned j = (unsigned)rng_below(rng, i);
        void *kept = blocks[i - 1];
        blocks[i - 1] = blocks[j];
        blocks[j] = kept;
    }
    for (unsigned i = 0; i < ALL; i++) {
        unsigned number = i / WRITERS;
        if (number >= WORDS) {
            free(blocks[i]);
            continue;
        }
        words[i % WRITERS][number] = blocks[i];
        fill[i % WRITERS][number] = (unsigned char *)blocks[i] + sizeof(uint64_t);
        memset(fill[i % WRITERS][number], (int)number, WORD_BYTES - sizeof(uint64_t));
    }
}

static void *write_words(void *arg) {
    _Atomic uint64_t **w = words[(uintptr_t)arg];
    for (uint64_t round = 1; !atomic_load_explicit(&stop, memory_order_relaxed); round++) {
        for (unsigned i = 0; i < WORDS; i++) {
            uint64_t before = atomic_exchange_explicit(w[i], round, memory_order_relaxed);
            STRESS_CHECK(before == round - 1, "word %u was %" PRIu64 " in round %" PRIu64, i,
                         before, round);
        }
    }
    return NULL;
}

// ---- children ----

static void check_moment(const char *how) {
    for (unsigned k = 0; k < WRITERS; k++) {
        uint64_t first = atomic_load_explicit(words[k][0], memory_order_relaxed);
        uint64_t last = first;
        for (unsigned i = 0; i < WORDS; i++) {
            uint64_t here = atomic_load_explicit(words[k][i], memory_order_relaxed);
            STRESS_CHECK(here <= last && here + 1 >= first,
                         "%s: word %u is of round %" PRIu64 ", the first of %" PRIu64
                         ", the one before of %" PRIu64,
                         how, i, here, first, last);
            last = here;
            for (size_t b = 0; b < WORD_BYTES - sizeof(uint64_t); b++) {
                STRESS_CHECK(fill[k][i][b] == (unsigned char)i, "%s: byte %zu of word %u", how, b,
                             i);
            }
        }
    }
}

// What it writes its parent must not see, and the other way round.
static void be_child(const char *how) {
    alarm(CHILD_SECONDS);
    check_moment(how);
    for (unsigned k = 0; k < WRITERS; k++) {
        for (unsigned i = 0; i < WORDS; i++) {
            atomic_store_explicit(words[k][i], UINT64_MAX, memory_order_relaxed);
        }
    }
    stress_sleep_ms(1);
    for (unsigned k = 0; k < WRITERS; k++) {
        for (unsigned i = 0; i < WORDS; i++) {
            STRESS_CHECK(atomic_load_explicit(words[k][i], memory_order_relaxed) == UINT64_MAX,
                         "%s: word %u is shared with the parent", how, i);
        }
    }
}

static void use_heap(void) {
    for (unsigned i = 0; i < STREAMS; i++) {
        if (streams[i] != NULL) {
            STRESS_CHECK(fputs("text", streams[i]) >= 0 && fclose(streams[i]) == 0, "stream %u", i);
        }
    }
    for (unsigned i = 0; i < WORDS; i++) {
        mem_free(words[0][i]);
        words[0][i] = mem_alloc_zeroed(WORD_BYTES);
        STRESS_CHECK(words[0][i] != NULL && *words[0][i] == 0, "calloc in a child");
    }
    compact();
}

static void wait_for(pid_t child, const char *how) {
    int status = 0;
    STRESS_CHECK(child > 0, "%s: %s", how, strerror(errno));
    while (waitpid(child, &status, 0) < 0) {
        STRESS_CHECK(errno == EINTR, "waitpid: %s", strerror(errno));
    }
    STRESS_CHECK(!WIFSIGNALED(status), "%s: the child died of signal %d", how, WTERMSIG(status));
    STRESS_CHECK(WEXITSTATUS(status) == 0, "%s: the child ended with status %d", how,
                 WEXITSTATUS(status));
}

static int run_clone(void *arg) {
    (void)arg;
    be_child("clone");
    return 0;
}

// The children of the last two may not use the heap: the process has threads.
static void make_children(uint64_t number) {
    pid_t child = fork();
    if (child == 0) {
        be_child("fork");
        use_heap();
        _exit(0);
    }
    if (number % 4 == 1) { // two at a time
        wait_for(child, "fork");
        child = 0;
    }
    pid_t raw = _Fork();
    if (raw == 0) {
        be_child("_Fork");
        _exit(0);
    }
    wait_for(raw, "_Fork");
    static _Alignas(16) char stack[CLONE_STACK];
    wait_for(clone(run_clone, stack + CLONE_STACK, SIGCHLD, NULL), "clone");
    if (child != 0) {
        wait_for(child, "fork");
    }
}

int main(int argc, char **argv) {
    stress_start("stress_meshfork", argc, argv);
    struct rng rng = rng_for(1);
    open_streams(&rng);
    make_words(&rng);
    compact();
    pthread_t threads[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++) {
        threads[i] = stress_thread(write_words, (void *)(uintptr_t)i);
    }
    uint64_t forks = 0;
    do {
        make_children(forks);
        if (forks % 3 == 2) {
            compact();
        }
        forks++;
    } while (!stress_time_is_up());
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    for (unsigned i = 0; i < WRITERS; i++) {
        stress_join(threads[i]);
    }
    use_heap();
    printf("ok %s forks=%" PRIu64 " seed=%" PRIu64 "\n", stress_name, forks, stress_seed);
    return 0;
}
