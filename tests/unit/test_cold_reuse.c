// Memory that is freed and used again while the cold tier has, or is about to have, its pages: nothing of what
// was there before comes back, and nothing of what is written there goes.
// firn-test: levels=1,2,3 timeout=300 sanitize=none
#include "src/cold/cold.h"

#include "src/heap/life.h"
#include "src/heap/own.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BLOCKS = 24000, BYTES = 500, LARGE = 40, LARGE_BYTES = 300000 };
#include "tests/support/cold_blocks.h"

static bool is_half_frozen(void) {
    return count_frozen() >= BLOCKS / 2;
}

static bool are_zeros(const unsigned char *p, size_t n) {
    return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

// What is freed is checked, too, when it is handed out: old bytes there would end the process.
static void use_again(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = heap_alloc_zeroed(BYTES, site);
        if (blocks[i] == NULL || !are_zeros(blocks[i], BYTES)) {
            _exit(2);
        }
    }
    for (unsigned i = 0; i < LARGE; i++) {
        large[i] = heap_alloc_zeroed(LARGE_BYTES, site);
        if (large[i] == NULL || !are_zeros(large[i], LARGE_BYTES)) {
            _exit(3);
        }
    }
}

// `body` in a child that is forked when the pages of `is_done` are away; it ends by _exit(0).
static void run_in_child(bool (*is_done)(void), void (*body)(void)) {
    allocate();
    cold_case_freeze(is_done);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        alarm(200);
        body();
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    release();
}

static void free_and_use(void) {
    release();
    cold_case_sleep(300);
    use_again();
    release();
    use_again();
}

// Child: frees all, and gives it back to the kernel. Parent: fills the holes that the child had when it was
// forked, which are holes again. Child: uses them.
static void test_a_child_frees_what_its_parent_fills(void **state) {
    (void)state;
    run_in_child(is_half_frozen, free_and_use);
}

static unsigned char *first_frozen(unsigned char *block, size_t bytes) {
    for (size_t at = 4096; at + 2 * 4096 <= bytes; at += 4096) {
        unsigned char *page = (unsigned char *)((uintptr_t)(block + at) & ~(uintptr_t)4095);
        if (page_state_get((uintptr_t)page) == PAGE_FROZEN) {
            return page;
        }
    }
    return NULL;
}

static bool is_large_frozen(void) {
    return first_frozen(large[0], LARGE_BYTES) != NULL;
}

// As madvise does (preload/pages.c).
static void drop(unsigned char *page) {
    if (!own_pages(page, 4096) || madvise(page, 4096, MADV_DONTNEED) != 0) {
        _exit(4);
    }
    own_drop((uintptr_t)page, 4096);
}

static void drop_and_look(void) {
    unsigned dropped = 0;
    for (unsigned i = 0; i < LARGE; i++) {
        unsigned char *page = first_frozen(large[i], LARGE_BYTES);
        if (page == NULL) {
            continue;
        }
        dropped++;
        drop(page);
        cold_case_sleep(20);
        unsigned char letter = (unsigned char)('a' + (int)(i % 20));
        if (!are_zeros(page, 4096) || page[-1] != letter || page[4096] != letter) {
            _exit(5);
        }
    }
    if (dropped == 0) {
        _exit(6);
    }
}

// What Redis's child does with what it does not need. Its parent would fill the page in again.
static void test_a_child_drops_what_its_parent_fills(void **state) {
    (void)state;
    run_in_child(is_large_frozen, drop_and_look);
}

// A page that is away is dropped or moved: it is not to come back, and to come along.
static void test_pages_of_a_large_block_are_the_programs(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(is_large_frozen);
    unsigned char *page = first_frozen(large[0], LARGE_BYTES);
    drop(page);
    cold_case_sleep(2 * COLD_CASE_AFTER_MS);
    assert_true(are_zeros(page, 4096));
    memset(page, 'a', 4096);

    cold_case_freeze(is_large_frozen);
    page = first_frozen(large[0], LARGE_BYTES);
    unsigned char *to = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(to, MAP_FAILED);
    assert_true(own_pages(page, 4096));
    assert_ptr_equal(mremap(page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
    assert_true(to[0] == 'a' && memcmp(to, to + 1, 4095) == 0);
    assert_ptr_equal(mremap(to, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, page), page);
    release();
}

// Cold tier: marks pages of a block as staged. Program: frees the block, gets the same memory for another one and
// writes to it. Cold tier: moves what is there now.
static void test_a_block_is_freed_while_it_goes(void **state) {
    (void)state;
    enum { ROUNDS = 800, SIZE = 400000 };
    if (cold_case_stats().reason != NULL) {
        skip();
    }
    cold_choose(true, 60000, 0, 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned char *p = heap_alloc(SIZE, site);
        assert_non_null(p);
        memset(p, 'a' + (int)(round % 20), SIZE);
        cold_hint_cold((uintptr_t)p, SIZE);
        for (volatile unsigned spin = 0; spin < round % 64 * 4000; spin++) {
        }
        assert_true(p[0] == 'a' + (int)(round % 20) && memcmp(p, p + 1, SIZE - 1) == 0);
        heap_free(p, site);
    }
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_child_frees_what_its_parent_fills),
        cmocka_unit_test(test_a_child_drops_what_its_parent_fills),
        cmocka_unit_test(test_pages_of_a_large_block_are_the_programs),
        cmocka_unit_test(test_a_block_is_freed_while_it_goes),
    };
    return cmocka_run_group_tests(tests, cold_case_start, NULL);
}
