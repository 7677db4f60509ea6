// Pages of its blocks that the program treats as its own: mprotect, madvise, mlock, mremap.
#ifndef FIRN_HEAP_OWN_H
#define FIRN_HEAP_OWN_H

#include "src/base/compiler.h"
#include "src/meta/root.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool own_take(uintptr_t address, size_t bytes) FIRN_CHECKED;

// Before such a call: the spans of small blocks in the range leave merging, and the cold tier, for good. False,
// and errno is ENOMEM, when they cannot. Elsewhere two instructions. Preserves errno otherwise.
FIRN_INLINE bool own_pages(const void *p, size_t bytes) {
    return FIRN_LIKELY((uintptr_t)p - FIRN_ROOT.small_base >= FIRN_ROOT.small_bytes) ||
           own_take((uintptr_t)p, bytes);
}

#endif
