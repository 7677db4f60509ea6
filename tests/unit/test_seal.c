// Seals: every changed bit is noticed, of what is stored and of what it is bound to; nonces do not
// repeat; a child opens what its parent sealed. P-COLD-SEAL.
// firn-test: sanitize=address wrap=malloc,calloc,realloc
#include "src/cold/seal.h"

#include "src/os/caps.h"
#include "tests/support/allocations.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BYTES = 333 };

static void make(struct seal_blob *b, enum seal_mode mode) {
    memset(b, 0, sizeof *b);
    b->bound = (struct seal_bound){0x7f0012345000, 7, BYTES, 0, (uint8_t)mode, 0};
    assert_true(seal_draw(&b->bound.nonce));
    for (unsigned i = 0; i < BYTES; i++) {
        b->bytes[i] = (uint8_t)(i * 5);
    }
    allocations_are_counted = true;
    seal_close(b);
    allocations_are_counted = false;
    assert_int_equal(allocations_seen, 0);
}

static bool opens(const struct seal_blob *b) {
    struct seal_blob copy = *b;
    allocations_are_counted = true;
    bool is_open = seal_open(&copy);
    allocations_are_counted = false;
    assert_int_equal(allocations_seen, 0);
    if (!is_open) {
        return false;
    }
    for (unsigned i = 0; i < BYTES; i++) {
        assert_int_equal(copy.bytes[i], (uint8_t)(i * 5));
    }
    return true;
}

static int start(void **state) {
    (void)state;
    caps_probe(CAP_ALL);
    allocations_are_counted = true;
    bool is_started = seal_start();
    allocations_are_counted = false;
    return is_started && allocations_seen == 0 ? 0 : -1;
}

static void opens_what_was_sealed(void **state) {
    (void)state;
    struct seal_blob b;
    make(&b, SEAL_MAC);
    assert_int_equal(b.bytes[1], 5); // in the clear
    assert_true(opens(&b));
    make(&b, SEAL_AEAD);
    unsigned same = 0;
    for (unsigned i = 0; i < BYTES; i++) {
        same += b.bytes[i] == (uint8_t)(i * 5);
    }
    assert_true(same < 20); // 1.3 expected
    assert_true(opens(&b));
}

static void any_changed_bit_is_refused(void **state) {
    (void)state;
    struct seal_blob b;
    for (unsigned mode = SEAL_MAC; mode <= SEAL_AEAD; mode++) {
        make(&b, mode);
        unsigned char *all = (unsigned char *)&b;
        for (unsigned bit = 0; bit < 8 * (sizeof b.bound + BYTES + SEAL_TAG); bit++) {
            all[bit / 8] ^= (unsigned char)(1u << bit % 8);
            assert_false(opens(&b));
            all[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        assert_true(opens(&b));
    }
}

static void nothing_is_left_of_what_is_refused(void **state) {
    (void)state;
    struct seal_blob b;
    make(&b, SEAL_AEAD);
    b.bytes[BYTES] ^= 1;
    assert_false(seal_open(&b));
    for (unsigned i = 1; i + 8 < BYTES; i++) { // no piece of the text
        assert_false(b.bytes[i] == (uint8_t)(i * 5) && b.bytes[i + 1] == (uint8_t)(i * 5 + 5) &&
                     b.bytes[i + 2] == (uint8_t)(i * 5 + 10) &&
                     b.bytes[i + 3] == (uint8_t)(i * 5 + 15));
    }
}

static void nonces_differ(void **state) {
    (void)state;
    uint64_t last = 0, nonce;
    for (unsigned i = 0; i < 1000; i++) {
        assert_true(seal_draw(&nonce));
        assert_true(i == 0 || nonce == last + 1);
        last = nonce;
    }
}

static void swapped_is_refused(void **state) {
    (void)state;
    struct seal_blob a, b;
    make(&a, SEAL_AEAD);
    make(&b, SEAL_AEAD);
    assert_true(memcmp(a.bytes, b.bytes, BYTES) != 0); // the same text never looks the same
    struct seal_bound bound = a.bound;
    a.bound = b.bound;
    b.bound = bound;
    assert_false(opens(&a));
    assert_false(opens(&b));
}

static void digests_depend_on_everything(void **state) {
    (void)state;
    uint64_t d = seal_digest(0x1000, 1, 2);
    assert_true(d == seal_digest(0x1000, 1, 2) && d >> 48 == 0);
    assert_true(d != seal_digest(0x2000, 1, 2) && d != seal_digest(0x1000, 2, 2) &&
                d != seal_digest(0x1000, 1, 3));
}

// fork past libc's handlers, as far as the seal knows: nobody calls seal_after_fork.
static void a_child_opens_and_seals_anew(void **state) {
    (void)state;
    struct seal_blob b, own;
    make(&b, SEAL_MAC);
    pid_t child = fork();
    if (child == 0) {
        bool good = opens(&b);
        make(&own, SEAL_MAC);
        good = good && opens(&own) && own.bound.nonce >> 48 == (b.bound.nonce >> 48) + 1;
        _exit(good ? 0 : 1);
    }
    int status;
    assert_true(waitpid(child, &status, 0) == child && status == 0);
    uint64_t before = b.bound.nonce;
    make(&own, SEAL_MAC);
    assert_true(own.bound.nonce == before + 1); // the child's doings do not reach here
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opens_what_was_sealed),
        cmocka_unit_test(any_changed_bit_is_refused),
        cmocka_unit_test(nothing_is_left_of_what_is_refused),
        cmocka_unit_test(nonces_differ),
        cmocka_unit_test(swapped_is_refused),
        cmocka_unit_test(digests_depend_on_everything),
        cmocka_unit_test(a_child_opens_and_seals_anew),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
