// Stacks along frame pointers, on the main stack, on a thread's, and from what is no frame at all.
// firn-test: share=2
#include "src/os/walk.h"

#include "src/base/compiler.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { MOST = 16 };

static uintptr_t frames[MOST];
static size_t count;

// A chain made by hand: the library is compiled without frame pointers, and so is this test.
struct frame {
    uintptr_t next, pc;
};

static uintptr_t pcs[3];

static FIRN_NOINLINE void note(unsigned i) {
    pcs[i] = FIRN_CALLER();
}

static void note_all(void) {
    for (unsigned i = 0; i < 3; i++) {
        note(i);
    }
}

static void follow_chain(void) {
    // What is in front of the chain is zero: else it looks like a call once in a hundred runs, and the
    // chain's own address, below, like a return address.
    struct frame room[4] = {{0, 0}};
    struct frame *chain = &room[1];
    chain[0] = (struct frame){(uintptr_t)&chain[1], pcs[0]};
    chain[1] = (struct frame){(uintptr_t)&chain[2], pcs[1]};
    chain[2] = (struct frame){0, pcs[2]};
    uintptr_t above = (uintptr_t)chain - sizeof(uintptr_t);
    count = walk_from(above, (uintptr_t)chain, frames, 1, MOST);
    assert_int_equal(count, 4);
    assert_memory_equal(&frames[1], pcs, sizeof pcs);
    assert_int_equal(walk_from(above, (uintptr_t)chain, frames, 0, 2), 2);
    // Downwards, crooked, far away, and through a value that is no return address.
    assert_int_equal(walk_from((uintptr_t)&chain[2], (uintptr_t)chain, frames, 1, MOST), 1);
    assert_int_equal(walk_from(above, (uintptr_t)chain + 4, frames, 1, MOST), 1);
    assert_int_equal(walk_from(above, above + ((uintptr_t)1 << 30), frames, 1, MOST), 1);
    chain[1].pc = (uintptr_t)chain;
    assert_int_equal(walk_from(above, (uintptr_t)chain, frames, 1, MOST), 2);
}

static void on_the_main_stack(void **state) {
    (void)state;
    follow_chain();
}

static void *follow_in_thread(void *context) {
    (void)context;
    follow_chain();
    return NULL;
}

static void on_another_stack(void **state) {
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, follow_in_thread, NULL), 0);
    pthread_join(thread, NULL);
}

// rbp holds anything: an address where nothing is, right above one where something is.
static void into_nowhere(void **state) {
    (void)state;
    char *p = mmap(NULL, 2 * FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    assert_int_equal(mprotect(p + FIRN_PAGE, FIRN_PAGE, PROT_NONE), 0);
    uintptr_t at = (uintptr_t)p;
    assert_int_equal(walk_from(at, at + FIRN_PAGE, frames, 1, MOST), 1);
    assert_int_equal(walk_from(at, at + FIRN_PAGE - 8, frames, 1, MOST), 1); // half of a frame
    struct frame last = {at + FIRN_PAGE, pcs[0]};
    memcpy(p + FIRN_PAGE - sizeof last, &last, sizeof last);
    assert_int_equal(walk_from(at, at + FIRN_PAGE - sizeof last, frames, 1, MOST), 2);
    munmap(p, 2 * FIRN_PAGE);
}

static void return_addresses(void **state) {
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        assert_true(walk_is_return_address(pcs[i]));
    }
    assert_false(walk_is_return_address(0));
    assert_false(walk_is_return_address((uintptr_t)-1));
    assert_false(walk_is_return_address((uintptr_t)&count));
}

static int start(void **state) {
    (void)state;
    walk_start(NULL, NULL);
    note_all();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_the_main_stack),
        cmocka_unit_test(on_another_stack),
        cmocka_unit_test(into_nowhere),
        cmocka_unit_test(return_addresses),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
