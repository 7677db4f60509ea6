// Locks: exclusion, waking, errno, the rank order of debug builds, and a child's reset.
// firn-test: share=2 sanitize=address,thread
#include "src/os/lock.h"

#include "src/base/config.h"
#include "tests/support/child.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { THREADS = 4, ROUNDS = 50000 };

static struct lock lock = LOCK_INIT(LOCK_CLASS);
static unsigned long counter; // plain on purpose: the lock is what makes it right

static void *count(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        lock_acquire(&lock);
        counter++;
        lock_release(&lock);
    }
    return unused;
}

static void excludes(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    counter = 0;
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, count, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(counter, THREADS * ROUNDS);
    assert_int_equal(lock.state, 0);
}

static void *take_and_set(void *flag) {
    int before = errno = 77;
    lock_acquire(&lock);
    *(int *)flag = errno == before ? 1 : 2;
    lock_release(&lock);
    *(int *)flag += errno == before ? 0 : 4;
    return NULL;
}

// The waiter sleeps in the kernel by the time the lock is released.
static void wakes_and_keeps_errno(void **state) {
    (void)state;
    pthread_t threads[2];
    int flags[2] = {0, 0};
    lock_acquire(&lock);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_set, &flags[i]), 0);
    }
    usleep(50000);
    errno = 55;
    lock_release(&lock);
    assert_int_equal(errno, 55);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(flags[i], 1);
    }
}

static void *try_it(void *got) {
    *(bool *)got = lock_try(&lock);
    if (*(bool *)got) {
        lock_release(&lock);
    }
    return NULL;
}

static bool another_thread_gets_it(void) {
    pthread_t thread;
    bool got = false;
    assert_int_equal(pthread_create(&thread, NULL, try_it, &got), 0);
    pthread_join(thread, NULL);
    return got;
}

static void tries(void **state) {
    (void)state;
    assert_true(lock_try(&lock));
    assert_false(another_thread_gets_it());
    lock_release(&lock);
    assert_true(another_thread_gets_it());
}

static struct lock ranked[3] = {LOCK_INIT(LOCK_CLASS), LOCK_INIT(LOCK_CLASS),
                                LOCK_INIT(LOCK_LARGE)};

static void take_in_order(void *order) {
    for (const char *c = order; *c != '\0'; c++) {
        struct lock *l = &ranked[(*c | 0x20) - 'a'];
        if (*c >= 'a') {
            lock_acquire(l);
        } else {
            lock_release(l);
        }
    }
}

static void check_order(const char *order, bool is_allowed) {
    struct child c;
    char text[16];
    strncpy(text, order, sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    child_run(&c, take_in_order, text);
    assert_int_equal(child_exited(&c, 0), is_allowed);
    if (!is_allowed) {
        assert_true(child_died_of(&c, SIGABRT));
        assert_non_null(strstr(c.said, "firn: internal-error: "));
    }
}

// Lower case acquires, upper case releases; a and b are of one rank, c of a higher one.
static void ranks_are_checked(void **state) {
    (void)state;
    if (!FIRN_DEBUG) {
        skip();
    }
    check_order("abcCBA", true);
    check_order("abcABC", true);
    check_order("acCcCA", true);
    check_order("abAbc", false);
    check_order("ca", false);
    check_order("ba", false);
    check_order("aa", false);
    check_order("A", false);
    check_order("aAA", false);
}

// What cannot wait may be out of order; what is taken after it may not.
static void try_is_exempt(void **state) {
    (void)state;
    lock_acquire(&ranked[2]);
    assert_true(lock_try(&ranked[0]));
    lock_release(&ranked[2]);
    lock_acquire(&ranked[1]);
    lock_release(&ranked[1]);
    lock_release(&ranked[0]);
}

static void reset_in_child(void *unused) {
    (void)unused;
    for (int i = 0; i < 3; i++) {
        lock_reset(&ranked[i]);
    }
    for (int i = 0; i < 3; i++) {
        lock_acquire(&ranked[i]);
    }
}

static void child_resets(void **state) {
    (void)state;
    struct child c;
    lock_acquire(&ranked[0]);
    lock_acquire(&ranked[2]);
    child_run(&c, reset_in_child, NULL);
    assert_true(child_exited(&c, 0));
    lock_release(&ranked[2]);
    lock_release(&ranked[0]);
}

// A thread that holds everything passes through every lock; nobody else does.
static void all_held(void **state) {
    (void)state;
    struct lock other = LOCK_INIT(LOCK_CLASS);
    lock_acquire(&lock);
    lock_set_all_held(true);
    lock_acquire(&lock);
    lock_acquire(&other);
    assert_true(lock_try(&lock));
    lock_release(&other);
    lock_release(&lock);
    assert_false(another_thread_gets_it());
    assert_int_equal(other.state, 0);
    lock_set_all_held(false);
    lock_release(&lock);
    assert_true(another_thread_gets_it());
}

static void knows_whether_it_holds_any(void **state) {
    (void)state;
    assert_false(lock_is_any_held());
    lock_acquire(&ranked[0]);
    lock_acquire(&ranked[2]);
    lock_release(&ranked[0]);
    assert_true(lock_is_any_held());
    lock_release(&ranked[2]);
    assert_false(lock_is_any_held());
    assert_true(lock_try(&lock));
    assert_true(lock_is_any_held());
    lock_release(&lock);
    assert_false(lock_is_any_held());
    // Not after a try that failed either.
    lock.state = 1;
    assert_false(lock_try(&lock));
    assert_false(lock_is_any_held());
    lock_reset(&lock);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(excludes),      cmocka_unit_test(wakes_and_keeps_errno),
        cmocka_unit_test(tries),         cmocka_unit_test(ranks_are_checked),
        cmocka_unit_test(try_is_exempt), cmocka_unit_test(child_resets),
        cmocka_unit_test(all_held),      cmocka_unit_test(knows_whether_it_holds_any),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
