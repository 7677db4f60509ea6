// Pages that are staged and then taken away, to be mapped anew: who touches them meanwhile, be it a thread, a
// system call or a child, sees the old bytes, or the new page, or nothing; never zeros. Engine `event` alone
// has this. (The other calls of os/uffd are those of staging: test_fault.c.)
// firn-test: share=2 timeout=120 sanitize=address
#include "src/os/uffd.h"

#include "src/os/caps.h"
#include "src/os/fault.h"
#include "tests/support/child.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGES = 64, FIRST = 8, WINDOW = 48, NO_ENGINE = 77, STORM_MS = 700, TOUCHERS = 3 };
#define BYTES (PAGES * (size_t)FIRN_PAGE)

static char *heap;
static int frames; // a file

static void need_at(bool condition, const char *what, int line) {
    if (!condition) {
        dprintf(STDERR_FILENO, "line %d: %s (errno %d)\n", line, what, errno);
        _exit(1);
    }
}
#define NEED(condition) need_at((condition), #condition, __LINE__)

static uintptr_t page(unsigned i) {
    return (uintptr_t)heap + i * (uintptr_t)FIRN_PAGE;
}

static void pause_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

typedef void scenario_fn(void);

static void in_child(void *scenario) {
    alarm(60);
    signal(SIGSEGV, SIG_DFL); // cmocka's
    caps_probe(~(uint32_t)CAP_FAULT_SIGNAL);
    heap = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    frames = memfd_create("frames", MFD_CLOEXEC);
    NEED(heap != MAP_FAILED && frames >= 0 && ftruncate(frames, (off_t)BYTES) == 0);
    if (!fault_start((uintptr_t)heap, BYTES) || !fault_can_empty()) {
        _exit(NO_ENGINE);
    }
    memset(heap, 'a', BYTES);
    (*(scenario_fn **)scenario)();
    _exit(0);
}

static void run(scenario_fn *scenario) {
    struct child c;
    child_run(&c, in_child, &scenario);
    if (child_exited(&c, NO_ENGINE)) {
        skip();
    }
    if (!child_exited(&c, 0)) {
        fail_msg("status %x: %s", (unsigned)c.status, c.said);
    }
}

// Every second page of the window from `first` on.
static void list_parts(struct purge_list *l, unsigned first, unsigned pages) {
    l->count = 0;
    for (unsigned i = first; i < first + pages; i += 2) {
        purge_add(l, page(i), FIRN_PAGE);
    }
}

static void copy_to_frame(unsigned i) {
    NEED(pwrite(frames, (void *)page(i), FIRN_PAGE, (off_t)(i * FIRN_PAGE)) == FIRN_PAGE);
}

static void map_frame(unsigned i) {
    NEED(mmap((void *)page(i), FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, frames,
              (off_t)(i * FIRN_PAGE)) != MAP_FAILED);
}

static void empty(unsigned first, unsigned pages) {
    struct purge_list parts;
    NEED(fault_stage(page(first), pages * (size_t)FIRN_PAGE));
    list_parts(&parts, first, pages);
    for (unsigned i = first; i < first + pages; i += 2) {
        copy_to_frame(i);
    }
    NEED(fault_empty(page(first), pages * (size_t)FIRN_PAGE, &parts));
}

// Every third part is filled from elsewhere; the others get their frames.
static void place_all(unsigned first, unsigned pages) {
    static _Alignas(FIRN_PAGE) char desk[FIRN_PAGE];
    for (unsigned i = first; i < first + pages; i += 2) {
        if (i % 3 == 0) {
            NEED(pread(frames, desk, FIRN_PAGE, (off_t)(i * FIRN_PAGE)) == FIRN_PAGE);
            fault_fill(page(i), (uintptr_t)desk);
        } else {
            map_frame(i);
        }
    }
}

static void publish(unsigned first, unsigned pages) {
    size_t bytes = pages * (size_t)FIRN_PAGE;
    fault_uncover(page(first), bytes);
    fault_adopt(page(first), bytes);
    fault_publish(page(first), bytes);
}

