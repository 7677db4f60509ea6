// Idle pages are frozen while threads touch them, change them, free them, hand them to system calls,
// compact the heap, and fork in three ways. Every byte of every block is checked, in every process. Under engine
// `event`, then under `signal`, then under `protect`.
//
// Where the cold tier does not run (no right to a userfaultfd that serves system calls) the same is done
// without it, and said.
//
// firn-test: levels=0,2,3 timeout=300 sanitize=none

#include "tests/stress/stress.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define THREADS 8u
#define BLOCKS 12000u
#define AFTER_MS 300u // the age at which pages go

struct item {
    unsigned char *p;
    uint32_t bytes;
    uint32_t seed;
};

struct worker {
    pthread_t thread;
    unsigned number;
    struct rng rng;
    struct item *items; // not in the heap: what is to be found there is known without it
    uint64_t checks;
};

static struct worker workers[THREADS];
static atomic_ullong forks;
static atomic_bool has_compacted;
static uint64_t compact_from_ns;

static unsigned char byte_of(const struct item *item, uint32_t i) {
    // Text-like, so that it compresses, and different for all blocks.
    return (unsigned char)("the quick brown fox jumps over the lazy dog "[(item->seed + i) % 44] ^
                           (item->seed >> (i % 3 * 8) & 3));
}

static void fill(struct item *item) {
    for (uint32_t i = 0; i < item->bytes; i++) {
        item->p[i] = byte_of(item, i);
    }
}

static bool is_right(const struct item *item) {
    for (uint32_t i = 0; i < item->bytes; i++) {
        if (item->p[i] != byte_of(item, i)) {
            return false;
        }
    }
    return true;
}

static void make(struct worker *w, struct item *item) {
    // A few are large blocks.
    bool is_large = rng_below(&w->rng, 1024) == 0;
    item->bytes = is_large ? 33000 + (uint32_t)rng_below(&w->rng, 400000)
                           : 1 + (uint32_t)rng_below(&w->rng, 1800);
    item->seed = (uint32_t)rng_next(&w->rng);
    item->p = malloc(item->bytes);
    STRESS_CHECK(item->p != NULL, "malloc(%u) failed", item->bytes);
    fill(item);
}

static struct item *pick(struct worker *w) {
    return &w->items[rng_below(&w->rng, BLOCKS)];
}

static void check(struct worker *w, const struct item *item) {
    STRESS_CHECK(is_right(item), "thread %u: block %p of %u bytes has changed", w->number,
                 (void *)item->p, item->bytes);
    w->checks++;
}

static void resize(struct worker *w, struct item *item) {
    uint32_t old = item->bytes;
    check(w, item);
    item->bytes = 1 + (uint32_t)rng_below(&w->rng, 2u * old);
    item->p = realloc(item->p, item->bytes);
    STRESS_CHECK(item->p != NULL, "realloc(%u) failed", item->bytes);
    for (uint32_t i = 0; i < (old < item->bytes ? old : item->bytes); i++) {
        STRESS_CHECK(item->p[i] == byte_of(item, i), "byte %u is lost from %u to %u bytes", i, old,
                     item->bytes);
    }
    item->bytes = item->bytes < 500000 ? item->bytes : 500000;
    fill(item);
}

// The kernel reads a block that may be away, and writes to another one.
static void pass_through_kernel(struct worker *w) {
    struct item *from = pick(w), *to = pick(w);
    int ends[2];
    if (from == to || from->bytes > 4096 || pipe(ends) != 0) {
        return;
    }
    free(to->p);
    *to = *from;
    to->p = malloc(to->bytes);
    STRESS_CHECK(to->p != NULL, "malloc failed");
    ssize_t put = write(ends[1], from->p, from->bytes);
    ssize_t got = read(ends[0], to->p, to->bytes);
    STRESS_CHECK(put == (ssize_t)from->bytes && got == put, "a system call failed: %zd, %zd", put,
                 got);
    close(ends[0]);
    close(ends[1]);
    check(w, to);
}

static void step(struct worker *w) {
    struct item *item = pick(w);
    switch (rng_below(&w->rng, 8)) {
    case 0:
        check(w, item);
        free(item->p);
        make(w, item);
        break;
    case 1:
        check(w, item);
        item->seed++;
        fill(item);
        break;
    case 2:
        pass_through_kernel(w);
        break;
    case 3:
        free(item->p);
        make(w, item);
        break;
    case 4:
        resize(w, item);
        break;
    default:
        check(w, item);
        break;
    }
}

// In a child: what this thread owned is as it was.
static void check_in_child(struct worker *w, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        check(w, pick(w));
    }
}

