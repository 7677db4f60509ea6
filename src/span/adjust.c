// Growing in place takes memory from the free run behind: its guard pages are opened, as many new
// ones closed further on. Same order as everywhere: prepare, guard, then change the tiling.
#include "src/span/adjust.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/meta/page_state.h"
#include "src/span/carve.h"

#include <errno.h>

bool adjust_place(struct tract *tract, struct run *run, size_t bytes) {
    uintptr_t object = run->end - bytes;
    FIRN_ENSURE(object >= run->body);
    if (!page_map_prepare(&tract->map, object)) {
        return false;
    }
    run->object = object;
    page_map_set(&tract->map, object, run);
    return true;
}

void adjust_clear(struct tract *tract, struct run *run) {
    // An object of one page begins on the last page of its run, whose entry stays.
    if (run->object != run->end - FIRN_PAGE) {
        page_map_set(&tract->map, run->object, NULL);
    }
    run->object = 0;
}

// The free run behind `run`, made at least `bytes` long (guard pages included) if it can be.
static struct run *adjust_free_behind(struct tract *tract, struct run *run, size_t bytes) {
    struct run *next = tract_next(tract, run);
    if (next != NULL && next->state != RUN_FREE) {
        return NULL;
    }
    if (next == NULL || next->end == tract->frontier) {
        // At the frontier more than a sliver must remain, for there is nobody to give one to.
        next = carve_grow(tract, bytes + ((size_t)TRACT_SLIVER + 1) * FIRN_PAGE, FIRN_PAGE);
        // In a sparse tract a foreign mapping may have pushed the new run away.
        return next != NULL && next->start == run->end ? next : NULL;
    }
    return next->end - next->start >= bytes ? next : NULL;
}

static void adjust_set_end(struct tract *tract, struct run *run, uintptr_t end) {
    if (run->end - FIRN_PAGE != run->object) {
        page_map_set(&tract->map, run->end - FIRN_PAGE, NULL);
    }
    run->end = end;
    tract_link(tract, run);
    if (end > tract->high_water) {
        tract->high_water = end;
    }
}

// `next` loses its first `bytes` to the run before it and guards itself anew, with `keep` bytes of
// guard pages or what it still has.
static bool adjust_take_front(struct tract *tract, struct run *next, size_t bytes, size_t keep) {
    uintptr_t start = next->start + bytes;
    uintptr_t body = start + keep > next->body ? start + keep : next->body;
    if (!page_map_prepare(&tract->map, start - FIRN_PAGE) ||
        !page_map_prepare(&tract->map, start)) {
        errno = ENOMEM;
        return false;
    }
    if (!page_state_unguard(next->start, next->body - next->start)) {
        return false;
    }
    if (tract->is_exact && !tract_commit(tract, next->body, body)) {
        next->is_guarded = page_state_guard(next->start, next->body - next->start);
        return false;
    }
    tract_unbin(tract, next);
    page_map_set(&tract->map, next->start, NULL);
    next->start = start;
    next->body = body;
    next->is_guarded = page_state_guard(start, body - start);
    tract_link(tract, next);
    tract_bin(tract, next);
    return true;
}

// `next` goes away whole: to the run before it, but for a sliver that becomes guard pages of
// `after`, the run behind.
static bool adjust_take_all(struct tract *tract, struct run *next, struct run *after,
                            size_t sliver) {
    if (!page_map_prepare(&tract->map, next->end - sliver - FIRN_PAGE) ||
        !page_map_prepare(&tract->map, next->end - sliver)) {
        errno = ENOMEM;
        return false;
    }
    if (!page_state_unguard(next->start, next->body - next->start)) {
        return false;
    }
    if (tract->is_exact && !tract_commit(tract, next->body, next->end)) {
        next->is_guarded = page_state_guard(next->start, next->body - next->start);
        return false;
    }
    tract_unbin(tract, next);
    page_map_set(&tract->map, next->start, NULL);
    page_map_set(&tract->map, next->end - FIRN_PAGE, NULL);
    if (sliver > 0) {
        tract_widen_lead(tract, after, sliver);
    }
    tract_put_spare(tract, next);
    return true;
}

bool adjust_extend(struct tract *tract, struct run *run, size_t bytes) {
    size_t more = bytes - run_object_bytes(run);
    struct run *next = adjust_free_behind(tract, run, more);
    if (next == NULL) {
        return false;
    }
    size_t rest = next->end - next->start - more;
    bool is_taken;
    if (rest > (size_t)TRACT_SLIVER * FIRN_PAGE) {
        is_taken = adjust_take_front(tract, next, more, tract_draw_lead_of(tract, rest));
    } else {
        struct run *after = tract_next(tract, next);
        is_taken = after != NULL && adjust_take_all(tract, next, after, rest);
    }
    if (is_taken) {
        run->is_resident = false;
        adjust_set_end(tract, run, run->end + more);
    }
    return is_taken;
}

// Guards pages cut off a live object, and gives their memory back. A mapping that map_move left is
// renewed first, or the guards would stay apart from their surroundings for good.
static bool adjust_close(struct tract *tract, const struct run *run, uintptr_t at, size_t bytes) {
    if (run->pieces > 0 &&
        (page_state_is_kept(at, bytes) || !map_renew(&tract->range, at, bytes))) {
        page_state_purge(at, bytes);
    }
    if (page_state_guard(at, bytes)) {
        return true;
    }
    page_state_purge(at, bytes);
    return false;
}

bool adjust_shrink(struct tract *tract, struct run *run, size_t bytes, struct run **tail) {
    uintptr_t end = run->object + bytes;
    size_t less = run->end - end;
    struct run *next = tract_next(tract, run);
    *tail = NULL;
    if (!tract_prepare_spare(tract) || !page_map_prepare(&tract->map, end - FIRN_PAGE) ||
        !page_map_prepare(&tract->map, end)) {
        errno = ENOMEM;
        return false;
    }
    if (less <= (size_t)TRACT_SLIVER * FIRN_PAGE) {
        if (next == NULL) {
            return false;
        }
        adjust_set_end(tract, run, end);
        page_state_release(end, less); // now that the object ends before it
        bool is_closed = adjust_close(tract, run, end, less);
        page_map_set(&tract->map, next->start, NULL);
        next->start = end;
        next->is_guarded = next->is_guarded && is_closed;
        tract_link(tract, next);
        return true;
    }
    struct run *cut = tract_take_spare(tract);
    cut->start = end;
    cut->body = end + tract_draw_lead_of(tract, less);
    cut->end = run->end;
    cut->state = RUN_BUSY;
    cut->pieces = run->pieces;
    adjust_set_end(tract, run, end);
    page_state_release(cut->start, cut->body - cut->start);
    cut->is_guarded = adjust_close(tract, run, cut->start, cut->body - cut->start);
    tract_link(tract, cut);
    *tail = cut;
    return true;
}
