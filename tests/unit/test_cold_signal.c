// The cold tier under engine `signal`, where a system call that meets a page which is away fails, and nobody
// tells of forks: what is pinned stays, what was given back is there for the kernel, and a child
// has everything.
// firn-test: levels=0,2,3 timeout=300 sanitize=none
#include "src/cold/cold.h"

#include "src/cold/table.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/meta/page_state.h"
#include "src/os/missing.h"
#include "src/os/pin.h"
#include "src/os/signals.h"
#include "tests/support/cold_case.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
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
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 12000, BYTES = 500, LARGE = 24, LARGE_BYTES = 150000 };
static const uintptr_t site = 0x409000;

static unsigned char *blocks[BLOCKS], *large[LARGE];
static int zeros, sink, ends[2];

static void fill(unsigned char *p, unsigned n, unsigned i) {
    memset(p, 'a' + (int)(i % 20), n);
    memcpy(p, &i, sizeof i);
}

static bool is_filled(const unsigned char *p, unsigned n, unsigned i) {
    unsigned found;
    memcpy(&found, p, sizeof found);
    return found == i && p[sizeof i] == 'a' + i % 20 &&
           memcmp(p + sizeof i, p + sizeof i + 1, n - sizeof i - 1) == 0;
}

// What came back before is forgotten: after that much, pages would have to be older. cmocka has put a handler in the
// place of ours, past signals_action.
static void allocate(void) {
    (void)signals_is_ready();
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = heap_alloc(BYTES, site);
        assert_non_null(blocks[i]);
        fill(blocks[i], BYTES, i);
    }
    for (unsigned i = 0; i < LARGE; i++) {
        large[i] = heap_alloc(LARGE_BYTES, site);
        assert_non_null(large[i]);
        fill(large[i], LARGE_BYTES, i);
    }
}

static void release(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(blocks[i], site);
    }
    for (unsigned i = 0; i < LARGE; i++) {
        heap_free(large[i], site);
    }
    (void)heap_trim();
}

static unsigned count_wrong(void) {
    unsigned wrong = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        wrong += !is_filled(blocks[i], BYTES, i);
    }
    for (unsigned i = 0; i < LARGE; i++) {
        wrong += !is_filled(large[i], LARGE_BYTES, i);
    }
    return wrong;
}

static bool is_frozen(const void *p) {
    return page_state_get((uintptr_t)p) == PAGE_FROZEN;
}

static bool are_mostly_frozen(void) {
    unsigned n = 0, m = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        n += is_frozen(blocks[i]);
    }
    for (unsigned i = 0; i < LARGE; i++) {
        m += is_frozen(large[i] + LARGE_BYTES / 2);
    }
    return n >= BLOCKS * 8 / 10 && m >= LARGE / 2;
}

static int start(void **state) {
    (void)state;
    life_start();
    pin_announce();
    cold_choose_engine(FAULT_SIGNAL);
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
    upkeep_add_cold(); // forks are to be heard of
    cold_upkeep();
    zeros = open("/dev/zero", O_RDONLY);
    sink = open("/dev/null", O_WRONLY);
    return zeros >= 0 && sink >= 0 && pipe(ends) == 0 ? 0 : -1;
}

static void test_idle_pages_go_and_come_back(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(are_mostly_frozen);
    assert_string_equal(cold_case_stats().engine, "signal");
    assert_false(missing_serves_calls());
    assert_int_equal(count_wrong(), 0);
    assert_true(cold_case_stats().thaws >= 1000);
    release();
}

// The kernel does not wait: hence the pins, which bring back what is away in blocks that are in use, and in
// nothing else.
static void test_pins(void **state) {
    (void)state;
    unsigned failed = 0, n = 0;
    allocate();
    cold_case_freeze(are_mostly_frozen);
    for (unsigned i = 0; i < BLOCKS && n < 200; i += 61) {
        if (is_frozen(blocks[i])) {
            n++;
            failed += write(ends[1], blocks[i], BYTES) < 0 && errno == EFAULT;
            unsigned pin = pin_enter((uintptr_t)blocks[i], BYTES);
            pin_touch((uintptr_t)blocks[i], BYTES);
            assert_int_equal(write(ends[1], blocks[i], BYTES), BYTES);
            assert_int_equal(read(ends[0], blocks[i], BYTES), BYTES);
            pin_leave(pin);
            assert_true(is_filled(blocks[i], BYTES, i));
        }
    }
    assert_true(n >= 50 && failed == n);
    for (unsigned i = 0; i < LARGE; i++) {
        // As far as the caller says, which may be more than there is.
        unsigned pin = pin_enter((uintptr_t)large[i], (size_t)1 << 40);
        pin_touch((uintptr_t)large[i], LARGE_BYTES);
        for (unsigned k = 0; k < LARGE_BYTES; k += 50000) {
            assert_int_equal(write(ends[1], large[i] + k, 50000), 50000);
            assert_int_equal(read(ends[0], large[i] + k, 50000), 50000);
        }
        pin_leave(pin);
    }
    assert_int_equal(count_wrong(), 0);
    release();
}

