// Staging under each engine: readers go on, writers wait, nothing that was written is lost, and what is
// not ours goes to the program. Engines are forced through the capability mask, each in a child.
// (ThreadSanitizer does not see that a page fault orders a write before a copy.)
// firn-test: share=2 timeout=180 sanitize=address
#include "src/os/fault.h"

#include "src/base/compiler.h"
#include "src/os/caps.h"
#include "src/os/pin.h"
#include "src/os/signals.h"
#include "tests/support/child.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <fcntl.h>
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

enum { PAGES = 16, MORE = FAULT_RANGES + 1, BYTES = PAGES * (int)FIRN_PAGE, NO_ENGINE = 77 };

static char *heap; // what is managed
static enum fault_engine engine;

static void need_at(bool condition, const char *what, int line) {
    if (!condition) {
        dprintf(STDERR_FILENO, "line %d: %s (%s, errno %d)\n", line, what,
                fault_engine_name(fault_engine()), errno);
        _exit(1);
    }
}
#define NEED(condition) need_at((condition), #condition, __LINE__)

static uintptr_t page(unsigned index) {
    return (uintptr_t)heap + index * (uintptr_t)FIRN_PAGE;
}

static void pause_ms(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

// In the child: the engine asked for and no other, or the child says that there is none.
static void start(enum fault_engine asked) {
    static const uint32_t masks[] = {
        [FAULT_EVENT] = ~(uint32_t)CAP_FAULT_SIGNAL,
        [FAULT_SIGNAL] = ~(uint32_t)CAP_FAULT_EVENT,
        [FAULT_PROTECT] = ~(uint32_t)(CAP_FAULT_EVENT | CAP_FAULT_SIGNAL),
    };
    alarm(100);
    caps_probe(masks[asked]);
    pin_announce();
    size_t bytes = MORE * (size_t)FIRN_PAGE;
    heap = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(heap != MAP_FAILED);
    NEED(fault_start((uintptr_t)heap, bytes));
    engine = fault_engine();
    if (engine != asked) {
        _exit(NO_ENGINE);
    }
    errno = 0;
}

typedef void scenario_fn(void);
static scenario_fn *scenario_now;

static void in_child(void *context) {
    signal(SIGSEGV, SIG_DFL); // cmocka's
    start(*(enum fault_engine *)context);
    scenario_now();
    _exit(0);
}

static struct child run(scenario_fn *scenario, enum fault_engine asked) {
    struct child c;
    scenario_now = scenario;
    child_run(&c, in_child, &asked);
    return c;
}

static void run_each(scenario_fn *scenario) {
    for (enum fault_engine e = FAULT_EVENT; e <= FAULT_PROTECT; e++) {
        struct child c = run(scenario, e);
        if (child_exited(&c, NO_ENGINE)) {
            print_message("# no %s here\n", fault_engine_name(e));
            assert_int_not_equal(e, FAULT_PROTECT);
        } else if (!child_exited(&c, 0)) {
            fail_msg("%s: status %x: %s", fault_engine_name(e), (unsigned)c.status, c.said);
        }
    }
}

// ---- one writer ---------------------------------------------------------------------------------

static atomic_int progress; // 1 about to write, 2 written

static void *write_one(void *where) {
    progress = 1;
    *(volatile char *)where = 'w';
    progress = 2;
    return NULL;
}

static pthread_t start_writer(unsigned index) {
    pthread_t t;
    progress = 0;
    NEED(pthread_create(&t, NULL, write_one, (void *)page(index)) == 0);
    while (progress == 0) {
        sched_yield();
    }
    pause_ms(30);
    return t;
}

static int new_frame(void) {
    int fd = memfd_create("frame", MFD_CLOEXEC);
    NEED(fd >= 0 && ftruncate(fd, BYTES) == 0);
    return fd;
}

static void map_frame(int fd, unsigned index, unsigned pages) {
    size_t bytes = pages * (size_t)FIRN_PAGE;
    NEED(pwrite(fd, (void *)page(index), bytes, 0) == (ssize_t)bytes);
    NEED(mmap((void *)page(index), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
         MAP_FAILED);
}

static void writer_waits_for_release(void) {
    memset(heap, 'a', BYTES);
    NEED(fault_stage(page(2), 4 * FIRN_PAGE));
    pthread_t t = start_writer(3);
    NEED(progress == 1);
    NEED(*(volatile char *)page(3) == 'a'); // readers go on
    heap[0] = 'b';                          // so do writers elsewhere
    *(volatile char *)page(6) = 'b';
    fault_release(page(2), 4 * FIRN_PAGE);
    pthread_join(t, NULL);
    NEED(*(volatile char *)page(3) == 'w' && *(volatile char *)page(4) == 'a');
    NEED(fault_stage(page(2), FIRN_PAGE)); // again
    fault_release(page(2), FIRN_PAGE);
    *(volatile char *)page(2) = 'c';
}

static void writer_waits_for_publication(void) {
    memset(heap, 'a', BYTES);
    int fd = new_frame();
    NEED(fault_stage(page(2), 4 * FIRN_PAGE));
    pthread_t t = start_writer(3);
    NEED(progress == 1);
    map_frame(fd, 2, 4);
    fault_publish(page(2), 4 * FIRN_PAGE);
    fault_adopt(page(2), 4 * FIRN_PAGE);
    pthread_join(t, NULL);
    char seen = 0;
    NEED(pread(fd, &seen, 1, FIRN_PAGE) == 1 && seen == 'w');
    NEED(pread(fd, &seen, 1, 0) == 1 && seen == 'a');
    // A shared page is staged like a private one.
    NEED(fault_stage(page(2), 4 * FIRN_PAGE));
    *(volatile char *)page(3);
    t = start_writer(5);
    NEED(progress == 1);
    fault_release(page(2), 4 * FIRN_PAGE);
    pthread_join(t, NULL);
    NEED(pread(fd, &seen, 1, 3 * FIRN_PAGE) == 1 && seen == 'w');
}

// The first two pages stay what they are, and can be written to while the other two are still staged.
static void part_is_opened(void) {
    memset(heap, 'a', BYTES);
    int fd = new_frame();
    NEED(fault_stage(page(2), 4 * FIRN_PAGE));
    pthread_t t = start_writer(4);
    fault_open(page(2), 2 * FIRN_PAGE);
    *(volatile char *)page(2) = 'o';
    *(volatile char *)page(3) = 'o';
    NEED(progress == 1);
    map_frame(fd, 4, 2);
    fault_publish(page(2), 4 * FIRN_PAGE);
    pthread_join(t, NULL);
    char seen = 0;
    NEED(pread(fd, &seen, 1, 0) == 1 && seen == 'w');
    NEED(*(volatile char *)page(2) == 'o' && *(volatile char *)page(5) == 'a');
}

static void pages_never_touched_are_protected(void) {
    NEED(fault_stage(page(0), BYTES));
    pthread_t t = start_writer(9);
    NEED(progress == 1);
    fault_release(page(0), BYTES);
    pthread_join(t, NULL);
    NEED(*(volatile char *)page(9) == 'w');
}

static void *read_random(void *where) {
    progress = 1;
    ssize_t got = syscall(SYS_getrandom, where, 16, 0);
    progress = got == 16 ? 2 : 3;
    return NULL;
}

// What the header promises of each engine.
static void system_calls_wait_or_fail(void) {
    pthread_t t;
    heap[0] = 1;
    NEED(fault_stage(page(0), FIRN_PAGE));
    progress = 0;
    NEED(pthread_create(&t, NULL, read_random, heap) == 0);
    pause_ms(50);
    NEED(progress == (engine == FAULT_EVENT ? 1 : 3));
    int ends[2];
    NEED(pipe(ends) == 0 && write(ends[1], heap, 16) == 16); // the kernel reads
    fault_release(page(0), FIRN_PAGE);
    pthread_join(t, NULL);
    NEED(progress == (engine == FAULT_EVENT ? 2 : 3));
}

static void waits_for_release(void **state) {
    (void)state;
    run_each(writer_waits_for_release);
}

static void waits_for_publication(void **state) {
    (void)state;
    run_each(writer_waits_for_publication);
    run_each(part_is_opened);
}

static void untouched_pages(void **state) {
    (void)state;
    run_each(pages_never_touched_are_protected);
}

static void system_calls(void **state) {
    (void)state;
    run_each(system_calls_wait_or_fail);
}

// ---- many writers ---------------------------------------------------------------------------------

enum { WRITERS = 4, STORM_MS = 700 };

static atomic_bool is_over;
static uint64_t counted[WRITERS];

// Each thread counts in words of its own, all over the pages; memory must agree with it at the end, and
// at each step.
static void *count(void *argument) {
    unsigned me = (unsigned)(uintptr_t)argument;
    uint64_t seed = me + 1, mine[PAGES] = {0};
    while (!is_over) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned at = (unsigned)(seed >> 40) % PAGES;
        volatile uint64_t *word = (volatile uint64_t *)page(at) + me;
        if (*word != mine[at]) {
            counted[me] = UINT64_MAX;
            return NULL;
        }
        *word = ++mine[at];
        counted[me]++;
    }
    for (unsigned i = 0; i < PAGES; i++) {
        if (((volatile uint64_t *)page(i))[me] != mine[i]) {
            counted[me] = UINT64_MAX;
        }
    }
    return NULL;
}

static void to_private(unsigned at, unsigned pages) {
    static char copy[BYTES];
    size_t bytes = pages * (size_t)FIRN_PAGE;
    memcpy(copy, (void *)page(at), bytes);
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(p != MAP_FAILED);
    memcpy(p, copy, bytes);
    NEED(mremap(p, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)page(at)) != MAP_FAILED);
}

