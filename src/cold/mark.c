#include "src/cold/mark.h"

#include "src/base/fatal.h"
#include "src/meta/page_state.h"
#include "src/meta/root.h"
#include "src/os/fault.h"
#include "src/os/map.h"
#include "src/os/missing.h"
#include "src/os/signals.h"
#include "src/os/thread.h"

static signals_claim_fn *claim;
static _Atomic bool is_marking, is_over;

void mark_start(signals_claim_fn *touched) {
    claim = touched;
    atomic_store_explicit(&is_marking, false, memory_order_relaxed);
}

static bool may_hold_stacks(uintptr_t address) {
    if (table_is_large(address)) {
        return true;
    }
    unsigned cell = (unsigned)((address - FIRN_ROOT.small_base) >> FIRN_ROOT.cell_shift);
    return FIRN_ROOT.classes[root_cell_class(cell)].bytes >= FAULT_STACK_LEAST;
}

// A look may be under way while mark_give_up runs, and allow marks after it: so that is asked here as well, with the lock
// that remove_all takes after it was said.
void mark_pages(struct chunk *c, uintptr_t address, size_t bytes) {
    bool may = atomic_load_explicit(&is_marking, memory_order_relaxed) && !atomic_load(&is_over) &&
               !may_hold_stacks(address);
    bool is_done = may && map_mark_guards(address, bytes);
    if (may && !is_done) { // some of them, perhaps
        FIRN_ENSURE(map_unmark_guards(address, bytes));
    }
    for (size_t at = 0; at < bytes; at += FIRN_PAGE) {
        unsigned i = table_index(c, address + at);
        uint64_t bit = (uint64_t)1 << i % 64;
        c->marked[i / 64] = is_done ? c->marked[i / 64] | bit : c->marked[i / 64] & ~bit;
    }
}

static bool is_marked(const struct chunk *c, unsigned i) {
    return (c->marked[i / 64] >> i % 64 & 1) != 0;
}

// It needs no memory.
void mark_remove(struct chunk *c, uintptr_t page) {
    unsigned i = table_index(c, page);
    if (is_marked(c, i)) {
        FIRN_ENSURE(map_unmark_guards(page, FIRN_PAGE));
        c->marked[i / 64] &= ~((uint64_t)1 << i % 64);
    }
}

// A page that is away and has a marker is held as THAWING for the moment, so that nobody makes a guard page of it.
static bool hold(struct chunk *c, uintptr_t page, enum page_state *state) {
    *state = page_state_get(page);
    return (*state == PAGE_STAGED || *state == PAGE_FROZEN) && is_marked(c, table_index(c, page)) &&
           page_state_move(page, *state, PAGE_THAWING);
}

// From the first on those that follow each other: how many.
static unsigned open_run(struct chunk *c, uintptr_t address, unsigned pages) {
    enum { MOST = 64 };
    enum page_state states[MOST];
    unsigned n = 0;
    while (n < pages && n < MOST &&
           hold(c, address + ((uintptr_t)n << FIRN_PAGE_SHIFT), &states[n])) {
        n++;
    }
    if (n > 0) {
        FIRN_ENSURE(map_unmark_guards(address, (size_t)n << FIRN_PAGE_SHIFT));
    }
    for (unsigned k = 0; k < n; k++) {
        uintptr_t page = address + ((uintptr_t)k << FIRN_PAGE_SHIFT);
        unsigned i = table_index(c, page);
        c->marked[i / 64] &= ~((uint64_t)1 << i % 64);
        FIRN_ENSURE(page_state_move(page, PAGE_THAWING, states[k]));
    }
    return n;
}

void mark_let_wait(struct chunk *c, uintptr_t address, unsigned pages) {
    for (unsigned done = 0; done < pages;) {
        unsigned n = open_run(c, address + ((uintptr_t)done << FIRN_PAGE_SHIFT), pages - done);
        done += n > 0 ? n : 1;
    }
}

void mark_forget(uintptr_t page) {
    if (missing_lends() && !may_hold_stacks(page)) {
        (void)!map_unmark_guards(page, FIRN_PAGE);
    }
}

static void remove_all(void) {
    uint64_t mask = thread_block_signals();
    lock_acquire(&cold_lock);
    atomic_store_explicit(&is_marking, false, memory_order_relaxed);
    for (struct chunk *c = table_first(); c != NULL; c = c->next) {
        if (table_away(c) > 0) {
            mark_let_wait(c, c->base, CHUNK_PAGES);
        }
    }
    lock_release(&cold_lock);
    thread_allow_signals(mask);
}

void mark_look(void) {
    bool may = missing_lends() && !atomic_load(&is_over);
    if (may) {
        signals_arm(claim);
        may = !signals_is_blocked() && signals_is_ready();
    }
    if (may) {
        atomic_store_explicit(&is_marking, true, memory_order_relaxed);
    } else if (atomic_load_explicit(&is_marking, memory_order_relaxed)) {
        remove_all();
    }
}

void mark_give_up(void) {
    if (!atomic_exchange(&is_over, true)) {
        remove_all();
    }
}
