// Central lists: what is taken, in which order, and what becomes of what is given.
#include "src/slab/central.h"

#include "src/cache/cache.h"
#include "src/os/clock.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

enum { DELAY_MS = 1000, SECOND_MS = 1000 };

// Owners that are no threads.
static struct cache alice = {.number = 1000001}, bob = {.number = 1000002};

static bool is_bob(const struct cache *owner) {
    return owner == &bob;
}

static bool is_even(const struct span *s, unsigned slot, uintptr_t address) {
    (void)s;
    (void)address;
    return slot % 2 == 0;
}

static int start(void **state) {
    if (small_start(state) != 0) {
        return -1;
    }
    central_set_purge_delay(DELAY_MS);
    central_set_hooks(is_bob, NULL);
    return 0;
}

static struct random_stream choices;

static struct span *take(unsigned class_index, struct cache *owner) {
    struct span *s = central_take(root_cell(class_index, 0), owner, owner->number, &choices);
    assert_non_null(s);
    assert_ptr_equal(atomic_load(&s->owner), owner);
    assert_int_equal(span_owner_number(s), owner->number);
    assert_int_equal(span_state(s), SPAN_ACTIVE);
    assert_int_equal(s->cell, root_cell(class_index, 0));
    list_init(&s->links);
    return s;
}

// Hands `live` slots of an empty span out.
static void occupy(struct span *s, unsigned live) {
    for (unsigned slot = 0; slot < live; slot++) {
        s->free[slot / 64] &= ~span_bit(slot);
        s->virgin[slot / 64] &= ~span_bit(slot);
        s->free_count--;
        span_set_live(s, slot);
    }
}

static void vacate(struct span *s) {
    span_set_up(s, s->cell, s->secret);
}

static size_t resident_pages(const struct span *s) {
    unsigned char pages[64];
    size_t bytes = (size_t)span_class(s)->span_mask + 1, n = 0;
    assert_int_equal(mincore((void *)span_base(s), bytes, pages), 0);
    for (size_t i = 0; i < bytes / FIRN_PAGE; i++) {
        n += pages[i] & 1;
    }
    return n;
}

static void touch(const struct span *s) {
    memset((void *)span_base(s), 0x77, (size_t)span_class(s)->span_mask + 1);
}

