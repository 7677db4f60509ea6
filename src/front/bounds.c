#include "src/front/bounds.h"

#include "src/base/fatal.h"
#include "src/base/text.h"

#include <string.h>

enum { FOUND_BYTES = 96 };

// By arithmetic: large_find would take a lock that this thread may hold.
static size_t class_bytes_at(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    if (sample_contains(address)) {
        struct large_block block;
        (void)sample_find(address, &block);
        return sample_class_bytes(block.size);
    }
    if (offset >= FIRN_ROOT.small_bytes) {
        return FATAL_CLASS_LARGE;
    }
    return FIRN_ROOT.classes[root_cell_class((unsigned)(offset >> FIRN_ROOT.cell_shift))].bytes;
}

static FIRN_NORETURN void die(const void *p, const char *found, const struct bounds_call *call) {
    struct fatal_info info = {
        .api = call->api,
        .address = (uintptr_t)p,
        .class_bytes = class_bytes_at((uintptr_t)p),
        .size = call->size,
        .found = found,
        .caller = call->caller,
    };
    fatal(FATAL_OUT_OF_BOUNDS, &info);
}

static void put_room(struct text *found, size_t room) {
    if (room == 0) {
        text_str(found, "no live object there");
    } else {
        text_dec(found, room);
        text_str(found, " left in the object");
    }
}

static FIRN_NORETURN void die_at(const void *p, const char *access, size_t n,
                                 const struct bounds_call *call) {
    char buffer[FOUND_BYTES];
    struct text found = text_on(buffer, sizeof(buffer));
    text_str(&found, access);
    text_dec(&found, n);
    text_str(&found, " bytes, ");
    put_room(&found, bounds_room(p));
    die(p, buffer, call);
}

void bounds_die_reading(const void *p, size_t n, const struct bounds_call *call) {
    die_at(p, "read of ", n, call);
}

void bounds_die_writing(const void *p, size_t n, const struct bounds_call *call) {
    die_at(p, "write of ", n, call);
}

FIRN_NORETURN FIRN_COLD static void die_endless(const char *s, size_t room,
                                                const struct bounds_call *call) {
    char buffer[FOUND_BYTES];
    struct text found = text_on(buffer, sizeof(buffer));
    text_str(&found, "string without an end, ");
    put_room(&found, room);
    die(s, buffer, call);
}

size_t bounds_length(const char *s, const struct bounds_call *call) {
    return bounds_length_most(s, SIZE_MAX, call);
}

size_t bounds_length_most(const char *s, size_t most, const struct bounds_call *call) {
    size_t room = bounds_room(s);
    size_t limit = room < most ? room : most;
    // strnlen computes s + limit.
    size_t n = limit > PTRDIFF_MAX ? strlen(s) : strnlen(s, limit);
    if (FIRN_UNLIKELY(n == room && room < most)) {
        die_endless(s, room, call);
    }
    return n;
}
