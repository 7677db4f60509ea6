// The cold tier under engine `protect`, beside what it has in common with `signal` (test_cold_calls.c): faults that are
// the program's, mappings that run out, and what keeps pages from going.
// firn-test: levels=0,2,3 timeout=300 sanitize=none
#include "src/cold/cold.h"

#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/os/pin.h"
#include "src/os/signals.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { BLOCKS = 12000, BYTES = 500, LARGE = 24, LARGE_BYTES = 150000 };
#include "tests/support/cold_blocks.h"

static int start(void **state) {
    (void)state;
    return start_cold(FAULT_PROTECT) ? 0 : -1;
}

// ---- faults that are the program's --------------------------------------------------------------

static unsigned char *forbidden;
static volatile uintptr_t seen_address;
static volatile int seen_blocked;

static void on_fault(int number, siginfo_t *info, void *context) {
    sigset_t mask;
    (void)context;
    seen_address = (uintptr_t)info->si_addr;
    (void)signals_mask(SIG_BLOCK, NULL, &mask);
    seen_blocked = sigismember(&mask, number) == 1 && sigismember(&mask, SIGUSR1) == 1;
    mprotect(forbidden, FIRN_PAGE, PROT_READ | PROT_WRITE);
}

// Its own faults, outside of the heap and in a block, and none of ours.
static void test_a_handler_of_the_programs(void **state) {
    (void)state;
    struct sigaction set = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO}, old;
    sigaddset(&set.sa_mask, SIGUSR1);
    allocate();
    assert_int_equal(signals_action(SIGSEGV, &set, &old), 0);
    cold_case_freeze(are_small_mostly_frozen);
    forbidden = mmap(NULL, FIRN_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(forbidden != MAP_FAILED);
    for (unsigned round = 0; round < 2; round++) {
        seen_address = 0;
        assert_int_equal(count_wrong(), 0);
        assert_int_equal(seen_address, 0);
        forbidden[77] = 1;
        assert_int_equal(seen_address, (uintptr_t)forbidden + 77);
        assert_true(seen_blocked);
        // Now one in the heap, as a collector of garbage has them.
        unsigned char *block = heap_alloc(LARGE_BYTES, site);
        forbidden =
            (unsigned char *)(((uintptr_t)block + 2 * FIRN_PAGE) & ~(uintptr_t)(FIRN_PAGE - 1));
        assert_true(cold_exclude((uintptr_t)forbidden, FIRN_PAGE));
        assert_int_equal(mprotect(forbidden, FIRN_PAGE, PROT_NONE), 0);
        cold_case_sleep(2 * COLD_CASE_AFTER_MS);
    }
    assert_int_equal(signals_action(SIGSEGV, &old, NULL), 0);
    release();
}

