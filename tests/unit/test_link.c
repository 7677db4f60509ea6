// Safe links: what was encoded decodes, and nothing else does.
#include "hardening/link.h"

#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { DRAWS = 20000 };

static uint64_t seed = 1;

static uint64_t draw_word(void) {
    return small_draw(&seed, UINT64_C(1) << 31) << 33 ^ small_draw(&seed, UINT64_C(1) << 31) << 16 ^
           small_draw(&seed, UINT64_C(1) << 31);
}

static uintptr_t draw_address(void) {
    return draw_word() & 0x7ffffffffff0;
}

static void what_was_encoded_decodes(void **state) {
    (void)state;
    for (unsigned i = 0; i < DRAWS; i++) {
        uintptr_t address = draw_address();
        uint64_t secret = draw_word();
        unsigned slot = i % SPAN_MAX_SLOTS;
        assert_int_equal(link_decode(link_encode(slot, address, secret), address, secret), slot);
    }
}

static void any_changed_bit_of_the_word_is_refused(void **state) {
    (void)state;
    for (unsigned i = 0; i < DRAWS / 10; i++) {
        uintptr_t address = draw_address();
        uint64_t secret = draw_word();
        uint64_t word = link_encode(i % SPAN_MAX_SLOTS, address, secret);
        for (unsigned bit = 0; bit < 64; bit++) {
            assert_int_equal(link_decode(word ^ UINT64_C(1) << bit, address, secret), -1);
        }
    }
}

// A tag copied to another slot, or left over from another use of the span. The lowest bit of the
// secret matters, too, although it is forced to 1 where it multiplies.
static void any_changed_bit_of_address_or_secret_is_refused(void **state) {
    (void)state;
    for (unsigned i = 0; i < DRAWS / 10; i++) {
        uintptr_t address = draw_address();
        uint64_t secret = draw_word();
        uint64_t word = link_encode(i % SPAN_MAX_SLOTS, address, secret);
        for (unsigned bit = 0; bit < 64; bit++) {
            assert_int_equal(link_decode(word, address ^ UINT64_C(1) << bit, secret), -1);
            assert_int_equal(link_decode(word, address, secret ^ UINT64_C(1) << bit), -1);
        }
    }
}

static void another_slots_tag_is_refused(void **state) {
    (void)state;
    uintptr_t address = draw_address();
    uint64_t secret = draw_word();
    for (unsigned slot = 0; slot < SPAN_MAX_SLOTS; slot++) {
        uint64_t word = link_encode(slot, address, secret);
        for (unsigned other = 0; other < SPAN_MAX_SLOTS; other++) {
            uint64_t forged = (word & ~(uint64_t)0xff) | other;
            assert_int_equal(link_decode(forged, address, secret), slot == other ? (int)slot : -1);
        }
    }
}

static void usual_overwrites_are_refused(void **state) {
    (void)state;
    static const uint64_t words[] = {0, 1, UINT64_MAX, 0x4141414141414141, 0xdeadbeefdeadbeef};
    for (unsigned i = 0; i < DRAWS; i++) {
        uintptr_t address = draw_address();
        uint64_t secret = draw_word();
        for (unsigned k = 0; k < sizeof words / sizeof *words; k++) {
            assert_int_equal(link_decode(words[k], address, secret), -1);
        }
        assert_int_equal(link_decode(address, address, secret), -1);
        assert_int_equal(link_decode(draw_word(), address, secret), -1);
    }
}

// Half of the 56 tag bits change with any bit of the secret, on average; each of them about as often
// as not. 20,000 draws: six standard deviations are 424 a bit.
static void tags_look_random(void **state) {
    (void)state;
    unsigned changed[64] = {0}, set[64] = {0};
    for (unsigned i = 0; i < DRAWS; i++) {
        uintptr_t address = draw_address();
        uint64_t secret = draw_word();
        uint64_t word = link_encode(7, address, secret);
        uint64_t change = word ^ link_encode(7, address, secret ^ UINT64_C(1) << i % 64);
        for (unsigned bit = 8; bit < 64; bit++) {
            changed[bit] += (unsigned)(change >> bit & 1);
            set[bit] += (unsigned)(word >> bit & 1);
        }
    }
    for (unsigned bit = 8; bit < 64; bit++) {
        assert_in_range(set[bit], DRAWS / 2 - 424, DRAWS / 2 + 424);
        assert_in_range(changed[bit], DRAWS / 2 - 424, DRAWS / 2 + 424);
    }
}

static void words_are_stored_and_loaded_whole(void **state) {
    (void)state;
    unsigned char bytes[24] = {0};
    uintptr_t address = (uintptr_t)&bytes[8];
    link_store(address, 0x1122334455667788);
    assert_true(link_load(address) == 0x1122334455667788);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(bytes[i], 0);
        assert_int_equal(bytes[16 + i], 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_encoded_decodes),
        cmocka_unit_test(any_changed_bit_of_the_word_is_refused),
        cmocka_unit_test(any_changed_bit_of_address_or_secret_is_refused),
        cmocka_unit_test(another_slots_tag_is_refused),
        cmocka_unit_test(usual_overwrites_are_refused),
        cmocka_unit_test(tags_look_random),
        cmocka_unit_test(words_are_stored_and_loaded_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
