// The validator of thread caches, and through slab/valid of all small objects: each slot is live,
// free or in hand, and that once; counts equal bits; lists contain what they say. Costs a walk over
// everything: for debug builds and tests.
#ifndef FIRN_CACHE_INSPECT_H
#define FIRN_CACHE_INSPECT_H

#include "src/cache/cache.h"
#include "src/slab/valid.h"

// Vectors, mixers, lists and queue of one cache, whose thread rests or calls this. False, and *fault,
// if a relation does not hold.
bool inspect_cache(const struct cache *c, struct valid_fault *fault) FIRN_CHECKED;

// All small objects. `self` is the cache of the calling thread, and the only one looked into: other
// threads may go on. With NULL every thread rests, and every cache is looked into.
bool inspect_all(const struct cache *self, struct valid_fault *fault) FIRN_CHECKED;

// The same, ending the process with the name of the relation that failed.
void inspect_ensure(const struct cache *self);

#endif
