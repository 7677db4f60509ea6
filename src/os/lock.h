// Ranked mutexes on futexes. A thread takes locks in increasing rank only (checked when FIRN_DEBUG);
// equal ranks in increasing address. Not recursive. No lock is held across a call into the program.
// Not for signal handlers.
#ifndef FIRN_OS_LOCK_H
#define FIRN_OS_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum lock_rank {
    LOCK_START,     // first allocation
    LOCK_MESH_PASS, // who is going through the heap
    LOCK_MESH,      // the mesher, page by page
    LOCK_CACHES,    // registry of thread caches
    LOCK_FALLBACK,  // cache for threads that have none
    LOCK_OWNER,     // what a thread owns, against the mesher (slab/owner.h)
    LOCK_CLASS,     // one per size class: central lists, growth
    LOCK_GROUP,     // what classes share; held with the lock of one of them
    LOCK_FRAME,     // frames that meshed pages share
    LOCK_LARGE,     // large objects
    LOCK_COLD,      // pages that are away (cold/table.h)
    LOCK_STORE,     // where the bytes of frozen pages are
    LOCK_ARENA,     // descriptor memory
    LOCK_SEAL,      // nonces of this process
    LOCK_RANDOM,    // the seed source
    LOCK_RANKS
};

struct lock {
    _Atomic uint32_t state; // 0 free, 1 held, 2 held with waiters
    uint32_t rank;
};

#define LOCK_INIT(r)                                                                               \
    { 0, (r) }

void lock_acquire(struct lock *l); // preserves errno
bool lock_try(struct lock *l);
void lock_release(struct lock *l); // preserves errno
// In a forked child, for a lock whose holder no longer exists.
void lock_reset(struct lock *l);

// Fork. A thread that has taken every lock there is says so: until it says otherwise, what it takes
// it has already, and what it releases it keeps. (Other people's fork handlers may allocate.)
void lock_set_all_held(bool is_held);
// Whether this thread is between an acquire and its release: in a signal handler, if it asks.
bool lock_is_any_held(void);

#endif
