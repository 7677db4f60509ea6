// The frontier moves in large steps, and every run is cut from free memory: one path for holes and
// for fresh memory, and at most two guard calls an object. P-LARGE-GUARD.
#include "src/span/carve.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/meta/page_state.h"

#include <errno.h>

enum {
    CARVE_STEP_MIN = 1 << 20, // the frontier moves by an eighth of what is in use,
    CARVE_STEP_MAX = 64 << 20 // within these bounds
};

// ---- growing the frontier ----

static size_t carve_step(const struct tract *tract) {
    size_t step = align_down((tract->frontier - tract->range.base) / 8, CARVE_STEP_MIN);
    if (step < CARVE_STEP_MIN) {
        return CARVE_STEP_MIN;
    }
    return step < CARVE_STEP_MAX ? step : CARVE_STEP_MAX;
}

// Gets `bytes` beyond the frontier ready to be tiled: their last map entry, and their memory
// (plain). The frontier itself stays.
static bool carve_reach(struct tract *tract, size_t bytes) {
    if (!page_map_prepare(&tract->map, tract->frontier + bytes - FIRN_PAGE)) {
        errno = ENOMEM;
        return false;
    }
    return tract->is_exact || tract_commit(tract, tract->frontier, tract->frontier + bytes);
}

// The same for a step of at least `least` bytes. Returns its bytes, 0 on failure.
static size_t carve_reach_step(struct tract *tract, size_t least) {
    size_t room = tract->limit - tract->frontier;
    if (least > room) {
        errno = ENOMEM;
        return 0;
    }
    size_t most = least > carve_step(tract) ? least : carve_step(tract);
    if (most > room) {
        most = room;
    }
    if (carve_reach(tract, most)) {
        return most;
    }
    return most > least && carve_reach(tract, least) ? least : 0;
}

// A sparse tract met a foreign mapping at its frontier. How far it reaches is unknown: gives up
// `bytes`, which the caller doubles with each attempt.
static bool carve_skip(struct tract *tract, size_t bytes) {
    if (bytes > tract->limit - tract->frontier || !tract_prepare_spare(tract) ||
        !page_map_prepare(&tract->map, tract->frontier) || !carve_reach(tract, bytes)) {
        errno = ENOMEM;
        return false;
    }
    struct run *run = tract_take_spare(tract);
    run->start = tract->frontier;
    run->body = run->start;
    run->end = run->start + bytes;
    run->state = RUN_LOST;
    tract->frontier = run->end;
    tract_link(tract, run);
    return true;
}

// Begins a new free run at the frontier.
static struct run *carve_grow_new(struct tract *tract, size_t bytes, size_t align) {
    size_t lead = tract_draw_lead(tract);
    uintptr_t object = align_up(tract->frontier + lead, align);
    size_t least;
    if (object < tract->frontier ||
        __builtin_add_overflow(object - tract->frontier, bytes, &least) ||
        !tract_prepare_spare(tract) || !page_map_prepare(&tract->map, tract->frontier)) {
        errno = ENOMEM;
        return NULL;
    }
    size_t step = carve_reach_step(tract, least);
    if (step == 0 ||
        (tract->is_exact && !tract_commit(tract, tract->frontier, tract->frontier + lead))) {
        return NULL;
    }
    struct run *run = tract_take_spare(tract);
    run->start = tract->frontier;
    run->body = run->start + lead;
    run->end = run->start + step;
    run->is_guarded = page_state_guard(run->start, lead);
    tract->frontier = run->end;
    tract_link(tract, run);
    tract_bin(tract, run);
    return run;
}

// Lengthens the last run, which is free.
static struct run *carve_grow_last(struct tract *tract, struct run *last, size_t bytes,
                                   size_t align) {
    uintptr_t object = align_up(last->body, align);
    uintptr_t end;
    if (object < last->body || __builtin_add_overflow(object, bytes, &end)) {
        errno = ENOMEM;
        return NULL;
    }
    if (end <= last->end) {
        return last;
    }
    size_t step = carve_reach_step(tract, end - last->end);
    if (step == 0) {
        return NULL;
    }
    tract_unbin(tract, last);
    if (last->end - FIRN_PAGE != last->start) {
        page_map_set(&tract->map, last->end - FIRN_PAGE, NULL);
    }
    last->end += step;
    tract->frontier = last->end;
    tract_link(tract, last);
    tract_bin(tract, last);
    return last;
}

struct run *carve_grow(struct tract *tract, size_t bytes, size_t align) {
    for (size_t skip = CARVE_STEP_MIN;; skip *= 2) {
        struct run *last = tract_last(tract);
        struct run *run = last != NULL && last->state == RUN_FREE
                              ? carve_grow_last(tract, last, bytes, align)
                              : carve_grow_new(tract, bytes, align);
        if (run != NULL || errno != EEXIST || !carve_skip(tract, skip)) {
            return run;
        }
    }
}

// ---- cutting ----

// How a run is cut: [run->start, start) stays free, [start, end) becomes the new run,
// [end, tail) guards what follows it, [tail, run->end) stays free.
struct carve_plan {
    uintptr_t start;
    uintptr_t object;
    uintptr_t end;
    uintptr_t tail; // run->end when nothing is left free behind
    bool has_front; // a free run remains in front
    bool has_tail;  // and one behind
};

