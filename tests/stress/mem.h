// The allocator under stress: the C library's names (whatever is preloaded answers them), or, when
// linked with Firn's objects (FIRN_DIRECT: sanitizer builds), Firn's own functions by their
// internal names, because there malloc and free belong to the sanitizer.
//
// This is the one place of the stress programs that knows the difference.
#ifndef FIRN_TESTS_STRESS_MEM_H
#define FIRN_TESTS_STRESS_MEM_H

#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#ifdef FIRN_DIRECT

#include "src/heap/heap.h"
#include "src/heap/life.h"

#define MEM_SITE ((uintptr_t)__builtin_return_address(0))

static inline void mem_start(void) {
    life_start();
}

static inline void *mem_alloc(size_t size) {
    return heap_alloc(size, MEM_SITE);
}

static inline void *mem_alloc_zeroed(size_t size) {
    return heap_alloc_zeroed(size, MEM_SITE);
}

static inline void *mem_alloc_aligned(size_t align, size_t size) {
    return heap_alloc_aligned(align, size, MEM_SITE);
}

// `size` is never 0 in these programs.
static inline void *mem_resize(void *p, size_t size) {
    return p == NULL ? heap_alloc(size, MEM_SITE) : heap_resize(p, size, MEM_SITE);
}

static inline void mem_free(void *p) {
    if (p != NULL) {
        heap_free(p, MEM_SITE);
    }
}

static inline size_t mem_usable(void *p) {
    return heap_usable(p, MEM_SITE);
}

static inline void mem_trim(void) {
    (void)heap_trim();
}

#else

static inline void mem_start(void) {
}

static inline void *mem_alloc(size_t size) {
    return malloc(size);
}

static inline void *mem_alloc_zeroed(size_t size) {
    return calloc(1, size);
}

static inline void *mem_alloc_aligned(size_t align, size_t size) {
    void *p = NULL;
    int error = posix_memalign(&p, align, size);
    if (error != 0) {
        errno = error;
        return NULL;
    }
    return p;
}

static inline void *mem_resize(void *p, size_t size) {
    return realloc(p, size);
}

static inline void mem_free(void *p) {
    free(p);
}

static inline size_t mem_usable(void *p) {
    return malloc_usable_size(p);
}

static inline void mem_trim(void) {
    (void)malloc_trim(0);
}

#endif
#endif
