// Small and large blocks for tests of the cold tier, each with bytes of its own: BLOCKS of BYTES, LARGE of LARGE_BYTES,
// enumerators that the test has defined before. Include it once.
#ifndef FIRN_TESTS_COLD_BLOCKS_H
#define FIRN_TESTS_COLD_BLOCKS_H

#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/meta/page_state.h"
#include "src/os/pin.h"
#include "tests/support/cold_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uintptr_t site = 0x409000;
static unsigned char *blocks[BLOCKS], *large[LARGE];

static inline void fill(unsigned char *p, unsigned n, unsigned i) {
    memset(p, 'a' + (int)(i % 20), n);
    memcpy(p, &i, sizeof i);
}

static inline bool is_filled(const unsigned char *p, unsigned n, unsigned i) {
    unsigned found;
    memcpy(&found, p, sizeof found);
    return found == i && p[sizeof i] == 'a' + i % 20 &&
           memcmp(p + sizeof i, p + sizeof i + 1, n - sizeof i - 1) == 0;
}

// What came back before is forgotten: after that much, pages would have to be older.
static inline void allocate(void) {
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

static inline void release(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(blocks[i], site);
    }
    for (unsigned i = 0; i < LARGE; i++) {
        heap_free(large[i], site);
    }
    (void)heap_trim();
}

static inline unsigned count_wrong(void) {
    unsigned wrong = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        wrong += !is_filled(blocks[i], BYTES, i);
    }
    for (unsigned i = 0; i < LARGE; i++) {
        wrong += !is_filled(large[i], LARGE_BYTES, i);
    }
    return wrong;
}

static inline bool is_frozen(const void *p) {
    return page_state_get((uintptr_t)p) == PAGE_FROZEN;
}

// The heap, and the cold tier under that engine. False: it cannot be had.
static inline bool start_cold(enum fault_engine engine) {
    life_start();
    pin_announce();
    cold_choose_engine(engine);
    bool is_settled = engine != FAULT_PROTECT || cold_settle_engine() == engine;
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
    upkeep_add_cold(); // forks are to be heard of
    cold_upkeep();
    return is_settled;
}

// Of the small blocks.
static inline unsigned count_frozen(void) {
    unsigned n = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        n += is_frozen(blocks[i]);
    }
    return n;
}

static inline bool are_small_mostly_frozen(void) {
    return count_frozen() >= BLOCKS * 8 / 10;
}

#endif
