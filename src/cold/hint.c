#include "src/cold/hint.h"

#include "src/base/align.h"
#include "src/cold/claim.h"
#include "src/cold/table.h"
#include "src/meta/page_state.h"
#include "src/meta/root.h"
#include "src/os/futex.h"
#include "src/os/map.h"
#include "src/os/missing.h"
#include "src/os/sys.h"
#include "src/os/veil.h"

#include <limits.h>

// Sequentially consistent: who calls sees that the thread sleeps, or the thread the call.
static _Atomic uint32_t calls;
static _Atomic bool is_called, is_pressed;
static _Atomic uint32_t thaws_asked, thaws_done;

// ---- ranges -------------------------------------------------------------------------------------

struct range {
    uintptr_t from, until; // pages
};

static struct range clip(uintptr_t address, size_t bytes, bool is_whole_pages_only) {
    uintptr_t end =
        bytes <= UINTPTR_MAX - FIRN_PAGE - address ? address + bytes : UINTPTR_MAX - FIRN_PAGE;
    uintptr_t mask = ~(uintptr_t)(FIRN_PAGE - 1);
    struct range r = {address & mask, (end + FIRN_PAGE - 1) & mask};
    if (is_whole_pages_only) {
        r = (struct range){(address + FIRN_PAGE - 1) & mask, end & mask};
    }
    uintptr_t first = FIRN_ROOT.data.base, last = first + FIRN_ROOT.data.bytes;
    r.from = r.from > first ? r.from : first;
    r.until = r.until < last && bytes != 0 ? r.until : bytes != 0 ? last : r.from;
    return r;
}

static bool is_away(uintptr_t page) {
    enum page_state state = page_state_get(page);
    return state == PAGE_STAGED || state == PAGE_FROZEN || state == PAGE_THAWING;
}

// Its last block was freed, and it reads as zeros once it can be read.
static bool is_shut(uintptr_t page) {
    struct chunk *c = table_find(page);
    return c != NULL && table_has_bit(c->shut, table_index(c, page));
}

bool hint_open(uintptr_t page) {
    if (!is_shut(page)) {
        return false;
    }
    if (map_allow_writes(page, FIRN_PAGE)) {
        struct chunk *c = table_find(page);
        unsigned i = table_index(c, page);
        atomic_fetch_and(&c->shut[i / 64], ~((uint64_t)1 << i % 64));
    } else {
        sys_yield();
    }
    return true;
}

bool hint_bring(uintptr_t page) {
    if (hint_open(page)) {
        return true;
    }
    bool was_away = is_away(page);
    if (was_away) {
        veil_ask(page);
    }
    return was_away;
}

// Under `protect` a signal is not needed, nor is a stack on which it could be delivered.
static void touch(uintptr_t page) {
    if (missing_engine() != FAULT_PROTECT) {
        (void)*(volatile unsigned char *)page;
    } else {
        (void)hint_bring(page);
    }
}

// The page may be on its way out, not gone yet when it is touched. In a forked child the states stay what they
// were in its parent, which fills the page when it is touched: once is enough there.
static void bring_back(uintptr_t page) {
    bool is_away_still = is_away(page) || is_shut(page);
    while (is_away_still) {
        touch(page);
        is_away_still =
            (is_away(page) || is_shut(page)) && !page_state_is_inherited(page, FIRN_PAGE);
        if (is_away_still) {
            sys_yield();
        }
    }
}

static void set(_Atomic uint64_t *words, unsigned i) {
    atomic_fetch_or(&words[i / 64], (uint64_t)1 << i % 64);
}

void hint_cold(uintptr_t address, size_t bytes) {
    struct range r = clip(address, bytes, true);
    for (uintptr_t at = r.from; at < r.until; at += FIRN_PAGE) {
        struct chunk *c = table_make(at);
        if (c != NULL) {
            set(c->wished, table_index(c, at));
        }
    }
    if (r.from < r.until) {
        atomic_store(&is_called, true);
        atomic_fetch_add(&calls, 1);
        futex_wake(&calls, 1);
    }
}

