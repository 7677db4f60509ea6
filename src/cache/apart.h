// The order in which a vector's slots are handed out, the last of them first.
#ifndef FIRN_CACHE_APART_H
#define FIRN_CACHE_APART_H

#include "src/os/random.h"

#include <stdint.h>

// Any order, each as likely as the others.
void apart_shuffle(uint64_t *entries, uint32_t n, struct random_stream *stream);

// P-APART: two slots handed out one after the other are not neighbours: that is what an overflow from
// one into the other needs. Chance alone would make 2 / n of them so. Six slots in a row, the fewest
// there are at first, have 90 such orders; with fewer, next to none would be left to choose from.
// `entries` are in random order already; `last` was handed out before the topmost.
void apart_order(uint64_t *entries, uint32_t n, uint64_t last, uintptr_t slot_bytes,
                 struct random_stream *stream);

#endif
