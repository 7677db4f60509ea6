// The world as targets see it: deaths that can be survived, complaints that can be read, and time
// and randomness that repeat. All by -Wl,--wrap, so that the product has no hook for it:
//   fatal, abort    return to world_dies while it runs; else the process ends as ever
//   sys_write       is recorded between world_listen and world_heard
//   syscall         getrandom gives a fixed sequence, started anew by world_reset
//   clock_coarse_ns stands still but for world_wait
#ifndef FIRN_FUZZ_WORLD_H
#define FIRN_FUZZ_WORLD_H

#include "src/base/fatal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// At the start of an input: the same seeds, and a full hour later than anything before.
void world_reset(void);
void world_wait(uint64_t ns);

struct world_death {
    bool is_abort; // abort() instead of fatal(); the rest is then 0
    enum fatal_id id;
    uintptr_t address;
};

// True if `body` ended in fatal or abort instead of returning. Not nested.
bool world_dies(void (*body)(void *), void *context, struct world_death *death);

// From here on what Firn writes is kept (the first 64 KiB) instead of written.
void world_listen(void);
// Ends that. The text, NUL-terminated, valid until the next world_listen; *n is its true length.
const char *world_heard(size_t *n);

#endif