static void carve_plan_cut(struct tract *tract, const struct run *run,
                           const struct carve_request *request, struct carve_plan *plan) {
    size_t bytes = request->bytes;
    size_t align = request->align;
    size_t sliver = (size_t)TRACT_SLIVER * FIRN_PAGE;
    bool is_last = run->end == tract->frontier;
    // From the front at the frontier, so that it fills densely; from either end of a hole.
    bool is_front = is_last || request->is_roomy || (random_u8(tract->shared->random) & 1) != 0;
    plan->object = is_front ? align_up(run->body, align) : align_down(run->end - bytes, align);
    plan->end = plan->object + bytes;
    size_t front = plan->object - run->body;
    size_t back = run->end - plan->end;
    plan->has_front = front > sliver;
    plan->start = plan->has_front ? plan->object - tract_draw_lead_of(tract, front) : run->start;
    // A sliver at the frontier has no run behind it to guard: a free run that is all guard.
    plan->has_tail = back > sliver || (is_last && back > 0);
    plan->tail = back > sliver ? plan->end + tract_draw_lead_of(tract, back) : run->end;
}

// Descriptors, map entries and memory for the plan. The pages to commit are one stretch: guards
// before the object (those that were free memory), the object, guards behind it.
static bool carve_prepare(struct tract *tract, const struct run *run,
                          const struct carve_plan *plan) {
    struct page_map *map = &tract->map;
    if (!tract_prepare_spare(tract) || !page_map_prepare(map, plan->object) ||
        !page_map_prepare(map, plan->end - FIRN_PAGE) ||
        (plan->end < run->end && !page_map_prepare(map, plan->end)) ||
        (plan->has_front && (!page_map_prepare(map, plan->start - FIRN_PAGE) ||
                             !page_map_prepare(map, plan->start)))) {
        errno = ENOMEM;
        return false;
    }
    return !tract->is_exact || run->state == RUN_CACHED ||
           tract_commit(tract, plan->has_front ? plan->start : run->body, plan->tail);
}

// A piece of the old run, in its state, for the caller to put where such runs belong.
static struct run *carve_piece(struct tract *tract, const struct run *run, uintptr_t start,
                               uintptr_t body, uintptr_t end) {
    struct run *piece = tract_take_spare(tract);
    piece->start = start;
    piece->body = body;
    piece->end = end;
    piece->state = run->state;
    piece->free_ns = run->free_ns;
    piece->is_resident = run->is_resident;
    piece->is_guarded = page_state_guard(start, body - start);
    return piece;
}

// What lies behind the new run, up to the `end` of the old one.
static struct run *carve_tail(struct tract *tract, const struct run *run,
                              const struct carve_plan *plan) {
    if (plan->has_tail) {
        struct run *tail = carve_piece(tract, run, plan->end, plan->tail, run->end);
        tract_link(tract, tail);
        return tail;
    }
    if (plan->end < run->end) {
        struct run *next = tract_next(tract, run);
        page_map_set(&tract->map, run->end - FIRN_PAGE, NULL);
        tract_widen_lead(tract, next, run->end - plan->end);
    }
    return NULL;
}

// What lies before the new object. Returns the descriptor of the new run, which is `run` itself
// unless something is left in front.
static struct run *carve_front(struct tract *tract, struct run *run,
                               const struct carve_plan *plan) {
    if (plan->has_front) {
        struct run *cut = carve_piece(tract, run, plan->start, plan->object, plan->end);
        run->end = plan->start;
        tract_link(tract, run);
        return cut;
    }
    if (run->body < plan->object) {
        run->is_guarded = page_state_guard(run->body, plan->object - run->body) && run->is_guarded;
    }
    run->body = plan->object;
    run->end = plan->end;
    return run;
}

struct run *carve_split(struct tract *tract, struct run *run, const struct carve_request *request,
                        struct run *rest[2]) {
    struct carve_plan plan;
    FIRN_ENSURE(run->state == RUN_FREE || run->state == RUN_CACHED);
    FIRN_ENSURE(run_body_bytes(run) >= request->bytes && run->pieces == 0);
    carve_plan_cut(tract, run, request, &plan);
    if (!carve_prepare(tract, run, &plan)) {
        return NULL;
    }
    rest[1] = carve_tail(tract, run, &plan);
    struct run *cut = carve_front(tract, run, &plan);
    rest[0] = cut != run ? run : NULL;
    cut->object = plan.object;
    cut->state = RUN_LIVE;
    tract_link(tract, cut);
    page_map_set(&tract->map, cut->object, cut);
    if (plan.end > tract->high_water) {
        tract->high_water = plan.end;
    }
    return cut;
}

struct run *carve_cut(struct tract *tract, struct run *run, const struct carve_request *request) {
    struct run *rest[2];
    tract_unbin(tract, run);
    struct run *cut = carve_split(tract, run, request, rest);
    if (cut == NULL) {
        if (errno == EEXIST && tract->range.is_sparse) {
            run->state = RUN_LOST;
        } else {
            tract_bin(tract, run);
        }
        return NULL;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (rest[i] != NULL) {
            tract_bin(tract, rest[i]);
        }
    }
    return cut;
}
