#include "src/span/region.h"

#include "src/os/caps.h"
#include "src/os/lock.h"
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

// By group of classes, whose descriptors alternate: those that are committed end here; 0: none yet. Any
// class may be the last to need a page of them, hence the lock.
static struct lock descriptors_lock = LOCK_INIT(LOCK_GROUP);
static uintptr_t descriptors_end[SIZE_CLASSES];

// Of the class that comes first in its group.
static uintptr_t descriptors_start(const struct class_info *c) {
    return c->spans & ~(uintptr_t)(FIRN_PAGE - 1);
}

static bool commit_until(const struct class_info *first, uintptr_t to) {
    uintptr_t *end = &descriptors_end[first->group];
    uintptr_t from = *end != 0 ? *end : descriptors_start(first);
    if (from >= to) {
        return true;
    }
    if (!map_commit(&FIRN_ROOT.meta, from, to - from)) {
        return false;
    }
    *end = to;
    return true;
}

// Descriptors of a cell's spans below index `n`.
static bool commit_descriptors(unsigned cell, uint32_t n) {
    const struct class_info *first = &FIRN_ROOT.classes[root_cell_class(cell)];
    while (first > FIRN_ROOT.classes && first[-1].group == first->group) {
        first--;
    }
    uintptr_t page = ~(uintptr_t)(FIRN_PAGE - 1);
    uintptr_t to = ((uintptr_t)(span_by_index(cell, n - 1) + 1) + FIRN_PAGE - 1) & page;
    lock_acquire(&descriptors_lock);
    bool is_done = commit_until(first, to);
    lock_release(&descriptors_lock);
    return is_done;
}

static bool is_rationed(void) {
    const struct limits *limits = caps_limits();
    return FIRN_ROOT.is_sparse || limits->is_strict_overcommit || limits->data_bytes != UINT64_MAX;
}

static uint32_t next_step(const struct region *r, const struct class_info *c) {
    size_t bytes = is_rationed() ? FIRST_STEP_RATIONED : FIRST_STEP;
    while (bytes < LAST_STEP && bytes < r->committed_bytes) {
        bytes *= 2;
    }
    size_t spans = bytes >> c->span_shift;
    return spans > REGION_WINDOW ? REGION_WINDOW : spans < 1 ? 1 : (uint32_t)spans;
}

// ---- fences -----------------------------------------------------------------------------------

// P-GUARD-SPAN. Which place of its group is the fence follows from a secret: nothing to be kept, and nothing to be
// found by looking at other groups. Of two places it is always the second, since every span is to
// have a fence behind it.
bool region_is_fence(unsigned cell, uint32_t index) {
    enum { GROUP = FIRN_SPAN_GUARDS > 0 ? FIRN_SPAN_GUARDS : 1 };
    if (FIRN_SPAN_GUARDS == 0 || is_rationed()) {
        return false;
    }
    if (GROUP == 2) {
        return index % 2 != 0;
    }
    uint64_t group = (uint64_t)cell << 32 | index / GROUP;
    __uint128_t mixed = (__uint128_t)(group ^ FIRN_ROOT.slot_key) * 0x9e3779b97f4a7c15u;
    uint32_t draw = (uint32_t)((mixed >> 64 ^ mixed) >> 16);
    return index % GROUP == (uint32_t)((uint64_t)draw * GROUP >> 32);
}

static bool is_in_window(const struct region *r, uint32_t index) {
    return index - r->window_base < r->committed - r->window_base;
}

// Of a span in the window that is no fence.
static bool is_taken(const struct region *r, uint32_t index) {
    uint32_t at = index - r->window_base;
    return (r->window[at / 64] >> at % 64 & 1) == 0;
}

// Whether the fence was put up before, for some other span than `index`.
static bool is_fence_up(unsigned cell, uint32_t fence, uint32_t index) {
    const struct region *r = &firn_regions[cell];
    uint32_t i = fence - 1;
    for (; is_in_window(r, i) && !region_is_fence(cell, i); i--) {
        if (i != index && is_taken(r, i)) {
            return true;
        }
    }
    if (!is_in_window(r, i) && r->window_base > 0) { // the window's first
        return true;
    }
    for (i = fence + 1; is_in_window(r, i) && !region_is_fence(cell, i); i++) {
        if (i != index && is_taken(r, i)) {
            return true;
        }
    }
    return false;
}

// Half of the mappings that guards may cost is left for large blocks.
static void put_fence_up(unsigned cell, const struct class_info *c, uint32_t fence) {
    int saved = errno;
    size_t vmas = map_guard_vmas();
    if (vmas <= map_guard_vma_budget() / 2) {
        uintptr_t address = root_cell_base(cell) + ((uintptr_t)fence << c->span_shift);
        (void)!map_guard(address, (size_t)c->span_mask + 1);
    }
    errno = saved;
}

