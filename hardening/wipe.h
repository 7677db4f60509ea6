// P-WIPE, P-VERIFY: zeros over a freed slot, and the check that they are still there when it is handed out again, in
// three widths: what any processor can do (narrow), 32-byte registers (wide), 64-byte registers with
// masks (widest).
//
// Most slots are small and their sizes come in no order, so a loop over the bytes costs more by its
// mispredicted end than by its stores. Up to 256 bytes the number of accesses is therefore fixed:
// those that would go past the end are drawn back to the last full register (wide), or masked out.
//
// `p` is a multiple of 16, `n` a multiple of 8 and not 0.
#ifndef FIRN_HARDENING_WIPE_H
#define FIRN_HARDENING_WIPE_H

#include "src/base/compiler.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIPE_WIDE __attribute__((target("avx2")))
#define WIPE_WIDEST __attribute__((target("avx512f,avx512dq,avx512bw,bmi2")))

enum { WIPE_WORD = 8, WIPE_REGISTER = 32, WIPE_REGISTERS = 8 };
enum { WIPE_STEP = WIPE_REGISTER * WIPE_REGISTERS };

// What this processor, and its operating system, can do.
FIRN_INLINE bool wipe_can_be_wide(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2");
}

FIRN_INLINE bool wipe_can_be_widest(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("bmi2");
}

FIRN_INLINE uint64_t wipe_load(const char *p) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

FIRN_INLINE void wipe_store_zero(char *p) {
    uint64_t word = 0;
    memcpy(p, &word, sizeof word);
}

// Where the middle one of 1, 2 or 3 words is.
FIRN_INLINE size_t wipe_middle(size_t n) {
    return n / 2 & ~(size_t)(WIPE_WORD - 1);
}

WIPE_WIDE FIRN_INLINE __m256i wipe_load_wide(const char *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

WIPE_WIDE FIRN_INLINE void wipe_store_wide(char *p) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm256_setzero_si256());
}

// Where the eight registers begin that cover 8 * w bytes, 32 at least. Looked up: to compute it takes three
// instructions for each.
#define WIPE_AT_WIDE(w, most) (uint8_t)(8 * (w) < (most) + 32 ? 8 * (w)-32 : (most))
#define WIPE_ROW_WIDE(w)                                                                           \
    {                                                                                              \
        WIPE_AT_WIDE(w, 0), WIPE_AT_WIDE(w, 32), WIPE_AT_WIDE(w, 64), WIPE_AT_WIDE(w, 96),         \
            WIPE_AT_WIDE(w, 128), WIPE_AT_WIDE(w, 160), WIPE_AT_WIDE(w, 192), WIPE_AT_WIDE(w, 224) \
    }
#define WIPE_ROWS_WIDE(w)                                                                          \
    WIPE_ROW_WIDE(w), WIPE_ROW_WIDE((w) + 1), WIPE_ROW_WIDE((w) + 2), WIPE_ROW_WIDE((w) + 3)
static const uint8_t wipe_rows_wide[][WIPE_REGISTERS] = {
    WIPE_ROWS_WIDE(4),  WIPE_ROWS_WIDE(8),  WIPE_ROWS_WIDE(12), WIPE_ROWS_WIDE(16),
    WIPE_ROWS_WIDE(20), WIPE_ROWS_WIDE(24), WIPE_ROWS_WIDE(28), WIPE_ROW_WIDE(32),
};
enum { WIPE_LEAST_WORDS = WIPE_REGISTER / WIPE_WORD };
_Static_assert(sizeof wipe_rows_wide ==
                   (WIPE_STEP / WIPE_WORD - WIPE_LEAST_WORDS + 1) * WIPE_REGISTERS,
               "all");

WIPE_WIDE FIRN_INLINE void wipe_zero_wide(void *p, size_t n) {
    char *bytes = p;
    if (FIRN_UNLIKELY(n < WIPE_REGISTER)) {
        wipe_store_zero(bytes);
        wipe_store_zero(bytes + wipe_middle(n));
        wipe_store_zero(bytes + n - WIPE_WORD);
        return;
    }
    if (FIRN_UNLIKELY(n > WIPE_STEP)) {
        for (; n > WIPE_STEP; bytes += WIPE_STEP, n -= WIPE_STEP) {
#pragma GCC unroll 8
            for (size_t i = 0; i < WIPE_STEP; i += WIPE_REGISTER) {
                wipe_store_wide(bytes + i);
            }
            __asm__(
                "" ::
                    : "memory"); // lest it becomes a call of memset, which costs short slots, too
        }
        bytes -= WIPE_STEP - n; // a whole step of what is left
        n = WIPE_STEP;
    }
    const uint8_t *at = wipe_rows_wide[n / WIPE_WORD - WIPE_LEAST_WORDS];
#pragma GCC unroll 8
    for (size_t i = 0; i < WIPE_REGISTERS; i++) {
        wipe_store_wide(bytes + at[i]);
    }
}

