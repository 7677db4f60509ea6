#include "src/cold/freeze.h"

#include "src/base/fatal.h"
#include "src/cold/age.h"
#include "src/cold/claim.h"
#include "src/cold/hint.h"
#include "src/cold/mark.h"
#include "src/cold/mask.h"
#include "src/cold/pace.h"
#include "src/cold/stage.h"
#include "src/cold/table.h"
#include "src/cold/take.h"
#include "src/cold/thaw.h"
#include "src/meta/page_state.h"
#include "src/os/clock.h"
#include "src/os/map.h"
#include "src/os/missing.h"
#include "src/os/sys.h"
#include "src/os/thread.h"

#include <string.h>

enum {
    LEAST_MS = 1000, // between two looks, where memory is short
    BATCH = 64,      // pages staged at once
    POOR_MOST = 32,  // pages in a row that did not get smaller: their neighbours are spared
    POOR_TRIES = 16, // but for one in so many
    MS = 1000000     // ns
};

static uint64_t pages_there; // at this look, so far

// Where each page is a guess. A look that had no more to give is gone on with by the next one.
static struct {
    struct trial trial; // of the whole heap
    uint32_t chunk,
        reached;    // numbers, from 1 on: of the one that is looked at; of the last that got some
    uint32_t first; // none before that gets any at this look
} guess;
static _Atomic int thread;
static _Atomic(const char *) refusal; // of the last look

static struct { _Atomic uint64_t frozen, zeros, poor, spared, full; } figures;

static void count(_Atomic uint64_t *figure, uint64_t n) {
    atomic_fetch_add_explicit(figure, n, memory_order_relaxed);
}

void freeze_configure(uint64_t after_ms, unsigned cpu_percent) {
    age_configure(after_ms);
    pace_configure(cpu_percent);
}

static uint64_t now_ms(void) {
    return clock_coarse_ns() / MS;
}

// ---- looking ------------------------------------------------------------------------------------

// Its neighbours did not get smaller: random bytes, or compressed ones, come in crowds.
static bool is_hopeless(const struct chunk *c, uintptr_t address) {
    return c->poor >= POOR_MOST && table_index(c, address) % POOR_TRIES != 0;
}

// Whether an idle page may go. What it belongs to may be freed meanwhile: then it is only a guess that was
// wrong. But whether it is in use is asked after the page was tracked: what was released before is seen not
// to be, and what is released from now on is tracked no more.
static bool is_wanted(struct chunk *c, uintptr_t address) {
    struct cold_page *p = table_page(c, address);
    if (is_hopeless(c, address)) {
        return false;
    }
    if (p->rest > 0) {
        p->rest--;
        return false;
    }
    return age_is_idle(p->idle, now_ms()) && p->holds == HOLDS_NOTHING &&
           !table_is_excluded(c, address) && claim_is_in_use(address);
}

// With cold_lock. The kernel knows the page; so do we now.
static void track(struct cold_page *p, uintptr_t address) {
    if (page_state_get(address) == PAGE_FRESH && p->holds == HOLDS_NOTHING) {
        (void)!page_state_move(address, PAGE_FRESH, PAGE_RESIDENT);
        p->heat = p->rest = 0; // what it was like before it was given back says nothing
    }
    if (page_state_get(address) == PAGE_RESIDENT) {
        (void)!page_state_move(address, PAGE_RESIDENT, PAGE_TRACKED);
    }
}

static bool take_bit(_Atomic uint64_t *words, unsigned i) {
    uint64_t bit = (uint64_t)1 << i % 64;
    return FIRN_UNLIKELY((atomic_load_explicit(&words[i / 64], memory_order_relaxed) & bit) != 0) &&
           (atomic_fetch_and_explicit(&words[i / 64], ~bit, memory_order_relaxed) & bit) != 0;
}