static bool is_all_zero(const struct span *s) {
    const unsigned char *bytes = (const unsigned char *)span_base(s);
    for (size_t i = 0; i <= span_class(s)->span_mask; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

static uint64_t now_ms(void) {
    return clock_coarse_ns() / 1000000;
}

static struct central_stats stats_of(unsigned class_index) {
    struct central_stats out;
    central_stats(class_index, &out);
    return out;
}

// ---- order ------------------------------------------------------------------------------------

static void fresh_spans_are_distinct_and_empty(void **state) {
    (void)state;
    struct span *s[40];
    for (unsigned i = 0; i < 40; i++) {
        s[i] = take(0, &alice);
        assert_int_equal(s[i]->free_count, span_class(s[i])->slots);
        for (unsigned k = 0; k < i; k++) {
            assert_ptr_not_equal(s[i], s[k]);
            assert_true(s[i]->secret != s[k]->secret);
        }
    }
    small_check();
    for (unsigned i = 0; i < 40; i++) {
        central_give(s[i]);
    }
    assert_int_equal(stats_of(0).dirty_spans, 40);
    small_check();
}

static void the_fullest_is_taken_first(void **state) {
    (void)state;
    enum { CLASS = 1, SPANS = 5 };
    static const unsigned quarters[SPANS] = {2, 0, 4, 3, 1}; // 4: full
    struct span *s[SPANS];
    for (unsigned i = 0; i < SPANS; i++) {
        s[i] = take(CLASS, &alice);
        unsigned slots = span_class(s[i])->slots;
        occupy(s[i], quarters[i] == 4 ? slots : slots * quarters[i] / 4 + 1);
    }
    for (unsigned i = 0; i < SPANS; i++) {
        central_give(s[i]);
        assert_null(atomic_load(&s[i]->owner));
        assert_int_equal(span_owner_number(s[i]), 0);
    }
    small_check();
    assert_int_equal(stats_of(CLASS).active_spans, SPANS);
    for (unsigned quarter = 4; quarter-- > 0;) {
        struct span *got = central_take(root_cell(CLASS, 0), &alice, alice.number, &choices);
        assert_int_equal(span_bucket(got), quarter);
        assert_true(got == s[0] || got == s[1] || got == s[3] || got == s[4]);
        vacate(got);
    }
    // The full one is never taken: nothing could be had from it.
    assert_ptr_not_equal(take(CLASS, &alice), s[2]);
}

static void used_then_dirty_then_clean_then_fresh(void **state) {
    (void)state;
    enum { CLASS = 2 };
    struct span *clean = take(CLASS, &alice), *old = take(CLASS, &alice);
    struct span *young = take(CLASS, &alice), *used = take(CLASS, &alice);
    central_give(clean);
    assert_true(central_purge(CLASS, 0, true));
    assert_int_equal(span_state(clean), SPAN_CLEAN);
    occupy(used, 1);
    central_give(old);
    central_give(young);
    central_give(used);
    small_check();
    assert_ptr_equal(take(CLASS, &alice), used);
    assert_ptr_equal(take(CLASS, &alice), young);
    assert_ptr_equal(take(CLASS, &alice), old);
    assert_ptr_equal(take(CLASS, &alice), clean);
    struct span *fresh = take(CLASS, &alice);
    assert_true(fresh != used && fresh != young && fresh != old && fresh != clean);
    assert_int_equal(firn_central[CLASS].dirty_spans, 0);
    small_check();
}

static void a_reused_span_has_a_new_secret(void **state) {
    (void)state;
    enum { CLASS = 3 };
    struct span *s = take(CLASS, &alice);
    uint64_t secret = s->secret;
    central_give(s);
    assert_ptr_equal(take(CLASS, &alice), s);
    assert_true(s->secret != secret);
}

static void partitions_do_not_exchange_spans(void **state) {
    (void)state;
    enum { CLASS = 4 };
    if (FIRN_PARTITIONS < 2) {
        skip();
    }
    struct span *s = take(CLASS, &alice);
    central_give(s);
    struct span *other = central_take(root_cell(CLASS, 1), &alice, alice.number, &choices);
    assert_ptr_not_equal(other, s);
    assert_int_equal(other->cell, root_cell(CLASS, 1));
    list_init(&other->links);
}

// ---- purge ------------------------------------------------------------------------------------

static void purge_waits_for_the_delay_and_gives_memory_back(void **state) {
    (void)state;
    enum { CLASS = 20 };
    struct span *s = take(CLASS, &alice);
    size_t pages = ((size_t)span_class(s)->span_mask + 1) / FIRN_PAGE;
    touch(s);
    uint64_t before = now_ms();
    central_give(s);
    assert_int_equal(span_state(s), SPAN_DIRTY);
    assert_false(central_purge(CLASS, before + DELAY_MS - 1, false));
    assert_int_equal(resident_pages(s), pages);
    assert_int_equal(span_state(s), SPAN_DIRTY);
    assert_true(central_purge(CLASS, now_ms() + DELAY_MS, false));
    assert_int_equal(resident_pages(s), 0);
    assert_int_equal(span_state(s), SPAN_CLEAN);
    assert_true(small_is_rationed() || is_all_zero(s));
    assert_int_equal(stats_of(CLASS).clean_spans, 1);
    assert_int_equal(stats_of(CLASS).dirty_spans, 0);
    small_check();
    assert_false(central_purge(CLASS, 0, true));
}

static void only_old_spans_are_purged(void **state) {
    (void)state;
    enum { CLASS = 21 };
    struct span *old = take(CLASS, &alice), *young = take(CLASS, &alice);
    central_give(old);
    central_give(young);
    young->emptied_ms += SECOND_MS;
    assert_true(central_purge(CLASS, old->emptied_ms + DELAY_MS, false));
    assert_int_equal(span_state(old), SPAN_CLEAN);
    assert_int_equal(span_state(young), SPAN_DIRTY);
    small_check();
}

// What all classes have and what of it waits for reuse.
static void sum_up(size_t *committed, size_t *dirty) {
    *committed = *dirty = 0;
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        *committed += firn_central[i].committed_bytes;
        *dirty += firn_central[i].dirty_spans << FIRN_ROOT.classes[i].span_shift;
    }
}

static size_t dirty_budget(void) {
    size_t committed, dirty;
    sum_up(&committed, &dirty);
    return small_is_rationed() ? 0 : committed / 4 < 16 << 20 ? committed / 4 : 16 << 20;
}

// Whether what waits is within the class's share, or all of it within the budget.
static bool is_within_bounds(unsigned class_index) {
    const struct central *c = &firn_central[class_index];
    size_t committed, dirty, limit = c->committed_bytes / 8;
    sum_up(&committed, &dirty);
    limit = limit < 512 << 10 ? 512 << 10 : limit;
    return c->dirty_spans << FIRN_ROOT.classes[class_index].span_shift <= limit ||
           dirty <= dirty_budget();
}

// More empty spans than half a MiB a class, and a quarter of what all have, are not kept, however young.
static void too_much_is_purged_at_once(void **state) {
    (void)state;
    enum { CLASS = 30, SPANS = 40 };
    struct span *s[SPANS];
    for (unsigned i = 0; i < SPANS; i++) {
        s[i] = take(CLASS, &alice);
        touch(s[i]);
    }
    for (unsigned i = 0; i < SPANS; i++) {
        central_give(s[i]);
        assert_true(is_within_bounds(CLASS));
    }
    assert_true(stats_of(CLASS).clean_spans > SPANS / 4);
    assert_true(stats_of(CLASS).dirty_spans > 0);
    // The oldest went first.
    assert_int_equal(span_state(s[0]), SPAN_CLEAN);
    assert_int_equal(resident_pages(s[0]), 0);
    assert_int_equal(span_state(s[SPANS - 1]), SPAN_DIRTY);
    small_check();
}

// Going up and down within the budget costs no page; and however much a program had, no more than 16 MiB, or
// the class's eighth, stays.
static void the_budget_is_kept_and_has_an_end(void **state) {
    (void)state;
    enum { CLASS = 31, SPANS = 512 };
    static struct span *s[SPANS];
    for (unsigned i = 0; i < SPANS; i++) {
        s[i] = take(CLASS, &alice);
    }
    size_t span_bytes = (size_t)span_class(s[0])->span_mask + 1;
    for (unsigned i = 0; i < SPANS; i++) {
        central_give(s[i]);
        assert_true(is_within_bounds(CLASS));
    }
    size_t kept = stats_of(CLASS).dirty_spans;
    assert_true(kept > 0 && stats_of(CLASS).clean_spans > 0);
    assert_true(kept * span_bytes <= 16 << 20);
    unsigned clean = (unsigned)stats_of(CLASS).clean_spans;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < kept; i++) {
            s[i] = take(CLASS, &alice);
        }
        assert_int_equal(stats_of(CLASS).clean_spans, clean);
        for (unsigned i = 0; i < kept; i++) {
            central_give(s[i]);
        }
        assert_int_equal(stats_of(CLASS).clean_spans, clean);
    }
    small_check();
    assert_true(central_purge(CLASS, 0, true));
    assert_int_equal(stats_of(CLASS).dirty_spans, 0);
}

