// Taking pages out of the heap into the staging area (stage.h): the freezing thread's.
#ifndef FIRN_COLD_TAKE_H
#define FIRN_COLD_TAKE_H

#include "src/cold/table.h"

// Of the 64 pages from `address` on those with a bit in `wanted`; they are resident or tracked, and none of
// them is away. Each is staged, to be looked at again at `due_ms`; or is left where it is, for a while,
// because it is excluded, shared with a child, or in use by a device.
void take_pages(struct chunk *c, uintptr_t address, uint64_t wanted, uint64_t due_ms);

// Pages so far.
void take_figures(uint64_t *staged_pages, uint64_t *refused_pages);

#endif
