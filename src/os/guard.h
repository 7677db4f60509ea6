// Which guards were made with mprotect, where the kernel has no guard markers: each costs up to two
// VMAs of a budget, and only a record tells later which pages to open again and what that gives
// back. Lock-free, so that a forked child never finds it locked. Not for guard markers.
#ifndef FIRN_OS_GUARD_H
#define FIRN_OS_GUARD_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { GUARD_VMAS = 2 };

// Records a guard that begins at `address` (a multiple of FIRN_PAGE). False when the budget or the
// table is full. Nobody guards, forgets or unguards the same page at the same time.
bool guard_note(uintptr_t address) FIRN_CHECKED;
// Removes the records of guards that begin in [address, +bytes); returns how many there were.
size_t guard_forget(uintptr_t address, size_t bytes);
// Whether any guard begins in the range.
bool guard_is_in(uintptr_t address, size_t bytes);
size_t guard_vmas(void);
size_t guard_vma_budget(void);

#endif
