// Pins: what a system call may be writing to is not staged, and a call that begins waits for what is.
// firn-test: share=2
#include "src/os/pin.h"

#include "src/base/compiler.h"
#include "src/os/caps.h"
#include "src/os/fault.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGES = 8, THREADS = PIN_SLOTS + 40, ROUNDS = 20000 };

static uintptr_t heap;

// An engine under which system calls fail: `event` needs no pins.
static int start(void **state) {
    (void)state;
    caps_probe(~(uint32_t)CAP_FAULT_EVENT);
    heap = (uintptr_t)mmap(NULL, (size_t)PAGES * FIRN_PAGE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_false(pin_is_announced());
    pin_announce();
    assert_true(pin_is_announced());
    return fault_start(heap, (size_t)PAGES * FIRN_PAGE) ? 0 : 1;
}

// A thread that libc is creating blocks every signal; only `protect` minds.
static bool stage(unsigned page) {
    return fault_stage(heap + page * (uintptr_t)FIRN_PAGE, FIRN_PAGE);
}

static void release(unsigned page) {
    fault_release(heap + page * (uintptr_t)FIRN_PAGE, FIRN_PAGE);
}

static void pinned_pages_are_not_staged(void **state) {
    (void)state;
    unsigned pin = pin_enter(heap + FIRN_PAGE + 100, FIRN_PAGE); // pages 1 and 2
    assert_false(stage(1));
    assert_false(stage(2));
    assert_true(stage(0));
    assert_true(stage(3));
    release(0);
    release(3);
    pin_leave(pin);
    assert_true(stage(1));
    release(1);
    // To the last byte and not beyond.
    pin = pin_enter(heap, FIRN_PAGE);
    assert_true(stage(1));
    release(1);
    assert_false(stage(0));
    pin_leave(pin);
}

static void calls_nest(void **state) {
    (void)state;
    unsigned pins[PIN_DEPTH + 2];
    for (unsigned i = 0; i < PIN_DEPTH; i++) {
        pins[i] = pin_enter(heap + i * (uintptr_t)FIRN_PAGE, 8);
    }
    assert_true(stage(PIN_DEPTH));
    release(PIN_DEPTH);
    for (unsigned i = PIN_DEPTH; i < PIN_DEPTH + 2; i++) {
        pins[i] = pin_enter(heap, 8);
        assert_false(stage(PAGES - 1)); // no entry left: everything is pinned
    }
    for (unsigned i = PIN_DEPTH + 2; i > 0; i--) {
        pin_leave(pins[i - 1]);
    }
    for (unsigned i = 0; i < PAGES; i++) {
        assert_true(stage(i));
        release(i);
    }
}

static atomic_bool is_in;

static void *call_once(void *unused) {
    unsigned pin = pin_enter(heap + 5, 10);
    is_in = true;
    pin_leave(pin);
    return unused;
}

static void calls_wait_for_what_is_staged(void **state) {
    (void)state;
    pthread_t t;
    struct timespec some = {0, 30000000};
    assert_true(stage(0));
    assert_int_equal(pthread_create(&t, NULL, call_once, NULL), 0);
    nanosleep(&some, NULL);
    assert_false(is_in);
    release(0);
    pthread_join(t, NULL);
    assert_true(is_in);
}

static void *leave_pinned(void *unused) {
    (void)pin_enter(heap, 8);
    return unused; // as a thread that is cancelled in the middle of a call
}

// More than there are slots for, one after the other, each with a pin of its own for ever.
static void pins_end_with_their_thread(void **state) {
    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_t t;
        assert_int_equal(pthread_create(&t, NULL, leave_pinned, NULL), 0);
        pthread_join(t, NULL);
    }
    assert_true(stage(0));
    release(0);
}

static void forked_children_start_anew(void **state) {
    (void)state;
    unsigned pin = pin_enter(heap, 8);
    pid_t child = fork();
    if (child == 0) {
        fault_after_fork_in_child();
        bool is_right = !stage(0) && stage(1); // its own pin stays: it is in that call
        pin_leave(pin);
        _exit(is_right && stage(0) ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    pin_leave(pin);
}

static atomic_bool is_over;
static atomic_uint faults, calls;

static void *call_kernel(void *unused) {
    for (unsigned i = 0; i < ROUNDS; i++) {
        uintptr_t p = heap + i % PAGES * (uintptr_t)FIRN_PAGE + i % 1000;
        unsigned pin = pin_enter(p, 16);
        if (syscall(SYS_getrandom, p, 16, 0) != 16) {
            faults++;
        }
        pin_leave(pin);
        calls++;
    }
    return unused;
}

static void *stage_all(void *unused) {
    for (unsigned i = 0; !is_over; i++) {
        if (stage(i % PAGES)) {
            release(i % PAGES);
        }
    }
    return unused;
}

static void no_call_fails(void **state) {
    (void)state;
    pthread_t t[4];
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, i < 3 ? call_kernel : stage_all, NULL), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
    }
    is_over = true;
    pthread_join(t[3], NULL);
    assert_int_equal(faults, 0);
    assert_int_equal(calls, 3 * ROUNDS);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pinned_pages_are_not_staged),
        cmocka_unit_test(calls_nest),
        cmocka_unit_test(calls_wait_for_what_is_staged),
        cmocka_unit_test(pins_end_with_their_thread),
        cmocka_unit_test(forked_children_start_anew),
        cmocka_unit_test(no_call_fails),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
