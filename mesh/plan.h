// Which page goes to which frame: decided for a batch of pages before the first of them is touched. A
// plan holds its frames (frame.h) until each of its pages is merged or given up.
#ifndef FIRN_MESH_PLAN_H
#define FIRN_MESH_PLAN_H

#include "mesh/frame.h"
#include "mesh/search.h"

#include <stddef.h>
#include <stdint.h>

enum {
    PLAN_MOST = 4096,  // pages of a batch
    PLAN_STRETCH = 16, // pages merged at once: what a thread that writes there may have to wait for
    PLAN_BLOCKS = 96   // blocks that are tried for a stretch
};

// Pages of one cell in the order of their addresses. One that occupies nothing takes part only beside one of its
// span that does, as far as that one's block of frames goes: stretches that meet are one mapping each, and two
// with private pages between them.
struct plan {
    struct search_page masks[PLAN_MOST];
    uintptr_t addresses[PLAN_MOST];
    uint32_t frames[PLAN_MOST]; // where it goes; FRAME_NONE: it stays
    unsigned count;
    // Pages to be placed at once, at most PLAN_STRETCH. Short stretches fill frames better: half as many
    // mappings more, and a tenth of the memory less (a heap of 256 MiB, 90 % freed).
    unsigned stretch;
    // After so many pages of a span slots lie in a page as in the first one again. Pages go only where others lie
    // likewise: what slots of other phases leave free between them is too short for most, and frames would stay a
    // quarter empty.
    unsigned cycle;
    unsigned span_pages; // pages of a span of the cell, a power of two
    uint64_t tried;      // frames that were looked at, so far
};

// Fills in `frames`. Each page that occupies something and has a frame is one of at least two users of it,
// and the plan holds the frame for it.
void plan_make(struct plan *p, unsigned cell);

// The pages of a plan from `i` on, which has a frame, that go to neighbouring frames of one block and lie in
// one span: their number. They may occupy nothing, all of them: then *users is 0.
unsigned plan_stretch(const struct plan *p, unsigned i, unsigned *users);

#endif