static void test_a_touch_stays_within_the_heap(void **state) {
    (void)state;
    allocate();
    pin_touch((uintptr_t)blocks[0], SIZE_MAX);
    pin_touch((uintptr_t)large[LARGE - 1], SIZE_MAX / 2);
    pin_touch(0, SIZE_MAX);
    pin_touch((uintptr_t)&state, 100000);
    assert_int_equal(count_wrong(), 0);
    release();
}

static void test_what_is_pinned_stays(void **state) {
    (void)state;
    enum { FROM = BLOCKS / 3 };
    allocate();
    unsigned pin = pin_enter((uintptr_t)blocks[FROM], BYTES);
    unsigned other = pin_enter((uintptr_t)large[0], LARGE_BYTES);
    pin_touch((uintptr_t)blocks[FROM], BYTES);
    pin_touch((uintptr_t)large[0], LARGE_BYTES);
    cold_case_freeze(are_mostly_frozen);
    for (unsigned ms = 0; ms < 3 * COLD_CASE_AFTER_MS; ms += 20) {
        assert_int_equal(write(ends[1], blocks[FROM], BYTES), BYTES);
        assert_int_equal(read(ends[0], large[0] + LARGE_BYTES / 2, BYTES), BYTES);
        memset(large[0], 'a', LARGE_BYTES);
        fill(large[0], LARGE_BYTES, 0);
        cold_case_sleep(20);
    }
    pin_leave(other);
    pin_leave(pin);
    assert_int_equal(count_wrong(), 0);
    release();
}

// Memory that was given back, in chunks that are watched, and is handed out again: libc reads into it, too, and
// asks nobody.
static void test_new_blocks_are_there(void **state) {
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        allocate();
        cold_case_freeze(are_mostly_frozen);
        release();
        for (unsigned i = 0; i < BLOCKS; i++) {
            blocks[i] = heap_alloc(BYTES, site);
            assert_int_equal(read(zeros, blocks[i], BYTES), BYTES);
        }
        for (unsigned i = 0; i < LARGE; i++) {
            // Others than before: from what parted those, too.
            large[i] = heap_alloc(i % 2 == 0 ? LARGE_BYTES : 3 * LARGE_BYTES, site);
            assert_int_equal(read(zeros, large[i], LARGE_BYTES), LARGE_BYTES);
        }
        release();
    }
}

// Pages of zeros are dropped, and not frozen.
static void test_zeros_are_there(void **state) {
    (void)state;
    unsigned char *p = heap_alloc_zeroed(LARGE_BYTES, site);
    assert_non_null(p);
    memset(p, 0, LARGE_BYTES);
    uint64_t before = cold_case_stats().zeros;
    for (unsigned ms = 0; cold_case_stats().zeros < before + 30; ms += 20) {
        if (cold_case_stats().reason != NULL) {
            skip();
        }
        assert_true(ms < COLD_CASE_WAIT_MS);
        cold_case_sleep(20);
    }
    cold_case_sleep(2 * COLD_CASE_AFTER_MS);
    unsigned failed = 0;
    for (unsigned k = 0; k + FIRN_PAGE <= LARGE_BYTES; k += FIRN_PAGE) {
        // What is staged at this moment fails, and only that.
        enum page_state s = page_state_get((uintptr_t)p + k);
        ssize_t n = write(ends[1], p + k, 16);
        failed += n != 16 && s == PAGE_FRESH;
        if (n == 16) {
            char got[16];
            assert_int_equal(read(ends[0], got, sizeof got), 16);
        }
    }
    assert_int_equal(failed, 0);
    heap_free(p, site);
}

