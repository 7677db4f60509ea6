#include "tests/support/pages.h"

#include <stdio.h>
#include <string.h>

enum { PAGE = 4096 };

const char *const pages_names[PAGES_KINDS] = {"json", "pointers", "words", "code", "random"};

static uint64_t draw(uint64_t *seed) {
    uint64_t v = (*seed += UINT64_C(0x9e3779b97f4a7c15));
    v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
    return v ^ v >> 31;
}

// A block of 512 bytes each, as a cache of a web service holds them.
static void fill_json(char *page, uint64_t *seed) {
    for (unsigned at = 0; at < PAGE; at += 512) {
        memset(page + at, 0, 512);
        snprintf(
            page + at, 512,
            "{\"id\": %u, \"user\": \"user%u\", \"email\": \"user%u@example.com\", \"active\": %s, "
            "\"visits\": %u, \"tags\": [\"alpha\", \"beta\", \"gamma\"], \"address\": {\"city\": "
            "\"Springfield\", \"street\": \"%u Main Street\", \"zip\": \"%05u\"}, \"balance\": "
            "%u.%02u, \"created\": \"2024-%02u-%02uT%02u:%02u:00Z\"}",
            (unsigned)draw(seed) % 1000000, (unsigned)draw(seed) % 100000,
            (unsigned)draw(seed) % 100000, draw(seed) % 2 ? "true" : "false",
            (unsigned)draw(seed) % 1000, (unsigned)draw(seed) % 1000, (unsigned)draw(seed) % 100000,
            (unsigned)draw(seed) % 10000, (unsigned)draw(seed) % 100, (unsigned)draw(seed) % 12 + 1,
            (unsigned)draw(seed) % 28 + 1, (unsigned)draw(seed) % 24, (unsigned)draw(seed) % 60);
    }
}

// Anywhere in 256 MiB, in multiples of 16.
static void fill_pointers(char *page, uint64_t *seed) {
    for (unsigned at = 0; at < PAGE; at += 8) {
        uint64_t p = UINT64_C(0x7f3a40000000) + (draw(seed) & 0xffffff0);
        memcpy(page + at, &p, 8);
    }
}

// The words of a language are used as often as their rank says (Zipf): 1,000 of them, of 2 to 9 letters.
static void fill_words(char *page, uint64_t *seed) {
    for (unsigned at = 0; at < PAGE;) {
        uint64_t skew = draw(seed) % 1000 * (draw(seed) % 1000) / 1000;
        uint64_t word = skew * 7919 + 17;
        unsigned letters = 2 + (unsigned)(draw(&word) % 8);
        for (; letters > 0 && at < PAGE; letters--) {
            page[at++] = "etaoinshrdlucmfwypvbgkqjxz"[draw(&word) % 5 * (draw(&word) % 6)];
        }
        if (at < PAGE) {
            page[at++] = ' ';
        }
    }
}

// As instructions and tables look: few opcodes, registers among them, displacements, small immediates.
static void fill_code(char *page, uint64_t *seed) {
    static const unsigned char common[] = {0x48, 0x89, 0x8b, 0xe8, 0x0f, 0x85, 0x84, 0xc7,
                                           0x83, 0x41, 0x24, 0x55, 0x5d, 0xc3, 0x31, 0xff};
    for (unsigned at = 0; at < PAGE; at++) {
        uint64_t r = draw(seed);
        unsigned kind = (unsigned)(r & 7);
        page[at] = (char)(kind < 4   ? common[r >> 8 & (r >> 16 & 15)]
                          : kind < 6 ? 0
                                     : (unsigned char)(r >> 24 & 0xff));
    }
}

static void fill_random(char *page, uint64_t *seed) {
    for (unsigned at = 0; at < PAGE; at += 8) {
        uint64_t v = draw(seed);
        memcpy(page + at, &v, 8);
    }
}

void pages_fill(void *page, enum pages_kind kind, uint64_t number) {
    static void (*const fill[PAGES_KINDS])(char *, uint64_t *) = {
        fill_json, fill_pointers, fill_words, fill_code, fill_random};
    uint64_t seed = number * UINT64_C(0x2545f4914f6cdd1d) + (unsigned)kind;
    fill[kind](page, &seed);
}
