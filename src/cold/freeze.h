// Which pages are idle, and taking them away: one thread, a look at the heap every quarter of the age at
// which pages are to be frozen.
//
// A page that was not written between two looks, and is then not read for as long in the staging area,
// is frozen. The kernel tells of writes; reads show as touches of a staged page, which bring it back
// unharmed. A page that was touched there is left alone for the next looks, each time for twice as
// many.
#ifndef FIRN_COLD_FREEZE_H
#define FIRN_COLD_FREEZE_H

#include "src/base/compiler.h"

#include <stdint.h>

// Before freeze_run.
void freeze_configure(uint64_t after_ms, unsigned cpu_percent);

// The thread's life, once missing_open and the store are ready: never ends.
FIRN_NORETURN void freeze_run(void);

struct freeze_figures {
    uint64_t staged, frozen, zeros; // pages, so far
    uint64_t poor;                  // not worth their place in the store
    uint64_t spared;                // not tried, as their neighbours were not
    uint64_t refused;               // could not be moved: shared with a child, in use by a device
    uint64_t full;                  // no room in the store
    uint64_t chunks;                // registered now
    uint64_t away;                  // pages staged or frozen now
    const char *refusal;            // why nothing goes for now, or NULL
    int thread;                     // its number
};
void freeze_figures(struct freeze_figures *out);

#endif