static pid_t clone_raw(void) {
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

static void fork_somehow(struct worker *w) {
    // A raw clone's child has holes where pages are merged (mesh/merge.h), so there is none of them once
    // somebody compacts.
    unsigned way = atomic_load(&has_compacted) ? 1 + (unsigned)rng_below(&w->rng, 2)
                                               : (unsigned)rng_below(&w->rng, 3);
    pid_t pid = way == 0 ? clone_raw() : fork();
    STRESS_CHECK(pid >= 0, "fork failed: %d", errno);
    if (pid == 0) {
        check_in_child(w, 300);
        if (way == 2) { // a child of the child, at once
            pid_t grandchild = fork();
            if (grandchild == 0) {
                check_in_child(w, 300);
                step(w);
                _exit(0);
            }
            int status = 0;
            STRESS_CHECK(waitpid(grandchild, &status, 0) == grandchild && status == 0,
                         "a grandchild ended with %#x", (unsigned)status);
        }
        if (way != 0) {
            for (unsigned i = 0; i < 20; i++) {
                step(w);
            }
        }
        _exit(0);
    }
    int status = 0;
    STRESS_CHECK(waitpid(pid, &status, 0) == pid && status == 0, "a child (way %u) ended with %#x",
                 way, (unsigned)status);
    atomic_fetch_add(&forks, 1);
}

static void *work(void *argument) {
    struct worker *w = argument;
    for (unsigned i = 0; i < BLOCKS; i++) {
        make(w, &w->items[i]);
    }
    while (!stress_time_is_up()) {
        // A burst, and a rest in which pages grow cold.
        for (unsigned i = 0; i < 40; i++) {
            step(w);
        }
        if (w->number < 2 && rng_below(&w->rng, 4) == 0) {
            fork_somehow(w);
        }
        if (w->number == 2 && rng_below(&w->rng, 16) == 0) {
            size_t (*compact)(void) = NULL;
            *(void **)&compact = dlsym(RTLD_DEFAULT, "firn_compact");
            if (compact != NULL && stress_now_ns() > compact_from_ns) {
                atomic_store(&has_compacted, true);
                stress_sleep_ms(500); // children made before have ended
                (void)compact();
            }
        }
        stress_sleep_ms(20 + (unsigned)rng_below(&w->rng, 60));
    }
    // Forks, which bring everything back under the lesser engines, may have left no time to freeze until now.
    stress_sleep_ms(5 * AFTER_MS);
    for (unsigned i = 0; i < BLOCKS; i++) {
        check(w, &w->items[i]);
    }
    for (unsigned i = 0; i < BLOCKS; i += 2) { // unread
        free(w->items[i].p);
    }
    for (unsigned i = 1; i < BLOCKS; i += 2) {
        check(w, &w->items[i]);
        free(w->items[i].p);
    }
    return NULL;
}

// Frozen pages in all, as malloc_info says.
static unsigned long long frozen_pages(void) {
    char *text = NULL;
    size_t bytes = 0;
    unsigned long long n = 0;
    FILE *f = open_memstream(&text, &bytes);
    STRESS_CHECK(f != NULL && malloc_info(0, f) == 0 && fclose(f) == 0, "malloc_info failed");
    const char *at = strstr(text, "name=\"frozen_pages\" value=\"");
    if (at != NULL) {
        n = strtoull(at + strlen("name=\"frozen_pages\" value=\""), NULL, 10);
    }
    free(text);
    return n;
}

// One after the other, each in a process of its own.
static int run_with_each_engine(char **argv) {
    static const char *const options[] = {"cold=on:cold_after=1",
                                          "cold=on:cold_after=1:fault=signal",
                                          "cold=on:cold_after=1:fault=protect"};
    enum { ENGINES = sizeof options / sizeof options[0] };
    int failed = 0;
    char after[16];
    (void)snprintf(after, sizeof after, "%u", AFTER_MS);
    setenv("FIRN_TEST_COLD", after, 1); // milliseconds instead
    for (unsigned i = 0; i < ENGINES; i++) {
        setenv("FIRN_OPTIONS", options[i], 1);
        pid_t pid = fork();
        if (pid == 0) {
            execv("/proc/self/exe", argv);
            _exit(127);
        }
        int status = -1;
        STRESS_CHECK(pid > 0 && waitpid(pid, &status, 0) == pid, "fork failed: %d", errno);
        failed |= status;
    }
    return failed != 0;
}

int main(int argc, char **argv) {
    if (getenv("FIRN_OPTIONS") == NULL) {
        return run_with_each_engine(argv);
    }
    stress_seconds = 6;
    stress_start("stress_cold", argc, argv);
    compact_from_ns = stress_now_ns() + (uint64_t)stress_seconds * 500000000u;
    mem_start();
    for (unsigned i = 0; i < THREADS; i++) {
        struct worker *w = &workers[i];
        w->number = i;
        w->rng = rng_for(i);
        w->items = mmap(NULL, BLOCKS * sizeof *w->items, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        STRESS_CHECK(w->items != MAP_FAILED, "no memory");
        w->thread = stress_thread(work, w);
    }
    uint64_t checks = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        stress_join(workers[i].thread);
        checks += workers[i].checks;
    }
    unsigned long long frozen = frozen_pages();
    bool is_event = strstr(getenv("FIRN_OPTIONS"), "fault") == NULL;
    bool can_freeze = (!is_event || geteuid() == 0) && getenv("FIRN_TEST_CAPS") == NULL;
    const unsigned least = 100;
    STRESS_CHECK(!can_freeze || frozen >= least || stress_seconds < 5,
                 "only %llu pages were frozen", frozen);
    printf("ok stress_cold: %" PRIu64 " checks, %llu pages frozen, %llu forks\n", checks, frozen,
           (unsigned long long)atomic_load(&forks));
    return 0;
}
