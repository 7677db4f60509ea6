// Each vector holds one word of eight consecutive blocks, so the rounds need no shuffles. The vector
// type is the compiler's: AVX2, two SSE2 registers on baseline x86-64, two of NEON on arm64, plain words elsewhere.
#include "src/base/chacha.h"

#include "src/base/compiler.h"

#include <stdbool.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are written as they are stored");

enum { BLOCK = 64, BLOCKS = 8, HALF = CHACHA_QUAD, WHOLE = BLOCKS * BLOCK };
_Static_assert(WHOLE == 2 * HALF, "two quads at a time");

struct octet {
    uint32_t lane __attribute__((vector_size(32)));
};

#define ROTATE(x, n) ((x) << (n) | (x) >> (32 - (n)))

FIRN_INLINE void quarter_round(struct octet *a, struct octet *b, struct octet *c, struct octet *d) {
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

FIRN_INLINE struct octet spread(uint32_t v) {
    return (struct octet){{v, v, v, v, v, v, v, v}};
}

// Columns, then diagonals.
FIRN_INLINE void double_round(struct octet x[16]) {
    quarter_round(&x[0], &x[4], &x[8], &x[12]);
    quarter_round(&x[1], &x[5], &x[9], &x[13]);
    quarter_round(&x[2], &x[6], &x[10], &x[14]);
    quarter_round(&x[3], &x[7], &x[11], &x[15]);
    quarter_round(&x[0], &x[5], &x[10], &x[15]);
    quarter_round(&x[1], &x[6], &x[11], &x[12]);
    quarter_round(&x[2], &x[7], &x[8], &x[13]);
    quarter_round(&x[3], &x[4], &x[9], &x[14]);
}

#define LOW(x, y) __builtin_shufflevector((x).lane, (y).lane, 0, 8, 1, 9, 4, 12, 5, 13)
#define HIGH(x, y) __builtin_shufflevector((x).lane, (y).lane, 2, 10, 3, 11, 6, 14, 7, 15)

// Four words of eight blocks, from a vector a word to half a vector a block.
FIRN_INLINE void write_transposed(const struct octet x[4], uint8_t *out) {
    struct octet even_low = {LOW(x[0], x[2])};
    struct octet even_high = {HIGH(x[0], x[2])};
    struct octet odd_low = {LOW(x[1], x[3])};
    struct octet odd_high = {HIGH(x[1], x[3])};
    struct octet blocks[4] = {{LOW(even_low, odd_low)},
                              {HIGH(even_low, odd_low)},
                              {LOW(even_high, odd_high)},
                              {HIGH(even_high, odd_high)}};
    for (size_t i = 0; i < 4; i++) {
        uint32_t words[8];
        memcpy(words, &blocks[i], sizeof words);
        memcpy(out + i * BLOCK, &words[0], 16);
        memcpy(out + HALF + i * BLOCK, &words[4], 16);
    }
}

FIRN_INLINE void octet_keystream(const struct octet input[16], unsigned rounds, uint8_t *out) {
    struct octet x[16];
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

FIRN_INLINE void keystream(struct octet input[16], unsigned rounds, uint8_t *out, size_t quads) {
    uint8_t whole[WHOLE]; // of which the last half is not wanted
    while (quads > 0) {
        const bool is_half = quads < 2;
        // cppcheck-suppress legacyUninitvar // it is filled in there
        octet_keystream(input, rounds, is_half ? whole : out);
        if (is_half) {
            memcpy(out, whole, HALF);
            explicit_bzero(whole, sizeof(whole));
            return;
        }
        input[12].lane += BLOCKS;
        quads -= 2;
        out += WHOLE;
    }
}

// Not in the same place as the others: few machines need it.
FIRN_NOINLINE static void keystream_plain(struct octet input[16], unsigned rounds, uint8_t *out,
                                          size_t quads) {
    keystream(input, rounds, out, quads);
}

// One register for each word of eight blocks: half the time.
__attribute__((target("avx2"))) static void keystream_wide(struct octet input[16], unsigned rounds,
                                                           uint8_t *out, size_t quads) {
    keystream(input, rounds, out, quads);
}

// The same with an instruction to rotate, and room in registers for all words.
__attribute__((target("avx512f,avx512vl"))) static void keystream_widest(struct octet input[16],
                                                                         unsigned rounds,
                                                                         uint8_t *out,
                                                                         size_t quads) {
    keystream(input, rounds, out, quads);
}

unsigned firn_chacha_most = 2;

static bool can_be_wide(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2");
}

static bool can_be_widest(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
}

void chacha_keystream(const uint32_t key[8], const uint32_t nonce[3], uint32_t counter,
                      unsigned rounds, uint8_t *out, size_t quads) {
    struct octet input[16];
    input[0] = spread(0x61707865);
    input[1] = spread(0x3320646e);
    input[2] = spread(0x79622d32);
    input[3] = spread(0x6b206574);
    for (unsigned i = 0; i < 8; i++) {
        input[4 + i] = spread(key[i]);
    }
    input[12] = spread(counter);
    input[12].lane += (struct octet){{0, 1, 2, 3, 4, 5, 6, 7}}.lane;
    for (unsigned i = 0; i < 3; i++) {
        input[13 + i] = spread(nonce[i]);
    }
    if (firn_chacha_most >= 2 && can_be_widest()) {
        keystream_widest(input, rounds, out, quads);
    } else if (firn_chacha_most >= 1 && can_be_wide()) {
        keystream_wide(input, rounds, out, quads);
    } else {
        keystream_plain(input, rounds, out, quads);
    }
    // The key must not stay behind on the stack.
    explicit_bzero(input, sizeof(input));
}
