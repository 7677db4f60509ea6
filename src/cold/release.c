#include "src/cold/release.h"

#include "src/cold/cold.h"
#include "src/cold/hint.h"
#include "src/cold/mark.h"
#include "src/cold/swapper.h"
#include "src/cold/table.h"
#include "src/cold/thaw.h"
#include "src/os/caps.h"
#include "src/os/map.h"
#include "src/os/missing.h"
#include "src/os/sys.h"

static bool is_claimed(struct chunk *c) {
    return atomic_load(&c->is_claimed);
}

// fault_taken_fn. Sequentially consistent: see take_small in claim.c. In a forked child until its parent has
// no more business there: see is_kept.
bool release_is_taken(uintptr_t address) {
    struct chunk *c = table_find(address);
    return c != NULL && is_claimed(c);
}

// Neighbours that were away, and are inaccessible still (`protect`).
struct row {
    uintptr_t from, until;
};

// If not now, for want of mappings, who touches one of them opens it.
static void open_row(struct row *r) {
    if (r->until == 0 || map_allow_writes(r->from, r->until - r->from)) {
        return;
    }
    for (uintptr_t at = r->from; at < r->until; at += FIRN_PAGE) {
        struct chunk *c = table_find(at);
        unsigned i = table_index(c, at);
        atomic_fetch_or(&c->shut[i / 64], (uint64_t)1 << i % 64);
    }
}

// Nothing is there now, which a system call must not meet. The memory is accessible: it is closed, if at all,
// after it was released. Under `protect` it will be, when its row is opened.
static void fill(uintptr_t page, struct row *closed) {
    mark_forget(page);
    if (missing_holes_fail()) {
        (void)*(volatile unsigned char *)page;
    } else if (missing_engine() == FAULT_PROTECT) {
        if (closed->until != page) {
            open_row(closed);
            closed->from = page;
        }
        closed->until = page + FIRN_PAGE;
    }
}

// True when the page is not away any more, or never was.
static bool release_page(uintptr_t address, struct row *closed) {
    enum page_state state = page_state_get(address);
    switch (state) {
    case PAGE_STAGED:
    case PAGE_FROZEN:
        // A child may need it still.
        if (thaw_children() != 0 || !page_state_move(address, state, PAGE_FRESH)) {
            return false;
        }
        fill(address, closed);
        return true;
    case PAGE_RESIDENT:
    case PAGE_TRACKED:
        return page_state_move(address, state, PAGE_FRESH);
    case PAGE_THAWING:
        return false;
    default:
        return true;
    }
}

// All pages of the range that lie in the chunk of the first: *at is behind them then.
static bool release_in_chunk(uintptr_t *at, uintptr_t end, bool may_wait) {
    struct chunk *c = table_find(*at);
    struct row closed = {0, 0};
    uintptr_t chunk_end = (*at & ~(CHUNK_BYTES - 1)) + CHUNK_BYTES;
    end = end < chunk_end ? end : chunk_end;
    // Nothing is away, and nothing will be before it was looked at and found not to be in use, where it was
    // not claimed.
    bool is_watched = c != NULL && (is_claimed(c) || table_has_excluded(c));
    bool is_done = true;
    for (; is_watched && *at < end && is_done; *at += FIRN_PAGE) {
        hint_forget(*at);
        while (!release_page(*at, &closed) && is_done) {
            is_done = may_wait;
            sys_yield();
        }
    }
    open_row(&closed);
    *at = is_done ? end : *at;
    return is_done;
}

// Holds no lock of ours, and waits for the thread that thaws only, which waits for nobody.
static bool release(uintptr_t address, size_t bytes, bool may_wait) {
    bool is_done = true;
    for (uintptr_t at = address; cold_is_running() && at < address + bytes && is_done;) {
        is_done = release_in_chunk(&at, address + bytes, may_wait);
    }
    return is_done;
}

// In a forked child: until nothing of its memory is its parent's business any more (prepare), what was
// claimed there counts.
static bool is_kept(uintptr_t address, size_t bytes) {
    for (uintptr_t at = address & ~(CHUNK_BYTES - 1); at < address + bytes; at += CHUNK_BYTES) {
        struct chunk *c = table_find(at);
        if (c != NULL && is_claimed(c)) {
            return true;
        }
    }
    return false;
}

// Under the other engines nothing is away in a parent that forks.
static bool is_inherited(uintptr_t address, size_t bytes) {
    return missing_serves_calls() && !cold_is_running() && is_kept(address, bytes);
}

// Where a system call does not wait for a page, there shall be one: the page of zeros, from the thread that thaws.
// (Not in a child, where nothing is watched.) One touch fills much, so that the rest is asked for as a whole. What
// the program made inaccessible is left alone; under a filter of system calls it cannot be told.
static void refill(uintptr_t address, size_t bytes) {
    const uintptr_t end = address + bytes;
    if (!cold_is_running() || !missing_holes_fail()) {
        return;
    }
    const bool can_ask = caps_has(CAP_POPULATE);
    for (uintptr_t at = address; at < end; at += FIRN_PAGE) {
        if (!release_is_taken(at)) {
            at |= CHUNK_BYTES - FIRN_PAGE; // the last page of the chunk
            continue;
        }
        uintptr_t until = (at | (CHUNK_BYTES - 1)) + 1 < end ? (at | (CHUNK_BYTES - 1)) + 1 : end;
        if (can_ask && map_populate_zero(at, until - at)) {
            at = until - FIRN_PAGE;
        } else if (!can_ask || map_is_missing(at, FIRN_PAGE)) {
            (void)*(volatile unsigned char *)at;
        }
    }
}

static bool is_held(void) {
    return atomic_load(&table_holds) > 0;
}

const struct page_state_keeper release_keeper = {release, is_kept, is_inherited, refill, is_held};

// With swap nothing is away: claimed ranges are only not to be mapped anew.
static bool is_never_inherited(uintptr_t address, size_t bytes) {
    (void)address;
    (void)bytes;
    return false;
}

static void leave_empty(uintptr_t address, size_t bytes) {
    (void)address;
    (void)bytes;
}

const struct page_state_keeper release_keeper_swapping = {swapper_release, is_kept,
                                                          is_never_inherited, leave_empty, is_held};