// Where nothing tells of writes: whether blocks on the page were allocated or freed, and so written to, since the
// last look. What is new, libc's own included, is in use, and the kernel may be at it.
static bool is_used(struct chunk *c, uintptr_t address) {
    if (missing_engine() != FAULT_PROTECT) {
        return false;
    }
    uint16_t *before = &c->uses[table_index(c, address)];
    uint16_t now = claim_fingerprint(address);
    bool is_changed = now != *before;
    *before = now;
    return is_changed;
}

// Of up to 64 pages, a bit for each that may go.
static uint64_t judge(struct chunk *c, uintptr_t address, uint32_t n,
                      const struct missing_run *run) {
    uint64_t wanted = 0;
    lock_acquire(&cold_lock);
    for (uint32_t i = 0; i < n; i++) {
        uintptr_t at = address + ((uintptr_t)i << FIRN_PAGE_SHIFT);
        struct cold_page *p = table_page(c, at);
        track(p, at);
        // What is not in use may be at any moment, and is new then.
        bool is_hot = run->is_written || is_used(c, at);
        is_hot |= take_bit(c->wanted, table_index(c, at)) || !claim_is_in_use(at);
        p->idle = is_hot || !run->is_plain ? 0 : (uint8_t)(p->idle + (p->idle < 255));
        wanted |= (uint64_t)is_wanted(c, at) << i;
    }
    lock_release(&cold_lock);
    return wanted;
}

// Of the pages that seem to be idle.
static uint64_t guess_some(struct chunk *c, uint64_t wanted) {
    return guess.chunk >= guess.first ? trial_take(&c->trial, &guess.trial, wanted) : 0;
}

// A hundredth of a processor, or less, is bearable, and an eighth of what was taken of a chunk.
static void begin_guessing(void) {
    enum { RETURNS_A_SECOND = 200, LEAST = 64 };
    static const struct trial_limits limits = {1024, LEAST, 1 << 24};
    uint64_t bearable = RETURNS_A_SECOND * age_look_ms() / 1000;
    guess.first = guess.trial.left == 0 ? guess.reached : 0;
    guess.chunk = 0;
    trial_begin(&guess.trial, &limits, bearable > LEAST ? bearable : LEAST, thaw_returned());
}

static void begin_guessing_in(struct chunk *c) {
    static const struct trial_limits limits = {8, 1, CHUNK_PAGES};
    guess.chunk++;
    guess.reached = guess.trial.left != 0 ? guess.chunk : guess.reached;
    trial_begin(&c->trial, &limits, c->trial.most / 8,
                atomic_load_explicit(&c->returns, memory_order_relaxed));
}

static void look_at_run(struct chunk *c, const struct missing_run *run) {
    pages_there += (run->end - run->start) >> FIRN_PAGE_SHIFT;
    for (uintptr_t at = run->start; at < run->end; at += (uintptr_t)BATCH << FIRN_PAGE_SHIFT) {
        uintptr_t pages = (run->end - at) >> FIRN_PAGE_SHIFT;
        uint64_t wanted = judge(c, at, pages < BATCH ? (uint32_t)pages : BATCH, run);
        if (missing_engine() == FAULT_PROTECT) {
            wanted = guess_some(c, wanted);
        }
        take_pages(c, at, wanted, age_due_ms(now_ms()));
    }
}

// What page_state_release left behind.
static void sweep(struct chunk *c) {
    if (table_away(c) == 0) {
        return;
    }
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        struct cold_page *p = &c->pages[i];
        if (i % BATCH == 0) {
            lock_acquire(&cold_lock);
        }
        enum page_state state = page_state_get(c->base + ((uintptr_t)i << FIRN_PAGE_SHIFT));
        if (p->holds != HOLDS_NOTHING && state != PAGE_STAGED && state != PAGE_FROZEN) {
            if (p->holds == HOLDS_BLOB) {
                cold_store_drop(p->at.blob);
            }
            p->holds = HOLDS_NOTHING;
            table_count_away(c, -1);
        }
        if (i % BATCH == BATCH - 1) {
            lock_release(&cold_lock);
        }
    }
}

