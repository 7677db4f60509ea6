#include "src/fuzzbuild/pattern.h"

#include <stdbool.h>
#include <string.h>

// One byte per address modulo 8. None is 0 or 0xff, the bytes an off-by-one writes most often.
static uint64_t key;

void pattern_start(uint64_t seed) {
    uint64_t v = (seed + UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xbf58476d1ce4e5b9);
    for (unsigned shift = 0; shift < 64; shift += 8) {
        key |= (1 + (v >> shift & 0xff) % 254) << shift;
    }
}

// `word` seen from `distance` bytes further on.
static uint64_t turn(uint64_t word, uintptr_t distance) {
    unsigned shift = (unsigned)(distance % sizeof(word)) * 8;
    return shift == 0 ? word : word >> shift | word << (64 - shift);
}

void pattern_fill(uintptr_t address, size_t bytes) {
    uint64_t word = turn(key, address);
    unsigned char *at = (unsigned char *)address;
    for (; bytes >= sizeof(word); at += sizeof(word), bytes -= sizeof(word)) {
        memcpy(at, &word, sizeof(word));
    }
    memcpy(at, &word, bytes);
}

enum { STEP = 4 * sizeof(uint64_t) };

// Four words at a time: a block is looked at as a whole far more often than it is wrong.
static bool is_all(const unsigned char *at, uint64_t word) {
    uint64_t w[4];
    memcpy(w, at, sizeof(w));
    return ((w[0] ^ word) | (w[1] ^ word) | (w[2] ^ word) | (w[3] ^ word)) == 0;
}

static uintptr_t find_difference(const unsigned char *at, size_t bytes, uint64_t word) {
    unsigned char expected[8];
    memcpy(expected, &word, sizeof(word));
    for (size_t i = 0; i < bytes; i++) {
        if (at[i] != expected[i % sizeof(word)]) {
            return (uintptr_t)(at + i);
        }
    }
    return 0;
}

static bool is_word(const unsigned char *at, uint64_t word) {
    uint64_t found;
    memcpy(&found, at, sizeof(found));
    return found == word;
}

// True if all `bytes` are as expected. What is left after whole steps is seen together with bytes before.
static bool is_untouched(const unsigned char *at, size_t bytes, uint64_t word) {
    size_t i = 0, last;
    if (bytes >= STEP) {
        while (i + STEP <= bytes && is_all(at + i, word)) {
            i += STEP;
        }
        last = bytes - STEP;
        return i + STEP > bytes && is_all(at + last, turn(word, last));
    }
    if (bytes >= sizeof(word)) {
        while (i + sizeof(word) <= bytes && is_word(at + i, word)) {
            i += sizeof(word);
        }
        last = bytes - sizeof(word);
        return i + sizeof(word) > bytes && is_word(at + last, turn(word, last));
    }
    return find_difference(at, bytes, word) == 0;
}

static uintptr_t first_difference(uintptr_t address, size_t bytes, uint64_t word) {
    const unsigned char *at = (const unsigned char *)address;
    return is_untouched(at, bytes, word) ? 0 : find_difference(at, bytes, word);
}

uintptr_t pattern_check(uintptr_t address, size_t bytes) {
    return first_difference(address, bytes, turn(key, address));
}

uintptr_t pattern_check_byte(uintptr_t address, size_t bytes, unsigned char value) {
    return first_difference(address, bytes, value * UINT64_C(0x0101010101010101));
}