// More than one batch, in an order that is not the addresses'; live neighbours keep their content.
static void purge_takes_all_and_nothing_else(void **state) {
    (void)state;
    enum { CLASS = 0, SPANS = 120 };
    struct span *s[SPANS];
    for (unsigned i = 0; i < SPANS; i++) {
        s[i] = take(CLASS, &alice);
        touch(s[i]);
    }
    for (unsigned i = 0; i < SPANS; i += 2) {
        central_give(s[i]);
    }
    assert_true(central_purge(CLASS, 0, true));
    for (unsigned i = 0; i < SPANS; i++) {
        assert_int_equal(resident_pages(s[i]), i % 2);
        if (i % 2 != 0 || !small_is_rationed()) {
            assert_int_equal(*(unsigned char *)span_base(s[i]), i % 2 * 0x77);
        }
    }
    small_check();
    for (unsigned i = 1; i < SPANS; i += 2) {
        central_give(s[i]);
    }
    small_check();
}

// ---- delivery ---------------------------------------------------------------------------------

static void free_remotely(struct span *s, unsigned slot) {
    atomic_fetch_or(&s->remote[slot / 64], span_bit(slot));
    (void)!span_mark_pending(s);
}

static void delivery_takes_over_what_nobody_owns(void **state) {
    (void)state;
    enum { CLASS = 5 };
    struct span *s = take(CLASS, &alice);
    occupy(s, 2);
    central_give(s);
    free_remotely(s, 1);
    assert_true(central_deliver(s));
    assert_int_equal(span_pending(s), 0);
    assert_false(span_is_live(s, 1));
    assert_true(span_is_live(s, 0));
    assert_int_equal(s->free_count, span_class(s)->slots - 1);
    small_check();
    free_remotely(s, 0);
    assert_true(central_deliver(s));
    assert_int_equal(span_state(s), SPAN_DIRTY);
    small_check();
}