// ---- chunks -------------------------------------------------------------------------------------

static void look_at_chunk(uintptr_t base, uintptr_t end) {
    static struct missing_run runs[CHUNK_PAGES];
    struct chunk *c = table_make(base);
    if (c == NULL || !claim_keep(c, end)) {
        return;
    }
    sweep(c);
    begin_guessing_in(c);
    if (thaw_children() == 0) {
        int n = missing_scan(c->base, c->registered, runs, CHUNK_PAGES);
        for (int i = 0; i < n; i++) {
            look_at_run(c, &runs[i]);
        }
    }
    pace_keep();
}

// ---- freezing -----------------------------------------------------------------------------------

// With cold_lock.
static bool is_in_slot(struct chunk *c, uintptr_t address, uint32_t slot) {
    const struct cold_page *p = c != NULL ? table_page(c, address) : NULL;
    return p != NULL && p->holds == HOLDS_SLOT && p->at.slot == slot &&
           page_state_get(address) == PAGE_STAGED;
}

// With cold_lock. Else it was released at this moment.
static void give_zeros(struct chunk *c, uintptr_t address) {
    if (page_state_move(address, PAGE_STAGED, PAGE_THAWING)) {
        mark_remove(c, address);
        if (missing_holes_fail()) { // see claim.c
            (void)missing_fill_zero(MISSING_SELF, address, FIRN_PAGE);
        }
        FIRN_ENSURE(page_state_move(address, PAGE_THAWING, PAGE_RESIDENT));
        (void)!page_state_move(address, PAGE_RESIDENT, PAGE_FRESH);
    }
}

// With cold_lock: `put` is what the store said of the page, which is where it was. False: not yet.
static bool conclude(struct chunk *c, uintptr_t address, enum cold_put put, struct cold_blob blob) {
    struct cold_page *p = table_page(c, address);
    switch (put) {
    case COLD_STORED:
        p->at.blob = blob;
        p->holds = HOLDS_BLOB;
        p->generation++;
        p->heat = (uint8_t)(p->heat > 0 ? p->heat - 1 : 0);
        // Else it was released at this moment: the next sweep finds the blob. Whoever releases it while its memory
        // is given back waits.
        if (page_state_move(address, PAGE_STAGED, PAGE_THAWING)) {
            missing_drop_moved(address);
            FIRN_ENSURE(page_state_move(address, PAGE_THAWING, PAGE_FROZEN));
        }
        c->poor = 0;
        count(&figures.frozen, 1);
        return true;
    case COLD_ZERO:
        p->holds = HOLDS_NOTHING;
        table_count_away(c, -1);
        give_zeros(c, address);
        count(&figures.zeros, 1);
        return true;
    case COLD_POOR:
    case COLD_FULL:
    default:
        count(put == COLD_POOR ? &figures.poor : &figures.full, 1);
        c->poor += put == COLD_POOR && c->poor < POOR_MOST;
        table_leave_alone(p, 16);
        return thaw_page(c, address) != MISSING_AGAIN;
    }
}

// Masks the copy. A page of zeros is dropped, but under `protect`, where to show it alone takes mappings.
static enum cold_put put_away(uintptr_t address, uint32_t generation, char *copy,
                              struct cold_blob *blob) {
    // Before masking: what is zeros then may not be now.
    if (missing_engine() != FAULT_PROTECT && cold_store_is_zero(copy)) {
        return COLD_ZERO;
    }
    mask_page(address, copy);
    return cold_store_put(address, generation, copy, blob);
}

