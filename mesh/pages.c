#include "mesh/pages.h"

#include "src/base/fatal.h"
#include "src/meta/arena.h"
#include "src/meta/root.h"

#include <stdatomic.h>

enum {
    LEAF_BITS = 10, // pages of a leaf: 4 MiB
    MID_BITS = 10,  // leaves of a middle table: 4 GiB
    ROOT_BITS = 12, // 16 TiB, the largest small regions
    LEAF_PAGES = 1 << LEAF_BITS
};

struct leaf {
    struct leaf *next; // all there are
    uintptr_t first;   // address of its first page
    _Atomic uint32_t entries[LEAF_PAGES];
};

struct mid {
    struct leaf *leaves[1 << MID_BITS];
};

// Grown and read by the mesher, under its lock, and read by who frees a meshed span, which was in the table
// before it was meshed.
static struct mid *mids[1 << ROOT_BITS];
static struct leaf *all;

static _Atomic uint32_t *entry_of(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    if (offset >= FIRN_ROOT.small_bytes) {
        return NULL;
    }
    uintptr_t page = offset >> FIRN_PAGE_SHIFT;
    const struct mid *mid = mids[page >> (LEAF_BITS + MID_BITS)];
    struct leaf *leaf =
        mid != NULL ? mid->leaves[page >> LEAF_BITS & ((1u << MID_BITS) - 1)] : NULL;
    return leaf != NULL ? &leaf->entries[page & (LEAF_PAGES - 1)] : NULL;
}

static bool make_leaf(uintptr_t number) {
    struct mid **mid = &mids[number >> MID_BITS];
    if (*mid == NULL && (*mid = arena_alloc(sizeof **mid, 64)) == NULL) {
        return false;
    }
    struct leaf **leaf = &(*mid)->leaves[number & ((1u << MID_BITS) - 1)];
    if (*leaf == NULL) {
        struct leaf *made = arena_alloc(sizeof *made, 64);
        if (made == NULL) {
            return false;
        }
        made->first = FIRN_ROOT.small_base + (number << LEAF_BITS << FIRN_PAGE_SHIFT);
        made->next = all;
        all = made;
        *leaf = made;
    }
    return true;
}

bool pages_prepare(uintptr_t address, size_t bytes) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    FIRN_ENSURE(bytes > 0 && offset < FIRN_ROOT.small_bytes);
    uintptr_t last = (offset + bytes - 1) >> FIRN_PAGE_SHIFT >> LEAF_BITS;
    for (uintptr_t n = offset >> FIRN_PAGE_SHIFT >> LEAF_BITS; n <= last; n++) {
        if (n >> (ROOT_BITS + MID_BITS) != 0 || !make_leaf(n)) {
            return false;
        }
    }
    return true;
}

uint32_t pages_get(uintptr_t address) {
    const _Atomic uint32_t *entry = entry_of(address);
    return entry != NULL ? atomic_load_explicit(entry, memory_order_relaxed) : PAGES_PRIVATE;
}

void pages_set(uintptr_t address, uint32_t entry) {
    _Atomic uint32_t *place = entry_of(address);
    FIRN_ENSURE(place != NULL);
    atomic_store_explicit(place, entry, memory_order_relaxed);
}

static bool is_mapped_at(const struct leaf *leaf, size_t i) {
    return i < LEAF_PAGES &&
           pages_is_mapped(atomic_load_explicit(&leaf->entries[i], memory_order_relaxed));
}

void pages_walk_mapped(void (*visit)(uintptr_t address, size_t pages)) {
    for (const struct leaf *leaf = all; leaf != NULL; leaf = leaf->next) {
        for (size_t i = 0; i < LEAF_PAGES; i++) {
            size_t first = i;
            while (is_mapped_at(leaf, i)) {
                i++;
            }
            if (i > first) {
                visit(leaf->first + (first << FIRN_PAGE_SHIFT), i - first);
            }
        }
    }
}

static bool is_one_mapping(uint32_t left, uint32_t right) {
    bool is_left_mapped = pages_is_mapped(left);
    return is_left_mapped == pages_is_mapped(right) &&
           pages_is_copy(left) == pages_is_copy(right) &&
           (!is_left_mapped || pages_frame(right) == pages_frame(left) + 1);
}

int pages_vmas(uintptr_t address, uint32_t entry) {
    uint32_t before = pages_get(address);
    uint32_t left = pages_get(address - FIRN_PAGE);
    uint32_t right = pages_get(address + FIRN_PAGE);
    int had = !is_one_mapping(left, before) + !is_one_mapping(before, right);
    int has = !is_one_mapping(left, entry) + !is_one_mapping(entry, right);
    return has - had;
}
