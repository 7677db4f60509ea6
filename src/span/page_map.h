// From a page of a region to the run it belongs to, for the pages that matter.
//
// Only the first and last page of a run and the first page of a live object have an entry; all
// others are empty. Three levels, each made when first needed, so that what is not used costs
// nothing and a run of terabytes costs as much as one of a page.
//
// Callers hold LOCK_LARGE; but get and get_before also work without, for who can bear an answer that
// is out of date (large_extent.h): tables are published when they are whole and never go away.
#ifndef FIRN_SPAN_PAGE_MAP_H
#define FIRN_SPAN_PAGE_MAP_H

#include "src/base/compiler.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct run;

enum {
    PAGE_MAP_LEAF_BITS = 9, // a leaf is one page and covers 2 MiB
    PAGE_MAP_MID_BITS = 12, // a middle table covers 8 GiB; only the parts in use are touched
    PAGE_MAP_LEAF_PAGES = 1 << PAGE_MAP_LEAF_BITS,
    PAGE_MAP_MID_LEAVES = 1 << PAGE_MAP_MID_BITS
};

struct page_map_leaf {
    _Atomic(struct run *) runs[PAGE_MAP_LEAF_PAGES];
};

struct page_map_mid {
    _Atomic(struct page_map_leaf *) leaves[PAGE_MAP_MID_LEAVES];
};

struct page_map {
    uintptr_t base;
    size_t pages;
    _Atomic(struct page_map_mid *) *mids; // one for each 8 GiB of the region
};

// A map for [base, base + bytes). False when descriptor memory is exhausted.
bool page_map_start(struct page_map *map, uintptr_t base, size_t bytes) FIRN_CHECKED;

// Makes room for an entry at `address`. False when descriptor memory is exhausted.
bool page_map_prepare(struct page_map *map, uintptr_t address) FIRN_CHECKED;

// Sets (NULL: clears) the entry of a page that was prepared.
void page_map_set(struct page_map *map, uintptr_t address, struct run *run);

// The entry of a page, NULL if it has none. `address` lies in the region.
struct run *page_map_get(const struct page_map *map, uintptr_t address);

// The nearest entry at or below `address`; NULL if there is none. For error reports and validators:
// costs up to one pass over a leaf, a middle table and the root.
struct run *page_map_get_before(const struct page_map *map, uintptr_t address);

#endif
