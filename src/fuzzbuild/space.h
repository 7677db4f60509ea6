// The address space of the fuzz build: where blocks lie, and what lies at an address.
//
// One reservation of 256 KiB chunks. A chunk holds equal *slots*: a whole number of data pages, then
// one guard page. Blocks of more than SPACE_PAGES_MOST pages, or of an alignment above a page, have a
// run of chunks of their own. Every slot has a descriptor (struct block) in its chunk's first page, which
// a guard page keeps apart from the slots.
//
//   chunk  |descriptors|guard|data..|guard|data..|guard| ...
//
// Few mappings, close together: a fork server pays for each mapping and for each page-table page, so the
// map of the chunks, the recorded stacks and the first chunks share one page-table page.
//
// Addresses are handed out in order from a base that depends on FIRN_SEED only: two runs of one
// program see the same heap addresses. The chunks in use are one readable and writable VMA; what must
// not be touched carries a guard marker (mprotect where the kernel has none).
#ifndef FIRN_FUZZBUILD_SPACE_H
#define FIRN_FUZZBUILD_SPACE_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SPACE_CHUNK_SHIFT = 18,
    SPACE_CHUNK_PAGES = 64,
    SPACE_FIRST_PAGE = 2,  // of the slots: descriptors and a guard come first
    SPACE_SLOTS_MOST = 32, // per chunk
    SPACE_PAGES_MOST = 61, // of a slot
    SPACE_CLASSES = 14,
    SPACE_LARGE = SPACE_CLASSES, // the class of a block with chunks of its own
};
#define SPACE_CHUNK ((size_t)1 << SPACE_CHUNK_SHIFT)
#define SPACE_NO_SLOT UINT32_MAX

enum block_state {
    BLOCK_UNUSED, // never handed out
    BLOCK_LIVE,
    BLOCK_RESIDENT, // freed, filled with free_fill, still accessible
    BLOCK_REVOKED,  // freed, inaccessible
    BLOCK_RETIRED,  // left the quarantine, inaccessible until it is used again
    BLOCK_READY,    // left the quarantine, accessible, to be used again
};

enum block_kind { BLOCK_MALLOC, BLOCK_NEW, BLOCK_NEW_ARRAY };

// Written under the heap's lock; the crash handler reads without it.
struct block {
    uint64_t size;   // bytes the program asked for; kept after free
    uint32_t offset; // of the block from its slot's first data page; for SPACE_LARGE from chunk
    uint32_t alloc_trace; // see trace.h
    uint32_t free_trace;
    uint32_t next; // slot id of the next in whatever list this one is in
    uint16_t alloc_thread;
    uint16_t free_thread;
    uint8_t state; // enum block_state
    uint8_t kind;  // enum block_kind
    uint8_t unused[2];
};
_Static_assert(sizeof(struct block) == 32, "a chunk's descriptors fit in its first page");

// A slot id is chunk * SPACE_SLOTS_MOST + index.
struct slot {
    uint32_t id;
    uint32_t class;
    uintptr_t data; // first data page
    uintptr_t end;  // end of the data pages
};

// Reserves. Called once; false when not even a small heap fits.
bool space_start(uint64_t seed) FIRN_CHECKED;

// The class for this many data pages, SPACE_LARGE if none.
unsigned space_class_of(size_t pages);

// A slot never used before. False when addresses or memory are exhausted.
bool space_take_slot(unsigned class, struct slot *out) FIRN_CHECKED;
// A run of chunks with a page of guard, `size` bytes of data, a page of guard. Runs that were given
// back are used again, the oldest first. `align`: a power of two; above a page, out->data is aligned to
// it. The caller stores offset and size in the descriptor before it lets go of the lock.
bool space_take_run(size_t size, size_t align, struct slot *out) FIRN_CHECKED;
// The run is inaccessible; its addresses may be used again.
void space_give_run(uint32_t id);

// Whole chunks for what is not a block: its address, 0 when memory is exhausted.
uintptr_t space_take_chunk(void);

// The first page of a chunk that holds slots or begins a run.
struct space_chunk {
    uint32_t run;   // chunks in the run, for SPACE_LARGE
    uint32_t fresh; // slots handed out at least once
    uint64_t unused[7];
    struct block blocks[SPACE_SLOTS_MOST];
};
_Static_assert(sizeof(struct space_chunk) <= FIRN_PAGE, "a guard page follows");

