// Spans: addresses and descriptors name each other, and the words of bits stay true.
#include "src/span/span.h"

#include "src/span/region.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct random_stream stream;
static struct span *spans[SIZE_CLASSES];

// A fresh span of every class.
static int start(void **state) {
    if (small_start(state) != 0) {
        return -1;
    }
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        spans[i] = region_take(root_cell(i, FIRN_PARTITIONS - 1), &stream);
        if (spans[i] == NULL) {
            return -1;
        }
    }
    return 0;
}

static struct span *set_up(unsigned class_index, uint64_t secret) {
    struct span *s = spans[class_index];
    span_set_up(s, root_cell(class_index, FIRN_PARTITIONS - 1), secret);
    return s;
}

static void addresses_and_descriptors_name_each_other(void **state) {
    (void)state;
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        const struct span *s = spans[i];
        const struct class_info *c = span_class(s);
        uintptr_t offset = span_offset(s);
        assert_ptr_equal(c, &FIRN_ROOT.classes[i]);
        assert_int_equal(offset & c->span_mask, 0);
        assert_int_equal(span_base(s), FIRN_ROOT.small_base + offset);
        assert_int_equal(offset >> FIRN_ROOT.cell_shift, s->cell);
        for (unsigned slot = 0; slot < c->slots; slot++) {
            uintptr_t first = offset + slot * (uintptr_t)c->bytes;
            assert_ptr_equal(span_at(first, c), s);
            assert_ptr_equal(span_at(first + c->bytes - 1, c), s);
            assert_int_equal(span_slot(c, first), slot);
            assert_int_equal(span_slot(c, first + c->bytes - 1), slot);
        }
        assert_ptr_equal(span_at(offset + c->span_mask, c), s);
        uintptr_t index = (span_base(s) - root_cell_base(s->cell)) >> c->span_shift;
        assert_ptr_equal(span_by_index(s->cell, index), s);
        assert_ptr_equal(span_at(offset + c->span_mask + 1, c), span_by_index(s->cell, index + 1));
    }
}

static void a_new_span_is_all_free(void **state) {
    (void)state;
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        struct span *s = set_up(i, 0x1234 + i);
        unsigned n = 0;
        for (unsigned slot = 0; slot < SPAN_MAX_SLOTS; slot++) {
            bool is_free = (s->free[slot / 64] & span_bit(slot)) != 0;
            assert_int_equal(is_free, slot < span_class(s)->slots);
            assert_false(span_is_live(s, slot));
            assert_false(span_is_remote(s, slot));
            n += is_free;
        }
        assert_memory_equal(s->virgin, s->free, sizeof s->free);
        assert_int_equal(s->free_count, n);
        assert_int_equal(span_state(s), SPAN_ACTIVE);
        assert_int_equal(s->secret, 0x1234 + i);
        assert_null(atomic_load(&s->owner));
        assert_true(list_is_empty(&s->links));
        assert_int_equal(span_count_live(s), 0);
    }
}

static void word_masks_count_the_slots(void **state) {
    (void)state;
    for (unsigned slots = 1; slots <= SPAN_MAX_SLOTS; slots++) {
        const struct class_info c = {.slots = (uint16_t)slots};
        for (unsigned slot = 0; slot < SPAN_MAX_SLOTS; slot++) {
            bool is_set = (span_word_mask(&c, slot / 64) & span_bit(slot)) != 0;
            assert_int_equal(is_set, slot < slots);
        }
    }
}

static void live_bits_are_single(void **state) {
    (void)state;
    struct span *s = set_up(0, 1);
    for (unsigned slot = 0; slot < span_class(s)->slots; slot++) {
        span_set_live(s, slot);
        for (unsigned other = 0; other < span_class(s)->slots; other++) {
            assert_int_equal(span_is_live(s, other), other <= slot);
        }
        assert_int_equal(span_count_live(s), slot + 1);
    }
    for (unsigned slot = 0; slot < span_class(s)->slots; slot++) {
        span_clear_live(s, slot);
        assert_false(span_is_live(s, slot));
        assert_int_equal(span_count_live(s), span_class(s)->slots - slot - 1);
    }
}

// Of the slots a span has, `live` are live and the rest are free.
static struct span *with_live(unsigned class_index, unsigned live) {
    struct span *s = set_up(class_index, 0x5eed);
    for (unsigned slot = 0; slot < live; slot++) {
        s->free[slot / 64] &= ~span_bit(slot);
        s->virgin[slot / 64] &= ~span_bit(slot);
        s->free_count--;
        span_set_live(s, slot);
    }
    return s;
}

