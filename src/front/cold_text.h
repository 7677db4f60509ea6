// What the cold tier does, in words: for stats=exit and malloc_stats, and in one line for stats_signal=on.
#ifndef FIRN_FRONT_COLD_TEXT_H
#define FIRN_FRONT_COLD_TEXT_H

#include "src/base/text.h"

// Lines that begin with "firn:   cold: ": where it runs, or why it does not; none where nobody asked for it.
// Async-signal-safe.
void cold_text_table(struct text *t);

// From now on SIGUSR2 writes one line to what is standard error now, in one write: what of the heap is away, and what that
// costs. Only while nobody has done anything else with the signal: a handler of the program, now or later,
// is the program's. Preserves errno.
void cold_text_on_signal(void);

#endif
