// Which frame each page of the small regions maps, if any: a table by address, made where needed.
//
// An entry is written by whoever may change the page's span (its owner's or its class's lock, see
// mesh.h) and read by the mesher, or under the same locks.
#ifndef FIRN_MESH_PAGES_H
#define FIRN_MESH_PAGES_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Entries: what a page is, and the frame that it maps.
enum pages_kind {
    PAGES_PRIVATE, // memory of its own, or nothing known
    PAGES_PURGED,  // no slot in it was in use when its memory was given back
    PAGES_MESHED,  // it is a user of the frame
    PAGES_FILLER // no slot in it is in use; it maps the frame next to a neighbour's so that both are
                 // one mapping, and is no user
};
// Beside the kind, of a page that maps a frame: by a private mapping, so that a write makes it a copy of
// its own (mesh/lend.h).
enum { PAGES_COPY = 1 << 2, PAGES_KIND_BITS = 3 };

FIRN_INLINE uint32_t pages_entry(enum pages_kind kind, uint32_t frame) {
    return frame << PAGES_KIND_BITS | (uint32_t)kind;
}

FIRN_INLINE enum pages_kind pages_kind(uint32_t entry) {
    return (enum pages_kind)(entry & (PAGES_COPY - 1));
}

FIRN_INLINE uint32_t pages_frame(uint32_t entry) {
    return entry >> PAGES_KIND_BITS;
}

FIRN_INLINE bool pages_is_copy(uint32_t entry) {
    return (entry & PAGES_COPY) != 0;
}

// Whether the page's address maps a frame.
FIRN_INLINE bool pages_is_mapped(uint32_t entry) {
    return pages_kind(entry) >= PAGES_MESHED;
}

// Makes room for the entries of [address, +bytes), in the small regions. Takes LOCK_ARENA.
bool pages_prepare(uintptr_t address, size_t bytes) FIRN_CHECKED;
// PAGES_PRIVATE for any other address.
uint32_t pages_get(uintptr_t address);
// Prepared.
void pages_set(uintptr_t address, uint32_t entry);

// Calls `visit` for each run of pages that map frames; runs end at 4 MiB boundaries. Nobody else writes.
void pages_walk_mapped(void (*visit)(uintptr_t address, size_t pages));

// VMAs that the kernel needs more, or fewer, when the entry of a page is changed to `entry`:
// neighbours are one mapping when both are private, or map neighbouring frames in the same way.
int pages_vmas(uintptr_t address, uint32_t entry);

#endif
