// Changes what a run's body holds: places an object in it, lets the object grow or shrink where it
// is. Callers hold LOCK_LARGE. Sizes are multiples of the page and not 0.
#ifndef FIRN_SPAN_ADJUST_H
#define FIRN_SPAN_ADJUST_H

#include "src/span/tract.h"

// Puts an object of `bytes` at the end of the body of a run without one. False when descriptor
// memory is exhausted.
bool adjust_place(struct tract *tract, struct run *run, size_t bytes) FIRN_CHECKED;

// The run no longer has an object.
void adjust_clear(struct tract *tract, struct run *run);

// Lets a live object grow to `bytes` where it is, into the free run or the frontier behind it.
bool adjust_extend(struct tract *tract, struct run *run, size_t bytes) FIRN_CHECKED;

// Lets a live object shrink to `bytes` where it is. *tail is a new RUN_BUSY with what was cut off,
// for the caller to purge and settle, or NULL. False: nothing changed.
bool adjust_shrink(struct tract *tract, struct run *run, size_t bytes,
                   struct run **tail) FIRN_CHECKED;

#endif
