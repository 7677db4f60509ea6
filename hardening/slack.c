#include "hardening/slack.h"

#include "src/base/fatal.h"

#include <string.h>

enum { WORD = 8 };

// No byte is 0, and none is a character of ASCII: text written one too far never matches.
#define TOP_BITS (CANARY_ONES << 7)

// Of the eight bytes at `at`. The complement: nothing there tells a canary.
static uint64_t word_for(uintptr_t at) {
    return canary_of(~(at & ~(uintptr_t)(WORD - 1))) | TOP_BITS;
}

static unsigned char byte_for(uintptr_t at) {
    return (unsigned char)(word_for(at) >> (at % WORD * 8));
}

// NOLINTBEGIN(performance-no-int-to-ptr)
void slack_fill(uintptr_t from, uintptr_t to) {
    for (; from < to && from % WORD != 0; from++) {
        *(unsigned char *)from = byte_for(from);
    }
    for (; from < to; from += WORD) {
        uint64_t word = word_for(from);
        memcpy((void *)from, &word, sizeof word);
    }
}

bool slack_is_filled(uintptr_t from, uintptr_t to) {
    uint64_t change = 0;
    for (; from < to && from % WORD != 0; from++) {
        change |= *(const unsigned char *)from ^ byte_for(from);
    }
    for (; from < to; from += WORD) {
        uint64_t word;
        memcpy(&word, (const void *)from, sizeof word);
        change |= word ^ word_for(from);
    }
    return change == 0;
}

void slack_flip(uintptr_t from, uintptr_t to, unsigned char *copy) {
    for (; from < to && from % WORD != 0; from++) {
        *copy++ ^= byte_for(from);
    }
    for (; from < to; from += WORD, copy += WORD) {
        uint64_t word;
        memcpy(&word, copy, sizeof word);
        word ^= word_for(from);
        memcpy(copy, &word, sizeof word);
    }
}

FIRN_NOINLINE void slack_check(uintptr_t address, size_t slot_bytes, const char *api,
                               uintptr_t site) {
    if (FIRN_LIKELY(slack_is_whole(address, slot_bytes))) {
        return;
    }
    struct fatal_info info = {
        .api = api,
        .address = address,
        .class_bytes = slot_bytes,
        .size = FATAL_SIZE_UNKNOWN,
        .found = SLACK_FOUND,
        .caller = site,
    };
    fatal(FATAL_OVERFLOW, &info);
}

void slack_resize(uintptr_t address, size_t slot_bytes, size_t size) {
    if (!FIRN_SLACK) {
        return;
    }
    size_t old = slack_size(address, slot_bytes);
    slack_forget(address, slot_bytes);
    if (size > old) {
        memset((void *)(address + old), 0, size - old);
    }
    slack_note(address, slot_bytes, size);
}
// NOLINTEND(performance-no-int-to-ptr)
