// What a page of the heap is at the moment: the contract between the allocator, the mesher and the
// cold tier. One byte a page, changed only by compare-and-swap along the edges of page_state_edges.
//
// Bytes exist only where somebody asked for them (page_state_prepare): a page without one is
// PAGE_FRESH, and a program whose pages nobody ever merges or freezes pays nothing. Covered is the
// whole data reservation (FIRN_ROOT.data).
#ifndef FIRN_META_PAGE_STATE_H
#define FIRN_META_PAGE_STATE_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum page_state {
    PAGE_FRESH,    // nothing is known: never used, purged, or never looked at
    PAGE_RESIDENT, // private memory with something in it
    PAGE_TRACKED,  // the same, and it is known whether it was written since the last look
    PAGE_STAGED,   // set aside, still uncompressed; a touch brings it back (PAGE_THAWING)
    PAGE_FROZEN,   // the store holds the bytes; a touch thaws
    PAGE_THAWING,  // on its way back, by one thread; others wait
    PAGE_MESHING,  // its mapping is being exchanged; who would write waits
    PAGE_MESHED,   // maps a frame that other spans map too
    PAGE_STATES
};

// page_state_edges[from] has bit `to` set when a page may go from the one to the other.
extern const uint8_t page_state_edges[PAGE_STATES];
const char *page_state_name(enum page_state state);

FIRN_INLINE bool page_state_is_edge(enum page_state from, enum page_state to) {
    return (page_state_edges[from] >> to & 1) != 0;
}

// Makes the bytes of the pages of [address, +bytes), which lies in the data reservation. False when
// descriptor memory is exhausted. May take LOCK_ARENA. Preserves errno.
bool page_state_prepare(uintptr_t address, size_t bytes) FIRN_CHECKED;

// Any address, any thread, also in a signal handler. PAGE_FRESH outside of the data reservation.
// Acquire: what the thread that set this state wrote before is visible.
enum page_state page_state_get(uintptr_t address);

// The page goes from `from` to `to`, or is not in `from` (false). Its byte was prepared. An edge that
// is not in the table is a bug of ours: fatal in debug builds, false in others. Signal-safe.
// Acquire and release.
bool page_state_move(uintptr_t address, enum page_state from, enum page_state to) FIRN_CHECKED;

// All pages of [address, +bytes) or none: `to` is a state that only the caller ends, and the edge back
// exists. While it runs others may see some pages moved.
bool page_state_move_range(uintptr_t address, size_t bytes, enum page_state from,
                           enum page_state to) FIRN_CHECKED;

// The content of the pages is nobody's any more (no slot in them is in use, no live object, and everybody
// can see that), and they are about to be given back: what is kept of them elsewhere is forgotten, so
// that the next touch finds zeros, and none of them goes away before it was looked at anew. Returns at once
// where no page is away. Any thread, with locks of the allocator; preserves errno.
void page_state_release(uintptr_t address, size_t bytes);
// The same, without waiting for a child that needs one of the pages: then false, and the content of some may
// come back.
bool page_state_try_release(uintptr_t address, size_t bytes) FIRN_CHECKED;
// Whether somebody keeps watch over a page of the range, or did in the process that this one was forked
// from: it is not to be mapped anew, and one that was given back may have something in it. With LOCK_LARGE
// what is said of large objects stays true while one of them is busy.
bool page_state_is_kept(uintptr_t address, size_t bytes) FIRN_CHECKED;

// In a forked child: whether its parent may still fill in a page of the range that was away when it forked.
// It does where nothing is, a guard marker included, whatever was done to the page in between.
bool page_state_is_inherited(uintptr_t address, size_t bytes) FIRN_CHECKED;

// page_state_release and map_purge: the pages read as zeros from now on, also where they are inherited. There
// those that were away are overwritten instead of given back.
void page_state_purge(uintptr_t address, size_t bytes);
// map_guard, where it would hold. Nothing is released.
bool page_state_guard(uintptr_t address, size_t bytes) FIRN_CHECKED;

// The pages, which can be accessed, may have lost what was in them other than by page_state_purge: they are made to
// hold something.
void page_state_refill(uintptr_t address, size_t bytes);
// map_unguard.
bool page_state_unguard(uintptr_t address, size_t bytes) FIRN_CHECKED;

// Who keeps pages that are away. Set once, before the first page goes. `may_wait`: else false where it
// would have to. `is_held`: somebody touches pages that are away, whosever they are. `refill`: nothing is in the range any more, and something shall be before a system call
// meets it.
struct page_state_keeper {
    bool (*release)(uintptr_t address, size_t bytes, bool may_wait);
    bool (*is_kept)(uintptr_t address, size_t bytes);
    bool (*is_inherited)(uintptr_t address, size_t bytes);
    void (*refill)(uintptr_t address, size_t bytes);
    bool (*is_held)(void);
};
void page_state_set_keeper(const struct page_state_keeper *keeper);

#endif
