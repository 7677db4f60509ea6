// Tiling. Every change follows one order: find out what is needed (descriptors, map entries,
// committed memory), get it or fail; then place guards, which may fail without harm; then change
// the tiling, which cannot fail.
#include "src/span/tract.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/meta/arena.h"
#include "src/meta/page_state.h"
#include "src/os/caps.h"

#include <errno.h>

enum { TRACT_DESCRIPTORS = 32 };

bool tract_start(struct tract *tract, struct tract_shared *shared, const struct reservation *range,
                 bool is_exact, unsigned index) {
    tract->shared = shared;
    tract->range = *range;
    tract->frontier = range->base;
    tract->limit = range->base + range->bytes - FIRN_PAGE;
    tract->high_water = range->base;
    tract->is_exact = is_exact || range->is_sparse;
    tract->index = (uint8_t)index;
    return page_map_start(&tract->map, range->base, range->bytes);
}

// What is free later will go the same way: a tract of chosen addresses is exact.
void tract_release_unused(struct tract *tract) {
    struct reservation *r = &tract->range;
    if (r->is_sparse) {
        return;
    }
    for (uintptr_t at = r->base; at < tract->frontier;) {
        const struct run *run = page_map_get(&tract->map, at);
        if (run->state == RUN_FREE) {
            map_give_up(r, run->body, run->end);
            tract->shared->mapped_bytes -= tract->is_exact ? 0 : run_body_bytes(run);
        }
        at = run->end;
    }
    map_give_up(r, tract->frontier, r->base + r->bytes);
    map_begin_sparse(r);
    tract->is_exact = true;
}

struct run *tract_last(const struct tract *tract) {
    return tract->frontier > tract->range.base
               ? page_map_get(&tract->map, tract->frontier - FIRN_PAGE)
               : NULL;
}

struct run *tract_next(const struct tract *tract, const struct run *run) {
    return run->end < tract->frontier ? page_map_get(&tract->map, run->end) : NULL;
}

struct run *tract_previous(const struct tract *tract, const struct run *run) {
    return run->start > tract->range.base ? page_map_get(&tract->map, run->start - FIRN_PAGE)
                                          : NULL;
}

bool tract_prepare_spare(struct tract *tract) {
    struct tract_shared *shared = tract->shared;
    if (FIRN_LIKELY(shared->spare != NULL && shared->spare->next != NULL)) {
        return true;
    }
    struct run *runs = arena_alloc(TRACT_DESCRIPTORS * sizeof(struct run), FIRN_CACHE_LINE);
    if (runs == NULL) {
        errno = ENOMEM;
        return false;
    }
    for (unsigned i = 0; i < TRACT_DESCRIPTORS; i++) {
        runs[i].next = shared->spare;
        shared->spare = &runs[i];
    }
    return true;
}

struct run *tract_take_spare(struct tract *tract) {
    struct run *run = tract->shared->spare;
    FIRN_ENSURE(run != NULL);
    tract->shared->spare = run->next;
    *run = (struct run){.region = tract->index};
    return run;
}

void tract_put_spare(struct tract *tract, struct run *run) {
    *run = (struct run){.next = tract->shared->spare};
    tract->shared->spare = run;
}

size_t tract_draw_lead(struct tract *tract) {
    return (1 + (size_t)random_u8(tract->shared->random) % TRACT_LEAD_MAX) * FIRN_PAGE;
}

size_t tract_draw_lead_of(struct tract *tract, size_t bytes) {
    size_t lead = tract_draw_lead(tract);
    size_t most = align_down(bytes / 2, FIRN_PAGE);
    return lead <= most ? lead : most;
}

void tract_link(struct tract *tract, struct run *run) {
    page_map_set(&tract->map, run->start, run);
    page_map_set(&tract->map, run->end - FIRN_PAGE, run);
}

void tract_bin(struct tract *tract, struct run *run) {
    run->state = RUN_FREE;
    run->is_resident = false;
    run->is_reused = false;
    bins_insert(&tract->shared->free, run);
}

void tract_unbin(struct tract *tract, struct run *run) {
    FIRN_ENSURE(run->state == RUN_FREE);
    bins_remove(&tract->shared->free, run);
}

bool tract_commit(struct tract *tract, uintptr_t from, uintptr_t to) {
    if (to > from) {
        if (!map_commit(&tract->range, from, to - from)) {
            return false;
        }
        tract->shared->mapped_bytes += to - from;
    }
    return true;
}

static void tract_decommit(struct tract *tract, uintptr_t from, uintptr_t to) {
    map_decommit(&tract->range, from, to - from);
    tract->shared->mapped_bytes -= to - from;
}

// Guards by mprotect split mappings, and pages touched between two of them belong to a mapping that
// never merges with its neighbours again unless it is replaced.
static bool tract_has_splits(void) {
    return !caps_has(CAP_GUARD_MARKER);
}

