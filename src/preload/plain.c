#undef _FORTIFY_SOURCE
#include "src/preload/plain.h"

#include "src/base/align.h"
#include "src/base/fatal.h"

#include <stdint.h>
#include <string.h>
#include <wchar.h>

// Firn's own calls, which the linker renames (-Wl,--wrap): they are not the program's to be checked, and
// wipe blocks that are not live.
void *__wrap_memcpy(void *to, const void *from, size_t n);
void *__wrap_memmove(void *to, const void *from, size_t n);
void *__wrap_memset(void *p, int byte, size_t n);
// What they are in a build with -D_FORTIFY_SOURCE.
void *__wrap___memcpy_chk(void *to, const void *from, size_t n, size_t room);
void *__wrap___memmove_chk(void *to, const void *from, size_t n, size_t room);
void *__wrap___memset_chk(void *p, int byte, size_t n, size_t room);

// wmemmove is memmove that counts in wide characters: the last bytes are taken before it overwrites
// them, and put down after it has read what they overwrite.
void plain_move(void *to, const void *from, size_t n) {
    size_t bulk = n / sizeof(wchar_t), tail = n % sizeof(wchar_t);
    const unsigned char *last = (const unsigned char *)from + n - tail;
    unsigned char *place = (unsigned char *)to + n - tail;
    unsigned char kept[3] = {0, 0, 0};
    switch (tail) {
    case 3:
        kept[2] = last[2]; // fall through
    case 2:
        kept[1] = last[1]; // fall through
    case 1:
        kept[0] = last[0]; // fall through
    default:
        break;
    }
    wmemmove(to, from, bulk);
    switch (tail) {
    case 3:
        place[2] = kept[2]; // fall through
    case 2:
        place[1] = kept[1]; // fall through
    case 1:
        place[0] = kept[0]; // fall through
    default:
        break;
    }
}

// Short fills are two words that may overlap. Long ones: a word at each end, wmemset between them.
static void fill_short(unsigned char *p, uint64_t word, size_t n) {
    uint32_t half = (uint32_t)word;
    if (n >= 8) {
        __builtin_memcpy(p, &word, 8);
        __builtin_memcpy(p + n - 8, &word, 8);
    } else if (n >= 4) {
        __builtin_memcpy(p, &half, 4);
        __builtin_memcpy(p + n - 4, &half, 4);
    } else if (n > 0) {
        p[0] = p[n / 2] = p[n - 1] = (unsigned char)word;
    }
}

void plain_fill(void *p, int byte, size_t n) {
    uint64_t word = (unsigned char)byte * UINT64_C(0x0101010101010101);
    unsigned char *at = p;
    if (n < 16) {
        fill_short(at, word, n);
        return;
    }
    uintptr_t first = align_up((uintptr_t)at, 8);
    uintptr_t end = (uintptr_t)at + n;
    __builtin_memcpy(at, &word, 8);
    __builtin_memcpy(at + n - 8, &word, 8);
    wmemset((wchar_t *)first, (wchar_t)(uint32_t)word, (end - first) / sizeof(wchar_t));
}

void *__wrap_memcpy(void *to, const void *from, size_t n) {
    plain_copy(to, from, n);
    return to;
}

void *__wrap_memmove(void *to, const void *from, size_t n) {
    plain_move(to, from, n);
    return to;
}

void *__wrap_memset(void *p, int byte, size_t n) {
    plain_fill(p, byte, n);
    return p;
}

void *__wrap___memcpy_chk(void *to, const void *from, size_t n, size_t room) {
    FIRN_ENSURE(n <= room);
    return __wrap_memcpy(to, from, n);
}

void *__wrap___memmove_chk(void *to, const void *from, size_t n, size_t room) {
    FIRN_ENSURE(n <= room);
    return __wrap_memmove(to, from, n);
}

void *__wrap___memset_chk(void *p, int byte, size_t n, size_t room) {
    FIRN_ENSURE(n <= room);
    return __wrap_memset(p, byte, n);
}
