#include "src/span/region.h"

#include "src/os/map.h"

struct region firn_regions[CELLS];
_Atomic uintptr_t firn_cell_limits[CELLS];

enum { FIRST_STEP = 128 << 10, LAST_STEP = 2 << 20, COLLISIONS = 64 };

// Descriptors of `n` spans from `s` on. Those before them, if any, have committed the page they
// share with these.
static bool commit_descriptors(const struct span *s, uint32_t n, bool is_first) {
    uintptr_t start = (uintptr_t)s;
    uintptr_t from = (start + (is_first ? 0 : FIRN_PAGE - 1)) & ~(uintptr_t)(FIRN_PAGE - 1);
    uintptr_t to = (start + n * sizeof *s + FIRN_PAGE - 1) & ~(uintptr_t)(FIRN_PAGE - 1);
    return from >= to || map_commit(&FIRN_ROOT.meta, from, to - from);
}

static uint32_t next_step(const struct region *r, const struct class_info *c) {
    size_t bytes = FIRST_STEP;
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
        r->window[i] = (uint16_t)i;
    }
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
        const struct span *first = (struct span *)root_cell_spans(cell) + base;
        if (!commit_descriptors(first, spans, base == 0)) {
            return false;
        }
        bool done = map_commit(&FIRN_ROOT.data, address, bytes);
        if (!done && !FIRN_ROOT.is_sparse) {
            return false;
        }
        r->committed = base + spans;
        atomic_store_explicit(&firn_cell_limits[cell], address + bytes, memory_order_release);
        if (done) {
            r->committed_bytes += bytes;
            fill_window(r, base, spans);
            return true;
        }
        // Sparse: somebody else's mapping may be in the way. Step over it; its descriptors stay zero,
        // so a pointer into it is recognised as never allocated.
    }
    return false;
}

struct span *region_take(unsigned cell, struct random_stream *random) {
    struct region *r = &firn_regions[cell];
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    if (r->window_left == 0 && !open_window(cell, c, next_step(r, c)) &&
        !open_window(cell, c, 1)) {
        return NULL;
    }
    uint32_t pick = random_below(random, r->window_left);
    uint32_t index = r->window_base + r->window[pick];
    r->window[pick] = r->window[--r->window_left];
    struct span *s = (struct span *)root_cell_spans(cell) + index;
    s->cell = (uint16_t)cell;
    return s;
}
