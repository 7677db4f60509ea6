// Planned misuse of the heap: each function reads what it needs from the input, does it, and fails
// unless Firn noticed, named the right condition and the right address. Afterwards the heap goes on:
// whatever is found before anything was changed must have changed nothing.
#ifndef FIRN_FUZZ_MISUSE_H
#define FIRN_FUZZ_MISUSE_H

#include "fuzz/fuzz.h"

void misuse_free_again(struct input *in);
void misuse_interior(struct input *in);
void misuse_misaligned(struct input *in);
void misuse_foreign(struct input *in);
// An address anywhere in the heap that starts no block.
void misuse_wild(struct input *in);
// The place a few blocks before or after one: another block, a free slot, a guard, nothing at all.
void misuse_beside(struct input *in);
void misuse_size(struct input *in);
// Overwrites a slot that another thread freed. Ends the process (status 0) once noticed: the heap is
// found half way through taking it back.
void misuse_link(struct input *in);

#endif