static void storm(void) {
    pthread_t threads[WRITERS];
    struct timespec t0, t;
    unsigned rounds = 0;
    memset(heap, 0, BYTES);
    for (uintptr_t i = 0; i < WRITERS; i++) {
        NEED(pthread_create(&threads[i], NULL, count, (void *)i) == 0);
    }
    // A thread that is just being created blocks every signal for a moment.
    while (!fault_stage(page(0), FIRN_PAGE)) {
        pause_ms(1);
    }
    fault_release(page(0), FIRN_PAGE);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    do {
        unsigned at = rounds * 7 % (PAGES - 3), pages = 1 + rounds % 3;
        if (fault_stage(page(at), pages * FIRN_PAGE)) {
            int fd;
            switch (rounds % 4) {
            case 0:
                fd = new_frame();
                map_frame(fd, at, pages);
                fault_publish(page(at), pages * FIRN_PAGE);
                fault_adopt(page(at), pages * FIRN_PAGE);
                close(fd);
                break;
            case 1:
                to_private(at, pages);
                fault_adopt(page(at), pages * FIRN_PAGE);
                fault_publish(page(at), pages * FIRN_PAGE);
                break;
            case 2:
                to_private(at, pages);
                fault_publish(page(at), pages * FIRN_PAGE);
                break;
            default:
                fault_release(page(at), pages * FIRN_PAGE);
            }
        }
        rounds++;
        clock_gettime(CLOCK_MONOTONIC, &t);
    } while ((t.tv_sec - t0.tv_sec) * 1000 + (t.tv_nsec - t0.tv_nsec) / 1000000 < STORM_MS);
    is_over = true;
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        NEED(counted[i] != UINT64_MAX && counted[i] > 0);
    }
    struct fault_figures f;
    fault_figures(&f);
    NEED(f.stages == rounds + 1);
}