// False: later.
static bool freeze_slot(uint32_t slot, uintptr_t address) {
    struct chunk *c = table_find(address);
    struct cold_blob blob = {0};
    lock_acquire(&cold_lock);
    bool is_staged = is_in_slot(c, address, slot);
    bool may_go = thaw_children() == 0;
    uint32_t generation = is_staged ? table_page(c, address)->generation + 1 : 0;
    bool is_spared = is_staged && may_go && is_hopeless(c, address);
    if (is_spared) {
        count(&figures.spared, 1);
        is_spared = thaw_page(c, address) != MISSING_AGAIN;
        may_go = false;
    }
    lock_release(&cold_lock);
    if (!is_staged || !may_go) {
        return !is_staged || is_spared;
    }
    // A touch meanwhile takes the page away from under this; what is read then is of no account. A copy,
    // since a compressor may rely on what it reads to stay as it is.
    static _Alignas(FIRN_PAGE) char copy[FIRN_PAGE];
    enum cold_put put = COLD_FULL;
    if (missing_read_moved(address, stage_address(slot), copy)) {
        put = put_away(address, generation, copy, &blob);
    }
    lock_acquire(&cold_lock);
    bool is_done = true;
    is_staged = is_in_slot(c, address, slot);
    if (is_staged) {
        is_done = thaw_children() == 0 && conclude(c, address, put, blob);
    }
    lock_release(&cold_lock);
    if (put == COLD_STORED && (!is_staged || !is_done)) {
        cold_store_drop(blob);
    }
    return is_done;
}

static void freeze_due(void) {
    uint32_t slot;
    uintptr_t address;
    uint64_t due;
    for (unsigned i = 1; stage_oldest(&slot, &address, &due); i++) {
        if ((int32_t)((uint32_t)now_ms() - (uint32_t)due) < 0 || !freeze_slot(slot, address)) {
            break;
        }
        stage_give_oldest();
        if (i % BATCH == 0) {
            stage_flush();
            pace_keep();
        }
    }
    stage_flush();
}

// ---- what the program says ------------------------------------------------------------------------

// Without waiting for those that were staged before. The slots are handed back when it is their turn, their
// memory now. (Not of a page that was released, and not yet swept: its slot may be another's by now.)
static void freeze_now(struct chunk *c, uintptr_t from, uint64_t wanted) {
    for (; wanted != 0; wanted &= wanted - 1) {
        uintptr_t at = from + ((uintptr_t)__builtin_ctzll(wanted) << FIRN_PAGE_SHIFT);
        const struct cold_page *p = table_page(c, at);
        lock_acquire(&cold_lock);
        uint32_t slot = is_in_slot(c, at, p->at.slot) ? p->at.slot : STAGE_NONE;
        lock_release(&cold_lock);
        if (slot != STAGE_NONE && freeze_slot(slot, at) && missing_engine() != FAULT_PROTECT) {
            map_purge(stage_address(slot), FIRN_PAGE);
        }
    }
    pace_keep();
}

// The pages that the program does not need: now, however often they were touched.
static void take_wishes(struct chunk *c, unsigned word) {
    static struct missing_run runs[BATCH];
    uint64_t wished = atomic_exchange_explicit(&c->wished[word], 0, memory_order_relaxed);
    uintptr_t from = c->base + (uintptr_t)word * BATCH * FIRN_PAGE;
    uintptr_t known = c->base + c->registered;
    size_t bytes = known > from ? known - from : 0;
    bytes = bytes < (size_t)BATCH * FIRN_PAGE ? bytes : (size_t)BATCH * FIRN_PAGE;
    int n = wished != 0 && bytes != 0 ? missing_scan(from, bytes, runs, BATCH) : 0;
    uint64_t present = 0;
    lock_acquire(&cold_lock);
    for (int i = 0; i < n; i++) {
        for (uintptr_t at = runs[i].start; runs[i].is_plain && at < runs[i].end; at += FIRN_PAGE) {
            track(table_page(c, at), at); // first, as in judge
            if (claim_is_in_use(at) && !table_is_excluded(c, at)) {
                present |= (uint64_t)1 << (at - from) / FIRN_PAGE;
            }
        }
    }
    lock_release(&cold_lock);
    take_pages(c, from, wished & present, now_ms());
    freeze_now(c, from, wished & present);
}

static void look_at_wishes(void) {
    if (thaw_children() == 0) {
        claim_each_wished(take_wishes);
    }
}

