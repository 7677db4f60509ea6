// Pages of its blocks that the program treats as its own: mprotect, madvise, mlock, mremap.
#ifndef FIRN_HEAP_OWN_H
#define FIRN_HEAP_OWN_H

#include "src/base/compiler.h"
#include "src/meta/root.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool own_take(uintptr_t address, size_t bytes) FIRN_CHECKED;

// After MADV_DONTNEED: what a forked child's parent would fill in there again reads as zeros.
void own_drop(uintptr_t address, size_t bytes);

// Whether it lies in a block, small or large, or between such.
FIRN_INLINE bool own_is_heap(const void *p) {
    return FIRN_UNLIKELY((uintptr_t)p - FIRN_ROOT.data.base < FIRN_ROOT.data.bytes);
}

// Before such a call: the spans of small blocks in the range leave merging, and their pages and those of large
// blocks the cold tier, until they are freed. False, and errno is ENOMEM, when they cannot. Elsewhere two
// instructions. Preserves errno otherwise.
FIRN_INLINE bool own_pages(const void *p, size_t bytes) {
    return !own_is_heap(p) || own_take((uintptr_t)p, bytes);
}

#endif
