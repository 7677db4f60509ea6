// Which pages can share one frame: the search alone, on bitmaps. Pure: no memory of the program is
// touched, no lock is held, nothing is kept between calls.
//
// The unit is the page, not the span. A page is 256 granules of 16 bytes, whatever its size class:
// two pages can share a frame when no granule is occupied in both. Slots that straddle pages need no
// special case (their halves may end up in different frames; their addresses stay contiguous), spans
// of many pages merge page by page, and the test is four ANDs.
//
// SplitMesher (Powers, Tench, Berger, McGregor: "Mesh", PLDI 2019): shuffle, split into halves, and
// try each page of the left half against a bounded number of the right half. Their bound on the
// result holds for one round of pairs. Here the rounds go on with the unions as items, so that
// groups of many pages come out before the first system call is made.
#ifndef FIRN_MESH_SEARCH_H
#define FIRN_MESH_SEARCH_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    SEARCH_WORDS = 4,
    SEARCH_PROBES = 64,  // as in the paper
    SEARCH_MOST = 4096,  // items in one call
    SEARCH_NONE = 0xffff // no item
};

struct search_item {
    uint64_t mask[SEARCH_WORDS]; // occupied granules; after the search, of a head: its group's
    uint16_t next;               // after the search: the next member of the group, or SEARCH_NONE
    uint16_t last;               // of a head: the group's last member
    uint16_t members;            // of a head: how many there are; 0: it is not a head
    bool is_frame;               // a frame in use: heads its group; no group has two
};

FIRN_INLINE bool search_is_disjoint(const uint64_t a[SEARCH_WORDS],
                                    const uint64_t b[SEARCH_WORDS]) {
    return ((a[0] & b[0]) | (a[1] & b[1]) | (a[2] & b[2]) | (a[3] & b[3])) == 0;
}

// Sets the bits of granules [first, first + count), of which there are 256.
void search_set_granules(uint64_t mask[SEARCH_WORDS], unsigned first, unsigned count);

// A span, as far as the search is concerned.
struct search_span {
    const uint64_t *free_slots; // a bit for each slot that is free
    unsigned slots;
    uint32_t slot_bytes;
    unsigned before; // granules in front of an occupied slot that count as occupied, too: 0 or 1
};

// What of its `page`-th page the span occupies.
void search_page_mask(uint64_t mask[SEARCH_WORDS], const struct search_span *span, unsigned page);

// Groups items[0, n) so that the members of a group are disjoint. In: `mask` and `is_frame`. `order` is
// scratch for n numbers. The same items and seed give the same groups. At most `probes` tries an item
// and round. Returns how many members there are beyond one a group: the pages saved.
unsigned search_group(struct search_item items[], uint16_t order[], unsigned n, unsigned probes,
                      uint64_t seed);

#endif
