// Where sparse pages fit: the search alone, on bitmaps. Pure: no memory of the program is touched, no
// lock is held, nothing is kept between calls.
//
// The unit is the page, not the span. A page is 256 granules of 16 bytes, whatever its size class:
// two pages can share a frame when no granule is occupied in both. Slots that straddle pages need no
// special case (their halves may end up in different frames; their addresses stay contiguous), spans
// of many pages merge page by page, and the test is four ANDs.
//
// Mesh (Powers, Tench, Berger, McGregor, PLDI 2019) pairs spans at random. Here *stretches* are placed:
// neighbouring pages go to neighbouring frames, as many of them as fit there at once. A stretch is one
// mapping and one system call, whatever its length, so that the number of mappings, which the kernel
// bounds, and the time are spent on the frames' number of stretches, not of pages; and a page is tried
// against all frames of its cell that are not full yet, so that frames fill up far beyond pairs.
#ifndef FIRN_MESH_SEARCH_H
#define FIRN_MESH_SEARCH_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    SEARCH_WORDS = 4,
    SEARCH_PLACES = 64 // frames of a block
};

struct search_page {
    uint64_t mask[SEARCH_WORDS]; // occupied granules
};

FIRN_INLINE bool search_is_disjoint(const uint64_t a[SEARCH_WORDS],
                                    const uint64_t b[SEARCH_WORDS]) {
    return ((a[0] & b[0]) | (a[1] & b[1]) | (a[2] & b[2]) | (a[3] & b[3])) == 0;
}

FIRN_INLINE bool search_is_empty(const uint64_t mask[SEARCH_WORDS]) {
    return (mask[0] | mask[1] | mask[2] | mask[3]) == 0;
}

// Sets the bits of granules [first, first + count), of which there are 256.
void search_set_granules(uint64_t mask[SEARCH_WORDS], unsigned first, unsigned count);
unsigned search_count_granules(const uint64_t mask[SEARCH_WORDS]);

// A span, as far as the search is concerned.
struct search_span {
    const uint64_t *free_slots; // a bit for each slot that is free
    unsigned slots;
    uint32_t slot_bytes;
    const uint64_t *leading; // slots whose preceding granule counts as occupied, too; NULL: none
};

// What of its `page`-th page the span occupies.
void search_page_mask(uint64_t mask[SEARCH_WORDS], const struct search_span *span, unsigned page);

// How many of pages[0, n) fit into bins[place], bins[place + 1] and so on of a block, until one does not.
// Only bins with their bit in `usable` take a page; one that occupies nothing needs none. The last one
// that fits occupies something: pages after it are not counted.
unsigned search_length(const struct search_page pages[], unsigned n,
                       const struct search_page bins[SEARCH_PLACES], uint64_t usable,
                       unsigned place);

// The place of a block where most of pages[0, n) fit, and how many. Of equals, where the first page finds
// the fullest bin. pages[0] occupies something, and goes only where there is a bit in `starts`, too.
// `pages` 0: nowhere.
struct search_fit {
    unsigned place, pages;
};
struct search_fit search_best(const struct search_page pages[], unsigned n,
                              const struct search_page bins[SEARCH_PLACES], uint64_t usable,
                              uint64_t starts);

#endif
