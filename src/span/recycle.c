// Best first: a run that fits, left as it is; a larger one, split by a guard or two, which still
// saves purging pages only to fault them in again; neighbours, joined.
#include "src/span/recycle.h"

#include "src/span/adjust.h"

enum {
    RECYCLE_JOIN_SCAN = 64,      // cached runs looked at for neighbours
    RECYCLE_JOIN_MOST = 32 << 20 // bytes of a joined run
};

// Whether a cached run may be joined with the run behind it.
static bool recycle_can_join(const struct run *run, const struct run *next) {
    return next != NULL && next->state == RUN_CACHED && next->pieces == 0 && run->pieces == 0 &&
           run_body_bytes(run) + run_body_bytes(next) <= RECYCLE_JOIN_MOST;
}

// Joins neighbours in the cache, so that what was split can be whole again without being purged.
// Only when a request of `bytes` found nothing: runs of the sizes in use are worth more apart. True
// if there is a new run that may do.
static bool recycle_join(struct reuse *reuse, struct space *space, size_t bytes) {
    if (reuse->bins.bytes < 2 * bytes) {
        return false;
    }
    bool is_enough = false;
    struct run *run = reuse->oldest;
    for (unsigned i = 0; i < RECYCLE_JOIN_SCAN && run != NULL && !is_enough; i++) {
        struct tract *tract = space_tract_of(space, run);
        struct run *next = tract_next(tract, run);
        if (recycle_can_join(run, next)) {
            struct run *older = run->older;
            if (older == next) {
                older = next->older;
            }
            reuse_remove(reuse, run);
            reuse_remove(reuse, next);
            bool is_joined = tract_merge_cached(tract, run, next);
            if (!is_joined) {
                reuse_put_back(reuse, next, older);
            }
            reuse_put_back(reuse, run, older);
            is_enough = run_body_bytes(run) >= bytes;
            if (!is_joined) {
                break;
            }
        } else {
            run = run->newer;
        }
    }
    return is_enough;
}

struct run *recycle_take(struct reuse *reuse, struct space *space,
                         const struct carve_request *request) {
    struct random_stream *random = space->shared.random;
    struct run *run = reuse_find(reuse, request->bytes, request->align, random);
    if (run != NULL) {
        if (!adjust_place(space_tract_of(space, run), run, request->bytes)) {
            return NULL;
        }
        reuse_remove(reuse, run);
        run->state = RUN_LIVE;
        run->is_reused = true;
        return run;
    }
    run = reuse_find_larger(reuse, request->bytes, request->align, random);
    if (run == NULL && recycle_join(reuse, space, request->bytes)) {
        run = reuse_find_larger(reuse, request->bytes, request->align, random);
    }
    if (run == NULL) {
        return NULL;
    }
    struct run *rest[2] = {run, NULL};
    struct run *older = run->older;
    reuse_remove(reuse, run);
    struct run *cut = carve_split(space_tract_of(space, run), run, request, rest);
    for (unsigned i = 0; i < 2; i++) {
        if (rest[i] != NULL) {
            reuse_put_back(reuse, rest[i], older);
        }
    }
    return cut;
}