void hint_hot(uintptr_t address, size_t bytes) {
    struct range r = clip(address, bytes, false);
    for (uintptr_t at = r.from; at < r.until; at += FIRN_PAGE) {
        struct chunk *c = table_find(at);
        if (c != NULL) {
            unsigned i = table_index(c, at);
            atomic_fetch_and(&c->wished[i / 64], ~((uint64_t)1 << i % 64));
            set(c->wanted, i);
            bring_back(at);
        }
    }
}

// Order, against the thread that marks a page as staged and then looks whether it is excluded: here the bit
// is set first, and the state looked at second. One of the two sees the other.
bool hint_exclude(uintptr_t address, size_t bytes, bool may_be_away) {
    struct range r = clip(address, bytes, false);
    bool is_done = true;
    for (uintptr_t at = r.from; at < r.until; at += FIRN_PAGE) {
        struct chunk *c = table_make(at);
        is_done = is_done && c != NULL;
        if (c != NULL) {
            set(c->excluded, table_index(c, at));
            if (may_be_away) {
                bring_back(at);
            }
        }
    }
    return is_done;
}

// Behind `limit` there is nothing, not even a descriptor.
//
// It counts as touched (reading it would not), so that it stays for a while also where nobody pins it: noted first,
// as in hint_exclude. What is excluded the program may have made inaccessible.
static void touch_in_chunk(struct chunk *c, uintptr_t from, uintptr_t until, uintptr_t limit) {
    for (uintptr_t at = from; at < until && at < limit; at += FIRN_PAGE) {
        if (claim_is_in_use(at) && !table_is_excluded(c, at)) {
            set(c->wanted, table_index(c, at));
            touch(at);
            bring_back(at);
        }
    }
}

// Not only what is away: nothing may be there for other reasons, after a MADV_FREE of the program's for one.
void hint_touch(uintptr_t address, size_t bytes) {
    struct range r = clip(address, bytes, false);
    for (uintptr_t at = r.from, next; at < r.until; at = next) {
        struct chunk *c = table_find(at);
        next = (at | (CHUNK_BYTES - 1)) + 1;
        if (c != NULL && atomic_load(&c->is_claimed)) {
            // (Of large blocks everything can be asked for, and the end only with a lock.)
            touch_in_chunk(c, at, next < r.until ? next : r.until,
                           table_is_large(c->base) ? UINTPTR_MAX : claim_end(c));
        }
    }
}

static void bring_chunk_back(const struct chunk *c) {
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        bring_back(c->base + ((uintptr_t)i << FIRN_PAGE_SHIFT));
    }
}

void hint_bring_all_back(void) {
    for (struct chunk *c = table_first(); c != NULL; c = c->next) {
        if (atomic_load(&c->away) > 0) {
            bring_chunk_back(c);
        }
    }
}

void hint_forget(uintptr_t page) {
    struct chunk *c = table_find(page);
    if (c != NULL && table_is_excluded(c, page)) {
        unsigned i = table_index(c, page);
        atomic_fetch_and(&c->excluded[i / 64], ~((uint64_t)1 << i % 64));
    }
}

// ---- calls --------------------------------------------------------------------------------------

void hint_thaw_all(void) {
    uint32_t mine = atomic_fetch_add(&thaws_asked, 1) + 1;
    atomic_fetch_add(&calls, 1);
    futex_wake(&calls, 1);
    for (;;) {
        uint32_t done = atomic_load(&thaws_done);
        if ((int32_t)(done - mine) >= 0) {
            return;
        }
        futex_wait(&thaws_done, done);
    }
}

void hint_press(void) {
    atomic_store(&is_pressed, true);
    atomic_fetch_add(&calls, 1);
    futex_wake(&calls, 1);
}

void hint_sleep(uint64_t ns) {
    uint32_t seen = atomic_load(&calls);
    uint32_t number;
    if (!atomic_load(&is_called) && !atomic_load(&is_pressed) && !hint_is_thaw_due(&number)) {
        futex_wait_for(&calls, seen, ns);
    }
}

bool hint_take_call(void) {
    return atomic_exchange(&is_called, false);
}

bool hint_take_press(void) {
    return atomic_exchange(&is_pressed, false);
}

bool hint_is_thaw_due(uint32_t *number) {
    *number = atomic_load(&thaws_asked);
    return *number != atomic_load(&thaws_done);
}

void hint_note_thawed(uint32_t number) {
    atomic_store(&thaws_done, number);
    futex_wake(&thaws_done, INT_MAX);
}
