// The coarse clock goes forward and stays near the exact one.
// firn-test: share=2
#include "src/os/clock.h"

#include "src/os/sys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t exact_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void follows_the_exact_clock(void **state) {
    (void)state;
    uint64_t last = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t before = exact_ns();
        uint64_t coarse = clock_coarse_ns();
        assert_true(coarse >= last);
        // One tick behind at most (10 ms at 100 Hz), and never ahead.
        assert_true(coarse + 11000000 >= before);
        assert_true(coarse <= exact_ns());
        last = coarse;
    }
}

static void moves(void **state) {
    (void)state;
    struct timespec pause = {0, 30000000};
    uint64_t before = clock_coarse_ns();
    nanosleep(&pause, NULL);
    assert_true(clock_coarse_ns() - before >= 15000000);
}

// Work counts, sleep does not.
static void counts_the_thread_alone(void **state) {
    (void)state;
    uint64_t before = clock_thread_ns();
    struct timespec pause = {0, 50000000};
    nanosleep(&pause, NULL);
    assert_true(clock_thread_ns() - before < 25000000);
    uint64_t whole = clock_process_ns();
    before = clock_thread_ns();
    for (uint64_t end = clock_ns() + 20000000; clock_ns() < end;) {
    }
    uint64_t mine = clock_thread_ns() - before;
    assert_true(mine > 0 && clock_process_ns() - whole >= mine);
}

// The kernel's strict seccomp mode takes the cycle counter away, as this does.
static void a_mute_thread_reads_no_cycle_counter(void **state) {
    (void)state;
    uint64_t before = clock_coarse_ns();
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_TSC, PR_TSC_SIGSEGV) != 0) {
            _exit(77);
        }
        sys_go_mute();
        _exit(clock_ns() >= before ? 0 : 1);
    }
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_exact_clock),
        cmocka_unit_test(moves),
        cmocka_unit_test(counts_the_thread_alone),
        cmocka_unit_test(a_mute_thread_reads_no_cycle_counter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
