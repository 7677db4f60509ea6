// Text building for fatal paths: nothing here allocates, locks, or looks at a locale.
#include "src/base/text.h"

struct text text_on(char *buffer, size_t capacity) {
    struct text t = {buffer, 0, capacity};
    if (capacity > 0) {
        buffer[0] = '\0';
    }
    return t;
}

void text_char(struct text *t, char c) {
    if (t->capacity > 0 && t->length < t->capacity - 1) {
        t->data[t->length++] = c;
        t->data[t->length] = '\0';
    }
}

void text_bytes(struct text *t, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        text_char(t, s[i]);
    }
}

void text_str(struct text *t, const char *s) {
    while (*s != '\0') {
        text_char(t, *s++);
    }
}

static char printable(char c) {
    return c >= ' ' && c <= '~' ? c : '?';
}

void text_printable(struct text *t, const char *s) {
    for (; *s != '\0'; s++) {
        text_char(t, printable(*s));
    }
}

void text_quote(struct text *t, const char *s, size_t n) {
    const size_t shown = n < 48 ? n : 48;
    text_char(t, '\'');
    for (size_t i = 0; i < shown; i++) {
        text_char(t, printable(s[i]));
    }
    text_str(t, shown < n ? "...'" : "'");
}

// Digits come out last first, so they are collected from the end of a buffer that holds them all.
static void text_digits(struct text *t, uint64_t v, unsigned base) {
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v != 0);
    text_bytes(t, digits + at, sizeof(digits) - at);
}

void text_dec(struct text *t, uint64_t v) {
    text_digits(t, v, 10);
}

void text_hex(struct text *t, uint64_t v) {
    text_str(t, "0x");
    text_digits(t, v, 16);
}

static unsigned suffix_shift(char c) {
    switch (c) {
    case 'k':
    case 'K':
        return 10;
    case 'm':
    case 'M':
        return 20;
    case 'g':
    case 'G':
        return 30;
    default:
        return 0;
    }
}

bool text_parse_size(const char *s, size_t n, uint64_t *out) {
    unsigned shift = n > 0 ? suffix_shift(s[n - 1]) : 0;
    size_t digits = shift > 0 ? n - 1 : n;
    uint64_t v = 0;
    if (digits == 0) {
        return false;
    }
    for (size_t i = 0; i < digits; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return false;
        }
        if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
            __builtin_add_overflow(v, (uint64_t)(s[i] - '0'), &v)) {
            return false;
        }
    }
    if (__builtin_mul_overflow(v, UINT64_C(1) << shift, &v)) {
        return false;
    }
    *out = v;
    return true;
}

static unsigned min3(unsigned a, unsigned b, unsigned c) {
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

// One row of the edit matrix is kept: row[j] is the distance of a's first i bytes to b's first j.
unsigned text_distance(const char *a, size_t an, const char *b, size_t bn) {
    enum { LONGEST = 31 };
    unsigned row[LONGEST + 1];
    an = an < LONGEST ? an : LONGEST;
    bn = bn < LONGEST ? bn : LONGEST;
    for (size_t j = 0; j <= bn; j++) {
        row[j] = (unsigned)j;
    }
    for (size_t i = 1; i <= an; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= bn; j++) {
            unsigned replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = min3(replace, row[j] + 1, row[j - 1] + 1);
        }
    }
    return row[bn];
}