// With cold_lock. False: not now, as a fork is under way.
static bool bring_back(struct chunk *c, unsigned i) {
    struct cold_page *p = &c->pages[i];
    uintptr_t at = c->base + ((uintptr_t)i << FIRN_PAGE_SHIFT);
    enum page_state state = page_state_get(at);
    if (p->holds == HOLDS_NOTHING || (state != PAGE_STAGED && state != PAGE_FROZEN)) {
        return true;
    }
    table_leave_alone(p, 1);
    return thaw_page(c, at) != MISSING_AGAIN;
}

// What was wished away before is not any more.
static void bring_all_back(void) {
    for (struct chunk *c = table_first(); c != NULL; c = c->next) {
        for (unsigned w = 0; w < CHUNK_WORDS; w++) {
            atomic_store_explicit(&c->wished[w], 0, memory_order_relaxed);
        }
        for (unsigned i = 0; i < CHUNK_PAGES && table_away(c) > 0;) {
            lock_acquire(&cold_lock);
            bool is_done = true;
            for (unsigned until = i + BATCH / 4; i < until && is_done; i += is_done) {
                is_done = bring_back(c, i);
            }
            lock_release(&cold_lock);
            if (!is_done) {
                thread_sleep(MS); // the other thread reads of the fork
            }
        }
    }
}

// Something came up by which no page may be away: what is comes back, and nothing goes.
static bool is_refused(void) {
    const char *why = missing_refusal();
    atomic_store_explicit(&refusal, why, memory_order_release);
    if (why != NULL) {
        bring_all_back();
    }
    return why != NULL;
}

// True when it is to be looked now.
static bool obey(void) {
    uint32_t number;
    if (hint_is_thaw_due(&number)) {
        bring_all_back();
        hint_note_thawed(number);
    }
    if (hint_take_call() && !is_refused()) {
        look_at_wishes();
    }
    bool is_short = hint_take_press();
    if (is_short) {
        age_press(now_ms());
    }
    return is_short;
}

static void look(uint64_t now) {
    if (is_refused()) {
        return;
    }
    begin_guessing();
    pages_there = 0;
    mark_look();
    claim_each(look_at_chunk);
    age_note(now, thaw_waited(), pages_there);
}

void freeze_run(void) {
    atomic_store_explicit(&thread, sys_thread_id(), memory_order_relaxed);
    pace_start();
    for (uint64_t last_look = 0;;) {
        bool is_pressed = obey();
        uint64_t look_ms = age_look_ms();
        uint64_t now = now_ms();
        if (now >= last_look + (is_pressed && look_ms > LEAST_MS ? LEAST_MS : look_ms)) {
            last_look = now;
            look(now);
        }
        freeze_due();
        while (cold_store_tidy()) {
            pace_keep();
        }
        pace_keep();
        uint64_t passed = now_ms() - last_look;
        uint64_t left = passed < look_ms ? look_ms - passed : 0;
        hint_sleep((left < age_step_ms(now) ? left : age_step_ms(now)) * MS);
    }
}

void freeze_figures(struct freeze_figures *out) {
    uint64_t away = 0;
    for (struct chunk *c = table_first(); c != NULL; c = c->next) {
        away += table_away(c);
    }
    *out = (struct freeze_figures){
        .frozen = atomic_load_explicit(&figures.frozen, memory_order_relaxed),
        .zeros = atomic_load_explicit(&figures.zeros, memory_order_relaxed),
        .poor = atomic_load_explicit(&figures.poor, memory_order_relaxed),
        .spared = atomic_load_explicit(&figures.spared, memory_order_relaxed),
        .full = atomic_load_explicit(&figures.full, memory_order_relaxed),
        .thread = atomic_load_explicit(&thread, memory_order_relaxed),
        .chunks = claim_count(),
        .away = away,
        .refusal = atomic_load_explicit(&refusal, memory_order_acquire),
    };
    take_figures(&out->staged, &out->refused);
}
