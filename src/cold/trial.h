// How many pages may be set aside at a look where nothing but a touch tells that a page is in use (engine `protect`):
// each page of the heap, at first, and each touch costs its thread tens of microseconds.
//
// So it begins with few. While those come back no faster than a busy program bears, twice as many go at the next
// look; else half as many. What came back is left alone, longer each time: a working set is soon known.
//
// All of it is the freezing thread's.
#ifndef FIRN_COLD_TRIAL_H
#define FIRN_COLD_TRIAL_H

#include <stdint.h>

struct trial {
    uint64_t returns; // at the last look
    uint32_t most;    // pages at this look; 0: there was none yet
    uint32_t left;    // of those
};

enum {
    TRIAL_LEAST = 64,
    TRIAL_FIRST = 1024,
    TRIAL_MOST = 1 << 24,
    TRIAL_RETURNS = 200 // a second: a hundredth of a processor, or less
};

// At a look, `look_ms` after the last one: `returns` pages were touched while they were set aside, so far.
void trial_begin(struct trial *t, uint64_t look_ms, uint64_t returns);
// Of up to 64 pages, those with a bit in `wanted`: which may be set aside.
uint64_t trial_take(struct trial *t, uint64_t wanted);

#endif
