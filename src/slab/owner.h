// Locks for what threads own: spans, by their owner's number.
//
// A thread holds its own on its slow paths, where it changes which slots of its spans are free. The
// mesher holds an owner's while it looks at, or merges, pages of its spans: one page at a time, some ten
// microseconds. The fast paths take none: what they change (`live`, slots in hand) is not what
// decides whether a page may be shared. Nobody holds two.
#ifndef FIRN_SLAB_OWNER_H
#define FIRN_SLAB_OWNER_H

#include "src/os/lock.h"

#include <stdint.h>

enum { OWNER_LOCKS = 32 }; // several owners may share one

extern struct lock firn_owner_locks[OWNER_LOCKS];

// Single-threaded.
void owner_start(void);
// Other threads' holders are gone.
void owner_after_fork_in_child(void);

static inline void owner_lock(uint64_t number) {
    lock_acquire(&firn_owner_locks[number % OWNER_LOCKS]);
}

static inline void owner_unlock(uint64_t number) {
    lock_release(&firn_owner_locks[number % OWNER_LOCKS]);
}

#endif
