#include "src/cache/partition.h"

#include <stdatomic.h>

// P-PARTITION. Open addressing, four probes, at most a quarter full: a site is found or given up quickly.
enum { SITES = 256, PROBES = 4 };

// Address and partition in one word, so that nobody ever waits for a thread that has set only one of
// them: it may have been preempted, or have stayed behind in the parent of this process.
enum { PARTITION_SHIFT = 58 };        // addresses are shorter, partitions at most 64
static _Atomic uint64_t sites[SITES]; // 0: empty. Set once.
static _Atomic uint32_t used;

static uint64_t site_word(uintptr_t site, unsigned partition) {
    return (uint64_t)partition << PARTITION_SHIFT | site;
}

// A partition that is no other site's; a shared one when all are taken.
static unsigned next_partition(uintptr_t site) {
    uint32_t mine = atomic_load_explicit(&used, memory_order_relaxed);
    do {
        if (mine >= FIRN_PARTITIONS) {
            return partition_hash(site,
                                  atomic_load_explicit(&FIRN_ROOT.site_key, memory_order_relaxed));
        }
    } while (!atomic_compare_exchange_weak_explicit(&used, &mine, mine + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    return mine;
}

unsigned partition_intern(uintptr_t site) {
    if (FIRN_UNLIKELY(atomic_load_explicit(&FIRN_ROOT.site_key, memory_order_relaxed) == 0)) {
        return 0; // before start: asked again once there is something to allocate from
    }
    unsigned h = partition_mix(site) >> 24;
    for (unsigned i = 0; i < PROBES; i++) {
        _Atomic uint64_t *place = &sites[(h + i) % SITES];
        // Relaxed throughout: a word says all there is to know.
        uint64_t have = atomic_load_explicit(place, memory_order_relaxed);
        if (have == 0) {
            if (atomic_load_explicit(&used, memory_order_relaxed) >= FIRN_PARTITIONS) {
                break;
            }
            uint64_t word = site_word(site, next_partition(site));
            // Whoever loses against the same site has used up a partition for nothing.
            if (atomic_compare_exchange_strong_explicit(place, &have, word, memory_order_relaxed,
                                                        memory_order_relaxed)) {
                have = word;
            }
        }
        if (FIRN_LIKELY((have & (((uint64_t)1 << PARTITION_SHIFT) - 1)) == site)) {
            return (unsigned)(have >> PARTITION_SHIFT);
        }
    }
    return partition_hash(site, atomic_load_explicit(&FIRN_ROOT.site_key, memory_order_relaxed));
}
