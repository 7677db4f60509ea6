// The second half of a merge: pages that are staged give their content to frames and are mapped anew.
//
// A mapping that replaces pages makes every processor forget them, one by one, which costs many times what
// the mapping does: 70 us against 6 where this was measured. So where the kernel has it (fault_can_empty) all
// pages are taken away first, by one call, while whoever touches them waits; mapping then finds nothing to
// forget. Elsewhere each mapping replaces its pages, and readers never wait.
#ifndef FIRN_MESH_EXCHANGE_H
#define FIRN_MESH_EXCHANGE_H

#include "mesh/merge.h"
#include "mesh/search.h"

#include <stdint.h>

// What is staged together: from the first page that is merged to the last, with what lies between.
struct exchange {
    struct merge_run *runs;
    unsigned count;
    uintptr_t address, end;
    bool are_copies;                          // mapped privately, as before a fork (lend.h)
    struct search_page now[MERGE_RUNS_PAGES]; // what pages occupy, from runs[0].address on
};

// Where that of the run begins.
struct search_page *exchange_now(struct exchange *x, const struct merge_run *run);

// Merges what `done` says of each run, publishes the range, and sets `done` to 0 and `result` where it failed.
// With merge_lock, the lock of the spans, and signals blocked.
void exchange_all(struct exchange *x);

// How many runs are worth staging together.
unsigned exchange_most(void);

#endif
