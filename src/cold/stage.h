// The staging area: where pages wait, as they are, to be touched again or frozen. Slots are used in
// order and given back in order, so that neither needs a search; when all are back it begins anew, so
// that page tables stay small. All of it is the freezing thread's alone, but for stage_address and
// stage_is_for.
#ifndef FIRN_COLD_STAGE_H
#define FIRN_COLD_STAGE_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STAGE_SLOTS = 1 << 18 }; // 1 GiB of addresses
#define STAGE_NONE UINT32_MAX

// Reserves the area, at first use; again in a forked child, in which the area's pages are given back.
// Registers it (os/missing.h). False: no address space, or the kernel refuses.
bool stage_start(void) FIRN_CHECKED;

// `n` neighbouring slots for the pages from `page_address` on, to be looked at again at `due_ms`. The
// first one's number; STAGE_NONE when there is no room.
uint32_t stage_take(uintptr_t page_address, uint32_t n, uint64_t due_ms);
uintptr_t stage_address(uint32_t slot);
// Whether the slot was last taken for that page. With cold_lock, by any thread, for a page that is staged.
bool stage_is_for(uint32_t slot, uintptr_t page_address);

// The oldest slot not yet handed back: false when there is none. When it is due, and whose page it has.
bool stage_oldest(uint32_t *slot, uintptr_t *page_address, uint64_t *due_ms);
// The oldest is no longer needed. Its memory goes with the next stage_flush.
void stage_give_oldest(void);
void stage_flush(void);

#endif
