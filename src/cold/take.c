#include "src/cold/take.h"

#include "src/base/fatal.h"
#include "src/cold/mark.h"
#include "src/cold/stage.h"
#include "src/cold/thaw.h"
#include "src/meta/page_state.h"
#include "src/os/missing.h"
#include "src/os/pin.h"

enum { BATCH = 64 };

static _Atomic uint64_t staged, refused;

static void count(_Atomic uint64_t *figure, uint64_t n) {
    atomic_fetch_add_explicit(figure, n, memory_order_relaxed);
}

// With cold_lock. The page did not go after all.
static void unstage(struct chunk *c, uintptr_t address) {
    struct cold_page *p = table_page(c, address);
    p->holds = HOLDS_NOTHING;
    table_count_away(c, -1);
    FIRN_ENSURE(page_state_move(address, PAGE_THAWING, PAGE_RESIDENT));
}

static void refuse(struct chunk *c, uintptr_t address) {
    struct cold_page *p = table_page(c, address);
    unstage(c, address);
    p->idle = 0;
    table_leave_alone(p, 1);
    count(&refused, 1);
}

// Asked after the page was marked: see hint_exclude, table_holds and pin_enter.
static bool is_needed(struct chunk *c, uintptr_t address) {
    return table_is_excluded(c, address) || atomic_load(&table_holds) > 0 ||
           (!missing_serves_calls() &&
            (table_is_wanted(c, address) || pin_is_any(address, FIRN_PAGE)));
}

// With cold_lock. How many of the pages were marked, from the first on. A page is THAWING until it was moved: who
// releases it waits so long. Or its memory could be in use again by then, and what was written there would be
// moved away.
static bool mark_one(struct chunk *c, uintptr_t address, uint32_t slot) {
    struct cold_page *p = table_page(c, address);
    (void)!page_state_move(address, PAGE_RESIDENT, PAGE_TRACKED);
    if (p->holds != HOLDS_NOTHING || !page_state_move(address, PAGE_TRACKED, PAGE_STAGED) ||
        !page_state_move(address, PAGE_STAGED, PAGE_THAWING)) {
        return false;
    }
    if (is_needed(c, address)) {
        FIRN_ENSURE(page_state_move(address, PAGE_THAWING, PAGE_RESIDENT));
        return false;
    }
    p->at.slot = slot;
    p->holds = HOLDS_SLOT;
    return true;
}

static uint32_t mark_staged(struct chunk *c, uintptr_t address, uint32_t n, uint32_t slot) {
    for (uint32_t i = 0; i < n; i++) {
        table_count_away(c, 1);
        if (!mark_one(c, address + ((uintptr_t)i << FIRN_PAGE_SHIFT), slot + i)) {
            table_count_away(c, -1);
            return i;
        }
    }
    return n;
}

// With cold_lock: the pages, marked, into the slots from the given one on. A bit for each that is to be
// tried again: `may_unshare`, and it is shared with a forked child, or was.
static uint64_t move_marked(struct chunk *c, uintptr_t address, uint32_t n, uint32_t slot,
                            bool may_unshare) {
    uint64_t again = 0;
    for (uint32_t done = 0; done < n;) {
        size_t bytes = (size_t)(n - done) << FIRN_PAGE_SHIFT;
        uintptr_t at = address + ((uintptr_t)done << FIRN_PAGE_SHIFT);
        size_t moved;
        enum missing_result result = missing_move(at, stage_address(slot + done), bytes, &moved);
        if (moved > 0) {
            mark_pages(c, at, moved);
        }
        for (size_t k = 0; k < moved; k += FIRN_PAGE) {
            FIRN_ENSURE(page_state_move(at + k, PAGE_THAWING, PAGE_STAGED));
        }
        done += (uint32_t)(moved >> FIRN_PAGE_SHIFT);
        count(&staged, moved >> FIRN_PAGE_SHIFT);
        if (result == MISSING_DONE) {
            break;
        }
        do {
            at = address + ((uintptr_t)done << FIRN_PAGE_SHIFT);
            if (result == MISSING_BUSY && may_unshare) {
                unstage(c, at);
                again |= (uint64_t)1 << done;
            } else {
                refuse(c, at);
            }
            done++;
        } while (result == MISSING_AGAIN && done < n);
    }
    return again;
}

// Up to BATCH neighbours, all idle. Returns as move_marked.
static uint64_t stage_run(struct chunk *c, uintptr_t address, uint32_t n, uint64_t due_ms,
                          bool may_unshare) {
    uint32_t slot = missing_has_room(n) ? stage_take(address, n, due_ms) : STAGE_NONE;
    if (slot == STAGE_NONE) {
        return 0;
    }
    lock_acquire(&cold_lock);
    n = mark_staged(c, address, n, slot);
    uint64_t again = move_marked(c, address, n, slot, may_unshare);
    lock_release(&cold_lock);
    return again;
}

// A page that was shared with a child cannot be moved until it is written to. While the child lives that would
// make two pages of one, and nothing would be won: such a page is left alone. When it is gone it costs
// a fault. Without the lock: should the page be away, this thread waits for it like any other.
static uint64_t unshare(struct chunk *c, uintptr_t address, uint64_t wanted) {
    uint64_t unshared = missing_unshared(address, BATCH) & wanted;
    for (uint64_t left = unshared; left != 0; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        if (!missing_unshare(address + ((uintptr_t)i << FIRN_PAGE_SHIFT), FIRN_PAGE)) {
            unshared &= ~((uint64_t)1 << i);
        }
    }
    lock_acquire(&cold_lock);
    for (uint64_t left = wanted & ~unshared; left != 0; left &= left - 1) {
        uintptr_t at = address + ((uintptr_t)__builtin_ctzll(left) << FIRN_PAGE_SHIFT);
        struct cold_page *p = table_page(c, at);
        p->idle = 0;
        table_leave_alone(p, 1);
        count(&refused, 1);
    }
    lock_release(&cold_lock);
    return unshared;
}

// Up to 64 pages from `address` on, those in `wanted`, in runs of neighbours.
static uint64_t stage_runs(struct chunk *c, uintptr_t address, uint64_t wanted, uint64_t due_ms,
                           bool may_unshare) {
    uint64_t again = 0;
    while (wanted != 0) {
        uint32_t first = (uint32_t)__builtin_ctzll(wanted);
        uint64_t rest = ~(wanted >> first);
        uint32_t n = rest != 0 ? (uint32_t)__builtin_ctzll(rest) : BATCH;
        n = n < BATCH - first ? n : BATCH - first;
        uintptr_t at = address + ((uintptr_t)first << FIRN_PAGE_SHIFT);
        again |= stage_run(c, at, n, due_ms, may_unshare) << first;
        wanted &= n == BATCH ? 0 : ~((((uint64_t)1 << n) - 1) << first);
    }
    return again;
}

void take_pages(struct chunk *c, uintptr_t address, uint64_t wanted, uint64_t due_ms) {
    uint64_t shared = stage_runs(c, address, wanted, due_ms, true);
    if (shared != 0) {
        (void)stage_runs(c, address, unshare(c, address, shared), due_ms, false);
    }
}

void take_figures(uint64_t *staged_pages, uint64_t *refused_pages) {
    *staged_pages = atomic_load_explicit(&staged, memory_order_relaxed);
    *refused_pages = atomic_load_explicit(&refused, memory_order_relaxed);
}
