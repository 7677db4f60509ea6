// P-GUARD-SPAN. Fences between spans: where they are, that nothing gets past them, and what happens when guards
// cannot be had. Each case in a process of its own.
#include "src/span/region.h"

#include "src/base/config.h"
#include "src/heap/find.h"
#include "src/heap/life.h"
#include "src/os/caps.h"
#include "tests/support/memory.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { INDEXES = 4096 };

static struct random_stream stream;

static void start(void) {
    life_start();
    NEED(life_has_started());
}

static bool has_fences(void) {
    return FIRN_SPAN_GUARDS != 0 && !small_is_rationed();
}

static uintptr_t address_of(unsigned cell, uint32_t index) {
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    return root_cell_base(cell) + ((uintptr_t)index << c->span_shift);
}

static uint32_t take(unsigned cell) {
    struct span *s = region_take(cell, &stream);
    NEED(s != NULL);
    atomic_store(&s->state, SPAN_ACTIVE);
    return (uint32_t)((span_base(s) - root_cell_base(cell)) >> span_class(s)->span_shift);
}

static size_t span_bytes_of(unsigned cell) {
    return (size_t)FIRN_ROOT.classes[root_cell_class(cell)].span_mask + 1;
}

// Every page of it.
static bool is_guarded(unsigned cell, uint32_t index) {
    bool is_open = false;
    for (size_t at = 0; at < span_bytes_of(cell); at += FIRN_PAGE) {
        is_open |= memory_can_read(address_of(cell, index) + at);
    }
    return !is_open;
}

// ---- places -----------------------------------------------------------------------------------

static void look_at_places(void *context) {
    (void)context;
    start();
    unsigned group = FIRN_SPAN_GUARDS > 0 ? FIRN_SPAN_GUARDS : 1, hits[64] = {0}, same = 0;
    for (unsigned cell = 0; cell < root_cell(SIZE_CLASSES, 0); cell += 3) {
        for (uint32_t g = 0; g < 64; g++) {
            unsigned fences = 0, place = 0;
            for (unsigned i = 0; i < group; i++) {
                bool is_fence = region_is_fence(cell, g * group + i);
                fences += is_fence;
                place = is_fence ? i : place;
                same += is_fence && region_is_fence(cell + 1, g * group + i);
            }
            NEED(fences == (has_fences() ? 1 : 0));
            hits[place]++;
        }
    }
    unsigned groups = (root_cell(SIZE_CLASSES, 0) + 2) / 3 * 64;
    for (unsigned i = 0; i < group && has_fences() && group > 2; i++) {
        unsigned expected = groups / group; // at least 138: half as many is six deviations off
        NEED(hits[i] > expected / 2 && hits[i] < expected * 2);
    }
    NEED(!has_fences() || (group == 2 ? same == groups : same < groups * 2 / group));
}

static void one_in_each_group_at_a_secret_place(void **state) {
    (void)state;
    assert_true(small_run(look_at_places, NULL));
}

// ---- what they stop ---------------------------------------------------------------------------

// After each span taken: whoever runs on from it, in either direction, meets the first fence there is.
static void take_one_by_one(void *context) {
    unsigned cell = root_cell(*(unsigned *)context, 1 % FIRN_PARTITIONS);
    start();
    static bool taken[INDEXES];
    for (unsigned n = 0; n < 300; n++) {
        uint32_t index = take(cell);
        NEED(index < INDEXES && !region_is_fence(cell, index));
        NEED(!taken[index]);
        taken[index] = true;
        memset((void *)address_of(cell, index), 0x5a, span_bytes_of(cell));
        uint32_t until = firn_regions[cell].committed;
        for (uint32_t i = index + 1; i < until && has_fences(); i++) {
            if (region_is_fence(cell, i)) {
                NEED(is_guarded(cell, i));
                break;
            }
        }
        for (uint32_t i = index; i-- > firn_regions[cell].window_base && has_fences();) {
            if (region_is_fence(cell, i)) {
                NEED(is_guarded(cell, i));
                break;
            }
        }
    }
    for (uint32_t i = 0; i < firn_regions[cell].committed; i++) {
        NEED(region_is_fence(cell, i) || memory_can_write(address_of(cell, i)));
        NEED(!region_is_fence(cell, i) || !taken[i]);
    }
}

