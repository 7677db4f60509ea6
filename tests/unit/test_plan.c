// Which page goes to which frame: what a plan promises, and how densely it packs.
#include "mesh/plan.h"

#include "mesh/pages.h"
#include "src/heap/life.h"
#include "src/meta/root.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { CELL = 3, GRANULES = 256 };

static struct plan plan; // too large for a stack
static uint64_t seed = 11;

static uint64_t draw(uint64_t bound) {
    return small_draw(&seed, bound);
}

// `first`: page of the cell.
static void begin(unsigned pages, unsigned first) {
    plan.count = pages;
    plan.stretch = PLAN_STRETCH;
    plan.span_pages = 32;
    plan.cycle = 1;
    for (unsigned i = 0; i < pages; i++) {
        plan.addresses[i] = root_cell_base(CELL) + ((uintptr_t)(first + i) << FIRN_PAGE_SHIFT);
        memset(plan.masks[i].mask, 0, sizeof plan.masks[i].mask);
    }
}

static void fill_slots(unsigned page, unsigned slot_granules, unsigned percent) {
    for (unsigned g = 0; g + slot_granules <= GRANULES; g += slot_granules) {
        if (draw(100) < percent) {
            search_set_granules(plan.masks[page].mask, g, slot_granules);
        }
    }
}

static bool is_user(unsigned i) {
    return plan.frames[i] != FRAME_NONE && !search_is_empty(plan.masks[i].mask);
}

// Nothing collides; no frame has one user; each use is held once. Returns how many pages have a frame.
static unsigned check_plan(void) {
    unsigned users = 0;
    for (unsigned i = 0; i < plan.count; i++) {
        unsigned of_frame = 0;
        uint64_t all[SEARCH_WORDS] = {0};
        for (unsigned k = 0; is_user(i) && k < plan.count; k++) {
            if (is_user(k) && plan.frames[k] == plan.frames[i]) {
                NEED(search_is_disjoint(all, plan.masks[k].mask));
                for (unsigned w = 0; w < SEARCH_WORDS; w++) {
                    all[w] |= plan.masks[k].mask[w];
                }
                of_frame++;
            }
        }
        if (is_user(i)) {
            NEED(of_frame >= 2 && frame_users(plan.frames[i]) == of_frame);
            users++;
        }
    }
    return users;
}

static void drop_plan(void) {
    for (unsigned i = 0; i < plan.count; i++) {
        if (is_user(i)) {
            frame_release(plan.frames[i]);
        }
    }
    NEED(frame_count() == 0);
}

// A tenth of the slots of each page: at least so many pages a frame, of ten at best.
static void packs(unsigned slot_granules, unsigned least) {
    enum { PAGES = 2000 };
    begin(PAGES, 0);
    unsigned occupied = 0;
    for (unsigned i = 0; i < PAGES; i++) {
        fill_slots(i, slot_granules, 10);
        occupied += !search_is_empty(plan.masks[i].mask);
    }
    plan_make(&plan, CELL);
    unsigned users = check_plan();
    NEED(users * 100 >= occupied * 98);
    NEED(users >= frame_count() * least);
    drop_plan();
}

static void packs_densely(void *context) {
    (void)context;
    packs(4, 3);  // 64 bytes
    packs(16, 4); // 256 bytes
    packs(32, 4); // 512 bytes
    packs(64, 2); // 1 KiB
}

static void test_packs_densely(void **state) {
    (void)state;
    assert_true(small_run(packs_densely, NULL));
}

// Every second slot was freed, in some spans the others: two pages a frame. All of them the same: none.
static void packs_regular_patterns(void *context) {
    enum { PAGES = 512 };
    (void)context;
    for (unsigned mixed = 0; mixed < 2; mixed++) {
        begin(PAGES, 0);
        for (unsigned i = 0; i < PAGES; i++) {
            unsigned parity = mixed && draw(2) == 0;
            for (unsigned g = parity * 4; g < GRANULES; g += 8) {
                search_set_granules(plan.masks[i].mask, g, 4);
            }
        }
        plan_make(&plan, CELL);
        unsigned users = check_plan();
        NEED(mixed ? users * 10 >= PAGES * 8 && frame_count() * 2 == users : users == 0);
        drop_plan();
    }
}

static void test_packs_regular_patterns(void **state) {
    (void)state;
    assert_true(small_run(packs_regular_patterns, NULL));
}

static void full_pages_stay(void *context) {
    (void)context;
    begin(8, 0);
    for (unsigned i = 0; i < 8; i++) {
        search_set_granules(plan.masks[i].mask, 0, GRANULES);
    }
    plan_make(&plan, CELL);
    NEED(check_plan() == 0);
    drop_plan();
    begin(0, 0);
    plan_make(&plan, CELL);
}

static void test_full_pages_stay(void **state) {
    (void)state;
    assert_true(small_run(full_pages_stay, NULL));
}

