// P-WIPE: zeros, in every width this processor has: all of the slot and nothing beside it.
#include "hardening/wipe.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { MOST = 2200, MARGIN = 512 };

struct width {
    const char *name;
    bool is_there;
    void (*zero)(void *p, size_t n);
    bool (*is_zero)(const void *p, size_t n);
};

static void zero_narrow(void *p, size_t n) {
    wipe_zero_narrow(p, n);
}

static bool is_zero_narrow(const void *p, size_t n) {
    return wipe_is_zero_narrow(p, n);
}

WIPE_WIDE static void zero_wide(void *p, size_t n) {
    wipe_zero_wide(p, n);
}

WIPE_WIDE static bool is_zero_wide(const void *p, size_t n) {
    return wipe_is_zero_wide(p, n);
}

WIPE_WIDEST static void zero_widest(void *p, size_t n) {
    wipe_zero_widest(p, n);
}

WIPE_WIDEST static bool is_zero_widest(const void *p, size_t n) {
    return wipe_is_zero_widest(p, n);
}

static struct width widths[] = {
    {"narrow", true, zero_narrow, is_zero_narrow},
    {"wide", false, zero_wide, is_zero_wide},
    {"widest", false, zero_widest, is_zero_widest},
};
enum { WIDTHS = sizeof widths / sizeof *widths };

static int start(void **state) {
    (void)state;
    widths[1].is_there = wipe_can_be_wide();
    widths[2].is_there = wipe_can_be_widest();
    return 0;
}

static _Alignas(64) unsigned char bytes[MARGIN + MOST + MARGIN];

static void exactly_the_slot_is_wiped(void **state) {
    (void)state;
    for (unsigned w = 0; w < WIDTHS; w++) {
        for (size_t n = 8; widths[w].is_there && n <= MOST; n += 8) {
            for (size_t shift = 0; shift < 64; shift += 16) {
                unsigned char *p = bytes + MARGIN - 64 + shift;
                memset(bytes, 0xa5, sizeof bytes);
                widths[w].zero(p, n);
                for (size_t i = 0; i < sizeof bytes; i++) {
                    bool is_inside = &bytes[i] >= p && &bytes[i] < p + n;
                    if (bytes[i] != (is_inside ? 0 : 0xa5)) {
                        fail_msg("%s: %zu bytes: byte %zu", widths[w].name, n, i);
                    }
                }
            }
        }
    }
}

static void any_bit_is_noticed_and_none_beside(void **state) {
    (void)state;
    for (unsigned w = 0; w < WIDTHS; w++) {
        for (size_t n = 8; widths[w].is_there && n <= MOST; n += n < 600 ? 8 : 152) {
            unsigned char *p = bytes + MARGIN;
            memset(bytes, 0xa5, sizeof bytes);
            memset(p, 0, n);
            assert_true(widths[w].is_zero(p, n));
            assert_int_equal(wipe_first_changed(p, n), n);
            for (size_t i = 0; i < n; i++) {
                p[i] = (unsigned char)(1 << i % 8);
                assert_false(widths[w].is_zero(p, n));
                assert_int_equal(wipe_first_changed(p, n), i);
                p[i] = 0;
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exactly_the_slot_is_wiped),
        cmocka_unit_test(any_bit_is_noticed_and_none_beside),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