static void no_write_is_lost(void **state) {
    (void)state;
    run_each(storm);
}

// ---- children -------------------------------------------------------------------------------------

static void writes_in_child(void) {
    memset(heap, 'a', BYTES);
    NEED(fault_stage(page(2), 2 * FIRN_PAGE));
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); // no fork handler runs
    if (child == 0) {
        alarm(20);
        *(volatile char *)page(3) = 'c';
        *(volatile char *)page(2) = 'c';
        // It can stage for itself, and the parent's protection is not touched by that.
        NEED(fault_stage(page(2), 2 * FIRN_PAGE));
        fault_release(page(2), 2 * FIRN_PAGE);
        *(volatile char *)page(2) = 'd';
        _exit(0);
    }
    int status;
    NEED(waitpid(child, &status, 0) == child && status == 0);
    pthread_t t = start_writer(3);
    NEED(progress == 1);
    NEED(*(volatile char *)page(3) == 'a');
    fault_release(page(2), 2 * FIRN_PAGE);
    pthread_join(t, NULL);
}

static void forks_with_handler(void) {
    memset(heap, 'a', BYTES);
    NEED(fault_stage(page(2), 2 * FIRN_PAGE));
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        fault_after_fork_in_child();
        *(volatile char *)page(3) = 'c';
        NEED(fault_stage(page(2), 2 * FIRN_PAGE));
        fault_release(page(2), 2 * FIRN_PAGE);
        _exit(fault_engine() == engine ? 0 : 3);
    }
    int status;
    NEED(waitpid(child, &status, 0) == child && status == 0);
    NEED(*(volatile char *)page(3) == 'a');
    fault_release(page(2), 2 * FIRN_PAGE);
}

static void children(void **state) {
    (void)state;
    run_each(writes_in_child);
    run_each(forks_with_handler);
}

// ---- what may go wrong ----------------------------------------------------------------------------

