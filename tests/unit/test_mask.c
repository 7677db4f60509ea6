// Canaries are taken out of a page and put back: right ones, missing ones, broken ones.
#include "src/cold/mask.h"

#include "hardening/canary.h"
#include "hardening/slack.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCKS = 400, SIZES = 6 };
static const size_t sizes[SIZES] = {16, 100, 500, 1000, 5000, 20000};
static const uintptr_t site = 0x409000;

static uintptr_t page_of(const void *p) {
    return (uintptr_t)p & ~(uintptr_t)(FIRN_PAGE - 1);
}

static int start(void **state) {
    (void)state;
    life_start();
    return 0;
}

static void test_pages_of_blocks(void **state) {
    (void)state;
    static _Alignas(8) unsigned char copy[FIRN_PAGE];
    for (unsigned k = 0; k < SIZES; k++) {
        unsigned char *blocks[BLOCKS];
        unsigned changed = 0;
        for (unsigned i = 0; i < BLOCKS; i++) {
            blocks[i] = heap_alloc(sizes[k], site);
            assert_non_null(blocks[i]);
            memset(blocks[i], (int)i | 1, sizes[k]);
        }
        for (unsigned i = 0; i < BLOCKS; i++) {
            uintptr_t page = page_of(blocks[i]);
            memcpy(copy, (const void *)page, FIRN_PAGE);
            mask_page(page, copy);
            changed += memcmp(copy, (const void *)page, FIRN_PAGE) != 0;
            mask_page(page, copy);
            assert_memory_equal(copy, (const void *)page, FIRN_PAGE);
        }
        // On some pages of the blocks above a page no slot ends; guarded samples have none.
        unsigned least = sizes[k] < FIRN_PAGE ? BLOCKS * 9 / 10 : 0;
        assert_true(FIRN_CANARY ? changed >= least : changed == 0);
        for (unsigned i = 0; i < BLOCKS; i++) {
            heap_free(blocks[i], site);
        }
    }
}

// The canary of a block, at the end of its slot, is zeros when masked, and a broken one comes back broken.
static void test_one_block(void **state) {
    (void)state;
    static _Alignas(8) unsigned char copy[FIRN_PAGE];
    if (!FIRN_CANARY) {
        return;
    }
    unsigned char *p = heap_alloc(504, site); // all of its slot
    size_t usable = heap_usable(p, site);
    uintptr_t place = (uintptr_t)p + usable;
    uintptr_t page = place & ~(uintptr_t)(FIRN_PAGE - 1);
    uint64_t *word = (uint64_t *)(void *)(copy + (place - page));
    memcpy(copy, (const void *)page, FIRN_PAGE);
    assert_int_not_equal(*word, 0);
    uint64_t right = *word;
    mask_page(page, copy);
    assert_int_equal(*word, 0);
    mask_page(page, copy);
    assert_int_equal(*word, right);
    *word ^= 0x40;
    mask_page(page, copy);
    assert_int_equal(*word, 0x40);
    mask_page(page, copy);
    assert_int_equal(*word, right ^ 0x40);
    heap_free(p, site);
}

// What is left over of a slot is zeros, too, whatever was written there, and where the canary is broken as it was.
static void test_what_is_left_over(void **state) {
    (void)state;
    static _Alignas(8) unsigned char copy[FIRN_PAGE], zeros[FIRN_PAGE];
    if (!FIRN_SLACK) {
        return;
    }
    unsigned char *p = heap_alloc(457, site);
    // The whole slot on one page, and no guarded sample.
    while (page_of(p) != page_of(p + 511) || canary_change((uintptr_t)p, 512) != 0) {
        p = heap_alloc(457, site);
    }
    size_t at = (size_t)(p - (unsigned char *)page_of(p)), left = 512 - 8 - 457;
    memset(p, 'x', 457);
    memcpy(copy, (const void *)page_of(p), FIRN_PAGE);
    mask_page(page_of(p), copy);
    assert_memory_equal(copy + at, p, 457);
    assert_memory_equal(copy + at + 457, zeros, left);
    p[460] ^= 0x11;
    memcpy(copy, (const void *)page_of(p), FIRN_PAGE);
    mask_page(page_of(p), copy);
    assert_int_equal(copy[at + 460], 0x11);
    mask_page(page_of(p), copy);
    assert_memory_equal(copy, (const void *)page_of(p), FIRN_PAGE);
    p[460] ^= 0x11;
    // A number that is larger than the slot: from its first byte on, there and back.
    uint64_t *word = (uint64_t *)(void *)(copy + at + 504);
    *word |= CANARY_SIZE_BITS;
    static unsigned char before[FIRN_PAGE];
    memcpy(before, copy, FIRN_PAGE);
    mask_page(page_of(p), copy);
    mask_page(page_of(p), copy);
    assert_memory_equal(copy, before, FIRN_PAGE);
}

static void test_other_memory_is_left_alone(void **state) {
    (void)state;
    static _Alignas(8) unsigned char copy[FIRN_PAGE], zeros[FIRN_PAGE];
    mask_page(page_of(copy), copy);
    assert_memory_equal(copy, zeros, FIRN_PAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_of_blocks),
        cmocka_unit_test(test_one_block),
        cmocka_unit_test(test_what_is_left_over),
        cmocka_unit_test(test_other_memory_is_left_alone),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