// Memory that was guard pages becomes part of a free body: zero, and not committed (exact).
static void tract_release(struct tract *tract, uintptr_t from, uintptr_t to, bool was_guarded) {
    if (tract->is_exact) {
        tract_decommit(tract, from, to);
        return;
    }
    bool is_renewed = tract_has_splits() && map_renew(&tract->range, from, to - from);
    if (!is_renewed && !was_guarded) {
        // Pages that could not be guarded may have been written to.
        page_state_purge(from, to - from);
    }
}

void tract_widen_lead(struct tract *tract, struct run *next, size_t bytes) {
    page_map_set(&tract->map, next->start, NULL);
    next->start -= bytes;
    page_map_set(&tract->map, next->start, next);
    page_map_set(&tract->map, next->end - FIRN_PAGE, next);
    next->is_guarded = page_state_guard(next->start, bytes) && next->is_guarded;
}

void tract_purge(const struct tract *tract, struct run *run) {
    int saved = errno;
    size_t bytes = run_body_bytes(run);
    if (bytes == 0) {
        return;
    }
    page_state_release(run->body, bytes);
    // A mapping that is watched stays, with its pieces.
    bool is_renewed = (run->pieces > 0 || tract_has_splits()) && !tract->is_exact &&
                      !page_state_is_kept(run->body, bytes);
    if (tract->is_exact) {
        map_decommit(&tract->range, run->body, bytes);
    } else if (!is_renewed || !map_renew(&tract->range, run->body, bytes)) {
        page_state_purge(run->body, bytes);
    }
    errno = saved;
}

// ---- merging ----

// Lets `run` reach to the end of `next`, whose guard pages are open.
static void tract_append(struct tract *tract, struct run *run, struct run *next) {
    page_map_set(&tract->map, run->end - FIRN_PAGE, NULL);
    page_map_set(&tract->map, next->start, NULL);
    run->end = next->end;
    tract_link(tract, run);
    tract_put_spare(tract, next);
}

// Appends `next` to `run`; both are free and in no bin. False when the guard between them stays.
static bool tract_merge(struct tract *tract, struct run *run, struct run *next) {
    // Also before a decommit: a marker would outlive it, and a guard's VMA is counted.
    if (!page_state_unguard(next->start, next->body - next->start)) {
        return false;
    }
    tract_release(tract, next->start, next->body, next->is_guarded);
    tract_append(tract, run, next);
    return true;
}

bool tract_merge_cached(struct tract *tract, struct run *run, struct run *next) {
    FIRN_ENSURE(run->end == next->start && run->pieces == 0 && next->pieces == 0);
    if (!page_state_unguard(next->start, next->body - next->start)) {
        return false;
    }
    run->is_resident = false; // the guards were not
    run->is_reused = false;
    tract_append(tract, run, next);
    return true;
}

// Slivers gather in front of an object that stays while the run before it comes and goes: takes
// back for `run`, which is free and in no bin, what exceeds a usual lead.
static void tract_reclaim_lead(struct tract *tract, struct run *run, struct run *next) {
    size_t lead = next->body - next->start;
    if (next->state == RUN_LOST || lead <= (size_t)TRACT_LEAD_MAX * FIRN_PAGE) {
        return;
    }
    uintptr_t start = next->body - tract_draw_lead(tract);
    bool was_guarded = next->is_guarded;
    // All of it is opened: a guard made by one call is undone as one.
    if (!page_map_prepare(&tract->map, start - FIRN_PAGE) ||
        !page_map_prepare(&tract->map, start) || !page_state_unguard(next->start, lead)) {
        return;
    }
    next->is_guarded = page_state_guard(start, next->body - start);
    tract_release(tract, next->start, start, was_guarded);
    page_map_set(&tract->map, run->end - FIRN_PAGE, NULL);
    page_map_set(&tract->map, next->start, NULL);
    run->end = start;
    next->start = start;
    tract_link(tract, run);
    tract_link(tract, next);
}

struct run *tract_settle(struct tract *tract, struct run *run) {
    FIRN_ENSURE(run->state == RUN_BUSY);
    if (tract->is_exact) {
        tract->shared->mapped_bytes -= run_body_bytes(run);
    }
    run->pieces = 0;
    struct run *next = tract_next(tract, run);
    if (next != NULL && next->state == RUN_FREE) {
        tract_unbin(tract, next);
        if (!tract_merge(tract, run, next)) {
            tract_bin(tract, next);
        }
    } else if (next != NULL) {
        tract_reclaim_lead(tract, run, next);
    }
    struct run *previous = tract_previous(tract, run);
    if (previous != NULL && previous->state == RUN_FREE) {
        tract_unbin(tract, previous);
        if (tract_merge(tract, previous, run)) {
            run = previous;
        } else {
            tract_bin(tract, previous);
        }
    }
    tract_bin(tract, run);
    return run;
}
