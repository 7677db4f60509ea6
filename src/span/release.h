// What becomes of the memory of large objects that are gone: kept for reuse, wiped, closed, or given
// back. What takes time in proportion to its size is done outside of the lock, on runs that are
// RUN_BUSY. Callers hold LOCK_LARGE; functions that release it meanwhile say so.
#ifndef FIRN_SPAN_RELEASE_H
#define FIRN_SPAN_RELEASE_H

#include "src/span/run.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RELEASE_BATCH = 16 };

enum release_action {
    RELEASE_PURGE, // pages go back to the kernel, the run becomes free
    RELEASE_WIPE,  // zeros over [from, end), then to the reuse cache
    RELEASE_CLOSE, // made inaccessible, then to the queue of such runs
    RELEASE_OPEN   // of a closed run: accessible again, then as RELEASE_PURGE
};

struct release_entry {
    struct run *run;
    uintptr_t from;
    enum release_action action;
    bool is_done;
};

// Runs on their way. Set count to 0 before use.
struct release_batch {
    unsigned count;
    struct release_entry entries[RELEASE_BATCH];
};

// A run without an object whose pages go back to the kernel.
void release_purge(struct release_batch *batch, struct run *run);
// A run whose object, which began at `object`, is gone: where it goes is decided here.
void release_discard(struct release_batch *batch, struct run *run, uintptr_t object);
// Does what the batch says. The lock is released and taken again.
void release_finish(struct release_batch *batch);

// Purges what was freed at or before `now_ns`. The lock is released and taken again. True if there
// was anything.
bool release_cached(uint64_t now_ns);
// The same for everything that can be had, closed runs too: memory or addresses are exhausted.
bool release_all(uint64_t now_ns);
// The same for what may be of use elsewhere.
bool release_trim(uint64_t now_ns);
// The delay changed.
void release_note_due(void);
// In a forked child: finishes what other threads had in hand when it was forked.
void release_recover(struct run *run);

#endif
