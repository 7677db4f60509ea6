// What Firn itself wrote into a page of small blocks, and can write again: canaries. They are keyed and differ
// for each slot, so no compressor finds anything in them: 8 of 512 bytes of text that shrinks to 70. And, at
// level 3, what fills a slot behind the size asked for.
//
// Where a slot's canary is what it should be the masked page has zeros there, and where it is 0 (its slot was
// never handed out) the canary. Masking twice changes nothing, whatever the page holds: a canary that was
// overwritten comes back as it was overwritten, and is noticed when its block is freed. So it is with fillings:
// how long one is stands in the canary.
#ifndef FIRN_COLD_MASK_H
#define FIRN_COLD_MASK_H

#include <stdint.h>

// `page` is FIRN_PAGE bytes, aligned to 8: a copy of the page at `address`, which is one of small blocks.
// Touches nothing but that copy, and takes no lock.
void mask_page(uintptr_t address, void *page);

#endif
