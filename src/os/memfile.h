// Memory that several addresses can share: one file without a name, whole pages of it ("frames").
//
// All of the file is mapped once, at the *view*; further mappings of a frame are copies of a piece of
// the view. So no descriptor stays open for a program to close, or for a child to inherit.
#ifndef FIRN_OS_MEMFILE_H
#define FIRN_OS_MEMFILE_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Makes the file and the view; only what is written takes memory. Once per process, and again in a
// forked child after memfile_forget. False when the kernel cannot, or a limit forbids. Preserves errno.
bool memfile_start(void) FIRN_CHECKED;
// Bytes of the file; 0 before start.
size_t memfile_bytes(void);
// Address of the view. Readable and writable.
uintptr_t memfile_view(void);

// Replaces the mapping of [address, +bytes), which is Firn's, by one of the file from `offset` on, which
// forked children do not get. In one step, for other threads: who reads sees the old pages or the new ones.
// False when there is no memory or no VMA for it: then nothing has changed, unless *is_lost says that the
// kernel had taken the old pages away already. In that case private zeros are there. Preserves errno.
bool memfile_map(uintptr_t address, size_t offset, size_t bytes, bool *is_lost) FIRN_CHECKED;

// Whether memfile_map_copy may be tried now: the kernel has what it takes, and no limit that was set
// meanwhile would make it fail half-way. Preserves errno.
bool memfile_can_map_copies(void);
// Replaces the mapping of [address, +bytes), which is Firn's, by a private one of the file from `offset` on:
// writes do not reach the file, and forked children have it, too. In one step, likewise. False, with
// nothing changed, when the kernel cannot; *is_lost as above. Preserves errno.
bool memfile_map_copy(uintptr_t address, size_t offset, size_t bytes, bool *is_lost) FIRN_CHECKED;

// For each page of [address, +bytes), which maps the file privately, sets bit i % 64 of written[i / 64], and
// clears it else, if page i has been written to since, so that it is memory of its own. False when the kernel does
// not say (no /proc, or a process that may not look at itself there). Preserves errno.
bool memfile_find_written(uintptr_t address, size_t bytes, uint64_t *written) FIRN_CHECKED;

// Gives [offset, +bytes) memory, so that nobody who touches it has to wait for the kernel. A hint.
// Preserves errno.
void memfile_fill(size_t offset, size_t bytes);
// Gives the memory of [offset, +bytes) back: reads as zeros. Preserves errno.
void memfile_drop(size_t offset, size_t bytes);

// Nothing is mapped any more from here on, and of the view only `bytes` can be touched: memory that is locked
// would be filled in, all of it. Preserves errno.
void memfile_seal(size_t bytes);

// In a forked child, which has the parent's view (and private mappings only): gives it up.
void memfile_forget(void);

// Mappings of this process besides `own`; 0 if the kernel does not say. Reads as many lines: 20 ms for 36,000.
size_t memfile_count_others(size_t own);
// VMAs that mapping frames may cost: three quarters of the live vm.max_map_count, less `others`, but at least
// those that guards have (os/guard.h, a quarter at most). The rest is the program's.
size_t memfile_vma_budget(size_t others);

#endif