static int wait_for(pid_t pid) {
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

// Without anybody's help.
static void child_checks(unsigned generations) {
    for (unsigned i = 0; count_wrong() == 0; i++) {
        pid_t pid = i < generations ? fork() : -1;
        if (pid != 0) {
            int status = 0;
            bool is_right = pid < 0 || (waitpid(pid, &status, 0) == pid && status == 0);
            _exit(is_right ? 0 : 2);
        }
    }
    _exit(1);
}

static void test_children(void **state) {
    (void)state;
    allocate();
    for (unsigned i = 0; i < 3; i++) {
        // Also: a fork before did not put an end to freezing.
        cold_case_freeze(are_mostly_frozen);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            child_checks(2);
        }
        for (unsigned k = 0; k < BLOCKS; k++) { // the parent changes it all
            fill(blocks[k], BYTES, k);
        }
        assert_int_equal(wait_for(pid), 0);
    }
    assert_int_equal(count_wrong(), 0);
    release();
}

static void test_a_child_freezes_by_itself(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(are_mostly_frozen);
    pid_t pid = fork();
    if (pid == 0) {
        for (unsigned i = 0; i < BLOCKS; i++) { // else they are its parent's, too
            fill(blocks[i], BYTES, i);
        }
        for (unsigned i = 0; i < LARGE; i++) {
            fill(large[i], LARGE_BYTES, i);
        }
        cold_upkeep();
        if (!cold_case_wait(are_mostly_frozen)) {
            _exit(5);
        }
        child_checks(1);
    }
    assert_int_equal(wait_for(pid), 0);
    assert_int_equal(count_wrong(), 0);
    release();
}

static atomic_bool is_over;

// Sends everything away, again and again.
static void *wish(void *context) {
    while (!atomic_load(&is_over)) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            cold_hint_cold((uintptr_t)blocks[i] & ~(uintptr_t)(FIRN_PAGE - 1), FIRN_PAGE);
        }
    }
    return context;
}

// The interleaving that a hold is for: a page is marked while the other thread looks for pages that are away.
static void test_forks_while_pages_go(void **state) {
    (void)state;
    pthread_t thread;
    allocate();
    cold_case_freeze(are_mostly_frozen);
    atomic_store(&is_over, false);
    assert_int_equal(pthread_create(&thread, NULL, wish, NULL), 0);
    for (unsigned i = 0; i < 60; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            for (struct chunk *c = table_first(); c != NULL; c = c->next) {
                if (table_away(c) != 0) {
                    _exit(3);
                }
            }
            _exit(count_wrong() == 0 ? 0 : 1);
        }
        assert_int_equal(wait_for(pid), 0);
    }
    atomic_store(&is_over, true);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&table_holds), 0);
    assert_int_equal(count_wrong(), 0);
    release();
}

// ---- touches that are signals --------------------------------------------------------------------

// Not one of them had to be brought back by the thread that thaws.
static void test_who_touches_brings_back(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(are_mostly_frozen);
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
    allocate();
    cold_case_freeze(are_mostly_frozen);
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
    allocate();
    cold_case_freeze(are_mostly_frozen);
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
    allocate();
    pid_t pid = fork();
    if (pid == 0) {
        release();
        allocate();
        cold_upkeep();
        if (!cold_case_wait(are_mostly_frozen)) {
            _exit(5);
        }
        close_userfaultfds();
        uint64_t before = cold_case_stats().touched;
        if (count_wrong() != 0 || cold_case_stats().touched != before) {
            _exit(6);
        }
        child_checks(1);
    }
    assert_int_equal(wait_for(pid), 0);
    release();
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
    allocate();
    cold_case_freeze(are_mostly_frozen);
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
    allocate();
    cold_case_freeze(are_mostly_frozen);
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
    assert_int_equal(wait_for(pid), 0);
    assert_int_equal(signals_action(SIGSEGV, &before, NULL), 0);
    assert_int_equal(count_wrong(), 0);
    release();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_pages_go_and_come_back),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_a_touch_stays_within_the_heap),
        cmocka_unit_test(test_what_is_pinned_stays),
        cmocka_unit_test(test_new_blocks_are_there),
        cmocka_unit_test(test_zeros_are_there),
        cmocka_unit_test(test_children),
        cmocka_unit_test(test_a_child_freezes_by_itself),
        cmocka_unit_test(test_forks_while_pages_go),
        cmocka_unit_test(test_who_touches_brings_back),
        cmocka_unit_test(test_small_stacks),
        cmocka_unit_test(test_a_thread_that_blocks_everything),
        cmocka_unit_test(test_descriptors_that_are_closed),
        cmocka_unit_test(test_faults_of_the_program),
        cmocka_unit_test(test_a_child_of_a_bare_fork),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
