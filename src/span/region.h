// A cell's growth: which of its spans are committed, and which fresh one comes next.
//
// Spans are taken at random from a window of committed, never used neighbours; windows follow each
// other in order. That is unpredictable within a window and still fills page tables densely. The
// window grows with the cell, from 128 KiB to 2 MiB, so that small programs stay small.
//
// Some indexes are *fences* (FIRN_SPAN_GUARDS): never handed out, and made inaccessible when the first
// span between them and the next fence is. So whatever runs from a span into others stops at the next
// fence, and a cell that is used little costs few system calls. A fence that cannot be guarded for want of memory mappings lies open: it is empty.
// Where address space or commit charge is rationed there are no fences.
#ifndef FIRN_SPAN_REGION_H
#define FIRN_SPAN_REGION_H

#include "src/os/random.h"
#include "src/span/span.h"

enum { REGION_WINDOW = 512 }; // spans; 2 MiB of the smallest

struct region {
    uint32_t committed; // spans below this index are committed, or were stepped over. Grows only.
    uint32_t window_base;
    uint32_t window_left;
    bool is_exhausted; // no addresses are left, not merely no memory
    uint64_t committed_bytes;
    uint64_t window[REGION_WINDOW / 64]; // a bit for each span from window_base on not yet used
};

extern struct region firn_regions[CELLS];

// Per cell: descriptors of addresses from root_cell_base to below this may be read (zero until first
// used). Grows only; read without a lock. 0 before first use.
extern _Atomic uintptr_t firn_cell_limits[CELLS];

// Gives back the addresses of cells, and of their descriptors, that nothing has got to. With all class
// locks.
void region_release(void);

// Whether the cell's `index`-th span is a fence. Any thread.
bool region_is_fence(unsigned cell, uint32_t index);

// A never used span of the cell, its memory committed and zero, its descriptor zero but for the
// cell. NULL when memory, commit charge or the cell is exhausted. With the class lock.
struct span *region_take(unsigned cell, struct random_stream *random);

// Whether the descriptor of the address `offset` bytes into the small regions may be read. Any thread.
FIRN_INLINE bool region_is_described(uintptr_t offset) {
    unsigned cell = (unsigned)(offset >> FIRN_ROOT.cell_shift);
    // acquire: pairs with the release in region_take, after it was committed.
    uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
    return offset >= root_cell_offset(cell) && FIRN_ROOT.small_base + offset < limit;
}

#endif