// The nearest ones on both sides of a span that was just taken. Beyond the window there is nothing to
// be fenced off yet; in those before it, where every span is taken, everything is up.
static void put_fences_up(unsigned cell, const struct class_info *c, uint32_t index) {
    const struct region *r = &firn_regions[cell];
    for (uint32_t i = index + 1; is_in_window(r, i); i++) {
        if (region_is_fence(cell, i)) {
            if (!is_fence_up(cell, i, index)) {
                put_fence_up(cell, c, i);
            }
            break;
        }
    }
    for (uint32_t i = index - 1; is_in_window(r, i); i--) {
        if (region_is_fence(cell, i)) {
            if (!is_fence_up(cell, i, index)) {
                put_fence_up(cell, c, i);
            }
            break;
        }
    }
}

// The last span of the window before may have none behind it yet.
static void put_first_fence_up(unsigned cell, const struct class_info *c) {
    const struct region *r = &firn_regions[cell];
    for (uint32_t i = r->window_base; r->window_base > 0 && is_in_window(r, i); i++) {
        if (region_is_fence(cell, i)) {
            put_fence_up(cell, c, i);
            return;
        }
    }
}

// ---- windows ----------------------------------------------------------------------------------

// How many indexes a window from `base` on has to have: `spans`, or more if all of these are fences.
static uint32_t reach_past_fences(unsigned cell, uint32_t base, uint32_t spans) {
    for (uint32_t i = 0; i < spans; i++) {
        if (!region_is_fence(cell, base + i)) {
            return spans;
        }
    }
    while (region_is_fence(cell, base + spans)) {
        spans++;
    }
    return spans + 1;
}

static void fill_window(unsigned cell, uint32_t base, uint32_t spans) {
    struct region *r = &firn_regions[cell];
    r->window_base = base;
    for (uint32_t i = 0; i < spans; i++) {
        if (!region_is_fence(cell, base + i)) {
            r->window[i / 64] |= (uint64_t)1 << i % 64;
            r->window_left++;
        }
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

// A window of `least` spans, or more if there is nothing but fences among them.
static bool open_window(unsigned cell, const struct class_info *c, uint32_t least) {
    struct region *r = &firn_regions[cell];
    for (unsigned tries = 0; tries < COLLISIONS; tries++) {
        uint32_t base = r->committed;
        uint32_t spans = reach_past_fences(cell, base, least);
        if (c->max_spans - base < spans) {
            r->is_exhausted = least == 1;
            return false;
        }
        size_t bytes = (size_t)spans << c->span_shift;
        uintptr_t address = root_cell_base(cell) + ((uintptr_t)base << c->span_shift);
        if (!commit_descriptors(cell, base + spans)) {
            // Somebody else has the descriptors' addresses: those behind them cannot be reached.
            r->is_exhausted |= least == 1 && FIRN_ROOT.meta.is_sparse && errno == EEXIST;
            return false;
        }
        bool done = map_commit(&FIRN_ROOT.data, address, bytes);
        // Out of memory is no reason to step over: each try would cost addresses and descriptors.
        if (!done && !(FIRN_ROOT.data.is_sparse && errno == EEXIST)) {
            return false;
        }
        r->committed = base + spans;
        atomic_store_explicit(&firn_cell_limits[cell], address + bytes, memory_order_release);
        if (done) {
            fill_window(cell, base, spans);
            put_first_fence_up(cell, c);
            r->committed_bytes += (uint64_t)r->window_left << c->span_shift;
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
    put_fences_up(cell, c, index);
    struct span *s = span_by_index(cell, index);
    s->cell = (uint16_t)cell;
    return s;
}

void region_release(void) {
    const struct reservation *data = &FIRN_ROOT.data;
    const struct reservation *meta = &FIRN_ROOT.meta;
    uintptr_t from = data->base;
    for (unsigned cell = 0; cell < CELLS; cell++) {
        uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_relaxed);
        if (limit != 0) {
            map_give_up(data, from, root_cell_base(cell));
            from = limit;
        }
    }
    map_give_up(data, from, data->base + data->bytes / 2);
    from = meta->base;
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        const struct class_info *c = &FIRN_ROOT.classes[i];
        bool is_first = i == 0 || c[-1].group != c->group;
        if (is_first && descriptors_end[c->group] != 0) {
            map_give_up(meta, from, descriptors_start(c));
            from = descriptors_end[c->group];
        }
    }
    map_give_up(meta, from, meta->base + meta->bytes);
}
