// The staging area: slots in order, neighbours together, given back in order.
// firn-test: sanitize=none
#include "src/cold/stage.h"

#include "src/cold/table.h"
#include "src/meta/page_state.h"
#include "src/meta/root.h"
#include "src/os/caps.h"
#include "src/os/missing.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int start(void **state) {
    (void)state;
    caps_probe(~0u);
    return root_start() ? 0 : 1;
}

static void test_slots_come_back_in_order(void **state) {
    (void)state;
    uint32_t slot;
    uintptr_t page = FIRN_ROOT.small_base + 5 * FIRN_PAGE, address;
    uint64_t due;
    const char *why = missing_open(FAULT_EVENT);
    if (why != NULL) {
        print_message("%s\n", why);
        skip();
    }
    assert_true(stage_start());
    assert_false(stage_oldest(&slot, &address, &due));
    uint32_t first = stage_take(page, 3, 100);
    uint32_t second = stage_take(page + 64 * FIRN_PAGE, 64, 200);
    assert_int_equal(second, first + 3);
    assert_int_equal(stage_address(second), stage_address(first) + 3 * FIRN_PAGE);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(stage_oldest(&slot, &address, &due));
        assert_true(slot == first + i && address == page + i * FIRN_PAGE && due == 100);
        *(volatile char *)stage_address(slot) = 1;
        stage_give_oldest();
    }
    stage_flush();
    assert_int_equal(*(volatile char *)stage_address(first), 0);
    assert_true(stage_oldest(&slot, &address, &due) && slot == second && due == 200);
    // All there is, and no more; no run of neighbours lies across the end.
    uint32_t left = STAGE_SLOTS - 67;
    assert_true(stage_take(page, left - 10, 300) != STAGE_NONE);
    assert_int_equal(stage_take(page, 64, 300), STAGE_NONE);
    uint32_t given = 0;
    while (stage_oldest(&slot, &address, &due)) {
        stage_give_oldest();
        given++;
    }
    assert_int_equal(given, left - 10 + 64);
    stage_flush();
    assert_int_equal(stage_take(page, 64, 400), 0); // from the start again
    missing_close();
}

static void test_table_knows_chunks(void **state) {
    (void)state;
    uintptr_t page = FIRN_ROOT.small_base + 3 * CHUNK_BYTES + 7 * FIRN_PAGE;
    assert_null(table_find(page));
    assert_null(table_find(0));
    assert_null(table_find(FIRN_ROOT.small_base + FIRN_ROOT.small_bytes));
    assert_null(table_make(FIRN_ROOT.small_base - 1));
    struct chunk *c = table_make(page);
    assert_non_null(c);
    assert_ptr_equal(table_make(page + FIRN_PAGE), c);
    assert_ptr_equal(table_find(page - 7 * FIRN_PAGE), c);
    assert_null(table_find(page + CHUNK_BYTES));
    assert_ptr_equal(table_page(c, page), &c->pages[7]);
    assert_true(page_state_move(page, PAGE_FRESH, PAGE_RESIDENT)); // it has its byte
    assert_ptr_equal(table_first(), c);
    struct chunk *far = table_make(FIRN_ROOT.small_base + FIRN_ROOT.small_bytes - 1);
    assert_true(far != NULL && table_first() == far && far->next == c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slots_come_back_in_order),
        cmocka_unit_test(test_table_knows_chunks),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
