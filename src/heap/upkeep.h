// The only scheduler of background work. There is no background thread: threads that are on a slow
// path anyway look at the clock now and then.
#ifndef FIRN_HEAP_UPKEEP_H
#define FIRN_HEAP_UPKEEP_H

#include "src/base/compiler.h"
#include "src/cache/cache.h"
#include "src/cold/cold.h"

void upkeep_run(void);
void upkeep_set_delay(uint32_t ms);
// The cold tier is wanted: its upkeep is done with the rest. At start.
void upkeep_add_cold(void);
// Gives back all that is empty. True if any was.
bool upkeep_purge_all(void);

enum { UPKEEP_TICKS = 64 };

// Kept here: where it is false, nothing of the cold tier is touched, and none of its code is resident.
extern bool firn_has_cold_upkeep;

FIRN_INLINE void upkeep_tick(struct cache *c) {
    if (FIRN_UNLIKELY(++c->ticks % UPKEEP_TICKS == 0)) {
        upkeep_run();
    }
}

// The same, where a thread may be started: in an allocation, with no lock held. (Not in a free: libc frees
// while it holds what the start of a thread needs.)
FIRN_INLINE void upkeep_tick_alloc(struct cache *c) {
    if (FIRN_UNLIKELY(++c->ticks % UPKEEP_TICKS == 0)) {
        upkeep_run();
        if (firn_has_cold_upkeep) {
            cold_upkeep();
        }
    }
}

#endif
