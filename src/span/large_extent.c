// Reading the tiling while others change it. What a live object's pages say does not change: between
// its first page and its last no page has a map entry, both of these name its run, and nobody but its
// owner changes where the object begins and ends. Whatever else is read may be half changed; but
// tables and descriptors are never unmapped, so that a wrong answer is all it can lead to, and that
// only about an object which is not there.
#include "src/span/large_extent.h"

#include "src/base/config.h"
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

// The run that was found for some address near this one: in a block of many MiB the way down from an
// address to the block's start is long (two microseconds for 16 MiB, at every copy).
enum { HINTS = 64, HINT_SHIFT = 20 };
static _Atomic(struct run *) hints[HINTS];

// A hint may describe another object by now, and be changing while it is read. But it cannot say that
// the object around `address` ends too early, and so kill a right program: the map has no entry inside
// a live object.
static size_t extent_by_hint(const struct tract *tract, struct run *run, uintptr_t address) {
    size_t extent = run != NULL ? extent_in_run(run, address) : 0;
    uintptr_t last = address + extent - FIRN_PAGE;
    bool is_known = extent != 0 && last - tract->range.base < tract->range.bytes &&
                    page_map_get(&tract->map, last) == run;
    return is_known ? extent : 0;
}

// P-LARGE-SLACK: what was asked for, not the pages it takes. It ends in the last of them. If not, the
// hint was wrong and has changed once more: then nothing is known but the pages.
static size_t extent_asked_for(struct run *run, uintptr_t address, size_t extent) {
    if (!FIRN_LARGE_SLACK) {
        return extent;
    }
    uintptr_t page_end = address + extent;
    uintptr_t end = LOOK(run->object) + LOOK(run->size);
    if (end > page_end || page_end - end >= FIRN_PAGE) {
        return extent;
    }
    return address < end ? end - address : 0;
}

static size_t extent_in_tract(const struct tract *tract, uintptr_t address) {
    _Atomic(struct run *) *hint = &hints[(address >> HINT_SHIFT) % HINTS];
    // acquire and release: the descriptor is mapped.
    struct run *run = atomic_load_explicit(hint, memory_order_acquire);
    size_t extent = extent_by_hint(tract, run, address);
    if (extent == 0) {
        run = page_map_get_before(&tract->map, address);
        extent = run != NULL ? extent_in_run(run, address) : 0;
        if (extent != 0) {
            atomic_store_explicit(hint, run, memory_order_release);
        }
    }
    return extent != 0 ? extent_asked_for(run, address, extent) : 0;
}

size_t large_extent(uintptr_t address) {
    struct space *space = &firn_large.space;
    // acquire: pairs with the release in space_add, after the tract was filled in.
    unsigned count = atomic_load_explicit(&space->count, memory_order_acquire);
    for (unsigned i = 0; i < count; i++) {
        const struct tract *tract = &space->tracts[i];
        if (address - tract->range.base < tract->range.bytes) {
            return extent_in_tract(tract, address);
        }
    }
    return LARGE_EXTENT_FOREIGN;
}
