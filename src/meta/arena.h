// Descriptor memory: a bump allocator in its own guarded reservation, apart from user data.
// Nothing is given back; callers keep free lists of what they recycle. Zero-filled.
#ifndef FIRN_META_ARENA_H
#define FIRN_META_ARENA_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// `bytes` rounded up to `align` (a power of two, 16 to 4096). NULL when memory is exhausted.
// Takes LOCK_ARENA. Preserves errno.
void *arena_alloc(size_t bytes, size_t align);
// The same on pages that the kernel wipes in a forked child; in *is_wiped, whether it will. Everybody's are
// together: each page of this kind is another mapping.
void *arena_alloc_wiped(size_t bytes, bool *is_wiped);
size_t arena_committed_bytes(void);
// Gives back the addresses that are only reserved, and reserves no more. With the lock
// (arena_before_fork).
void arena_release(void);
void arena_before_fork(void);
void arena_after_fork(bool in_child);

#endif
