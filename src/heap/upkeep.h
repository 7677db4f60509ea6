// The only scheduler of background work. Threads that are on a slow path anyway look at the clock now and
// then; a thread of Firn's own (keeper.h) does while they do not, in a program that has fragmented.
#ifndef FIRN_HEAP_UPKEEP_H
#define FIRN_HEAP_UPKEEP_H

#include "src/base/compiler.h"
#include "src/cache/cache.h"
#include "src/cold/cold.h"
#include "src/heap/keeper.h"

void upkeep_run(void);
void upkeep_set_delay(uint32_t ms);
// The cold tier is wanted: its upkeep is done with the rest. At start.
void upkeep_add_cold(void);
// Constructors run: from now on a thread of Firn's own may be started. In one.
void upkeep_note_constructed(void);
// The keeper is wanted, with that share of a processor. At start, which may be before that, or after.
void upkeep_add_keeper(unsigned share);
// Gives back all that is empty. True if any was.
bool upkeep_purge_all(void);

enum { UPKEEP_TICKS = 64 };

// Kept here: where they are false, nothing of the cold tier, or of the keeper, is touched, and none of its
// code is resident.
extern bool firn_has_cold_upkeep, firn_has_keeper;

// In a free that `site` called, with no lock held.
FIRN_INLINE void upkeep_tick(struct cache *c, uintptr_t site) {
    if (FIRN_UNLIKELY(++c->ticks % UPKEEP_TICKS == 0)) {
        upkeep_run();
        if (firn_has_keeper) {
            keeper_look(site);
        }
    }
}

// The same, where a thread may be started: in an allocation, with no lock held. (Not in a free: libc frees
// while it holds what the start of a thread needs.)
// Frees count, too: of two ticks in a row one is an allocation's, also where the two take turns.
FIRN_INLINE void upkeep_tick_alloc(struct cache *c) {
    uint32_t tick = ++c->ticks % UPKEEP_TICKS;
    if (FIRN_LIKELY(tick > 1)) {
        return;
    }
    if (firn_has_cold_upkeep) {
        cold_upkeep();
    }
    if (tick == 0) {
        upkeep_run();
        if (firn_has_keeper) {
            keeper_look(0);
        }
    }
}

#endif
