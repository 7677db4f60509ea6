// The validator: walks every run of every tract and compares what it finds with the page map, the
// bins, the cache and the counters.
#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/span/large_heap.h"

enum { CHECK_SCAN_MOST = 64 << 20 };

struct check_totals {
    size_t free, free_bytes;
    size_t cached, cached_bytes;
    size_t closed, closed_bytes;
    size_t live, live_bytes;
    size_t busy, busy_bytes;
    size_t pieces;
    size_t committed;
};

static bool check_is_binned(const struct bins *bins, const struct run *run) {
    for (const struct run *r = bins->heads[run->bin]; r != NULL; r = r->next) {
        if (r == run) {
            return true;
        }
    }
    return false;
}

// The entries that belong to the run are there, and no others. In a long one, only those that a
// search from its end would meet.
static void check_entries(const struct tract *tract, const struct run *run) {
    uintptr_t last = run->end - FIRN_PAGE;
    bool has_object = run->state == RUN_LIVE || run->state == RUN_LEAVING;
    FIRN_ENSURE(page_map_get(&tract->map, run->start) == run);
    FIRN_ENSURE(page_map_get(&tract->map, last) == run);
    FIRN_ENSURE(last == run->start || page_map_get_before(&tract->map, last - 1) == run);
    if (has_object) {
        FIRN_ENSURE(page_map_get(&tract->map, run->object) == run);
    }
    if (run->end - run->start > CHECK_SCAN_MOST) {
        return;
    }
    for (uintptr_t at = run->start + FIRN_PAGE; at < last; at += FIRN_PAGE) {
        bool is_ours = has_object && at == run->object;
        FIRN_ENSURE(page_map_get(&tract->map, at) == (is_ours ? run : NULL));
    }
}

static void check_run(const struct tract *tract, const struct run *run,
                      struct check_totals *totals) {
    size_t body = run_body_bytes(run);
    FIRN_ENSURE(align_is_aligned(run->start | run->body | run->end, FIRN_PAGE));
    FIRN_ENSURE(run->start <= run->body && run->body <= run->end && run->end <= tract->frontier);
    FIRN_ENSURE(run->start < run->body || run->state == RUN_LOST);
    FIRN_ENSURE(run->region == tract->index);
    totals->committed += run->body - run->start;
    switch ((enum run_state)run->state) {
    case RUN_FREE:
        totals->free++;
        totals->free_bytes += body;
        FIRN_ENSURE(check_is_binned(&tract->shared->free, run));
        FIRN_ENSURE(run->pieces == 0);
        body = 0;
        break;
    case RUN_CACHED:
        totals->cached++;
        totals->cached_bytes += body;
        totals->pieces += run->pieces;
        FIRN_ENSURE(check_is_binned(&firn_large.reuse.bins, run));
        break;
    case RUN_CLOSED:
        totals->closed++;
        totals->closed_bytes += body;
        FIRN_ENSURE(run->pieces == 0 && !run->is_resident);
        break;
    case RUN_BUSY:
        totals->busy++;
        totals->busy_bytes += body;
        break;
    case RUN_LIVE:
        FIRN_ENSURE(align_is_aligned(run->object, FIRN_PAGE));
        FIRN_ENSURE(run->body <= run->object && run->object < run->end);
        FIRN_ENSURE(run->end <= tract->high_water);
        FIRN_ENSURE(run->size > 0 && run->size <= run_object_bytes(run));
        totals->live++;
        totals->live_bytes += run_object_bytes(run);
        totals->pieces += run->pieces;
        break;
    case RUN_LEAVING:
        totals->busy++;
        totals->live++;
        totals->live_bytes += run_object_bytes(run);
        totals->pieces += run->pieces;
        break;
    case RUN_LOST:
        body = 0;
        break;
    }
    totals->committed += body;
    check_entries(tract, run);
}

static void check_tract(const struct tract *tract, struct check_totals *totals) {
    uintptr_t at = tract->range.base;
    FIRN_ENSURE(tract->frontier <= tract->limit && tract->high_water <= tract->frontier);
    while (at < tract->frontier) {
        const struct run *run = page_map_get(&tract->map, at);
        FIRN_ENSURE(run != NULL && run->start == at);
        check_run(tract, run, totals);
        at = run->end;
    }
    FIRN_ENSURE(at == tract->frontier);
}

static void check_cache(const struct reuse *reuse) {
    size_t count = 0;
    const struct run *newer = NULL;
    for (const struct run *run = reuse->newest; run != NULL; run = run->older) {
        FIRN_ENSURE(run->state == RUN_CACHED && run->newer == newer);
        newer = run;
        count++;
    }
    FIRN_ENSURE(newer == reuse->oldest && count == reuse->bins.runs);
}

static void check_closed(const struct closed *closed) {
    size_t count = 0;
    const struct run *older = NULL;
    for (const struct run *run = closed->oldest; run != NULL; run = run->newer) {
        FIRN_ENSURE(run->state == RUN_CLOSED && run->older == older);
        older = run;
        count++;
    }
    FIRN_ENSURE(older == closed->newest && count == closed->runs);
}

void large_check(void) {
    struct large_heap *large = &firn_large;
    struct check_totals totals = {0};
    lock_acquire(&large->lock);
    for (unsigned i = 0; i < large->space.count; i++) {
        struct tract *tract = &large->space.tracts[i];
        size_t before = totals.committed;
        check_tract(tract, &totals);
        if (!tract->is_exact) {
            totals.committed = before + (tract->frontier - tract->range.base);
        }
    }
    check_cache(&large->reuse);
    check_closed(&large->closed);
    FIRN_ENSURE(totals.closed == large->closed.runs);
    FIRN_ENSURE(totals.closed_bytes == large->closed.bytes);
    FIRN_ENSURE(totals.free == large->space.shared.free.runs);
    FIRN_ENSURE(totals.free_bytes == large->space.shared.free.bytes);
    FIRN_ENSURE(totals.cached == large->reuse.bins.runs);
    FIRN_ENSURE(totals.cached_bytes == large->reuse.bins.bytes);
    FIRN_ENSURE(totals.busy == large->busy && totals.busy_bytes == large->busy_bytes);
    FIRN_ENSURE(totals.pieces == large->pieces);
    // An object being moved counts twice.
    FIRN_ENSURE(totals.live == large->live && totals.live_bytes == large->live_bytes);
    FIRN_ENSURE(totals.committed == large->space.shared.mapped_bytes);
    lock_release(&large->lock);
}
