// The validator of spans and central lists: everything span.h, region.h and central.h promise, for
// all spans of a size class. Costs a walk over every descriptor: for debug builds and tests.
//
// The layer above, which knows what threads have in hand, answers for spans that have an owner.
#ifndef FIRN_SLAB_VALID_H
#define FIRN_SLAB_VALID_H

#include "src/slab/central.h"

// The first relation that does not hold.
struct valid_fault {
    const char *relation;
    const struct span *span; // NULL: no single span is to blame
};

// What an owner knows about one of its spans.
struct valid_holding {
    uint64_t in_hand[SPAN_WORDS]; // slots in vectors and mixers
    bool is_doubled;              // one of them twice
};

// False: the owner may be running, so that nothing of the span can be relied on.
typedef bool valid_holding_fn(const struct span *s, const void *context, struct valid_holding *out);

// Notes the fault unless `holds`; returns `holds`.
bool valid_note(bool holds, const char *relation, const struct span *s,
                struct valid_fault *fault) FIRN_CHECKED;
#define VALID_HOLDS(condition, span, fault) valid_note((condition), #condition, (span), (fault))

// False, and *fault, if a relation does not hold. Takes the class lock: other threads may go on.
// The spans they own are then to be left out by `holding`. In a forked child, recovers first.
bool valid_class(unsigned class_index, valid_holding_fn *holding, const void *context,
                 struct valid_fault *fault) FIRN_CHECKED;

#endif