// ---- who touches the range waits ------------------------------------------------------------------

static atomic_int arrived, gone;

static void *read_one(void *where) {
    arrived++;
    NEED(*(volatile char *)where == 'a');
    gone++;
    return NULL;
}

static void *write_one(void *where) {
    arrived++;
    *(volatile char *)where = 'w';
    gone++;
    return NULL;
}

static void *call_reads(void *where) {
    int ends[2];
    char seen = 0;
    NEED(pipe(ends) == 0);
    arrived++;
    NEED(syscall(SYS_write, ends[1], where, 1) == 1);
    NEED(read(ends[0], &seen, 1) == 1 && seen == 'a');
    gone++;
    return NULL;
}

static void *call_writes(void *where) {
    arrived++;
    NEED(syscall(SYS_getrandom, where, 16, 0) == 16);
    gone++;
    return NULL;
}

static void touchers_wait(void) {
    void *(*const acts[])(void *) = {read_one, write_one, call_reads, call_writes};
    enum { ACTS = 4, FILLED = 12, MAPPED = 14, BETWEEN = 13 };
    pthread_t threads[2 * ACTS];
    NEED(madvise((void *)page(BETWEEN), FIRN_PAGE, MADV_DONTNEED) == 0);
    empty(FIRST, WINDOW);
    for (int i = 0; i < ACTS; i++) {
        void *filled = (void *)(page(FILLED) + 64 * (size_t)i);
        void *mapped = (void *)(page(MAPPED) + 64 * (size_t)i);
        NEED(pthread_create(&threads[2 * i], NULL, acts[i], filled) == 0);
        NEED(pthread_create(&threads[2 * i + 1], NULL, acts[i], mapped) == 0);
    }
    while (arrived < 2 * ACTS) {
        sched_yield();
    }
    pause_ms(50);
    NEED(gone == 0);
    NEED(*(volatile char *)page(FIRST + 1) == 'a'); // between the parts readers go on
    place_all(FIRST, WINDOW);
    publish(FIRST, WINDOW);
    for (int i = 0; i < 2 * ACTS; i++) {
        pthread_join(threads[i], NULL);
    }
    NEED(*(char *)(page(FILLED) + 64) == 'w' && *(char *)(page(MAPPED) + 64) == 'w');
    // All is as before: fresh pages can be touched, parts can be staged again.
    NEED(*(volatile char *)page(BETWEEN) == 0);
    *(volatile char *)page(BETWEEN) = 'x';
    empty(FIRST, 4);
    place_all(FIRST, 4);
    publish(FIRST, 4);
    for (unsigned i = 0; i < PAGES; i++) {
        NEED(*(char *)(page(i) + 2000) == (i == BETWEEN ? 0 : 'a'));
    }
}

static void *read_zero(void *where) {
    arrived++;
    NEED(*(volatile char *)where == 0);
    gone++;
    return NULL;
}

// It would be hidden from the merger what is written there.
static void fresh_pages_wait(void) {
    pthread_t t;
    NEED(madvise((void *)page(FIRST + 1), FIRN_PAGE, MADV_DONTNEED) == 0);
    empty(FIRST, WINDOW);
    NEED(pthread_create(&t, NULL, read_zero, (void *)page(FIRST + 1)) == 0);
    while (arrived == 0) {
        sched_yield();
    }
    pause_ms(50);
    NEED(gone == 0);
    place_all(FIRST, WINDOW);
    publish(FIRST, WINDOW);
    pthread_join(t, NULL);
}

static void test_touchers_wait(void **state) {
    (void)state;
    run(touchers_wait);
    run(fresh_pages_wait);
}

// ---- children -------------------------------------------------------------------------------------

