// Looks at blocks that nobody frees and at freed ones that nobody uses again: canaries, what is left
// over behind the size asked for, zeros of freed blocks, tags of those that other threads freed. P-SWEEP.
//
// Only pages that are in memory are looked at, only what is certain is reported (other threads may be
// running), and a span whose lock is taken is passed over. Damage ends the process as it does elsewhere:
// the same words, with the function `exit` or `sweep`.
#ifndef FIRN_HEAP_SWEEP_H
#define FIRN_HEAP_SWEEP_H

#include <stdint.h>

// Everything, for `ms` milliseconds at most. The process is about to end. Any thread, any context.
void sweep_at_exit(uint32_t ms);

// The next few spans; from upkeep, which bounds how often.
void sweep_some(void);

#endif
