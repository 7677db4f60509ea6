// Three levels of tables: pages of one span are neighbours, spans of one cell lie close together, and
// cells lie far apart. A cell that is looked at costs 4 KiB of middle table and 1 KiB of states for
// each 4 MiB. Nothing is given back: a state must be readable, by any thread, at any time.
#include "src/meta/page_state.h"

#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/meta/arena.h"
#include "src/meta/root.h"

#include <stdatomic.h>

#define BIT(state) (1u << (state))

const uint8_t page_state_edges[PAGE_STATES] = {
    [PAGE_FRESH] = BIT(PAGE_RESIDENT),
    // Back to FRESH: purged, as its last slot was freed.
    [PAGE_RESIDENT] = BIT(PAGE_FRESH) | BIT(PAGE_TRACKED) | BIT(PAGE_MESHING),
    [PAGE_TRACKED] = BIT(PAGE_FRESH) | BIT(PAGE_RESIDENT) | BIT(PAGE_STAGED) | BIT(PAGE_MESHING),
    // To FRESH, here and below: dropped unread, as no slot in it is live any more.
    [PAGE_STAGED] = BIT(PAGE_FRESH) | BIT(PAGE_FROZEN) | BIT(PAGE_THAWING),
    [PAGE_FROZEN] = BIT(PAGE_FRESH) | BIT(PAGE_THAWING),
    // Back to STAGED or FROZEN: it could not be brought back now (no memory; a fork under way).
    [PAGE_THAWING] = BIT(PAGE_RESIDENT) | BIT(PAGE_STAGED) | BIT(PAGE_FROZEN) | BIT(PAGE_MESHED),
    // To RESIDENT: given up half-way, or parted from its partners. MESHED pages come here too, to
    // share a frame with more, or to be parted; those that stay shared go back.
    [PAGE_MESHING] = BIT(PAGE_FRESH) | BIT(PAGE_RESIDENT) | BIT(PAGE_MESHED),
    [PAGE_MESHED] = BIT(PAGE_MESHING) | BIT(PAGE_STAGED) | BIT(PAGE_FROZEN),
};

enum {
    LEAF_BITS = 10, // pages of a leaf: 4 MiB
    MID_BITS = 9,   // leaves of a middle table: 2 GiB
    ROOT_BITS = 14, // 32 TiB, the largest data reservation
    PAGE_BITS = ROOT_BITS + MID_BITS + LEAF_BITS
};

struct leaf {
    _Atomic uint8_t states[1 << LEAF_BITS];
};

struct mid {
    _Atomic(struct leaf *) leaves[1 << MID_BITS];
};

static _Atomic(struct mid *) mids[1 << ROOT_BITS];

const char *page_state_name(enum page_state state) {
    static const char *const names[PAGE_STATES] = {
        [PAGE_FRESH] = "fresh",     [PAGE_RESIDENT] = "resident", [PAGE_TRACKED] = "tracked",
        [PAGE_STAGED] = "staged",   [PAGE_FROZEN] = "frozen",     [PAGE_THAWING] = "thawing",
        [PAGE_MESHING] = "meshing", [PAGE_MESHED] = "meshed",
    };
    return state < PAGE_STATES ? names[state] : "?";
}

// Index of a page, or a number out of range for an address elsewhere.
static uintptr_t page_of(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.data.base;
    return offset < FIRN_ROOT.data.bytes ? offset >> FIRN_PAGE_SHIFT : UINTPTR_MAX;
}

// Acquire, here and in leaf_of: pairs with the release of whoever installed the table.
static struct mid *mid_of(uintptr_t page) {
    return atomic_load_explicit(&mids[page >> (LEAF_BITS + MID_BITS)], memory_order_acquire);
}

static _Atomic(struct leaf *) *leaf_place(struct mid *mid, uintptr_t page) {
    return &mid->leaves[page >> LEAF_BITS & ((1u << MID_BITS) - 1)];
}

static _Atomic uint8_t *state_of(uintptr_t address) {
    uintptr_t page = page_of(address);
    struct mid *mid = page >> PAGE_BITS == 0 ? mid_of(page) : NULL;
    struct leaf *leaf =
        mid != NULL ? atomic_load_explicit(leaf_place(mid, page), memory_order_acquire) : NULL;
    return leaf != NULL ? &leaf->states[page & ((1u << LEAF_BITS) - 1)] : NULL;
}

// A thread that comes second leaves what it made unused: rare, and a few KiB.
static struct mid *make_mid(uintptr_t page) {
    struct mid *seen = mid_of(page);
    if (seen != NULL) {
        return seen;
    }
    struct mid *made = arena_alloc(sizeof(struct mid), FIRN_CACHE_LINE);
    if (made == NULL) {
        return NULL;
    }
    bool is_mine =
        atomic_compare_exchange_strong_explicit(&mids[page >> (LEAF_BITS + MID_BITS)], &seen, made,
                                                memory_order_acq_rel, memory_order_acquire);
    return is_mine ? made : seen;
}

static bool make_leaf(uintptr_t page) {
    struct mid *mid = make_mid(page);
    if (mid == NULL) {
        return false;
    }
    _Atomic(struct leaf *) *place = leaf_place(mid, page);
    struct leaf *seen = NULL;
    if (atomic_load_explicit(place, memory_order_acquire) != NULL) {
        return true;
    }
    struct leaf *made = arena_alloc(sizeof(struct leaf), FIRN_CACHE_LINE);
    if (made == NULL) {
        return false;
    }
    (void)atomic_compare_exchange_strong_explicit(place, &seen, made, memory_order_acq_rel,
                                                  memory_order_acquire);
    return true;
}

bool page_state_prepare(uintptr_t address, size_t bytes) {
    FIRN_ENSURE(bytes > 0 && bytes <= FIRN_ROOT.data.bytes);
    uintptr_t first = page_of(address);
    uintptr_t last = page_of(address + bytes - 1);
    FIRN_ENSURE(first <= last && last >> PAGE_BITS == 0);
    for (uintptr_t leaf = first >> LEAF_BITS; leaf <= last >> LEAF_BITS; leaf++) {
        if (!make_leaf(leaf << LEAF_BITS)) {
            return false;
        }
    }
    return true;
}

enum page_state page_state_get(uintptr_t address) {
    _Atomic uint8_t *state = state_of(address);
    return state != NULL ? (enum page_state)atomic_load_explicit(state, memory_order_acquire)
                         : PAGE_FRESH;
}

bool page_state_move(uintptr_t address, enum page_state from, enum page_state to) {
    bool is_legal = from < PAGE_STATES && to < PAGE_STATES && page_state_is_edge(from, to);
    if (FIRN_DEBUG) {
        FIRN_ENSURE(is_legal);
    }
    _Atomic uint8_t *state = state_of(address);
    FIRN_ENSURE(state != NULL);
    uint8_t expected = (uint8_t)from;
    return is_legal &&
           atomic_compare_exchange_strong_explicit(state, &expected, (uint8_t)to,
                                                   memory_order_acq_rel, memory_order_acquire);
}

bool page_state_move_range(uintptr_t address, size_t bytes, enum page_state from,
                           enum page_state to) {
    FIRN_ENSURE(page_state_is_edge(to, from));
    for (size_t at = 0; at < bytes; at += FIRN_PAGE) {
        if (page_state_move(address + at, from, to)) {
            continue;
        }
        while (at > 0) {
            at -= FIRN_PAGE;
            FIRN_ENSURE(page_state_move(address + at, to, from));
        }
        return false;
    }
    return true;
}
