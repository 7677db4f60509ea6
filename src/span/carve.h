// Makes runs for objects out of a tract's free memory. Callers hold LOCK_LARGE.
#ifndef FIRN_SPAN_CARVE_H
#define FIRN_SPAN_CARVE_H

#include "src/span/tract.h"

struct carve_request {
    size_t bytes;  // whole pages
    size_t align;  // power of two, at least a page; bytes + align is at most PTRDIFF_MAX
    bool is_roomy; // it will probably grow: leave what is free behind it
};

// Grows the tract until its last run is free and has room for an object of `bytes` at a multiple of
// `align`, and returns that run. NULL when there is no room (ENOMEM) or no memory.
struct run *carve_grow(struct tract *tract, size_t bytes, size_t align);

// Makes a RUN_LIVE for the request out of a RUN_FREE that has room for it, and returns it; its
// memory is committed and zero. What is left over goes back to the bins. NULL when the memory cannot
// be committed; if that is because somebody else took the addresses (sparse), `run` has become
// RUN_LOST and errno is EEXIST.
struct run *carve_cut(struct tract *tract, struct run *run, const struct carve_request *request);

// The same for a run that is in no list: RUN_FREE, or RUN_CACHED in one mapping, whose content the
// object gets. What is left over, in the state the run had, is returned in `rest` (NULL: nothing).
// NULL: nothing changed.
struct run *carve_split(struct tract *tract, struct run *run, const struct carve_request *request,
                        struct run *rest[2]);

#endif