// What a chunk's entry in the map says: its class, if it holds slots or begins a run; SPACE_NO_BLOCKS; or
// how many chunks further down its run begins, plus SPACE_TAIL.
#define SPACE_TAIL ((uint32_t)1 << 8)
#define SPACE_NO_BLOCKS (SPACE_TAIL - 1)

// Where things are. Written by space.c only.
struct space_map {
    uintptr_t base;    // of the reservation; the map itself comes first
    size_t used_bytes; // from the base to the end of the last chunk in use
    const uint32_t *chunks;
    uint16_t
        stride_inverse[SPACE_CLASSES]; // ceil(2^16 / stride): exact for page numbers in a chunk
};
extern struct space_map space_map;
extern const uint8_t space_pages_of_class[SPACE_CLASSES];

FIRN_INLINE size_t space_class_pages(unsigned class) {
    return space_pages_of_class[class];
}

FIRN_INLINE bool space_contains(uintptr_t address) {
    return address - space_map.base < space_map.used_bytes;
}

FIRN_INLINE struct space_chunk *space_chunk(uint32_t chunk) {
    return (struct space_chunk *)(space_map.base + ((uintptr_t)chunk << SPACE_CHUNK_SHIFT));
}

FIRN_INLINE struct block *space_block(uint32_t id) {
    return &space_chunk(id / SPACE_SLOTS_MOST)->blocks[id % SPACE_SLOTS_MOST];
}

// A large block's pages follow from the block itself: see space_take_run.
struct slot space_large_slot(uint32_t id);

FIRN_INLINE struct slot space_slot(uint32_t id) {
    uint32_t class = space_map.chunks[id / SPACE_SLOTS_MOST];
    if (FIRN_UNLIKELY(class == SPACE_LARGE)) {
        return space_large_slot(id);
    }
    size_t data_bytes = space_class_pages(class) << FIRN_PAGE_SHIFT;
    struct slot s = {.id = id, .class = class};
    s.data = (uintptr_t)space_chunk(id / SPACE_SLOTS_MOST) + SPACE_FIRST_PAGE * FIRN_PAGE +
             id % SPACE_SLOTS_MOST * (data_bytes + FIRN_PAGE);
    s.end = s.data + data_bytes;
    return s;
}

// The slot whose data or trailing guard contains `address`, perhaps one that was never used
// (BLOCK_UNUSED). False: not in the heap, or in no slot. What precedes a chunk's first slot belongs to
// it.
FIRN_CHECKED FIRN_INLINE bool space_find(uintptr_t address, struct slot *out) {
    if (FIRN_UNLIKELY(!space_contains(address))) {
        return false;
    }
    uint32_t chunk = (uint32_t)((address - space_map.base) >> SPACE_CHUNK_SHIFT), index = 0;
    uint32_t entry = space_map.chunks[chunk];
    if (FIRN_UNLIKELY(entry >= SPACE_LARGE)) {
        if (entry == SPACE_NO_BLOCKS) {
            return false;
        }
        chunk -= entry == SPACE_LARGE ? 0 : entry - SPACE_TAIL;
    } else {
        unsigned page = (unsigned)(address >> FIRN_PAGE_SHIFT) % SPACE_CHUNK_PAGES;
        unsigned inverse = space_map.stride_inverse[entry];
        index = page < SPACE_FIRST_PAGE ? 0 : (page - SPACE_FIRST_PAGE) * inverse >> 16;
        if (FIRN_UNLIKELY(index >= SPACE_SLOTS_MOST)) {
            return false; // the last pages of a chunk may be too few for a slot
        }
    }
    *out = space_slot(chunk * SPACE_SLOTS_MOST + index);
    return true;
}

// Calls visit for every slot that was ever used.
void space_visit(void (*visit)(const struct slot *s, struct block *b));

// Makes the data pages of a slot inaccessible, or accessible and zero again. False: the kernel
// refused (only without guard markers, when VMAs run out).
bool space_revoke(const struct slot *s) FIRN_CHECKED;
bool space_restore(const struct slot *s) FIRN_CHECKED;

#endif
