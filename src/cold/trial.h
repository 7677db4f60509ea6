// How many pages may be set aside at a look where nothing but a touch tells that a page is in use (engine `protect`):
// each page of the heap, at first, and each touch costs its thread tens of microseconds.
//
// So it begins with few. While those come back no faster than is bearable, twice as many go at the next
// look; else half as many. What came back is left alone, longer each time: a working set is soon known.
// One such number is kept for each chunk, as what is in use comes in crowds, and one for all.
//
// All of it is the freezing thread's.
#ifndef FIRN_COLD_TRIAL_H
#define FIRN_COLD_TRIAL_H

#include <stdint.h>

struct trial_limits {
    uint32_t first, least, most; // pages at a look
};
struct trial {
    uint64_t returns; // at the last look
    uint32_t most;    // pages at this look; 0: there was none yet
    uint32_t left;    // of those
};

// At a look. `returns`: pages that were touched while they were set aside, so far; so many since the last look
// are bearable.
void trial_begin(struct trial *t, const struct trial_limits *limits, uint64_t bearable,
                 uint64_t returns);
// Of up to 64 pages, those with a bit in `wanted`: which may be set aside, as far as both have some left.
uint64_t trial_take(struct trial *t, struct trial *other, uint64_t wanted);

#endif