static void closes_descriptors(void) {
    NEED(syscall(SYS_close_range, 3, ~0u, 0) == 0);
    // Somebody else's descriptors in the place of ours.
    for (int i = 0; i < 64; i++) {
        NEED(memfd_create("other", 0) >= 0);
    }
    NEED(fault_stage(page(0), FIRN_PAGE));
    pthread_t t = start_writer(0);
    NEED(progress == 1);
    fault_release(page(0), FIRN_PAGE);
    pthread_join(t, NULL);
}

static void fills_the_table(void) {
    for (unsigned i = 0; i < FAULT_RANGES; i++) {
        NEED(fault_stage(page(i), FIRN_PAGE));
    }
    NEED(!fault_stage(page(FAULT_RANGES), FIRN_PAGE));
    *(volatile char *)page(FAULT_RANGES) = 'x';
    for (unsigned i = 0; i < FAULT_RANGES; i++) {
        fault_release(page(i), FIRN_PAGE);
        *(volatile char *)page(i) = 'x';
    }
    NEED(fault_stage(page(FAULT_RANGES), FIRN_PAGE));
    fault_release(page(FAULT_RANGES), FIRN_PAGE);
}

static void faults_for_real(void) {
    NEED(mprotect(heap, FIRN_PAGE, PROT_NONE) == 0);
    *(volatile char *)heap = 1;
}

static void faults_elsewhere(void) {
    char *p = mmap(NULL, FIRN_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *(volatile char *)p = 1;
}

static void trouble(void **state) {
    (void)state;
    run_each(closes_descriptors);
    run_each(fills_the_table);
    struct child c = run(faults_for_real, FAULT_PROTECT);
    assert_true(child_died_of(&c, SIGSEGV));
    c = run(faults_elsewhere, FAULT_PROTECT);
    assert_true(child_died_of(&c, SIGSEGV));
}

// A thread that blocked SIGSEGV before could not be held by a handler: nothing is staged.
static void blocked_thread(void) {
    sigset_t segv, old;
    sigemptyset(&segv);
    sigaddset(&segv, SIGSEGV);
    NEED(pthread_sigmask(SIG_BLOCK, &segv, &old) == 0); // libc's own: as if before us
    NEED(!fault_stage(page(0), FIRN_PAGE));
    NEED(!fault_stage(page(0), FIRN_PAGE));
    NEED(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
    pause_ms(1100);
    NEED(fault_stage(page(0), FIRN_PAGE));
    fault_release(page(0), FIRN_PAGE);
}

static void handler_of_others(int number) {
    (void)number;
    _exit(9);
}

// Past the exported functions, as a runtime without libc does it.
static void replaced_handler(void) {
    struct fault_figures f;
    NEED(signal(SIGSEGV, handler_of_others) != SIG_ERR);
    NEED(fault_stage(page(0), FIRN_PAGE));
    fault_figures(&f);
    NEED(f.replaced == 1);
    pthread_t t = start_writer(0);
    NEED(progress == 1);
    fault_release(page(0), FIRN_PAGE);
    pthread_join(t, NULL);
    faults_elsewhere(); // reaches the handler
}

static void handlers(void **state) {
    (void)state;
    struct child c = run(blocked_thread, FAULT_PROTECT);
    if (!child_exited(&c, 0)) {
        fail_msg("%x %s", (unsigned)c.status, c.said);
    }
    c = run(replaced_handler, FAULT_PROTECT);
    if (!child_exited(&c, 9)) {
        fail_msg("%x %s", (unsigned)c.status, c.said);
    }
}

static void falls_through(void **state) {
    (void)state;
    assert_string_equal(fault_engine_name(FAULT_EVENT), "event");
    assert_string_equal(fault_engine_name(FAULT_SIGNAL), "signal");
    assert_string_equal(fault_engine_name(FAULT_PROTECT), "protect");
    assert_int_equal(fault_engine(), FAULT_NONE);
    assert_false(fault_can_hold(16));
    caps_probe(~(uint32_t)(CAP_FAULT_EVENT | CAP_FAULT_SIGNAL));
    fault_choose(FAULT_EVENT);
    heap = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_false(fault_start((uintptr_t)heap, BYTES)); // nobody pins
    pin_announce();
    assert_true(fault_start((uintptr_t)heap, BYTES));
    assert_int_equal(fault_engine(), FAULT_PROTECT);
    assert_true(fault_can_hold(512));
    assert_false(fault_can_hold(1024));
    assert_false(fault_can_hold(2048));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_for_release), cmocka_unit_test(waits_for_publication),
        cmocka_unit_test(untouched_pages),   cmocka_unit_test(system_calls),
        cmocka_unit_test(no_write_is_lost),  cmocka_unit_test(children),
        cmocka_unit_test(trouble),           cmocka_unit_test(handlers),
        cmocka_unit_test(falls_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