static void a_span_is_fenced_in_on_both_sides(void **state) {
    (void)state;
    for (unsigned class_index = 0; class_index < SIZE_CLASSES; class_index += 9) {
        if (!small_run(take_one_by_one, &class_index)) {
            fail_msg("class %u", class_index);
        }
    }
}

// Of every span ever taken, not only of the last one.
static void walk_between(void *context) {
    (void)context;
    start();
    unsigned cell = root_cell(20, 0);
    static bool taken[INDEXES];
    for (unsigned n = 0; n < 900; n++) {
        taken[take(cell)] = true;
        if (n % 100 != 7) {
            continue;
        }
        bool is_last_up = true, must_be_up = false;
        for (uint32_t i = 0; i < firn_regions[cell].committed; i++) {
            if (region_is_fence(cell, i)) {
                is_last_up = is_guarded(cell, i);
                NEED(is_last_up || !must_be_up);
                must_be_up = false;
            } else if (taken[i]) {
                NEED(is_last_up);
                must_be_up = true;
            }
        }
    }
}

static void nothing_runs_from_one_group_into_another(void **state) {
    (void)state;
    assert_true(small_run(walk_between, NULL));
}

// A cell that is hardly used has hardly any: two at most for each span.
static void take_few(void *context) {
    (void)context;
    start();
    unsigned cell = root_cell(0, 0), up = 0;
    (void)take(cell);
    for (uint32_t i = 0; i < firn_regions[cell].committed; i++) {
        up += region_is_fence(cell, i) && is_guarded(cell, i);
    }
    NEED(up <= 2);
}

static void fences_are_put_up_as_they_are_needed(void **state) {
    (void)state;
    assert_true(small_run(take_few, NULL));
}

// ---- without guard markers --------------------------------------------------------------------

static void take_without_markers(void *context) {
    (void)context;
    setenv("FIRN_TEST_CAPS", "7e", 1); // all but CAP_GUARD_MARKER
    start();
    unsigned cell = root_cell(0, 0), up = 0, fences = 0;
    size_t most = map_guard_vma_budget() / 2;
    for (unsigned n = 0; n < 60000; n++) {
        uint32_t index = take(cell);
        *(char *)address_of(cell, index) = 1;
        NEED(map_guard_vmas() <= most + 2);
    }
    for (uint32_t i = 0; i < 2000; i++) {
        bool is_fence = region_is_fence(cell, i);
        fences += is_fence;
        up += is_fence && is_guarded(cell, i);
    }
    NEED(up == fences); // the first ones fit
    // Few kinds of kernels let a process have so many mappings that this is not reached.
    NEED(!has_fences() || FIRN_SPAN_GUARDS > 4 || most > 40000 || map_guard_vmas() + 2 >= most);
}

static void mappings_are_spent_within_the_budget(void **state) {
    (void)state;
    assert_true(small_run(take_without_markers, NULL));
}

// ---- pointers ---------------------------------------------------------------------------------

static void find_in_fence(void *context) {
    (void)context;
    start();
    unsigned cell = root_cell(0, 0);
    for (unsigned n = 0; n < 100; n++) {
        (void)take(cell);
    }
    for (uint32_t i = 0; i < firn_regions[cell].committed; i++) {
        if (region_is_fence(cell, i)) {
            struct found f;
            find_pointer((void *)(address_of(cell, i) + 64), &f);
            NEED(f.kind == FOUND_BAD && f.id == FATAL_NEVER_ALLOCATED);
        }
    }
}

static void a_pointer_into_a_fence_was_never_allocated(void **state) {
    (void)state;
    assert_true(small_run(find_in_fence, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_in_each_group_at_a_secret_place),
        cmocka_unit_test(a_span_is_fenced_in_on_both_sides),
        cmocka_unit_test(nothing_runs_from_one_group_into_another),
        cmocka_unit_test(fences_are_put_up_as_they_are_needed),
        cmocka_unit_test(mappings_are_spent_within_the_budget),
        cmocka_unit_test(a_pointer_into_a_fence_was_never_allocated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
