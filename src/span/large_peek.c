// For reports: the large region as it looks from here, without its lock, which the dying thread may
// hold itself. Descriptors and page maps are never unmapped, so what is read may be out of date,
// and no worse.
#include "src/span/large.h"
#include "src/span/large_heap.h"

static enum large_view_state view_state(const struct run *run) {
    bool has_object = run->state == RUN_LIVE || run->state == RUN_LEAVING;
    return has_object ? LARGE_VIEW_LIVE : LARGE_VIEW_FREE;
}

static uintptr_t view_start(const struct run *run) {
    return view_state(run) == LARGE_VIEW_LIVE ? run->object : run->body;
}

static void look(const struct tract *tract, uintptr_t at, struct large_neighbour *out) {
    const struct run *run = NULL;
    if (at >= tract->range.base && at < tract->frontier) {
        run = page_map_get_before(&tract->map, at);
    }
    if (run != NULL && at < run->end && run->state != RUN_LOST) {
        *out = (struct large_neighbour){view_state(run), view_start(run), run->end};
    }
}

bool large_peek(uintptr_t address, struct large_view *out) {
    *out = (struct large_view){0};
    const struct tract *tract = space_find(&firn_large.space, address);
    if (tract == NULL || address >= tract->frontier) {
        return false;
    }
    const struct run *run = page_map_get_before(&tract->map, address);
    if (run == NULL || address >= run->end || run->state == RUN_LOST) {
        return false;
    }
    out->self = (struct large_neighbour){view_state(run), view_start(run), run->end};
    out->requested = run->size;
    look(tract, run->start - 1, &out->before);
    look(tract, run->end, &out->after);
    return true;
}
