// Each vector holds one word of four consecutive blocks, so the rounds need no shuffles. The vector
// type is the compiler's: SSE2 on baseline x86-64, NEON on arm64, plain words elsewhere.
#include "src/base/chacha.h"

#include "src/base/compiler.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are written as they are stored");

struct quad {
    uint32_t lane __attribute__((vector_size(16)));
};

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))

FIRN_INLINE void quarter_round(struct quad *a, struct quad *b, struct quad *c, struct quad *d) {
    a->lane += b->lane;
    d->lane ^= a->lane;
    d->lane = ROTATE(d->lane, 16);
    c->lane += d->lane;
    b->lane ^= c->lane;
    b->lane = ROTATE(b->lane, 12);
    a->lane += b->lane;
    d->lane ^= a->lane;
    d->lane = ROTATE(d->lane, 8);
    c->lane += d->lane;
    b->lane ^= c->lane;
    b->lane = ROTATE(b->lane, 7);
}

FIRN_INLINE struct quad spread(uint32_t v) {
    return (struct quad){{v, v, v, v}};
}

// Columns, then diagonals.
FIRN_INLINE void double_round(struct quad x[16]) {
    quarter_round(&x[0], &x[4], &x[8], &x[12]);
    quarter_round(&x[1], &x[5], &x[9], &x[13]);
    quarter_round(&x[2], &x[6], &x[10], &x[14]);
    quarter_round(&x[3], &x[7], &x[11], &x[15]);
    quarter_round(&x[0], &x[5], &x[10], &x[15]);
    quarter_round(&x[1], &x[6], &x[11], &x[12]);
    quarter_round(&x[2], &x[7], &x[8], &x[13]);
    quarter_round(&x[3], &x[4], &x[9], &x[14]);
}

#define LOW(x, y) __builtin_shufflevector((x).lane, (y).lane, 0, 4, 1, 5)
#define HIGH(x, y) __builtin_shufflevector((x).lane, (y).lane, 2, 6, 3, 7)

// Four words of four blocks, from a vector a word to a vector a block.
FIRN_INLINE void write_transposed(const struct quad x[4], uint8_t *out) {
    struct quad even_low = {LOW(x[0], x[2])};
    struct quad even_high = {HIGH(x[0], x[2])};
    struct quad odd_low = {LOW(x[1], x[3])};
    struct quad odd_high = {HIGH(x[1], x[3])};
    struct quad block[4] = {{LOW(even_low, odd_low)},
                            {HIGH(even_low, odd_low)},
                            {LOW(even_high, odd_high)},
                            {HIGH(even_high, odd_high)}};
    for (size_t i = 0; i < 4; i++) {
        memcpy(out + i * 64, &block[i], sizeof(block[i]));
    }
}

FIRN_INLINE void quad_keystream(const struct quad input[16], unsigned rounds, uint8_t *out) {
    struct quad x[16];
    memcpy(x, input, sizeof(x));
    for (unsigned r = 0; r < rounds; r += 2) {
        double_round(x);
    }
    for (unsigned word = 0; word < 16; word++) {
        x[word].lane += input[word].lane;
    }
    for (size_t word = 0; word < 16; word += 4) {
        write_transposed(x + word, out + word * 4);
    }
}

static void keystream_plain(struct quad input[16], unsigned rounds, uint8_t *out, size_t quads) {
    for (size_t q = 0; q < quads; q++) {
        quad_keystream(input, rounds, out + q * CHACHA_QUAD);
        input[12].lane += 4;
    }
}

// The same with an instruction to rotate, and room in registers for all words: half the instructions.
__attribute__((target("avx512f,avx512vl"))) static void keystream_wide(struct quad input[16],
                                                                       unsigned rounds,
                                                                       uint8_t *out, size_t quads) {
    for (size_t q = 0; q < quads; q++) {
        quad_keystream(input, rounds, out + q * CHACHA_QUAD);
        input[12].lane += 4;
    }
}

bool firn_chacha_is_plain;

static bool can_be_wide(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
}

void chacha_keystream(const uint32_t key[8], const uint32_t nonce[3], uint32_t counter,
                      unsigned rounds, uint8_t *out, size_t quads) {
    struct quad input[16];
    input[0] = spread(0x61707865);
    input[1] = spread(0x3320646e);
    input[2] = spread(0x79622d32);
    input[3] = spread(0x6b206574);
    for (unsigned i = 0; i < 8; i++) {
        input[4 + i] = spread(key[i]);
    }
    input[12] = (struct quad){{counter, counter + 1, counter + 2, counter + 3}};
    for (unsigned i = 0; i < 3; i++) {
        input[13 + i] = spread(nonce[i]);
    }
    if (!firn_chacha_is_plain && can_be_wide()) {
        keystream_wide(input, rounds, out, quads);
    } else {
        keystream_plain(input, rounds, out, quads);
    }
    // The key must not stay behind on the stack.
    explicit_bzero(input, sizeof(input));
}
