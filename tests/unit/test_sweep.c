// P-SWEEP: what the sweep sees, what it leaves alone, and that right programs pass it.
#include "src/heap/sweep.h"

#include "hardening/slack.h"
#include "src/heap/heap.h"
#include "src/os/lock.h"
#include "src/os/map.h"
#include "tests/support/child.h"
#include "tests/support/memory.h"
#include "tests/support/small_case.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uintptr_t site = 0x40c000;
enum { BLOCKS = 3000, SIZE = 100 };

static int start(void **state) {
    return small_start(state) == 0 && small_attach() != NULL ? 0 : -1;
}

// Blocks of many sizes, every third freed.
static void fill(char **block) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        block[i] = heap_alloc(i % 700, site);
        memset(block[i], 0xff, i % 700);
    }
    for (unsigned i = 0; i < BLOCKS; i += 3) {
        heap_free(block[i], site);
        block[i] = NULL;
    }
}

static void whole_heaps_pass(void **state) {
    static char *block[BLOCKS];
    (void)state;
    fill(block);
    sweep_at_exit(1000);
    for (unsigned i = 0; i < 1000; i++) {
        sweep_some();
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (block[i] != NULL) {
            heap_free(block[i], site);
        }
    }
    sweep_at_exit(1000);
}

static void overflow(void *context) {
    static char *block[BLOCKS];
    fill(block);
    char *p = block[SIZE];
    size_t usable = slack_most(span_class(small_span(p))->bytes);
    p[usable] ^= 1;
    if (*(const bool *)context) {
        sweep_at_exit(1000);
    } else {
        for (unsigned i = 0; i < 1000; i++) {
            sweep_some();
        }
    }
}

static void stale(void *context) {
    static char *block[BLOCKS];
    fill(block);
    char *p = block[SIZE];
    heap_free(p, site);
    p[*(const unsigned *)context] = 1;
    sweep_at_exit(1000);
}

static void damage_is_found(void **state) {
    (void)state;
    struct child c;
    for (unsigned i = 0; FIRN_CANARY && i < 2; i++) {
        bool is_exit = i == 0;
        child_run(&c, overflow, &is_exit);
        assert_true(child_died_of(&c, SIGABRT));
        assert_non_null(
            strstr(c.said, is_exit ? "firn: overflow: exit(" : "firn: overflow: sweep("));
    }
    for (unsigned at = 0; FIRN_VERIFY && at < 100; at += 33) {
        child_run(&c, stale, &at);
        assert_true(child_died_of(&c, SIGABRT));
        assert_non_null(strstr(c.said, "firn: write-after-free: exit("));
    }
}

// Nothing is touched that is not there: half a span of large slots never was.
static void absent_pages_stay_so(void **state) {
    (void)state;
    char *p = heap_alloc(20000, site);
    uintptr_t base = span_base(small_span(p));
    size_t bytes = (size_t)span_class(small_span(p))->span_mask + 1;
    unsigned char before[64], after[64];
    assert_true(map_find_resident(base, bytes, before));
    sweep_at_exit(1000);
    assert_true(map_find_resident(base, bytes, after));
    assert_memory_equal(before, after, bytes / FIRN_PAGE);
    heap_free(p, site);
}

// Other threads hand out slots for the first time while all are looked at: a canary that was not there a
// moment ago is none that somebody overwrote. (Found in one of 300 processes: so the heap is small, and
// new, each time.)
static atomic_uint working;

static void *hand_out(void *unused) {
    enum { SLOTS = 1500 };
    for (unsigned i = 0; i < SLOTS; i++) {
        void *p = heap_alloc(SIZE + i % 8 * 32, site);
        if (i % 2 == 0) {
            heap_free(p, site);
        }
    }
    atomic_fetch_sub(&working, 1);
    return unused;
}

static void look_on(void *unused) {
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    (void)unused;
    atomic_store(&working, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        NEED(pthread_create(&threads[i], NULL, hand_out, NULL) == 0);
    }
    while (atomic_load(&working) > 0) {
        sweep_at_exit(1000);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
}

static void new_slots_of_other_threads_pass(void **state) {
    const bool is_thorough = getenv("FIRN_THOROUGH") != NULL;
    (void)state;
    for (unsigned i = 0; i < (is_thorough ? 1000 : 100); i++) {
        assert_true(small_run(look_on, NULL));
    }
}

// exit, called by a signal handler that interrupted a slow path.
static void a_held_lock_is_no_trap(void **state) {
    (void)state;
    struct lock lock = LOCK_INIT(LOCK_CLASS);
    lock_acquire(&lock);
    sweep_at_exit(1000);
    lock_release(&lock);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        // First: a child takes over the spans of earlier caches as torn, and those are passed over.
        cmocka_unit_test_setup(damage_is_found, start),
        cmocka_unit_test_setup(whole_heaps_pass, start),
        cmocka_unit_test_setup(absent_pages_stay_so, start),
        cmocka_unit_test_setup(a_held_lock_is_no_trap, start),
        cmocka_unit_test_setup(new_slots_of_other_threads_pass, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
