// ChaCha against published vectors: RFC 8439 section 2.3.2 for 20 rounds, and for 8 rounds the first
// vector of draft-strombergson-chacha-test-vectors (all-zero 256-bit key and nonce).
// firn-test: share=2
#include "src/base/chacha.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void rfc_vector(void **state) {
    (void)state;
    static const uint8_t expected[64] = {
        0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15, 0x50, 0x0f, 0xdd, 0x1f, 0xa3,
        0x20, 0x71, 0xc4, 0xc7, 0xd1, 0xf4, 0xc7, 0x33, 0xc0, 0x68, 0x03, 0x04, 0x22,
        0xaa, 0x9a, 0xc3, 0xd4, 0x6c, 0x4e, 0xd2, 0x82, 0x64, 0x46, 0x07, 0x9f, 0xaa,
        0x09, 0x14, 0xc2, 0xd7, 0x05, 0xd9, 0x8b, 0x02, 0xa2, 0xb5, 0x12, 0x9c, 0xd1,
        0xde, 0x16, 0x4e, 0xb9, 0xcb, 0xd0, 0x83, 0xe8, 0xa2, 0x50, 0x3c, 0x4e};
    uint8_t key_bytes[32], out[CHACHA_QUAD];
    uint32_t key[8];
    const uint32_t nonce[3] = {0x09000000, 0x4a000000, 0};
    for (uint8_t i = 0; i < 32; i++) {
        key_bytes[i] = i;
    }
    memcpy(key, key_bytes, sizeof(key));
    chacha_keystream(key, nonce, 1, 20, out, 1);
    assert_memory_equal(out, expected, 64);
    // The same block, as the second of four.
    chacha_keystream(key, nonce, 0, 20, out, 1);
    assert_memory_equal(out + 64, expected, 64);
}

static void eight_round_vector(void **state) {
    (void)state;
    static const uint8_t expected[64] = {
        0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6, 0x7f, 0x5b, 0xb8, 0xe8, 0x1f,
        0x09, 0xa5, 0xa1, 0x2c, 0x84, 0x0e, 0xc3, 0xce, 0x9a, 0x7f, 0x3b, 0x18, 0x1b,
        0xe1, 0x88, 0xef, 0x71, 0x1a, 0x1e, 0x98, 0x4c, 0xe1, 0x72, 0xb9, 0x21, 0x6f,
        0x41, 0x9f, 0x44, 0x53, 0x67, 0x45, 0x6d, 0x56, 0x19, 0x31, 0x4a, 0x42, 0xa3,
        0xda, 0x86, 0xb0, 0x01, 0x38, 0x7b, 0xfd, 0xb8, 0x0e, 0x0c, 0xfe, 0x42};
    static const uint32_t key[8], nonce[3];
    uint8_t out[CHACHA_QUAD];
    chacha_keystream(key, nonce, 0, 8, out, 1);
    assert_memory_equal(out, expected, 64);
}

static void quads_continue_each_other(void **state) {
    (void)state;
    static const uint32_t key[8] = {1, 2, 3, 4, 5, 6, 7, 8}, nonce[3] = {9, 10, 11};
    uint8_t whole[3 * CHACHA_QUAD + 1], piece[CHACHA_QUAD];
    chacha_keystream(key, nonce, 100, 8, whole + 1, 3); // unaligned on purpose
    for (uint32_t q = 0; q < 3; q++) {
        chacha_keystream(key, nonce, 100 + 4 * q, 8, piece, 1);
        assert_memory_equal(piece, whole + 1 + q * CHACHA_QUAD, CHACHA_QUAD);
    }
}

static void counter_wraps(void **state) {
    (void)state;
    static const uint32_t key[8] = {42}, nonce[3];
    uint8_t wrapped[2 * CHACHA_QUAD], low[CHACHA_QUAD];
    chacha_keystream(key, nonce, UINT32_MAX - 1, 8, wrapped, 2);
    chacha_keystream(key, nonce, 0, 8, low, 1);
    assert_memory_equal(wrapped + 128, low, CHACHA_QUAD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_vector),
        cmocka_unit_test(eight_round_vector),
        cmocka_unit_test(quads_continue_each_other),
        cmocka_unit_test(counter_wraps),
    };
    int failed = 0;
    for (unsigned most = 0; most <= 2; most++) {
        firn_chacha_most = most;
        failed += cmocka_run_group_tests(tests, NULL, NULL); // of what this processor can do
    }
    return failed;
}
