// Compaction that is asked for on a stack which lies in a small block, as those of coroutines may: it neither waits
// for itself nor changes a byte.
// firn-test: timeout=120
#include "tests/api/api.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <cmocka.h>

#pragma weak firn_compact
size_t firn_compact(void);

// Slots of 3.5 pages or so: they share pages, so that these can be merged.
enum { BLOCKS = 3000, BYTES = 14000, KEPT_EVERY = 16, PATTERN = 0x5a };

static unsigned char *blocks[BLOCKS];
static ucontext_t main_context, coroutine_context;
static size_t gained;

static void coroutine(void) {
    volatile char local[64];
    memset((char *)local, PATTERN, sizeof local);
    gained = firn_compact();
    for (unsigned i = 0; i < sizeof local; i++) {
        gained = local[i] == PATTERN ? gained : 0;
    }
}

static void run_on(unsigned char *stack) {
    assert_int_equal(getcontext(&coroutine_context), 0);
    coroutine_context.uc_stack.ss_sp = stack;
    coroutine_context.uc_stack.ss_size = BYTES;
    coroutine_context.uc_link = &main_context;
    makecontext(&coroutine_context, coroutine, 0);
    assert_int_equal(swapcontext(&main_context, &coroutine_context), 0);
}

static void test_compacts_on_a_stack_in_a_block(void **nothing) {
    (void)nothing;
    if (firn_compact == NULL) {
        skip();
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BYTES);
        assert_non_null(blocks[i]);
        memset(blocks[i], (int)(i & 0xff), BYTES);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (i % KEPT_EVERY != 0) {
            free(blocks[i]);
        }
    }
    run_on(blocks[KEPT_EVERY]);
    assert_true(gained > 0);
    for (unsigned i = 2 * KEPT_EVERY; i < BLOCKS; i += KEPT_EVERY) {
        for (unsigned k = 0; k < BYTES; k++) {
            assert_int_equal(blocks[i][k], i & 0xff);
        }
        free(blocks[i]);
    }
    free(blocks[0]);
    free(blocks[KEPT_EVERY]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compacts_on_a_stack_in_a_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
