#include "fuzz/actors.h"

#include "fuzz/fuzz.h"
#include "src/heap/life.h"
#include "src/span/large_heap.h"

static struct cache *caches[ACTORS];
static unsigned acting;

void actors_start(void) {
    life_start();
    FUZZ_ENSURE(life_has_started());
    for (unsigned i = 0; i < ACTORS; i++) {
        caches[i] = &firn_empty_cache;
    }
    acting = 0;
    FUZZ_ENSURE(firn_cache == &firn_empty_cache);
    *firn_large.space.shared.random = (struct random_stream){0};
}

void actors_switch(unsigned actor) {
    caches[acting] = firn_cache;
    acting = actor % ACTORS;
    firn_cache = caches[acting];
}

void actors_exit(void) {
    if (firn_cache != &firn_empty_cache) {
        // As in a forked child: what an earlier input drew must not show in this one.
        *firn_cache->noise = (struct noise){0};
        firn_cache->noise_at = firn_cache->noise->bytes;
        cache_detach(firn_cache);
    }
}

void actors_exit_all(void) {
    for (unsigned i = 0; i < ACTORS; i++) {
        actors_switch(i);
        actors_exit();
    }
    actors_switch(0);
}

bool actors_become(const struct cache *owner) {
    for (unsigned i = 0; i < ACTORS; i++) {
        actors_switch(i);
        if (firn_cache == owner) {
            return true;
        }
    }
    return false;
}