WIPE_WIDE FIRN_INLINE bool wipe_is_zero_wide(const void *p, size_t n) {
    const char *bytes = p;
    if (FIRN_UNLIKELY(n < WIPE_REGISTER)) {
        return (wipe_load(bytes) | wipe_load(bytes + wipe_middle(n)) |
                wipe_load(bytes + n - WIPE_WORD)) == 0;
    }
    __m256i seen = _mm256_setzero_si256();
    if (FIRN_UNLIKELY(n > WIPE_STEP)) {
        for (; n > WIPE_STEP; bytes += WIPE_STEP, n -= WIPE_STEP) {
#pragma GCC unroll 8
            for (size_t i = 0; i < WIPE_STEP; i += WIPE_REGISTER) {
                seen = _mm256_or_si256(seen, wipe_load_wide(bytes + i));
            }
        }
        bytes -= WIPE_STEP - n;
        n = WIPE_STEP;
    }
    const uint8_t *at = wipe_rows_wide[n / WIPE_WORD - WIPE_LEAST_WORDS];
#pragma GCC unroll 8
    for (size_t i = 0; i < WIPE_REGISTERS; i++) {
        seen = _mm256_or_si256(seen, wipe_load_wide(bytes + at[i]));
    }
    return _mm256_testz_si256(seen, seen) != 0;
}

// How 8 * w bytes are covered by four accesses of up to 64 bytes, none of which reaches beyond them: to touch
// the lines after a slot, if only with a mask that selects nothing there, costs churn 5 %. Looked up, since
// it takes a dozen instructions to compute.
struct wipe_row {
    uint8_t words; // of each access, as a mask
    uint8_t at[3]; // where the second, third and fourth begin; the first does at 0
};
#define WIPE_LAST(w) ((w) <= 8 ? 0 : 8 * ((w)-8))
#define WIPE_AT(w, most) (uint8_t)(WIPE_LAST(w) < (most) ? WIPE_LAST(w) : (most))
#define WIPE_ROW(w)                                                                                \
    {                                                                                              \
        .words = (uint8_t)(0xff >> ((w) < 8 ? 8 - (w) : 0)), .at = {                               \
            WIPE_AT(w, 64),                                                                        \
            WIPE_AT(w, 128),                                                                       \
            WIPE_AT(w, 192)                                                                        \
        }                                                                                          \
    }
#define WIPE_ROWS(w) WIPE_ROW(w), WIPE_ROW((w) + 1), WIPE_ROW((w) + 2), WIPE_ROW((w) + 3)
static const struct wipe_row wipe_rows[] = {
    WIPE_ROWS(0),  WIPE_ROWS(4),  WIPE_ROWS(8),  WIPE_ROWS(12), WIPE_ROWS(16),
    WIPE_ROWS(20), WIPE_ROWS(24), WIPE_ROWS(28), WIPE_ROW(32),
};
_Static_assert(sizeof wipe_rows == (WIPE_STEP / WIPE_WORD + 1) * sizeof(struct wipe_row), "all");

WIPE_WIDEST FIRN_INLINE void wipe_zero_widest(void *p, size_t n) {
    const __m512i zero = _mm512_setzero_si512();
    char *bytes = p;
    for (; FIRN_UNLIKELY(n > WIPE_STEP); bytes += WIPE_STEP, n -= WIPE_STEP) {
        for (size_t i = 0; i < WIPE_STEP; i += 64) {
            _mm512_storeu_si512(bytes + i, zero);
        }
        __asm__("" ::: "memory"); // lest it becomes a call of memset, which costs short slots, too
    }
    const struct wipe_row *row = &wipe_rows[n / WIPE_WORD];
    __mmask8 words = row->words;
    _mm512_mask_storeu_epi64(bytes, words, zero);
    _mm512_mask_storeu_epi64(bytes + row->at[0], words, zero);
    _mm512_mask_storeu_epi64(bytes + row->at[1], words, zero);
    _mm512_mask_storeu_epi64(bytes + row->at[2], words, zero);
}

WIPE_WIDEST FIRN_INLINE bool wipe_is_zero_widest(const void *p, size_t n) {
    const char *bytes = p;
    for (; FIRN_UNLIKELY(n > WIPE_STEP); bytes += WIPE_STEP, n -= WIPE_STEP) {
        __m512i seen = _mm512_setzero_si512();
        for (size_t i = 0; i < WIPE_STEP; i += 64) {
            seen = _mm512_or_si512(seen, _mm512_loadu_si512(bytes + i));
        }
        if (_mm512_test_epi64_mask(seen, seen) != 0) {
            return false;
        }
    }
    const struct wipe_row *row = &wipe_rows[n / WIPE_WORD];
    __mmask8 words = row->words;
    __m512i a = _mm512_maskz_loadu_epi64(words, bytes);
    __m512i b = _mm512_maskz_loadu_epi64(words, bytes + row->at[0]);
    __m512i c = _mm512_maskz_loadu_epi64(words, bytes + row->at[1]);
    __m512i d = _mm512_maskz_loadu_epi64(words, bytes + row->at[2]);
    __m512i seen = _mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d));
    return _mm512_test_epi64_mask(seen, seen) == 0;
}

FIRN_INLINE void wipe_zero_narrow(void *p, size_t n) {
    memset(p, 0, n);
}

FIRN_INLINE bool wipe_is_zero_narrow(const void *p, size_t n) {
    const char *bytes = p;
    uint64_t seen = 0;
    for (size_t at = 0; at < n; at += WIPE_WORD) {
        seen |= wipe_load(bytes + at);
    }
    return seen == 0;
}

// Offset of the first byte that is not zero; `n` if there is none.
FIRN_INLINE size_t wipe_first_changed(const void *p, size_t n) {
    const unsigned char *bytes = p;
    size_t at = 0;
    while (at < n && bytes[at] == 0) {
        at++;
    }
    return at;
}

#endif
