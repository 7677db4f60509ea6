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
    PLAN_BLOCKS = 24   // blocks that are tried for a stretch
};

// Pages of one cell in the order of their addresses. One that occupies nothing takes part only between
// two that do, where it saves a mapping.
struct plan {
    struct search_page masks[PLAN_MOST];
    uintptr_t addresses[PLAN_MOST];
    uint32_t frames[PLAN_MOST]; // where it goes; FRAME_NONE: it stays
    unsigned count;
    // Pages to be placed at once, at most PLAN_STRETCH. Short stretches fill frames better: half as many
    // mappings more, and a tenth of the memory less (a heap of 256 MiB, 90 % freed).
    unsigned stretch;
    uint64_t tried; // frames that were looked at, so far
};

// Fills in `frames`. Each page that occupies something and has a frame is one of at least two users of it,
// and the plan holds the frame for it.
void plan_make(struct plan *p, unsigned cell);

// The stretch of a plan that begins with page `i`, which has a frame: its length. It ends with a page that
// occupies something, and lies in one span of `span_pages` pages, a power of two.
unsigned plan_stretch(const struct plan *p, unsigned i, size_t span_pages);

#endif
