// Standing aside: where the policy says `off`, the exported functions are those of the allocator that the program
// would have without Firn (the next one in the search order: libc's, as a rule). Decided before the
// first allocation and for the life of the process, so that no block of one is ever freed by the other.
//
// Costs nothing where it is not used: the fast paths never meet it, the slow ones only where a thread
// has no cache, or where a pointer is not one of the heap's.
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

// Looks them up. False: one of them is missing, as in a static program; nothing has changed then.
bool aside_find(void) FIRN_CHECKED;

#endif
