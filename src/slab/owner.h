// Locks for what threads own: spans, by their owner's number.
//
// A thread holds its own on its slow paths, where it changes which slots of its spans are free. The
// mesher holds an owner's while it looks at, or merges, pages of its spans: one page at a time, some ten
// microseconds. The fast paths take none: what they change (`live`, slots in hand) is not what
// decides whether a page may be shared. Nobody holds two.
#ifndef FIRN_SLAB_OWNER_H
#define FIRN_SLAB_OWNER_H

#include "src/base/compiler.h"
#include "src/os/lock.h"

#include <stdint.h>

enum { OWNER_LOCKS = 32 }; // several owners may share one
enum { OWNER_LINE = FIRN_CACHE_LINE / sizeof(struct lock), OWNER_LINES = OWNER_LOCKS / OWNER_LINE };

extern struct lock firn_owner_locks[OWNER_LOCKS];

// Threads started one after the other have locks in different cache lines.
static inline struct lock *owner_lock_of(uint64_t number) {
    return &firn_owner_locks[number % OWNER_LINES * OWNER_LINE + number / OWNER_LINES % OWNER_LINE];
}

// Single-threaded.
void owner_start(void);
// Other threads' holders are gone.
void owner_after_fork_in_child(void);

static inline void owner_lock(uint64_t number) {
    lock_acquire(owner_lock_of(number));
}

static inline void owner_unlock(uint64_t number) {
    lock_release(owner_lock_of(number));
}

#endif
