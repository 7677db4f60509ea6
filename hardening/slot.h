// What hardening does to a small slot as it is handed out, and as it comes back. cache and heap call
// these; with every feature off they are empty.
//
// The invariant: a slot that is neither live nor on its way reads as zeros, but for its canary, and
// for the tag of a safe link until its owner has taken it back. Fresh and purged pages satisfy it
// without being touched. Exempt: spans marked is_torn (a forked child's, of threads it does not have).
#ifndef FIRN_HARDENING_SLOT_H
#define FIRN_HARDENING_SLOT_H

#include "hardening/canary.h"
#include "src/base/compiler.h"
#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/span/span.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes added to each request before a class is chosen: room for the canary.
#define FIRN_SLOT_EXTRA ((size_t)(FIRN_CANARY ? CANARY_BYTES : 0))
#define FIRN_SLOT_ISSUE (FIRN_CANARY || FIRN_VERIFY)
#define FIRN_SLOT_RETIRE (FIRN_CANARY || FIRN_WIPE)

// Single-threaded, at start, before the root is made read-only.
void slot_start(void);

// The slot at `address` has just been taken. Unless it is as it was left when it was freed, the
// process ends. Returns it with canaries on both sides. `before_bytes`: 0 if the slot is the first of
// its span, else `slot_bytes`. `is_virgin`: it was never handed out before, so that its page may not
// even be there. `site`: the call that gets it, for the report.
FIRN_INLINE void *slot_issue(uintptr_t address, size_t slot_bytes, size_t before_bytes,
                             bool is_virgin, uintptr_t site) {
    return FIRN_SLOT_ISSUE
               ? FIRN_ROOT.slot_issue(address, slot_bytes, before_bytes, is_virgin, site)
               : (void *)address;
}

// The slot at `address` comes back, by the thread that owns its span. Unless its canary and that of
// the slot before it are as they should be, the process ends. It is then wiped. May come after it
// was put into circulation: the thread is not handing out anything meanwhile. `before_bytes`: as
// above. `api` and `site`: for the report.
FIRN_INLINE void slot_retire(uintptr_t address, size_t slot_bytes, size_t before_bytes,
                             const char *api, uintptr_t site) {
    if (FIRN_SLOT_RETIRE) {
        FIRN_ROOT.slot_retire(address, slot_bytes, before_bytes, api, site);
    }
}

// The slot at `address` will be handed out soon, and looked at: its beginning may as well be fetched now.
// (The next two lines, too, cost 1 ns of a malloc and free where everything is in the second-level cache,
// and were not found to gain anything elsewhere.)
FIRN_INLINE void slot_expect(uintptr_t address) {
    __builtin_prefetch((const void *)address, 1);
}

// The checks alone, of a live slot: true, or which canary is broken and a phrase that says so. Any
// thread.
bool slot_is_whole(const struct span *s, unsigned slot, enum fatal_id *id, const char **found);

// Zeros, no check. Any thread that may write to the slot.
void slot_wipe(uintptr_t address, size_t slot_bytes);

#endif
