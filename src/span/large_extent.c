// Reading the tiling while others change it. What a live object's pages say does not change: between
// its first page and its last no page has a map entry, both of these name its run, and nobody but its
// owner changes where the object begins and ends. Whatever else is read may be half changed; but
// tables and descriptors are never unmapped, so that a wrong answer is all it can lead to, and that
// only about an object which is not there.
#include "src/span/large_extent.h"

#include "src/span/large_heap.h"

// The owner's writes are plain, under the lock; they happened before if the object is live.
#define LOOK(field) __atomic_load_n(&(field), __ATOMIC_RELAXED)

static size_t extent_in_run(struct run *run, uintptr_t address) {
    uint8_t state = LOOK(run->state);
    uintptr_t object = LOOK(run->object);
    uintptr_t end = LOOK(run->end);
    bool is_live = (state == RUN_LIVE || state == RUN_LEAVING) && object != 0;
    return is_live && object <= address && address < end ? end - address : 0;
}

size_t large_extent(uintptr_t address) {
    struct space *space = &firn_large.space;
    // acquire: pairs with the release in space_add, after the tract was filled in.
    unsigned count = atomic_load_explicit(&space->count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++) {
        const struct tract *tract = &space->tracts[i];
        if (address - tract->range.base < tract->range.bytes) {
            struct run *run = page_map_get_before(&tract->map, address);
            return run != NULL ? extent_in_run(run, address) : 0;
        }
    }
    return LARGE_EXTENT_FOREIGN;
}
