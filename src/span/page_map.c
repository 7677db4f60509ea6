// Page to run. The tables hold pointers rather than indices: a lookup is three dependent loads, and
// the tables lie in descriptor memory, where an attacker's write does not reach.
#include "src/span/page_map.h"

#include "src/base/fatal.h"
#include "src/meta/arena.h"

bool page_map_start(struct page_map *map, uintptr_t base, size_t bytes) {
    size_t pages = bytes >> FIRN_PAGE_SHIFT;
    size_t mid_pages = (size_t)1 << (PAGE_MAP_LEAF_BITS + PAGE_MAP_MID_BITS);
    size_t mids = (pages + mid_pages - 1) / mid_pages;

    map->mids = arena_alloc(mids * sizeof *map->mids, FIRN_CACHE_LINE);
    map->base = base;
    map->pages = pages;
    return map->mids != NULL;
}

static size_t page_map_index(const struct page_map *map, uintptr_t address) {
    size_t page = (address - map->base) >> FIRN_PAGE_SHIFT;
    FIRN_ENSURE(page < map->pages);
    return page;
}

// Loads acquire, stores release, at each of the three levels: a reader without the lock finds what a
// pointer leads to as it was when the pointer was stored.
static struct page_map_mid *page_map_mid_of(const struct page_map *map, size_t page) {
    return atomic_load_explicit(&map->mids[page >> (PAGE_MAP_LEAF_BITS + PAGE_MAP_MID_BITS)],
                                memory_order_acquire);
}

static _Atomic(struct page_map_leaf *) *page_map_leaf_place(struct page_map_mid *mid, size_t page) {
    return &mid->leaves[(page >> PAGE_MAP_LEAF_BITS) & (PAGE_MAP_MID_LEAVES - 1)];
}

static struct page_map_leaf *page_map_leaf_of(const struct page_map *map, size_t page) {
    struct page_map_mid *mid = page_map_mid_of(map, page);
    return mid == NULL ? NULL
                       : atomic_load_explicit(page_map_leaf_place(mid, page), memory_order_acquire);
}

static struct run *page_map_entry(const struct page_map_leaf *leaf, size_t page) {
    return atomic_load_explicit(&leaf->runs[page & (PAGE_MAP_LEAF_PAGES - 1)],
                                memory_order_acquire);
}

bool page_map_prepare(struct page_map *map, uintptr_t address) {
    size_t page = page_map_index(map, address);
    struct page_map_mid *mid = page_map_mid_of(map, page);
    if (FIRN_UNLIKELY(mid == NULL)) {
        // Not on pages of its own: of most tables only the beginning is ever touched.
        mid = arena_alloc(sizeof(struct page_map_mid), FIRN_CACHE_LINE);
        if (mid == NULL) {
            return false;
        }
        atomic_store_explicit(&map->mids[page >> (PAGE_MAP_LEAF_BITS + PAGE_MAP_MID_BITS)], mid,
                              memory_order_release);
    }
    struct page_map_leaf *leaf = page_map_leaf_of(map, page);
    if (FIRN_UNLIKELY(leaf == NULL)) {
        leaf = arena_alloc(sizeof(struct page_map_leaf), FIRN_CACHE_LINE);
        atomic_store_explicit(page_map_leaf_place(mid, page), leaf, memory_order_release);
    }
    return leaf != NULL;
}

void page_map_set(struct page_map *map, uintptr_t address, struct run *run) {
    size_t page = page_map_index(map, address);
    struct page_map_leaf *leaf = page_map_leaf_of(map, page);
    FIRN_ENSURE(leaf != NULL);
    atomic_store_explicit(&leaf->runs[page & (PAGE_MAP_LEAF_PAGES - 1)], run, memory_order_release);
}

struct run *page_map_get(const struct page_map *map, uintptr_t address) {
    size_t page = page_map_index(map, address);
    const struct page_map_leaf *leaf = page_map_leaf_of(map, page);
    return leaf == NULL ? NULL : page_map_entry(leaf, page);
}

// The last page below the table that covers `page` and spans 2^bits pages; false at the bottom.
static bool page_map_step_below(size_t *page, unsigned bits) {
    size_t first = *page >> bits << bits;
    if (first == 0) {
        return false;
    }
    *page = first - 1;
    return true;
}

struct run *page_map_get_before(const struct page_map *map, uintptr_t address) {
    size_t page = page_map_index(map, address);
    for (;;) {
        unsigned skip = PAGE_MAP_LEAF_BITS;
        const struct page_map_leaf *leaf = page_map_leaf_of(map, page);
        if (leaf != NULL) {
            struct run *run = page_map_entry(leaf, page);
            if (run != NULL) {
                return run;
            }
            skip = 0;
        } else if (page_map_mid_of(map, page) == NULL) {
            skip = PAGE_MAP_LEAF_BITS + PAGE_MAP_MID_BITS;
        }
        if (!page_map_step_below(&page, skip)) {
            return NULL;
        }
    }
}
