// Bringing pages back: one thread, to which the kernel reports who waits for which page, and which
// children were forked.
//
// A child has the parent's heap with the parent's holes. Until all of these are filled its memory
// stays reported to this thread, which fills them from the parent's staging area and store: those
// that the child touches first, then all others. A page that the parent brings back meanwhile goes to the
// child first. The kernel refuses to bring anything back between a fork and the moment its report is
// read: so what the child lacks is what the parent lacks when it is read. (Nothing is frozen, and
// nothing released, while there are such children.)
#ifndef FIRN_COLD_THAW_H
#define FIRN_COLD_THAW_H

#include "src/cold/table.h"
#include "src/os/missing.h"

// The thread's body. missing_open was called, by a thread that shares its descriptors.
FIRN_NORETURN void thaw_run(void);

// With cold_lock: the page, which is STAGED or FROZEN, and its state. MISSING_DONE; MISSING_AGAIN with
// nothing changed; another result when the page was released meanwhile.
enum missing_result thaw_page(struct chunk *c, uintptr_t address);

// With cold_lock, in the thread that touched the page: brings it back or, if it cannot, has the next touch wait for the
// thread that thaws. False: it was not away. Of the stack, as much as cold/store.h says.
bool thaw_touched(struct chunk *c, uintptr_t page);
// Grows with every page that comes back.
uint64_t thaw_epoch(void);

// Children whose holes are being filled. Changes only under cold_lock.
unsigned thaw_children(void);

// Pages of the store that somebody waited for, so far; and pages of the staging area that came back. Any thread.
uint64_t thaw_waited(void);
uint64_t thaw_returned(void);

// In the freezing thread of a new process: forgets the parent's children.
void thaw_reset(void);

enum { THAW_BUCKETS = 24 };
struct thaw_figures {
    uint64_t thaws;   // pages brought back from the store
    uint64_t returns; // from the staging area
    uint64_t fetched; // of the thaws: before anybody asked, beside one that was
    uint64_t waited;  // of the thaws: somebody waited
    uint64_t touched; // of thaws and returns: by the thread that touched the page
    uint64_t zeros;   // touches of pages that held nothing
    uint64_t forks;   // children filled
    int thread;       // its number
    uint64_t longest_ns;
    uint64_t times[THAW_BUCKETS]; // thaws that took [2^i, 2^(i+1)) ns
};
void thaw_figures(struct thaw_figures *out);

#endif