static int wait_for(pid_t pid) {
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static const struct sigaction standard = {.sa_handler = SIG_DFL};

// Nobody tells its parent of it, and nobody serves it: it ends, and reads no zeros.
static void test_a_child_nobody_saw(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(are_small_mostly_frozen);
    struct sigaction old;
    assert_int_equal(signals_action(SIGSEGV, &standard, &old), 0);
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
    if (pid == 0) {
        alarm(20);
        _exit(count_wrong() == 0 ? 0 : 1);
    }
    int status = wait_for(pid);
    assert_int_equal(signals_action(SIGSEGV, &old, NULL), 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    assert_int_equal(count_wrong(), 0);
    release();
}

// ---- idle pages ---------------------------------------------------------------------------------

static bool are_all_others_frozen(void) {
    unsigned n = 0;
    for (unsigned i = BLOCKS / 2; i < BLOCKS; i++) {
        n += is_frozen(blocks[i]);
    }
    return n >= BLOCKS / 2 * 7 / 10;
}

// Of each page that has blocks of the first half one, which is freed and allocated again at the end.
static void free_some(bool *is_freed) {
    enum { PAGES = 1 << 15 };
    static bool is_done[PAGES];
    memset(is_done, 0, sizeof is_done);
    for (unsigned i = 0; i < BLOCKS / 2; i++) {
        bool *done = &is_done[((uintptr_t)blocks[i] >> FIRN_PAGE_SHIFT) % PAGES];
        if (!is_freed[i] && !*done) {
            heap_free(blocks[i], site);
            is_freed[i] = *done = true;
        }
    }
}

// Nothing tells of writes; but what is allocated or freed all the time is not set aside, to be touched at once.
static void test_what_is_used_stays(void **state) {
    (void)state;
    enum { ROUNDS = 5 };
    static bool is_freed[BLOCKS];
    allocate();
    uint64_t before = cold_case_stats().returns;
    for (unsigned round = 0; round < ROUNDS; round++) {
        free_some(is_freed);
        cold_case_sleep(COLD_CASE_AFTER_MS / 2);
    }
    uint64_t returns = cold_case_stats().returns - before;
    for (unsigned i = 0; i < BLOCKS / 2; i++) {
        if (is_freed[i]) {
            blocks[i] = heap_alloc(BYTES, site);
            fill(blocks[i], BYTES, i);
        }
    }
    assert_in_range(returns, 0, BLOCKS * BYTES / 4096 / 2);
    cold_case_freeze(are_all_others_frozen);
    release();
}

// ---- mappings -----------------------------------------------------------------------------------

enum { MAPS_MOST = 70000 };
static void *maps[MAPS_MOST];

// All that the kernel grants: neighbours differ, so that each is one.
static unsigned take_all_mappings(void) {
    unsigned n = 0;
    while (n < MAPS_MOST) {
        void *p = mmap(NULL, FIRN_PAGE, n % 2 != 0 ? PROT_READ : PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            break;
        }
        maps[n++] = p;
    }
    return n;
}

// Each page that comes back out of the middle of others would take two more.
static void test_mappings_run_out(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(are_small_mostly_frozen);
    unsigned n = take_all_mappings();
    if (n == MAPS_MOST) {
        for (unsigned i = 0; i < n; i++) {
            munmap(maps[i], FIRN_PAGE);
        }
        skip(); // there are more to be had than this test takes
    }
    // The end of a block, which begins in the middle of such pages, is given back unread, and grows again.
    for (unsigned i = 1; i < LARGE; i += 3) {
        large[i] = heap_resize(large[i], LARGE_BYTES / 3, site);
        assert_non_null(large[i]);
    }
    unsigned wrong = 0;
    for (unsigned i = 500; i < BLOCKS; i += 997) {
        wrong += !is_filled(blocks[i], BYTES, i);
    }
    for (unsigned i = 0; i < LARGE; i += 3) {
        wrong += large[i][LARGE_BYTES / 2] != 'a' + i % 20;
    }
    for (unsigned i = 0; i < n; i++) {
        munmap(maps[i], FIRN_PAGE);
    }
    assert_int_equal(wrong, 0);
    for (unsigned i = 1; i < LARGE; i += 3) {
        large[i] = heap_resize(large[i], LARGE_BYTES, site);
        assert_non_null(large[i]);
        assert_true(is_filled(large[i], LARGE_BYTES / 3, i));
        fill(large[i], LARGE_BYTES, i);
    }
    assert_int_equal(count_wrong(), 0);
    release();
}

// ---- what keeps pages from going ----------------------------------------------------------------

static const char *expected;

static bool is_paused(void) {
    struct cold_stats s = cold_case_stats();
    return s.paused != NULL && strcmp(s.paused, expected) == 0 && s.away == 0;
}

static bool is_going(void) {
    return cold_case_stats().paused == NULL;
}

static atomic_bool is_over;

static void *block_faults(void *context) {
    const uint64_t all = ~(uint64_t)0;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
    while (!atomic_load(&is_over)) {
        cold_case_sleep(5);
    }
    assert_int_equal(count_wrong(), 0);
    return context;
}

// As some of libc's own threads do: a touch of a page that is away would end the process.
static void test_a_thread_that_blocks_faults(void **state) {
    (void)state;
    pthread_t thread;
    allocate();
    cold_case_freeze(are_small_mostly_frozen);
    atomic_store(&is_over, false);
    expected = "a thread blocks SIGSEGV";
    assert_int_equal(pthread_create(&thread, NULL, block_faults, NULL), 0);
    assert_true(cold_case_wait(is_paused));
    atomic_store(&is_over, true);
    pthread_join(thread, NULL);
    assert_true(cold_case_wait(is_going));
    cold_case_freeze(are_small_mostly_frozen);
    release();
}

// The kernel writes to memory that was handed to it long ago, without asking the page table.
static void test_input_that_is_under_way(void **state) {
    (void)state;
    aio_context_t context = 0;
    allocate();
    cold_case_freeze(are_small_mostly_frozen);
    if (syscall(SYS_io_setup, 4, &context) != 0) {
        release();
        skip();
    }
    expected = "aio is in use";
    assert_true(cold_case_wait(is_paused));
    assert_int_equal(syscall(SYS_io_destroy, context), 0);
    assert_true(cold_case_wait(is_going));
    release();
}

// ---- stacks -------------------------------------------------------------------------------------

static ucontext_t here, there;
static unsigned char *stack;

static void sleep_on_stack(void) {
    volatile unsigned char room[LARGE_BYTES / 2];
    for (unsigned i = 0; i < sizeof room; i++) {
        room[i] = (unsigned char)(i % 7);
    }
    swapcontext(&there, &here);
    for (unsigned i = 0; i < sizeof room; i++) {
        if (room[i] != i % 7) {
            _exit(3);
        }
    }
}

static bool is_stack_frozen(void) {
    unsigned n = 0;
    for (size_t at = LARGE_BYTES / 2; at < LARGE_BYTES; at += FIRN_PAGE) {
        n += is_frozen(stack + at);
    }
    // The one page that is in use when it goes on, too.
    return n >= LARGE_BYTES / 2 / FIRN_PAGE - 1 && is_frozen(stack + LARGE_BYTES - 512);
}

// A coroutine's, which nobody told of (here swapcontext is libc's): the kernel could not put a signal on it. With a
// handler of the program's (cmocka's) that does not ask for a stack of its own it would have to.
static void test_a_stack_in_a_block(void **state) {
    (void)state;
    struct sigaction old;
    assert_int_equal(signals_action(SIGSEGV, &standard, &old), 0);
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
    stack = heap_alloc(LARGE_BYTES, site);
    assert_non_null(stack);
    assert_int_equal(getcontext(&there), 0);
    there.uc_stack = (stack_t){.ss_sp = stack, .ss_size = LARGE_BYTES};
    there.uc_link = &here;
    makecontext(&there, sleep_on_stack, 0);
    assert_int_equal(swapcontext(&here, &there), 0);
    cold_case_freeze(is_stack_frozen);
    assert_int_equal(swapcontext(&here, &there), 0);
    assert_int_equal(signals_action(SIGSEGV, &old, NULL), 0);
    heap_free(stack, site);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_handler_of_the_programs),
        cmocka_unit_test(test_a_child_nobody_saw),
        cmocka_unit_test(test_a_stack_in_a_block),
        cmocka_unit_test(test_what_is_used_stays),
        cmocka_unit_test(test_a_thread_that_blocks_faults),
        cmocka_unit_test(test_input_that_is_under_way),
        cmocka_unit_test(test_mappings_run_out),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
