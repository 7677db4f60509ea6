// cold_store=swap: idle pages are not packed by Firn but handed to the kernel, which puts them into swap (zram, zswap
// or a disk) and brings them back to whoever touches them: threads, system calls, children of a fork. Nothing of the
// heap is ever away for us then, and no thread of ours is waited for.
//
// Writes are told of as in freeze.h. Reads are not seen before a page goes: one that is there again at the next look
// counts as come back, and is left alone for as many looks as table_leave_alone says, twice as many each time.
// Nothing is sealed: whoever reads the swap reads the pages, and what writes to it writes to them.
//
// One thread, whose all of this is but swapper_release and swapper_figures.
#ifndef FIRN_COLD_SWAPPER_H
#define FIRN_COLD_SWAPPER_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The thread's life, once missing_open_writes has succeeded: never ends.
FIRN_NORETURN void swapper_run(void);

// The range was freed, and is new when it is used again. Of page_state_keeper: any thread, with locks.
bool swapper_release(uintptr_t address, size_t bytes, bool may_wait);

struct swapper_figures {
    uint64_t out;     // pages handed over, so far
    uint64_t back;    // of these, found to be there again
    uint64_t refused; // not taken: shared with a child, locked, or the control group may not
    uint64_t full;    // looks at which nothing could go
    const char *off;  // there is no swap; NULL: there is
    const char *held; // why nothing goes at the moment; NULL: it does
    int thread;       // its number
};
void swapper_figures(struct swapper_figures *out);

#endif
