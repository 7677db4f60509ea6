// The kernel's swap, and pages of this process in it.
#ifndef FIRN_OS_SWAP_H
#define FIRN_OS_SWAP_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Of all swap that is on; zeros where there is none. What a control group allows is not in it.
struct swap_room {
    uint64_t total_bytes, free_bytes;
};
void swap_look(struct swap_room *out);

// Asks the kernel to put out the pages of the range, whatever it thinks of them. Those that it does not take stay: shared
// with a child, locked, no room. What became of each: missing_swapped (os/missing.h).
void swap_put_out(uintptr_t address, size_t bytes);
// Brings back those of the range that are out, now. What is not to be read is left alone.
void swap_bring_back(uintptr_t address, size_t bytes);
// The same without waiting for it. Any thread. Preserves errno, like the rest.
void swap_announce(uintptr_t address, size_t bytes);

#endif
