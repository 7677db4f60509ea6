// What is kept is bounded by bytes, so that a program that frees everything gives it back soon, and
// by count, so that no list grows without end.
//
// The bound is small until it proves too small: memory that is purged for the bound and then taken
// afresh has cost two system calls and a fault for every page, for nothing. By as much the bound is
// raised, within limits; half of that is forgotten every second. A program that churns keeps its
// pages, a program that is done with them does not.
#include "src/span/reuse.h"

#include "src/base/config.h"
#include "src/base/fatal.h"

enum {
    REUSE_LEAST = 8 << 20,
    REUSE_MOST = 256 << 20,
    REUSE_RUNS = 1024,
    REUSE_SHARE = 8,               // of the live bytes
    REUSE_LEAST_REGRET = 32 << 20, // the same two, when raised
    REUSE_SHARE_REGRET = 2
};
#define REUSE_DECAY_NS UINT64_C(1000000000)

void reuse_put_back(struct reuse *reuse, struct run *run, struct run *older) {
    struct run *newer = older != NULL ? older->newer : reuse->oldest;
    run->state = RUN_CACHED;
    run->older = older;
    run->newer = newer;
    if (older != NULL) {
        older->newer = run;
    } else {
        reuse->oldest = run;
    }
    if (newer != NULL) {
        newer->older = run;
    } else {
        reuse->newest = run;
    }
    bins_insert(&reuse->bins, run);
}

void reuse_put(struct reuse *reuse, struct run *run, uint64_t now_ns) {
    if (now_ns - reuse->decay_ns >= REUSE_DECAY_NS) {
        reuse->regret_bytes /= 2;
        reuse->evicted_bytes /= 2;
        reuse->decay_ns = now_ns;
    }
    run->free_ns = now_ns;
    reuse_put_back(reuse, run, reuse->newest);
}

void reuse_remove(struct reuse *reuse, struct run *run) {
    FIRN_ENSURE(run->state == RUN_CACHED);
    bins_remove(&reuse->bins, run);
    if (run->older != NULL) {
        run->older->newer = run->newer;
    } else {
        reuse->oldest = run->newer;
    }
    if (run->newer != NULL) {
        run->newer->older = run->older;
    } else {
        reuse->newest = run->older;
    }
    run->older = run->newer = NULL;
}

struct run *reuse_find(const struct reuse *reuse, size_t bytes, size_t align,
                       struct random_stream *random) {
    // The object goes to the end of the body, so an alignment is known to hold only if it fills it.
    // P-LARGE-SNUG
    bool is_snug = FIRN_LARGE_SNUG || align > FIRN_PAGE;
    size_t most = is_snug ? bytes : bytes + bytes / 4;
    return reuse->bins.runs > 0 ? bins_fit(&reuse->bins, bytes, align, most, random) : NULL;
}

struct run *reuse_find_larger(const struct reuse *reuse, size_t bytes, size_t align,
                              struct random_stream *random) {
    if (reuse->bins.runs == 0) {
        return NULL;
    }
    struct run *run = bins_fit(&reuse->bins, bytes, align, SIZE_MAX, random);
    // Guards inside of moved pages would keep their mapping apart for good.
    return run != NULL && run->pieces == 0 ? run : NULL;
}

struct run *reuse_evict(struct reuse *reuse) {
    struct run *run = reuse->oldest;
    if (run != NULL) {
        reuse_remove(reuse, run);
        run->state = RUN_BUSY;
    }
    return run;
}

size_t reuse_bound(const struct reuse *reuse, size_t live_bytes) {
    size_t bound = live_bytes / REUSE_SHARE;
    if (bound < REUSE_LEAST) {
        bound = REUSE_LEAST;
    }
    size_t most = live_bytes / REUSE_SHARE_REGRET;
    if (most < REUSE_LEAST_REGRET) {
        most = REUSE_LEAST_REGRET;
    }
    bound += reuse->regret_bytes;
    bound = bound < most ? bound : most;
    return bound < REUSE_MOST ? bound : REUSE_MOST;
}

bool reuse_is_over(const struct reuse *reuse, size_t live_bytes) {
    return reuse->bins.runs > REUSE_RUNS || reuse->bins.bytes > reuse_bound(reuse, live_bytes);
}

void reuse_note_evicted(struct reuse *reuse, size_t bytes) {
    reuse->evicted_bytes += bytes;
}

void reuse_note_missed(struct reuse *reuse, size_t bytes) {
    size_t regret = bytes < reuse->evicted_bytes ? bytes : reuse->evicted_bytes;
    reuse->evicted_bytes -= regret;
    if (reuse->regret_bytes < REUSE_MOST) {
        reuse->regret_bytes += regret;
    }
}
