// The cold tier under engine `signal`, where the thread that touches a page brings it back itself, in a signal's handler
// (src/cold/mark.h), and where it may not: small stacks, blocked signals, descriptors that are gone, faults of the
// program's, a child that nobody saw coming. See test_cold_calls.c for the rest.
// firn-test: levels=0,2,3 timeout=300 sanitize=none
#include "src/cold/cold.h"

#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/os/pin.h"
#include "src/os/signals.h"

#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 12000, BYTES = 500, LARGE = 4, LARGE_BYTES = 150000 };
#include "tests/support/cold_blocks.h"

static int start(void **state) {
    (void)state;
    return start_cold(FAULT_SIGNAL) ? 0 : -1;
}

// cmocka has put a handler in the place of ours, past signals_action.
static void begin(void) {
    (void)signals_is_ready();
    allocate();
    cold_case_freeze(are_small_mostly_frozen);
}

static int status_of(pid_t pid) {
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

// Not one of them had to be brought back by the thread that thaws.
static void test_who_touches_brings_back(void **state) {
    (void)state;
    begin();
    struct cold_stats before = cold_case_stats();
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_true(is_filled(blocks[i], BYTES, i));
    }
    struct cold_stats after = cold_case_stats();
    assert_true(after.touched >= before.touched + 50);
    assert_int_equal(after.thaws - before.thaws + after.returns - before.returns,
                     after.touched - before.touched + after.fetched - before.fetched);
    release();
}

static void *count_in_thread(void *result) {
    *(unsigned *)result = count_wrong();
    return NULL;
}

// On a stack that has no room for the work.
static void test_small_stacks(void **state) {
    (void)state;
    unsigned wrong = 1;
    pthread_attr_t attributes;
    pthread_t thread;
    begin();
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN), 0);
    assert_int_equal(pthread_create(&thread, &attributes, count_in_thread, &wrong), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(wrong, 0);
    pthread_attr_destroy(&attributes);
    release();
}

// As libc's own helpers do: then no touch may be a signal, of the pages that are away already neither.
static void *block_everything(void *result) {
    const uint64_t all = ~(uint64_t)0;
    assert_int_equal(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all), 0);
    cold_case_sleep(4 * COLD_CASE_AFTER_MS);
    return count_in_thread(result);
}

static void test_a_thread_that_blocks_everything(void **state) {
    (void)state;
    unsigned wrong = 1;
    pthread_t thread;
    begin();
    assert_int_equal(pthread_create(&thread, NULL, block_everything, &wrong), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(wrong, 0);
    release();
}

static void close_userfaultfds(void) {
    unsigned closed = 0;
    char name[64], path[32];
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    for (struct dirent *e = readdir(folder); e != NULL; e = readdir(folder)) {
        (void)snprintf(path, sizeof path, "/proc/self/fd/%.12s", e->d_name);
        ssize_t n = readlink(path, name, sizeof name - 1);
        name[n > 0 ? n : 0] = '\0';
        if (strstr(name, "userfaultfd") != NULL) {
            closed++;
            close(atoi(e->d_name));
        }
    }
    closedir(folder);
    assert_true(closed > 0);
}

// Daemons do. (In a child, for the sake of the tests that follow.)
static void test_descriptors_that_are_closed(void **state) {
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        allocate();
        cold_upkeep();
        if (!cold_case_wait(are_small_mostly_frozen)) {
            _exit(5);
        }
        close_userfaultfds();
        uint64_t before = cold_case_stats().touched;
        bool is_right = count_wrong() == 0 && cold_case_stats().touched == before;
        _exit(is_right ? 0 : 6);
    }
    assert_int_equal(status_of(pid), 0);
}

static jmp_buf after_fault;
static void *volatile fault_address;

static void on_fault(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    fault_address = info->si_addr;
    siglongjmp(after_fault, 1);
}

static void catch_faults(struct sigaction *before) {
    struct sigaction mine = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    assert_int_equal(signals_action(SIGSEGV, &mine, before), 0);
}

static void test_faults_of_the_program(void **state) {
    (void)state;
    struct sigaction before;
    begin();
    catch_faults(&before);
    char *closed = mmap(NULL, FIRN_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(closed != MAP_FAILED);
    char *page = (char *)large[0] + FIRN_PAGE - (uintptr_t)large[0] % FIRN_PAGE;
    (void)*(volatile char *)page;
    assert_int_equal(mprotect(page, FIRN_PAGE, PROT_NONE), 0);
    char *const bad[] = {closed + 7, page + 64};
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < 3; k++) {
            fault_address = NULL;
            if (sigsetjmp(after_fault, 1) == 0) {
                (void)*(volatile char *)bad[i];
                fail();
            }
            assert_ptr_equal(fault_address, bad[i]);
            assert_true(is_filled(blocks[k * 100 + i], BYTES, k * 100 + i));
        }
    }
    assert_int_equal(mprotect(page, FIRN_PAGE, PROT_READ | PROT_WRITE), 0);
    assert_int_equal(signals_action(SIGSEGV, &before, NULL), 0);
    munmap(closed, FIRN_PAGE);
    assert_int_equal(count_wrong(), 0);
    release();
}

// A child that nobody saw coming has not its parent's bytes: it has no zeros in their place either.
static void test_a_child_of_a_bare_fork(void **state) {
    (void)state;
    struct sigaction before;
    begin();
    unsigned i = 0;
    while (i < BLOCKS && !is_frozen(blocks[i])) {
        i++;
    }
    assert_true(i < BLOCKS);
    catch_faults(&before);
    pid_t pid = (pid_t)syscall(SYS_fork);
    if (pid == 0) {
        if (sigsetjmp(after_fault, 1) == 0) {
            _exit(is_filled(blocks[i], BYTES, i) ? 7 : 8);
        }
        _exit(fault_address == blocks[i] ? 0 : 9);
    }
    assert_int_equal(status_of(pid), 0);
    assert_int_equal(signals_action(SIGSEGV, &before, NULL), 0);
    assert_int_equal(count_wrong(), 0);
    release();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_touches_brings_back),
        cmocka_unit_test(test_small_stacks),
        cmocka_unit_test(test_a_thread_that_blocks_everything),
        cmocka_unit_test(test_descriptors_that_are_closed),
        cmocka_unit_test(test_faults_of_the_program),
        cmocka_unit_test(test_a_child_of_a_bare_fork),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
