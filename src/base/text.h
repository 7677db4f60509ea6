// Bounded text building without allocation, locale or locks: usable on fatal paths and in signals.
#ifndef FIRN_BASE_TEXT_H
#define FIRN_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
    char *data; // always NUL-terminated when capacity > 0
    size_t length;
    size_t capacity; // bytes, terminator included; what does not fit is dropped, never overrun
};

struct text text_on(char *buffer, size_t capacity);
void text_char(struct text *t, char c);
void text_str(struct text *t, const char *s);
void text_printable(struct text *t, const char *s); // ? for what is not ASCII, or controls
void text_bytes(struct text *t, const char *s, size_t n);
// At most 48 bytes, in quotation marks; nothing in it reaches a terminal as a control sequence.
void text_quote(struct text *t, const char *s, size_t n);
void text_dec(struct text *t, uint64_t v);
void text_hex(struct text *t, uint64_t v); // with 0x
// Parses an unsigned decimal with optional k, m, g suffix (powers of 1024). False if malformed or
// out of range; *out is untouched then.
bool text_parse_size(const char *s, size_t n, uint64_t *out);
// Levenshtein distance of two short words (bytes beyond 31 are ignored).
unsigned text_distance(const char *a, size_t an, const char *b, size_t bn);

#endif