static void delivery_refiles_by_occupancy(void **state) {
    (void)state;
    enum { CLASS = 6 };
    struct span *s = take(CLASS, &alice);
    unsigned slots = span_class(s)->slots;
    occupy(s, slots);
    central_give(s);
    assert_int_equal(s->bucket, SPAN_FULL);
    for (unsigned slot = 0; slot + 1 < slots; slot++) {
        free_remotely(s, slot);
    }
    assert_true(central_deliver(s));
    assert_int_equal(s->bucket, 0);
    small_check();
    assert_ptr_equal(take(CLASS, &alice), s);
}

static void delivery_leaves_owned_spans_alone(void **state) {
    (void)state;
    enum { CLASS = 7 };
    struct span *s = take(CLASS, &alice);
    occupy(s, 2);
    free_remotely(s, 1);
    assert_false(central_deliver(s));
    assert_int_equal(span_pending(s), firn_span_mark);
    assert_true(span_is_live(s, 1));
    assert_true(span_is_remote(s, 1));
}

static void giving_takes_remote_frees_over(void **state) {
    (void)state;
    enum { CLASS = 8 };
    struct span *s = take(CLASS, &alice);
    occupy(s, 3);
    free_remotely(s, 0);
    central_give(s);
    assert_int_equal(stats_of(CLASS).live, 2);
    assert_int_equal(s->free_count, span_class(s)->slots - 2);
    small_check();
    // Whoever queued it still has to deliver; nothing is left to take over.
    assert_true(central_deliver(s));
    assert_int_equal(stats_of(CLASS).live, 2);
    small_check();
}

static void deliver_odd(void *context) {
    struct span *s = context;
    central_set_hooks(is_bob, is_even);
    free_remotely(s, 3);
    NEED(central_deliver(s));
}

static void deliver_dead(void *context) {
    struct span *s = context;
    free_remotely(s, 9);
    NEED(central_deliver(s));
}

static void misuse_is_fatal(void **state) {
    (void)state;
    enum { CLASS = 9 };
    struct span *s = take(CLASS, &alice);
    occupy(s, 4);
    central_give(s);
    assert_true(small_run_aborts(deliver_odd, s, "firn: corrupt-link: free("));
    assert_true(small_run_aborts(deliver_dead, s, "firn: double-free: free("));
    // Also in a span that is empty, where nothing can be live.
    struct span *empty = take(CLASS + 1, &alice);
    central_give(empty);
    assert_true(small_run_aborts(deliver_dead, empty, "firn: double-free: free("));
}

