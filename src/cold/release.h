// What the rest of the heap asks of the cold tier when it gives memory back, or is about to map it anew.
#ifndef FIRN_COLD_RELEASE_H
#define FIRN_COLD_RELEASE_H

#include "src/meta/page_state.h"

#include <stdbool.h>
#include <stdint.h>

extern const struct page_state_keeper release_keeper, release_keeper_swapping;

// fault_taken_fn
bool release_is_taken(uintptr_t address);

#endif
