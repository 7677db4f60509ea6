// Calls that come from libc or the loader: they may hold locks of theirs.
#ifndef FIRN_OS_LOADER_H
#define FIRN_OS_LOADER_H

#include <stdbool.h>
#include <stdint.h>

// Notes where libc and the loader are. Once, single-threaded, in a constructor. Where libc is linked in,
// it cannot be told from the program.
void loader_note_ranges(void);

// Whether the code at `site` is of libc, of the loader, or not known to be of neither: a call to free from
// there may be made under a lock that pthread_create takes (libc frees the storage of cached stacks so).
bool loader_may_hold_locks(uintptr_t site);

// Whether it is known to be of one of the two.
bool loader_is_own(uintptr_t site);

#endif
