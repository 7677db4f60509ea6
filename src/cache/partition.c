#include "src/cache/partition.h"

#include <stdatomic.h>

// Open addressing, four probes, at most a quarter full: a site is found or given up quickly.
enum { SITES = 256, PROBES = 4 };

struct site {
    _Atomic uintptr_t address; // 0: empty. Set once.
    _Atomic uint32_t partition; // + 1; 0: being set by the thread that claimed the entry
};

static struct site sites[SITES];
static _Atomic uint32_t used;

static unsigned settled(struct site *s) {
    uint32_t p;
    while ((p = atomic_load_explicit(&s->partition, memory_order_acquire)) == 0) {
        __builtin_ia32_pause(); // two instructions of the claiming thread
    }
    return p - 1;
}

unsigned partition_intern(uintptr_t site) {
    unsigned h = (unsigned)((site * FIRN_ROOT.site_key) >> 56);
    for (unsigned i = 0; i < PROBES; i++) {
        struct site *s = &sites[(h + i) % SITES];
        uintptr_t have = atomic_load_explicit(&s->address, memory_order_acquire);
        if (FIRN_LIKELY(have == site)) {
            return settled(s);
        }
        if (have != 0) {
            continue;
        }
        if (atomic_load_explicit(&used, memory_order_relaxed) >= FIRN_PARTITIONS) {
            break;
        }
        if (!atomic_compare_exchange_strong_explicit(&s->address, &have, site,
                                                     memory_order_acq_rel, memory_order_acquire)) {
            if (have == site) {
                return settled(s);
            }
            continue;
        }
        uint32_t mine = atomic_fetch_add_explicit(&used, 1, memory_order_relaxed);
        uint32_t p = mine < FIRN_PARTITIONS ? mine : partition_hash(site);
        atomic_store_explicit(&s->partition, p + 1, memory_order_release);
        return p;
    }
    return partition_hash(site);
}