// Two equal runs of pages, far from each other, with a page in the middle that occupies nothing: each run
// is one stretch, on the same frames. The one in the middle is nobody's user.
static void runs_are_stretches(void *context) {
    enum { RUN = 4 };
    (void)context;
    begin(2 * RUN, 0);
    for (unsigned i = 0; i < 2 * RUN; i++) {
        unsigned second = i >= RUN;
        plan.addresses[i] += second ? (uintptr_t)1000 << FIRN_PAGE_SHIFT : 0;
        if (i % RUN != 1) {
            search_set_granules(plan.masks[i].mask, second ? 128 : 0, 100);
        }
    }
    plan_make(&plan, CELL);
    NEED(check_plan() == 2 * (RUN - 1));
    NEED(frame_count() == RUN - 1);
    for (unsigned i = 1; i < RUN; i++) {
        NEED(plan.frames[i] == plan.frames[0] + i && plan.frames[RUN + i] == plan.frames[i]);
    }
    unsigned users;
    NEED(plan_stretch(&plan, 0, &users) == RUN && users == RUN - 1);
    NEED(plan_stretch(&plan, 1, &users) == RUN - 1 && users == RUN - 2);
    NEED(plan_stretch(&plan, RUN - 1, &users) == 1 && users == 1); // the next address is elsewhere
    plan.span_pages = 1;
    NEED(plan_stretch(&plan, 0, &users) == 1 && users == 1);
    plan.span_pages = 2;
    NEED(plan_stretch(&plan, 0, &users) == 2 && users == 1);
    plan.span_pages = 32;
    drop_plan();
}

static void test_runs_are_stretches(void **state) {
    (void)state;
    assert_true(small_run(runs_are_stretches, NULL));
}

// The first page of a span in the cell, if spans have so many pages.
static unsigned span_start(unsigned span_pages) {
    return (unsigned)(-(root_cell_base(CELL) >> FIRN_PAGE_SHIFT) % span_pages);
}

// A page in use at the same place of two spans: what occupies nothing around it, in its span, goes along as far
// as the frames of the block reach.
static void neighbours_go_along(void *context) {
    enum { SPAN = 8, AT = 3 };
    unsigned users;
    (void)context;
    begin(3 * SPAN, span_start(SPAN));
    plan.span_pages = SPAN;
    search_set_granules(plan.masks[AT].mask, 0, 8);
    search_set_granules(plan.masks[2 * SPAN + AT].mask, 8, 8);
    plan_make(&plan, CELL);
    NEED(check_plan() == 2 && frame_count() == 1);
    unsigned place = frame_place(plan.frames[AT]);
    for (unsigned i = 0; i < 3 * SPAN; i++) {
        unsigned back = i % SPAN < AT ? AT - i % SPAN : 0;
        bool goes =
            i / SPAN != 1 && back <= place - (plan.frames[AT] == place); // frame 0 does not exist
        NEED(plan.frames[i] == (goes ? plan.frames[AT] + i % SPAN - AT : FRAME_NONE));
    }
    unsigned first = 2 * SPAN + (place > AT ? 0 : AT);
    NEED(plan_stretch(&plan, first, &users) == SPAN - first % SPAN && users == 1);
    drop_plan();
}

static void test_neighbours_go_along(void **state) {
    (void)state;
    assert_true(small_run(neighbours_go_along, NULL));
}

// Slots of 448 bytes lie in a page as in the seventh after it: only such pages share frames.
static void phases_are_kept(void *context) {
    enum { PAGES = 2048, SLOT = 28, CYCLE = 7, SPAN = 32 };
    (void)context;
    begin(PAGES, span_start(SPAN));
    plan.cycle = CYCLE;
    plan.stretch = 2;
    for (unsigned s = 0; s < PAGES / SPAN * (SPAN * GRANULES / SLOT); s++) {
        unsigned slots = SPAN * GRANULES / SLOT;
        unsigned first = s / slots * SPAN * GRANULES + s % slots * SLOT;
        unsigned end = draw(10) == 0 ? first + SLOT : first;
        for (unsigned g = first; g < end; g++) {
            search_set_granules(plan.masks[g / GRANULES].mask, g % GRANULES, 1);
        }
    }
    plan_make(&plan, CELL);
    NEED(check_plan() > 0);
    for (unsigned i = 0; i < PAGES; i++) {
        NEED(!is_user(i) || plan.frames[i] % CYCLE == i % SPAN % CYCLE);
    }
    NEED(frame_count() * 5 < PAGES);
    drop_plan();
}

static void test_phases_are_kept(void **state) {
    (void)state;
    assert_true(small_run(phases_are_kept, NULL));
}

static int start(void **state) {
    (void)state;
    life_start();
    return life_has_started() && frame_start() ? 0 : 1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packs_densely),       cmocka_unit_test(test_packs_regular_patterns),
        cmocka_unit_test(test_full_pages_stay),     cmocka_unit_test(test_runs_are_stretches),
        cmocka_unit_test(test_neighbours_go_along), cmocka_unit_test(test_phases_are_kept),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