// ---- a child's rebuild ------------------------------------------------------------------------

static void act_as_child(void) {
    central_before_fork();
    central_after_fork(true, true);
}

// Bob's thread is not in the child: what he had in hand is free there, what he had freed by others
// is free; what is Alice's stays hers; nothing is lost, whatever list it was on.
static void rebuild_recovers_spans_of_dead_threads(void **state) {
    (void)state;
    enum { CLASS = 11 };
    struct span *his = take(CLASS, &bob), *his_empty = take(CLASS, &bob);
    struct span *hers = take(CLASS, &alice), *purging = take(CLASS, &alice);
    struct span *dirty = take(CLASS, &alice), *clean = take(CLASS, &alice);
    unsigned slots = span_class(his)->slots;
    occupy(his, 10);
    free_remotely(his, 4);
    span_clear_live(his, 7); // in hand
    occupy(his_empty, 1);
    span_clear_live(his_empty, 0); // in hand
    occupy(hers, 5);
    central_give(clean);
    assert_true(central_purge(CLASS, 0, true));
    central_give(purging);
    central_give(dirty);
    // As if the fork had come between the two halves of a purge.
    list_remove(&purging->links);
    atomic_store(&purging->state, SPAN_PURGING);
    firn_central[CLASS].dirty_spans--;

    act_as_child();
    central_rebuild_if_due(CLASS);
    small_check();
    assert_null(atomic_load(&his->owner));
    assert_int_equal(span_state(his), SPAN_ACTIVE);
    assert_int_equal(his->free_count, slots - 8);
    assert_true(span_is_live(his, 0) && !span_is_live(his, 4) && !span_is_live(his, 7));
    // What was in hand may have been handed out before.
    assert_int_equal(his->virgin[0] & 0x3ff, 0);
    assert_int_equal(span_state(his_empty), SPAN_DIRTY);
    assert_int_equal(span_state(purging), SPAN_DIRTY);
    assert_int_equal(span_state(dirty), SPAN_DIRTY);
    assert_int_equal(span_state(clean), SPAN_CLEAN);
    assert_ptr_equal(atomic_load(&hers->owner), &alice);
    assert_int_equal(firn_central[CLASS].dirty_spans, 3);
    // Once.
    assert_false(atomic_load(&firn_central[CLASS].must_rebuild));
    assert_ptr_equal(take(CLASS, &alice), his);
}

// A class that the child never used before it forks itself is still due in the grandchild.
static void rebuild_stays_due(void **state) {
    (void)state;
    act_as_child();
    central_before_fork();
    central_after_fork(true, false);
    assert_true(atomic_load(&firn_central[12].must_rebuild));
    central_rebuild_if_due(12);
    assert_false(atomic_load(&firn_central[12].must_rebuild));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_spans_are_distinct_and_empty),
        cmocka_unit_test(the_fullest_is_taken_first),
        cmocka_unit_test(used_then_dirty_then_clean_then_fresh),
        cmocka_unit_test(a_reused_span_has_a_new_secret),
        cmocka_unit_test(partitions_do_not_exchange_spans),
        cmocka_unit_test(purge_waits_for_the_delay_and_gives_memory_back),
        cmocka_unit_test(only_old_spans_are_purged),
        cmocka_unit_test(too_much_is_purged_at_once),
        cmocka_unit_test(the_budget_is_kept_and_has_an_end),
        cmocka_unit_test(purge_takes_all_and_nothing_else),
        cmocka_unit_test(delivery_takes_over_what_nobody_owns),
        cmocka_unit_test(delivery_refiles_by_occupancy),
        cmocka_unit_test(delivery_leaves_owned_spans_alone),
        cmocka_unit_test(giving_takes_remote_frees_over),
        cmocka_unit_test(misuse_is_fatal),
        cmocka_unit_test(rebuild_recovers_spans_of_dead_threads),
        cmocka_unit_test(rebuild_stays_due),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
