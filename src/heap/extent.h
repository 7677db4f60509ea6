// How many bytes of a live object begin at an address: what firn_object_size says, and what bounds
// checks ask before every copy. For slots it is arithmetic, one bound and two words of bits.
#ifndef FIRN_HEAP_EXTENT_H
#define FIRN_HEAP_EXTENT_H

#include "hardening/sample.h"
#include "hardening/slack.h"
#include "hardening/slot.h"
#include "src/span/large_extent.h"
#include "src/span/region.h"

// As heap_extent, for an address in a cell.
FIRN_INLINE size_t heap_extent_small(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    if (FIRN_UNLIKELY(!region_is_described(offset))) {
        return 0;
    }
    unsigned cell = (unsigned)(offset >> FIRN_ROOT.cell_shift);
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    const struct span *s = span_at(offset, c);
    unsigned slot = span_slot(c, offset);
    // Behind the last slot there may be one that does not exist: never live.
    if (!span_is_live(s, slot) || span_is_remote(s, slot)) {
        return 0;
    }
    uintptr_t at = offset & c->span_mask;
    uintptr_t start = slot * (uintptr_t)c->bytes;
    uintptr_t end = start + slack_size(address - at + start, c->bytes);
    return at < end ? end - at : 0;
}

// Bytes from `p` to the end of what may be used of the live object that contains it: 0 when `p` is in
// the heap but in no live object, SIZE_MAX when it is not in the heap. Any thread and context; no
// lock. Exact for an object that nobody frees or resizes meanwhile.
FIRN_INLINE size_t heap_extent(const void *p) {
    uintptr_t address = (uintptr_t)p;
    if (FIRN_LIKELY(address - FIRN_ROOT.small_base < FIRN_ROOT.small_bytes)) {
        return heap_extent_small(address);
    }
    return sample_contains(address) ? sample_extent(address) : large_extent(address);
}

#endif