static void buckets_grow_with_occupancy(void **state) {
    (void)state;
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        unsigned slots = FIRN_ROOT.classes[i].slots;
        for (unsigned live = 0; live <= slots; live++) {
            const struct span *s = with_live(i, live);
            unsigned expected = live == slots ? SPAN_FULL : live * 4 / slots;
            assert_int_equal(span_bucket(s), expected);
            assert_in_range(span_bucket(s), 0, SPAN_BUCKETS - 1);
        }
    }
}

static void putting_back_keeps_the_count(void **state) {
    (void)state;
    struct span *s = with_live(3, 2);
    unsigned before = s->free_count;
    span_clear_live(s, 0);
    span_put_free(s, 0, true);
    span_clear_live(s, 1);
    span_put_free(s, 1, false);
    assert_int_equal(s->free_count, before + 2);
    assert_int_equal(s->free[0] & 3, 3);
    assert_int_equal(s->virgin[0] & 3, 1);
}

static unsigned refused_slot, checks;

static bool refuse_one(const struct span *s, unsigned slot, uintptr_t address) {
    assert_int_equal(address, span_base(s) + slot * (uintptr_t)span_class(s)->bytes);
    assert_true(span_is_live(s, slot));
    checks++;
    return slot != refused_slot;
}

static void remote_frees_are_taken_over(void **state) {
    (void)state;
    struct span *s = with_live(0, 256);
    uintptr_t bad = 0;
    for (unsigned slot = 0; slot < 256; slot += 3) {
        atomic_fetch_or(&s->remote[slot / 64], span_bit(slot));
    }
    assert_int_equal(span_count_live(s), 256 - 86);
    refused_slot = SPAN_MAX_SLOTS;
    checks = 0;
    assert_int_equal(span_take_remote(s, refuse_one, &bad), SPAN_FINE);
    assert_int_equal(checks, 86);
    assert_int_equal(s->free_count, 86);
    for (unsigned slot = 0; slot < 256; slot++) {
        assert_int_equal(span_is_live(s, slot), slot % 3 != 0);
        assert_int_equal((s->free[slot / 64] & span_bit(slot)) != 0, slot % 3 == 0);
        assert_false(span_is_remote(s, slot));
    }
    // Nothing twice.
    assert_int_equal(span_take_remote(s, refuse_one, &bad), SPAN_FINE);
    assert_int_equal(checks, 86);
    assert_int_equal(s->free_count, 86);
}

static void bad_remote_frees_are_named(void **state) {
    (void)state;
    struct span *s = with_live(5, 100);
    size_t bytes = span_class(s)->bytes;
    uintptr_t bad = 0;
    atomic_fetch_or(&s->remote[70 / 64], span_bit(70));
    refused_slot = 70;
    assert_int_equal(span_take_remote(s, refuse_one, &bad), SPAN_BAD_LINK);
    assert_int_equal(bad, span_base(s) + 70 * bytes);

    // Not live, whatever its tag: freed twice.
    s = with_live(5, 10);
    atomic_store(&s->remote[1], 0);
    atomic_fetch_or(&s->remote[0], span_bit(11));
    refused_slot = SPAN_MAX_SLOTS;
    assert_int_equal(span_take_remote(s, refuse_one, &bad), SPAN_NOT_LIVE);
    assert_int_equal(bad, span_base(s) + 11 * bytes);
    atomic_fetch_or(&s->remote[0], span_bit(12));
    assert_int_equal(span_take_remote(s, NULL, &bad), SPAN_NOT_LIVE);
    assert_int_equal(bad, span_base(s) + 12 * bytes);
}

// Line 0 is the owner's, line 1 everybody's: no free by another thread slows the owner down.
static void lines_are_apart(void **state) {
    (void)state;
    assert_int_equal(offsetof(struct span, live), 0);
    assert_int_equal(offsetof(struct span, remote), 64);
    assert_true(offsetof(struct span, pending_next) + 8 <= 128);
    assert_int_equal(offsetof(struct span, free), 128);
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        assert_int_equal((uintptr_t)spans[i] % 64, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_and_descriptors_name_each_other),
        cmocka_unit_test(a_new_span_is_all_free),
        cmocka_unit_test(word_masks_count_the_slots),
        cmocka_unit_test(live_bits_are_single),
        cmocka_unit_test(buckets_grow_with_occupancy),
        cmocka_unit_test(putting_back_keeps_the_count),
        cmocka_unit_test(remote_frees_are_taken_over),
        cmocka_unit_test(bad_remote_frees_are_named),
        cmocka_unit_test(lines_are_apart),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