static void unseen_child(void) {
    empty(FIRST, WINDOW);
    for (unsigned i = FIRST; i < FIRST + 2; i++) {
        pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); // no fork handler runs
        if (child == 0) {
            _exit(*(volatile char *)page(i) == 'a' ? 0 : 1);
        }
        int status = 0;
        NEED(waitpid(child, &status, 0) == child);
        bool is_part = i == FIRST;
        NEED(is_part ? WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV : status == 0);
    }
    place_all(FIRST, WINDOW);
    publish(FIRST, WINDOW);
    // What was filled is a child's again.
    pid_t child = fork();
    if (child == 0) {
        _exit(*(volatile char *)page(12) == 'a' ? 0 : 1);
    }
    int status = 0;
    NEED(waitpid(child, &status, 0) == child && status == 0);
}

static void test_an_unseen_child_reads_no_zeros(void **state) {
    (void)state;
    run(unseen_child);
}

// ---- failures -------------------------------------------------------------------------------------

// The program closes what it does not know in the middle: nobody waits any more, and no byte is lost.
static void closed_descriptor(void) {
    empty(FIRST, WINDOW);
    int kept = dup2(frames, 3);
    NEED(kept == 3 && syscall(SYS_close_range, 4, ~0u, 0) == 0);
    frames = kept;
    place_all(FIRST, WINDOW);
    publish(FIRST, WINDOW);
    for (unsigned i = 0; i < PAGES; i++) {
        NEED(*(volatile char *)page(i) == 'a');
        *(volatile char *)page(i) = 'b';
    }
}

// Pages that the kernel did not take away are what they were; filling them is no error.
static void locked_pages(void) {
    if (mlock((void *)page(12), FIRN_PAGE) != 0) {
        _exit(0);
    }
    empty(FIRST, WINDOW);
    place_all(FIRST, WINDOW);
    publish(FIRST, WINDOW);
    for (unsigned i = 0; i < PAGES; i++) {
        NEED(*(volatile char *)page(i) == 'a');
    }
}

static void test_failures(void **state) {
    (void)state;
    run(closed_descriptor);
    run(locked_pages);
}

// ---- many touchers --------------------------------------------------------------------------------

static atomic_bool is_over;

// Counts in words of its own all over the pages, and looks at each before.
static void *count(void *argument) {
    unsigned me = (unsigned)(uintptr_t)argument;
    uint64_t seed = me + 1, mine[PAGES] = {0};
    while (!is_over) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned at = (unsigned)(seed >> 40) % PAGES;
        volatile uint64_t *word = (volatile uint64_t *)page(at) + me;
        NEED(*word == mine[at]);
        *word = ++mine[at];
    }
    return NULL;
}

static void storm(void) {
    pthread_t threads[TOUCHERS];
    struct timespec t0, t;
    memset(heap, 0, BYTES);
    for (uintptr_t i = 0; i < TOUCHERS; i++) {
        NEED(pthread_create(&threads[i], NULL, count, (void *)i) == 0);
    }
    clock_gettime(CLOCK_MONOTONIC, &t0);
    unsigned rounds = 0;
    do {
        unsigned first = rounds * 7 % 16, pages = 4 + rounds % 40;
        if (rounds % 2 == 0) { // all private again
            static _Alignas(FIRN_PAGE) char copies[PAGES][FIRN_PAGE];
            NEED(fault_stage(page(0), BYTES));
            memcpy(copies, heap, BYTES);
            void *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            NEED(p != MAP_FAILED);
            memcpy(p, copies, BYTES);
            NEED(mremap(p, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, heap) != MAP_FAILED);
            fault_adopt(page(0), BYTES);
            fault_publish(page(0), BYTES);
        } else {
            empty(first, pages);
            place_all(first, pages);
            publish(first, pages);
        }
        rounds++;
        clock_gettime(CLOCK_MONOTONIC, &t);
    } while ((t.tv_sec - t0.tv_sec) * 1000 + (t.tv_nsec - t0.tv_nsec) / 1000000 < STORM_MS);
    is_over = true;
    for (unsigned i = 0; i < TOUCHERS; i++) {
        pthread_join(threads[i], NULL);
    }
    NEED(rounds > 1);
}

static void test_no_write_is_lost(void **state) {
    (void)state;
    run(storm);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_touchers_wait),
        cmocka_unit_test(test_an_unseen_child_reads_no_zeros),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_no_write_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
