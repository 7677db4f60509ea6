// Standing aside: where the policy says `off`, the exported functions are those of the allocator that the program
// would have without Firn (the next one in the search order: libc's, as a rule). Decided before the
// first allocation and for the life of the process, so that no block of one is ever freed by the other.
//
// Costs nothing where it is not used: the fast paths never meet it, the slow ones only where a thread
// has no cache, or where a pointer is not one of the heap's.
//
// In part: with large_only=BYTES smaller requests are that allocator's, and whose a block is, its address says
// (heap/find.h). No fast path asks: of the classes that only such requests have, no thread's cache ever holds a
// slot, so they arrive on the slow path by themselves. A class that both sides of the mark have is left out, and
// what Firn is to serve of it takes the next larger one.
#ifndef FIRN_HEAP_ASIDE_H
#define FIRN_HEAP_ASIDE_H

#include "src/base/compiler.h"

#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

// The functions of that allocator.
struct aside {
    void *(*malloc)(size_t size);
    void (*free)(void *p);
    void *(*calloc)(size_t count, size_t size);
    void *(*realloc)(void *p, size_t size);
    void *(*memalign)(size_t align, size_t size);
    size_t (*malloc_usable_size)(void *p);
    int (*malloc_trim)(size_t pad);
    int (*mallopt)(int parameter, int value);
    struct mallinfo2 (*mallinfo2)(void);
    void (*malloc_stats)(void);
    int (*malloc_info)(int options, FILE *stream);
};

extern struct aside firn_aside;

// What is smaller is that allocator's; 0: nothing. And the least size that no class has below it. Decided with the rest.
extern size_t firn_large_only, firn_large_least;

FIRN_INLINE bool aside_takes(size_t size) {
    return FIRN_UNLIKELY(size < firn_large_only);
}

// The size whose class a block of `size` bytes has.
FIRN_INLINE size_t aside_class_size(size_t size) {
    bool is_between = size < firn_large_least && size >= firn_large_only;
    return FIRN_UNLIKELY(is_between) ? firn_large_least : size;
}

// Looks them up. False: one of them is missing, as in a static program; nothing has changed then.
bool aside_find(void) FIRN_CHECKED;

// From now on requests of less than `bytes` are theirs, which were found. Before the first allocation.
void aside_take_below(size_t bytes);

#endif
