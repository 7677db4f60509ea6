// One reservation for large objects, tiled by runs (see run.h): its bookkeeping, and how runs merge.
// carve.h makes runs out of it, adjust.h changes their size.
//
// Two ways to commit memory:
// - plain: the frontier is committed ahead in growing steps, so that the tract is one mapping, and
//   free runs stay committed with their pages given back;
// - exact: where commit charge or address space is rationed (strict overcommit, RLIMIT_DATA, sparse
//   reservations), the body of a free run is not committed at all. Guard pages always are.
// In both, whatever lies in the body of a free run reads as zeros once it is committed.
//
// Callers hold LOCK_LARGE, but for tract_purge. Functions that can fail do so without having changed
// anything, unless said otherwise; errno is the kernel's then.
#ifndef FIRN_SPAN_TRACT_H
#define FIRN_SPAN_TRACT_H

#include "src/base/compiler.h"
#include "src/os/map.h"
#include "src/os/random.h"
#include "src/span/bins.h"
#include "src/span/page_map.h"
#include "src/span/run.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    TRACT_SLIVER = 3,   // pages: too little for a run of its own, becomes guard pages instead
    TRACT_LEAD_MAX = 4, // guard pages before an object: 1..4, random
};

// What the tracts of a space have in common.
struct tract_shared {
    struct bins free;             // every RUN_FREE
    struct random_stream *random; // gaps and choices
    struct run *spare;            // descriptors not in use, linked by next
    size_t mapped_bytes;          // committed
};

struct tract {
    struct tract_shared *shared;
    struct reservation range;
    uintptr_t frontier;   // end of the last run
    uintptr_t limit;      // where the frontier stops: one page short of the end
    uintptr_t high_water; // no object ever ended above this
    bool is_exact;
    uint8_t index;
    struct page_map map;
};

// False when descriptor memory is exhausted.
bool tract_start(struct tract *tract, struct tract_shared *shared, const struct reservation *range,
                 bool is_exact, unsigned index) FIRN_CHECKED;

// The run that ends at the frontier, and the neighbours of a run; NULL where there is none.
// Gives back the addresses of what is not committed; from then on each piece is mapped when needed.
void tract_release_unused(struct tract *tract);

struct run *tract_last(const struct tract *tract);
struct run *tract_next(const struct tract *tract, const struct run *run);
struct run *tract_previous(const struct tract *tract, const struct run *run);

// Gives back the memory of a run that is RUN_BUSY. The only function that needs no lock: nobody
// else touches a busy run's body. Doing it twice does no harm, but in a sparse tract, where the
// addresses may belong to somebody else after the first time. Preserves errno.
void tract_purge(const struct tract *tract, struct run *run);

// A purged RUN_BUSY becomes RUN_FREE, merged with free neighbours. Returns the resulting run.
struct run *tract_settle(struct tract *tract, struct run *run);

// Appends `next` to `run`: two neighbours without objects, committed, in no list, each in one
// mapping. The content is whatever it was. False when the guard between them stays.
bool tract_merge_cached(struct tract *tract, struct run *run, struct run *next) FIRN_CHECKED;

// ---- for carve and adjust ----

// Sees to it that two descriptors are at hand, enough for any one change.
bool tract_prepare_spare(struct tract *tract) FIRN_CHECKED;
struct run *tract_take_spare(struct tract *tract);
void tract_put_spare(struct tract *tract, struct run *run);

// Random guard pages, in bytes: for any run, and for one that begins with `bytes` of free memory.
size_t tract_draw_lead(struct tract *tract);
size_t tract_draw_lead_of(struct tract *tract, size_t bytes);

// Sets the map entries of the run's first and last page, which were prepared.
void tract_link(struct tract *tract, struct run *run);
// Makes the run RUN_FREE and puts it into the bins.
void tract_bin(struct tract *tract, struct run *run);
// Takes a free run out of the bins.
void tract_unbin(struct tract *tract, struct run *run);

// Commits [from, to), which may be empty.
bool tract_commit(struct tract *tract, uintptr_t from, uintptr_t to) FIRN_CHECKED;
// Gives the committed `bytes` before `next` to it as guard pages.
void tract_widen_lead(struct tract *tract, struct run *next, size_t bytes);

#endif
