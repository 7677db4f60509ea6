#include "src/span/region.h"

#include "src/os/caps.h"
#include "src/os/map.h"

#include <errno.h>

struct region firn_regions[CELLS];
_Atomic uintptr_t firn_cell_limits[CELLS];

enum {
    FIRST_STEP = 128 << 10,
    FIRST_STEP_RATIONED = 16 << 10, // dozens of cells are opened by the smallest programs
    LAST_STEP = 2 << 20,
    COLLISIONS = 64
};

// Descriptors of a cell's spans below index `n`. Those of its class's other partitions lie between
// them: what is committed is known by class.
static bool commit_descriptors(unsigned cell, uint32_t n) {
    static uintptr_t committed_ends[SIZE_CLASSES]; // 0: none yet
    uintptr_t *end = &committed_ends[root_cell_class(cell)];
    uintptr_t page = ~(uintptr_t)(FIRN_PAGE - 1);
    uintptr_t from = *end != 0 ? *end : root_class_spans(root_cell_class(cell)) & page;
    uintptr_t to = ((uintptr_t)(span_by_index(cell, n - 1) + 1) + FIRN_PAGE - 1) & page;
    if (from >= to) {
        return true;
    }
    if (!map_commit(&FIRN_ROOT.meta, from, to - from)) {
        return false;
    }
    *end = to;
    return true;
}

static uint32_t next_step(const struct region *r, const struct class_info *c) {
    const struct limits *limits = caps_limits();
    bool is_rationed =
        FIRN_ROOT.is_sparse || limits->is_strict_overcommit || limits->data_bytes != UINT64_MAX;
    size_t bytes = is_rationed ? FIRST_STEP_RATIONED : FIRST_STEP;
    while (bytes < LAST_STEP && bytes < r->committed_bytes) {
        bytes *= 2;
    }
    size_t spans = bytes >> c->span_shift;
    return spans > REGION_WINDOW ? REGION_WINDOW : spans < 1 ? 1 : (uint32_t)spans;
}

static void fill_window(struct region *r, uint32_t base, uint32_t spans) {
    r->window_base = base;
    r->window_left = spans;
    for (uint32_t i = 0; i < spans; i++) {
        r->window[i / 64] |= (uint64_t)1 << i % 64;
    }
}

// Removes the window's `pick`-th span not yet used; its index in the window.
static uint32_t take_from_window(struct region *r, uint32_t pick) {
    uint32_t w = 0;
    for (uint32_t here; pick >= (here = (uint32_t)__builtin_popcountll(r->window[w])); w++) {
        pick -= here;
    }
    uint64_t bits = r->window[w];
    while (pick-- > 0) {
        bits &= bits - 1;
    }
    r->window[w] &= ~(bits & -bits);
    r->window_left--;
    return w * 64 + (uint32_t)__builtin_ctzll(bits);
}

static bool open_window(unsigned cell, const struct class_info *c, uint32_t spans) {
    struct region *r = &firn_regions[cell];
    for (unsigned tries = 0; tries < COLLISIONS; tries++) {
        uint32_t base = r->committed;
        if (c->max_spans - base < spans) {
            r->is_exhausted = spans == 1;
            return false;
        }
        size_t bytes = (size_t)spans << c->span_shift;
        uintptr_t address = root_cell_base(cell) + ((uintptr_t)base << c->span_shift);
        if (!commit_descriptors(cell, base + spans)) {
            return false;
        }
        bool done = map_commit(&FIRN_ROOT.data, address, bytes);
        // Out of memory is no reason to step over: each try would cost addresses and descriptors.
        if (!done && !(FIRN_ROOT.is_sparse && errno == EEXIST)) {
            return false;
        }
        r->committed = base + spans;
        atomic_store_explicit(&firn_cell_limits[cell], address + bytes, memory_order_release);
        if (done) {
            r->committed_bytes += bytes;
            fill_window(r, base, spans);
            return true;
        }
        // Sparse: somebody else's mapping is in the way. Step over it; its descriptors stay zero,
        // so a pointer into it is recognised as never allocated.
    }
    return false;
}

struct span *region_take(unsigned cell, struct random_stream *random) {
    struct region *r = &firn_regions[cell];
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    if (r->window_left == 0 && !open_window(cell, c, next_step(r, c)) && !open_window(cell, c, 1)) {
        return NULL;
    }
    uint32_t index = r->window_base + take_from_window(r, random_below(random, r->window_left));
    struct span *s = span_by_index(cell, index);
    s->cell = (uint16_t)cell;
    return s;
}
