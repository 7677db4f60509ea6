// Several threads' worth of caches on one thread: a cache is a thread's because a thread-local
// pointer says so, so exchanging the pointer is a change of threads, at a time of our choosing.
#ifndef FIRN_FUZZ_ACTORS_H
#define FIRN_FUZZ_ACTORS_H

#include "src/cache/cache.h"

enum { ACTORS = 3 };

// Starts the heap. All actors are without a cache; every stream of the heap is to be seeded anew.
void actors_start(void);
void actors_switch(unsigned actor);
// The acting thread ends; it begins anew with its next allocation.
void actors_exit(void);
void actors_exit_all(void);
// Runs as the owner of that cache from now on, whichever actor it is. False: nobody's.
bool actors_become(const struct cache *owner);

#endif
