// Routing: small requests to the thread's cache, large ones to runs of pages; any pointer back to
// its owner, by arithmetic. No C-library semantics here (see front): callers pass sizes that are
// at most PTRDIFF_MAX, and errno is set only to ENOMEM.
#ifndef FIRN_HEAP_HEAP_H
#define FIRN_HEAP_HEAP_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// `site` is the return address of the program's call: it picks the partition. NULL + ENOMEM.
void *heap_alloc(size_t size, uintptr_t site);
void *heap_alloc_zeroed(size_t size, uintptr_t site);
// `align` is a power of two.
void *heap_alloc_aligned(size_t align, size_t size, uintptr_t site);

// What the program called, for checks and reports.
struct heap_call {
    const char *api; // "free", "operator delete[]", ...
    uintptr_t site;  // return address of the program's call
    size_t size;     // size the program named, or FATAL_SIZE_UNKNOWN
    size_t align;    // alignment the program named, or 0
};

// `p` is not NULL. Preserves errno. Misuse is fatal.
void heap_free(void *p, uintptr_t site);
// The same with a size (and alignment) to be checked.
void heap_free_sized(void *p, const struct heap_call *call);
// `p` not NULL, `size` > 0. The old block survives failure (NULL, ENOMEM).
void *heap_resize(void *p, size_t size, uintptr_t site);
// The same for a function other than realloc: call->size is the new size.
void *heap_resize_as(void *p, const struct heap_call *call);
// Some block is larger than its size asks for: a shrink found no memory and kept it, or its own class
// had run out of addresses. From then on sized frees are checked against that only.
void heap_note_larger(void);
// Bytes the program may write; `p` not NULL; misuse is fatal.
size_t heap_usable(const void *p, uintptr_t site);
// Gives back what can be given back; true if any was.
bool heap_trim(void);

// jemalloc's meanings, bytes.
struct heap_stats {
    size_t allocated; // in live slots and large objects (slot sizes)
    size_t active;    // pages of spans and runs with anything live in them
    size_t resident;  // active, plus freed but unpurged pages, plus touched metadata (upper bound)
    size_t retained;  // address space kept committed, its pages given back
    size_t mapped;    // committed for user data
    size_t metadata;  // committed for descriptors and caches
    size_t small_allocated, large_allocated;
    size_t small_live, large_live; // blocks
    size_t dirty;                  // freed, waiting for reuse or purge
    size_t caches;                 // thread caches ever made
    size_t caches_in_use;
    size_t quarantined; // freed slots that wait; not in `allocated`
    size_t guard_vmas;
    size_t reserved;                   // address space reserved
    size_t frozen;                     // bytes of pages set aside or compressed now
    size_t frozen_pages, thawed_pages; // so far
    // Meshing (mesh/mesh.h, heap/keeper.h).
    size_t meshed_pages, meshed_most, mesh_frames;
    size_t mesh_saved; // bytes that sharing saves now
    size_t mesh_passes, mesh_tried, mesh_merged, mesh_refused, mesh_purged;
    size_t mesh_longest_ns, mesh_p99_ns;
    size_t mesh_vmas, mesh_vma_budget, mesh_over_budget;
    size_t keeper_starts, keeper_rounds;
    const char *mesh_engine; // never NULL
    const char *mesh_why;    // what Firn's thread does, or why it does not run
};
void heap_stats(struct heap_stats *out);

// One size class's figures, for malloc_info. False when `index` is past the last class.
struct heap_class_stats {
    size_t slot_bytes, live, spans, empty_spans, span_bytes;
};
bool heap_class_stats(unsigned index, struct heap_class_stats *out);

#endif
