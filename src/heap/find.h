// What a pointer is: the one place that decides, for free, realloc, usable size and reports.
#ifndef FIRN_HEAP_FIND_H
#define FIRN_HEAP_FIND_H

#include "src/base/fatal.h"
#include "src/heap/heap.h"
#include "src/span/large.h"
#include "src/span/span.h"

enum found_kind {
    FOUND_SLOT,   // the start of a live slot
    FOUND_LARGE,  // the start of a live large block
    FOUND_SAMPLE, // the start of a live guarded sample
    FOUND_BAD     // misuse: `id` and `what` say which
};

struct found {
    enum found_kind kind;
    struct span *span; // FOUND_SLOT
    unsigned slot;
    size_t class_bytes;
    struct large_block block; // FOUND_LARGE, FOUND_SAMPLE
    enum fatal_id id;         // FOUND_BAD
    const char *what;
};

// Whether an address is not one of Firn's: with large_only, a block of the next allocator's. No lock; any context.
bool find_is_outside(const void *p);
void find_pointer(const void *p, struct found *out);
// P-CANARY, P-SLACK, P-LARGE-SLACK: a live block that was written to past its end, or whose neighbour's
// canary is broken, becomes FOUND_BAD. Not part of the
// above: programs that ask for the usable size ask it of every block, and would wait for more memory.
void find_check(struct found *f);
// Misuse of `p`, as `found` says.
FIRN_NORETURN void find_report(const void *p, const struct found *found,
                               const struct heap_call *call);
// What a large block's kind means when a live one was expected.
void find_describe_large(enum large_kind kind, struct found *out);
// The same for a guarded sample; out->block is known.
void find_describe_sample(enum large_kind kind, struct found *out);

#endif
