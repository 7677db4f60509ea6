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

WIPE_WIDE FIRN_INLINE void wipe_zero_wide(void *p, size_t n) {
    char *bytes = p;
    if (FIRN_UNLIKELY(n < WIPE_REGISTER)) {
        wipe_store_zero(bytes);
        wipe_store_zero(bytes + wipe_middle(n));
        wipe_store_zero(bytes + n - WIPE_WORD);
        return;
    }
    char *last = bytes + n - WIPE_REGISTER;
    for (; FIRN_UNLIKELY(last - bytes > WIPE_STEP - WIPE_REGISTER); bytes += WIPE_STEP) {
#pragma GCC unroll 8
        for (size_t i = 0; i < WIPE_REGISTERS; i++) {
            wipe_store_wide(bytes + i * WIPE_REGISTER);
        }
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < WIPE_REGISTERS; i++) {
        char *here = bytes + i * WIPE_REGISTER;
        wipe_store_wide(here < last ? here : last);
    }
}

WIPE_WIDE FIRN_INLINE bool wipe_is_zero_wide(const void *p, size_t n) {
    const char *bytes = p;
    if (FIRN_UNLIKELY(n < WIPE_REGISTER)) {
        return (wipe_load(bytes) | wipe_load(bytes + wipe_middle(n)) |
                wipe_load(bytes + n - WIPE_WORD)) == 0;
    }
    __m256i seen = _mm256_setzero_si256();
    const char *last = bytes + n - WIPE_REGISTER;
    for (; FIRN_UNLIKELY(last - bytes > WIPE_STEP - WIPE_REGISTER); bytes += WIPE_STEP) {
#pragma GCC unroll 8
        for (size_t i = 0; i < WIPE_REGISTERS; i++) {
            seen = _mm256_or_si256(seen, wipe_load_wide(bytes + i * WIPE_REGISTER));
        }
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < WIPE_REGISTERS; i++) {
        const char *here = bytes + i * WIPE_REGISTER;
        seen = _mm256_or_si256(seen, wipe_load_wide(here < last ? here : last));
    }
    return _mm256_testz_si256(seen, seen) != 0;
}

// A bit for each of the first n / 8 words of 256 bytes, in mask registers: of the first 64 bytes in that
// of `at[0]`, and so on. (By hand: compilers shift elsewhere and move the result, three instructions for
// each of these.)
struct wipe_masks {
    __mmask32 at[4];
};

WIPE_WIDEST FIRN_INLINE struct wipe_masks wipe_mask(size_t n) {
    struct wipe_masks m;
    m.at[0] = _cvtu32_mask32(_bzhi_u32(~(uint32_t)0, (uint32_t)(n / WIPE_WORD)));
    __asm__("kshiftrd $8, %1, %0" : "=k"(m.at[1]) : "k"(m.at[0]));
    __asm__("kshiftrd $16, %1, %0" : "=k"(m.at[2]) : "k"(m.at[0]));
    __asm__("kshiftrd $24, %1, %0" : "=k"(m.at[3]) : "k"(m.at[0]));
    return m;
}

WIPE_WIDEST FIRN_INLINE void wipe_zero_widest(void *p, size_t n) {
    const __m512i zero = _mm512_setzero_si512();
    char *bytes = p;
    for (; FIRN_UNLIKELY(n > WIPE_STEP); bytes += WIPE_STEP, n -= WIPE_STEP) {
        for (size_t i = 0; i < WIPE_STEP; i += 64) {
            _mm512_storeu_si512(bytes + i, zero);
        }
        __asm__("" ::: "memory"); // lest it becomes a call of memset, which costs short slots, too
    }
    struct wipe_masks words = wipe_mask(n);
    _mm512_mask_storeu_epi64(bytes, (__mmask8)words.at[0], zero);
    _mm512_mask_storeu_epi64(bytes + 64, (__mmask8)words.at[1], zero);
    _mm512_mask_storeu_epi64(bytes + 128, (__mmask8)words.at[2], zero);
    _mm512_mask_storeu_epi64(bytes + 192, (__mmask8)words.at[3], zero);
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
    struct wipe_masks words = wipe_mask(n);
    __m512i a = _mm512_maskz_loadu_epi64((__mmask8)words.at[0], bytes);
    __m512i b = _mm512_maskz_loadu_epi64((__mmask8)words.at[1], bytes + 64);
    __m512i c = _mm512_maskz_loadu_epi64((__mmask8)words.at[2], bytes + 128);
    __m512i d = _mm512_maskz_loadu_epi64((__mmask8)words.at[3], bytes + 192);
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
