// Engine `signal`: pages that are away carry a guard marker, so that a touch raises SIGSEGV and the thread that
// touches brings its page back itself: 7 us for the fault, where waking the thread that thaws, and being
// woken by it, takes 70 to 100 on a machine whose other processor sleeps (Linux 6.18, two virtual CPUs).
//
// Only where that cannot fail: our handler is in its place and no thread blocks SIGSEGV (signals_is_ready,
// signals_is_blocked), the threads of the program have the descriptor (missing_lends), and no stack can lie on the
// page, where the kernel would have to put the signal's frame. A page without a marker is waited for, as ever: a marker can be
// taken away at any time, and what follows is a touch of a page that is missing.
//
// Markers of ours and those of guard pages (os/map.h) look alike to the kernel. A page that is away is no guard
// page; when it is released its marker goes, and only then may it become one.
#ifndef FIRN_COLD_MARK_H
#define FIRN_COLD_MARK_H

#include "src/cold/table.h"
#include "src/os/signals.h"

// In the freezing thread of a new process, before the calls below. `touched`: cold/touch.h.
void mark_start(signals_claim_fn *touched);
// Whether pages that go from now on are marked; if not, no page is any more. The freezing thread, at each look.
void mark_look(void);

// With cold_lock. The pages have just been moved out, and are THAWING: who releases one waits.
void mark_pages(struct chunk *c, uintptr_t address, size_t bytes);
// Likewise: it is to be filled by other means than missing_fill, which replaces a marker.
void mark_remove(struct chunk *c, uintptr_t page);
// Likewise, for those of so many neighbours that are away: who touches one waits for the thread that thaws from now
// on.
void mark_let_wait(struct chunk *c, uintptr_t address, unsigned pages);
// The page was away and has been released. Any thread, with locks of the allocator.
void mark_forget(uintptr_t page);
// A filter of system calls comes, which may end the process for what our handler would do: all markers go.
void mark_give_up(void);

#endif
