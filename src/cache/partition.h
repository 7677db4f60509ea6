// Partitions: allocations made at different places of the program do not share slots.
//
// The call site is the return address of the program's call. Hashed: a keyed multiply picks one of
// a few partitions; an attacker who does not know the key cannot tell which sites share one.
// Interned: each site gets a partition of its own until they are used up, then sites share, hashed.
#ifndef FIRN_CACHE_PARTITION_H
#define FIRN_CACHE_PARTITION_H

#include "src/base/config.h"
#include "src/meta/root.h"

// FIRN_PARTITION_MODE 2. Lock-free; the same site gets the same answer in every thread.
unsigned partition_intern(uintptr_t site);

FIRN_INLINE uint32_t partition_mix(uintptr_t site) {
    // Fold and second multiplication spread neighbouring sites over the table of interned ones.
    uint64_t key = atomic_load_explicit(&FIRN_ROOT.site_key, memory_order_relaxed);
    uint64_t x = site * key;
    x ^= x >> 32;
    x *= key;
    return (uint32_t)(x >> 32);
}

// `key` is FIRN_ROOT.site_key, odd and random: then any two sites share a partition by chance only
// (Dietzfelbinger et al. 1997).
FIRN_INLINE unsigned partition_hash(uintptr_t site, uint64_t key) {
    return (unsigned)(site * key >> 1 >> (63 - FIRN_PARTITION_BITS));
}

FIRN_INLINE unsigned partition_of(uintptr_t site, uint64_t key) {
    if (FIRN_PARTITION_MODE == 0) {
        return 0;
    }
    return FIRN_PARTITION_MODE == 1 ? partition_hash(site, key) : partition_intern(site);
}

#endif
