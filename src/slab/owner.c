#include "src/slab/owner.h"

_Alignas(FIRN_CACHE_LINE) struct lock firn_owner_locks[OWNER_LOCKS];

void owner_start(void) {
    for (unsigned i = 0; i < OWNER_LOCKS; i++) {
        firn_owner_locks[i] = (struct lock)LOCK_INIT(LOCK_OWNER);
    }
}

void owner_after_fork_in_child(void) {
    for (unsigned i = 0; i < OWNER_LOCKS; i++) {
        lock_reset(&firn_owner_locks[i]);
    }
}
