// The cold tier under the engines `signal` and `protect`, where a system call that meets a page which is away fails, and
// nobody tells of forks: what is pinned stays, what was given back is there for the kernel, and a child
// has everything. One engine after the other, each in a process of its own.
// firn-test: levels=0,2,3 timeout=300 sanitize=none
#include "src/cold/cold.h"

#include "src/cold/table.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/os/missing.h"
#include "src/os/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 12000, BYTES = 500, LARGE = 24, LARGE_BYTES = 150000 };
#include "tests/support/cold_blocks.h"

static int zeros, sink, ends[2];
static enum fault_engine engine;

static bool are_mostly_frozen(void) {
    unsigned m = 0;
    for (unsigned i = 0; i < LARGE; i++) {
        m += is_frozen(large[i] + LARGE_BYTES / 2);
    }
    return are_small_mostly_frozen() && m >= LARGE / 2;
}

static int start(void **state) {
    (void)state;
    bool is_started = start_cold(engine);
    zeros = open("/dev/zero", O_RDONLY);
    sink = open("/dev/null", O_WRONLY);
    return is_started && zeros >= 0 && sink >= 0 && pipe(ends) == 0 ? 0 : -1;
}

static void test_idle_pages_go_and_come_back(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(are_mostly_frozen);
    assert_string_equal(cold_case_stats().engine, fault_engine_name(engine));
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
    if (engine == FAULT_PROTECT) {
        skip(); // they are stored
    }
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

static int run(enum fault_engine which) {
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
    };
    engine = which;
    return cmocka_run_group_tests_name(fault_engine_name(which), tests, start, NULL);
}

int main(void) {
    int status = -1;
    pid_t pid = fork();
    if (pid == 0) {
        exit(run(FAULT_SIGNAL));
    }
    bool is_right = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    return run(FAULT_PROTECT) != 0 || !is_right;
}
