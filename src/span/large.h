// Large objects: runs of whole pages in the large region, one object a run.
//
// Each object has inaccessible pages on both sides (shared between neighbours) and starts after a
// random gap. Ownership is exact: a page map tells for every page of the region whether a live
// object *starts* there. Freed runs go to a bounded cache (reused without a system call), are purged
// after a delay, and coalesce. When the first region is full or too small, further regions are
// reserved, so any size the address space allows can be had.
//
// Every function takes LOCK_LARGE itself and holds it across no system call that scales with the
// object's size. errno is preserved on success and by large_free.
#ifndef FIRN_SPAN_LARGE_H
#define FIRN_SPAN_LARGE_H

#include "src/base/compiler.h"
#include "src/os/map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What an address is, as far as large objects know.
enum large_kind {
    LARGE_FOREIGN,  // in none of the large regions
    LARGE_NEVER,    // in a region, never handed out
    LARGE_FREED,    // the start of, or inside, a run that was freed
    LARGE_INTERIOR, // inside a live object, not its start
    LARGE_LIVE      // the start of a live object
};

struct large_block {
    uintptr_t base;  // start of the object
    size_t size;     // bytes the program asked for
    size_t capacity; // bytes usable: size rounded up to whole pages
};

struct large_stats {
    size_t allocated_bytes; // capacity of live objects
    size_t live;            // objects
    size_t dirty_bytes;     // freed, not yet purged
    size_t retained_bytes;  // freed and purged address space
    size_t mapped_bytes;    // committed
};

// `range` is the part of the main reservation set aside for large objects. Called once at start.
void large_start(const struct reservation *range);

// A block of `size` bytes (1 .. PTRDIFF_MAX) aligned to `align` (power of two, any size). NULL with
// errno ENOMEM. *is_zero tells whether the content is known to be zeros. The process ends when
// somebody wrote to memory that was freed (FIRN_LARGE_RETIRE).
void *large_alloc(size_t size, size_t align, bool *is_zero);

// Finds out about an address; fills *block for LARGE_LIVE and LARGE_INTERIOR (the containing object).
enum large_kind large_find(uintptr_t address, struct large_block *block);

// For reports: the run that `address` lies in and those beside it, without the lock. Right unless
// another thread changes the heap at that moment. False: in no run.
enum large_view_state { LARGE_VIEW_NONE, LARGE_VIEW_FREE, LARGE_VIEW_LIVE };
struct large_neighbour {
    enum large_view_state state;
    uintptr_t start; // of the object, or of the free pages
    uintptr_t end;
};
struct large_view {
    struct large_neighbour self, before, after;
    size_t requested; // bytes the program asked for; of a free run, at last
};
bool large_peek(uintptr_t address, struct large_view *out);

// The end of the page in which an object of `size` bytes ends.
FIRN_INLINE uintptr_t large_page_end(uintptr_t object, size_t size) {
    return (object + size + FIRN_PAGE - 1) & ~((uintptr_t)FIRN_PAGE - 1);
}

// Frees the live object that starts at `address`; exact: checks under the lock. Returns what the
// address was; anything but LARGE_LIVE means that nothing was done and the caller reports.
enum large_kind large_free(uintptr_t address, struct large_block *block);

// Grows or shrinks in place, or moves the pages to a new run without copying them where that is
// cheaper. Shrinking gives memory back. Returns the (possibly new) address; NULL with ENOMEM leaves
// the old object untouched. *kind as large_free; NULL unless LARGE_LIVE.
void *large_resize(uintptr_t address, size_t size, enum large_kind *kind);

// Gives back everything that is free; true if any memory was. For malloc_trim.
bool large_trim(void);
// Purges what has been free for longer than the delay. Cheap when there is nothing to do.
void large_upkeep(uint64_t now_ns);
void large_set_purge_delay(uint64_t delay_ns);
void large_stats(struct large_stats *out);

// Address space becomes scarce: gives back what is reserved and not in use, and what is free from
// then on. With the lock (large_before_fork). False, and nothing is done, while some thread has a run
// in hand outside of the lock, unless `is_urgent`: the addresses of such runs are then lost.
bool large_release(bool is_urgent) FIRN_CHECKED;

// For who watches pages of large objects (the cold tier). The part of the main reservation that has any, all
// of it one readable and writable mapping, but for what was moved; false where it is not that.
bool large_watch_range(uintptr_t *from, uintptr_t *until) FIRN_CHECKED;
// A number that changes with the live objects that lie in a part of it; 0: there are none.
uint64_t large_fingerprint(uintptr_t from, uintptr_t until);
// Calls `act` with the lock held and no object or freed memory in any thread's hands outside of it. False,
// and it was not called, when there is; else what it says.
bool large_while_settled(bool (*act)(void *context), void *context) FIRN_CHECKED;

// Fork: before, in the parent after, in the child after. `in_child` resets the lock.
void large_before_fork(void);
void large_after_fork(bool in_child);

#endif
