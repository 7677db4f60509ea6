// Text building: exact output, and no byte beyond the capacity however much is appended.
// firn-test: share=2
#include "src/base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void composes(void **state) {
    (void)state;
    char buffer[128];
    struct text t = text_on(buffer, sizeof(buffer));
    text_str(&t, "a=");
    text_dec(&t, 0);
    text_char(&t, ' ');
    text_dec(&t, UINT64_MAX);
    text_char(&t, ' ');
    text_hex(&t, 0);
    text_char(&t, ' ');
    text_hex(&t, UINT64_C(0x3f2a10c0));
    text_char(&t, ' ');
    text_hex(&t, UINT64_MAX);
    text_bytes(&t, "xyz", 2);
    assert_string_equal(buffer, "a=0 18446744073709551615 0x0 0x3f2a10c0 0xffffffffffffffffxy");
    assert_int_equal(t.length, strlen(buffer));
}

static void never_overruns(void **state) {
    (void)state;
    for (size_t capacity = 0; capacity < 12; capacity++) {
        char buffer[16];
        memset(buffer, '#', sizeof(buffer));
        struct text t = text_on(buffer, capacity);
        text_str(&t, "0123");
        text_dec(&t, 456);
        text_hex(&t, 0x789);
        text_char(&t, '!');
        for (size_t i = capacity; i < sizeof(buffer); i++) {
            assert_int_equal(buffer[i], '#');
        }
        if (capacity > 0) {
            assert_int_equal(buffer[t.length], '\0');
            assert_int_equal(t.length, capacity - 1);
            assert_memory_equal(buffer, "01234560x789!", capacity - 1);
        } else {
            assert_int_equal(t.length, 0);
        }
    }
}

static bool parse(const char *s, uint64_t *out) {
    return text_parse_size(s, strlen(s), out);
}

static void parses_sizes(void **state) {
    (void)state;
    uint64_t v = 0;
    assert_true(parse("0", &v) && v == 0);
    assert_true(parse("600000", &v) && v == 600000);
    assert_true(parse("4k", &v) && v == 4096);
    assert_true(parse("3M", &v) && v == 3u << 20);
    assert_true(parse("2g", &v) && v == UINT64_C(2) << 30);
    assert_true(parse("18446744073709551615", &v) && v == UINT64_MAX);
    assert_true(parse("17179869183g", &v) && v == UINT64_C(17179869183) << 30);
    assert_true(text_parse_size("12345", 2, &v) && v == 12);
}

static void refuses_other_sizes(void **state) {
    (void)state;
    static const char *const bad[] = {"",
                                      "k",
                                      " 1",
                                      "1 ",
                                      "-1",
                                      "+1",
                                      "0x1",
                                      "1kk",
                                      "1t",
                                      "1.5",
                                      "18446744073709551616",
                                      "17179869184g",
                                      "99999999999999999999999999"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t v = 77;
        assert_false(parse(bad[i], &v));
        assert_int_equal(v, 77);
    }
}

static unsigned distance(const char *a, const char *b) {
    return text_distance(a, strlen(a), b, strlen(b));
}

static void distances(void **state) {
    (void)state;
    assert_int_equal(distance("", ""), 0);
    assert_int_equal(distance("stats", ""), 5);
    assert_int_equal(distance("", "stats"), 5);
    assert_int_equal(distance("stats", "stats"), 0);
    assert_int_equal(distance("stat", "stats"), 1);
    assert_int_equal(distance("kitten", "sitting"), 3);
    assert_int_equal(distance("purge_dealy", "purge_delay"), 2);
    // Bytes beyond 31 are ignored.
    assert_int_equal(
        distance("0123456789012345678901234567890abc", "0123456789012345678901234567890xyz"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(composes),     cmocka_unit_test(never_overruns),
        cmocka_unit_test(parses_sizes), cmocka_unit_test(refuses_other_sizes),
        cmocka_unit_test(distances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
