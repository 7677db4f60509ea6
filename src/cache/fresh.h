// Pages that a refill of a thread's cache takes slots from and that nobody has touched since they were given to the
// span: the kernel is asked for all of a range at once. One by one, as their slots are handed out, each costs a fault.
// Here, next to its only user: elsewhere it would be another stretch of code that every program has to have there.
#ifndef FIRN_CACHE_FRESH_H
#define FIRN_CACHE_FRESH_H

#include "src/base/config.h"
#include "src/os/map.h"
#include "src/span/span.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A larger slot may be used in part; up to this size, at both ends at least, where there is a canary.
enum { FRESH_SLOT_MOST = FIRN_CANARY ? 2 * FIRN_PAGE : FIRN_PAGE, FRESH_RANGES = 25 };

// Of one refill: FRESH_RANGES spans at most. Set count to 0 and is_wanted before use.
struct fresh {
    unsigned count;
    bool is_wanted; // else nothing is collected
    struct {
        uintptr_t address;
        size_t bytes;
    } ranges[FRESH_RANGES];
};

FIRN_INLINE uint32_t fresh_page_up(uint32_t bytes) {
    return (bytes + FIRN_PAGE - 1) & ~(uint32_t)(FIRN_PAGE - 1);
}

// Slots of the span, which is the caller's, were taken up to `end` bytes into it.
FIRN_INLINE void fresh_add(struct fresh *fresh, struct span *s, uint32_t end) {
    uint32_t from = fresh_page_up(s->reached_bytes), to = fresh_page_up(end);
    if (end > s->reached_bytes) {
        s->reached_bytes = end;
    }
    if (fresh->is_wanted && from < to) {
        fresh->ranges[fresh->count].address = span_base(s) + from;
        fresh->ranges[fresh->count++].bytes = to - from;
    }
}

// With no lock: the slots are in hand, and so nobody else's. What cannot be had comes later. Preserves errno.
FIRN_INLINE void fresh_populate(const struct fresh *fresh) {
    for (unsigned i = 0; i < fresh->count; i++) {
        map_populate(fresh->ranges[i].address, fresh->ranges[i].bytes);
    }
}

#endif
