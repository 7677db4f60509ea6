// The clock of guarded samples, P-SAMPLE: when the next one is due. Slots come to a cache by refills and
// by frees; each is allocated once before it is flushed or comes again. So nothing has to be counted
// where they are handed out.
#ifndef FIRN_CACHE_SAMPLE_CLOCK_H
#define FIRN_CACHE_SAMPLE_CLOCK_H

#include "src/cache/cache.h"

// The thread's cache was given `slots` slots.
void sample_clock_add(struct cache *c, uint32_t slots);
// So many were flushed.
void sample_clock_take_back(struct cache *c, uint32_t slots);

#endif
