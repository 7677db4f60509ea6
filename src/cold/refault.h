// How old a page has to be before it goes: older where too many come back.
//
// What came back in the last minute is compared with what the program works with, the pages that are there. More
// than 0.2 % of these, and the age is doubled, up to sixteen times what was asked for; each minute with less takes
// a quarter off, down to what was asked for. (The bound is that of Google's far memory; LESSONS.)
#ifndef FIRN_COLD_REFAULT_H
#define FIRN_COLD_REFAULT_H

#include <stdint.h>

enum {
    REFAULT_ONE = 16,         // an age as it was asked for
    REFAULT_MOST = 16 * 16,   // the oldest
    REFAULT_PARTS = 500,      // one page in so many, a minute
    REFAULT_FEW = 16,         // that much is always allowed
    REFAULT_STEP_MS = 10000,  // how finely the last minute is known
    REFAULT_STEPS = 6,        // of these, a minute
    REFAULT_SETTLE_MS = 60000 // between two changes for the better
};

struct refault {
    uint64_t totals[REFAULT_STEPS]; // at the last such moments; a ring
    uint64_t step_ms, change_ms;    // when the last one was, and the last change of the age
    uint64_t base;                  // the total at the last change for the worse
    unsigned next;
    unsigned age; // in sixteenths; 0: nothing was noted yet
};

// At each look: pages that somebody had to wait for, since the start, and pages that are there. Returns the
// age from now on, in sixteenths.
unsigned refault_note(struct refault *r, uint64_t now_ms, uint64_t total, uint64_t pages);
// What came back in the minute before the last note.
uint64_t refault_last_minute(const struct refault *r, uint64_t total);

#endif
