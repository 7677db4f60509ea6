#include "src/cold/swapper.h"

#include "src/cold/age.h"
#include "src/cold/claim.h"
#include "src/cold/hint.h"
#include "src/cold/pace.h"
#include "src/cold/table.h"
#include "src/os/clock.h"
#include "src/os/missing.h"
#include "src/os/swap.h"
#include "src/os/sys.h"

enum {
    LEAST_MS = 1000,       // between two looks, where memory is short
    BATCH = 64,            // pages handed over at once
    ROOM_PARTS = 32,       // one part in so many of the swap is left to others
    TRIED_LEAST = 64,      // pages of a look of which none was taken: the kernel will not
    HELD_MS = 60000,       // for which it is then not asked, at first
    HELD_MOST_MS = 960000, // and at most
    MS = 1000000           // ns
};

static uint64_t pages_there; // at this look, so far
static uint64_t tried, taken;
static uint64_t held_until_ms, held_ms = HELD_MS;

static struct {
    _Atomic uint64_t out, back, refused, full;
    _Atomic(const char *) off, held;
    _Atomic int thread;
} figures;

static void count(_Atomic uint64_t *figure, uint64_t n) {
    atomic_fetch_add_explicit(figure, n, memory_order_relaxed);
}

static uint64_t now_ms(void) {
    return clock_coarse_ns() / MS;
}

// ---- room -----------------------------------------------------------------------------------------

static void note(const char *off, const char *held) {
    atomic_store_explicit(&figures.off, off, memory_order_relaxed);
    atomic_store_explicit(&figures.held, held, memory_order_relaxed);
}

// Whether pages may go now.
static bool has_room(void) {
    struct swap_room room;
    swap_look(&room);
    if (room.total_bytes == 0) {
        note("no swap is on: swapon some, or cold_store=firn", NULL);
    } else if (room.free_bytes < room.total_bytes / ROOM_PARTS) {
        note(NULL, "swap is full");
    } else if (now_ms() < held_until_ms) {
        note(NULL, "the kernel takes no pages: see memory.swap.max of the control group");
    } else {
        note(NULL, NULL);
        return true;
    }
    return false;
}

static void judge_look(void) {
    if (taken > 0) {
        held_ms = HELD_MS;
    } else if (tried >= TRIED_LEAST) {
        held_until_ms = now_ms() + held_ms;
        held_ms = held_ms < HELD_MOST_MS / 2 ? 2 * held_ms : HELD_MOST_MS;
    }
    tried = taken = 0;
}

// ---- pages ----------------------------------------------------------------------------------------

static void set_out(struct chunk *c, struct cold_page *p, bool is_out) {
    if (is_out != (p->holds == HOLDS_SWAP)) {
        p->holds = is_out ? HOLDS_SWAP : HOLDS_NOTHING;
        table_count_away(c, is_out ? 1 : -1);
    }
}

// One that was freed meanwhile, or that the program said it wants, has not come back for having been read.
static bool take_wanted(struct chunk *c, unsigned i) {
    uint64_t bit = (uint64_t)1 << i % 64;
    return FIRN_UNLIKELY((atomic_load_explicit(&c->wanted[i / 64], memory_order_relaxed) & bit) !=
                         0) &&
           (atomic_fetch_and_explicit(&c->wanted[i / 64], ~bit, memory_order_relaxed) & bit) != 0;
}

static bool may_go(struct chunk *c, uintptr_t address) {
    return !table_is_excluded(c, address) && claim_is_in_use(address);
}

// What stays out for as long as it was left alone was left alone for too long. Others than us put pages out, too.
static void stay_out(struct cold_page *p) {
    p->idle = p->holds == HOLDS_SWAP ? (uint8_t)(p->idle + 1) : 0;
    if (p->idle > 2 << p->heat) {
        p->heat = (uint8_t)(p->heat > 0 ? p->heat - 1 : 0);
        p->idle = 0;
    }
}

static bool judge_page(struct chunk *c, uintptr_t address, const struct missing_run *run) {
    struct cold_page *p = table_page(c, address);
    bool is_wanted = take_wanted(c, table_index(c, address));
    bool was_out = p->holds == HOLDS_SWAP;
    if (was_out && (run->is_there || is_wanted)) {
        set_out(c, p, false);
    }
    if (!run->is_there) {
        stay_out(p);
        return false;
    }
    if (was_out && !is_wanted) {
        count(&figures.back, 1);
        table_leave_alone(p, 1);
    }
    bool is_hot = run->is_written || is_wanted || was_out || !run->is_plain;
    p->idle = is_hot ? 0 : (uint8_t)(p->idle + (p->idle < UINT8_MAX));
    if (p->rest > 0) {
        p->rest--;
        return false;
    }
    return age_is_over(p->idle, now_ms()) && may_go(c, address);
}

// Of the 64 pages from `address` on those with a bit in `wanted`.
static void hand_over(struct chunk *c, uintptr_t address, uint64_t wanted) {
    for (uint64_t left = wanted; left != 0;) {
        unsigned first = (unsigned)__builtin_ctzll(left);
        uint64_t rest = ~(left >> first);
        unsigned n = rest != 0 ? (unsigned)__builtin_ctzll(rest) : BATCH;
        n = n < BATCH - first ? n : BATCH - first;
        swap_put_out(address + ((uintptr_t)first << FIRN_PAGE_SHIFT), (size_t)n << FIRN_PAGE_SHIFT);
        left &= n == BATCH ? 0 : ~((((uint64_t)1 << n) - 1) << first);
    }
    uint64_t out = wanted != 0 ? missing_swapped(address, BATCH) & wanted : 0;
    // What is shared with a child says nothing about the swap.
    uint64_t own = out != wanted ? missing_unshared(address, BATCH) : 0;
    for (uint64_t left = wanted; left != 0; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        struct cold_page *p = table_page(c, address + ((uintptr_t)i << FIRN_PAGE_SHIFT));
        bool is_out = (out >> i & 1) != 0;
        set_out(c, p, is_out);
        p->idle = 0;
        count(is_out ? &figures.out : &figures.refused, 1);
        tried += is_out || (own >> i & 1) != 0;
        taken += is_out;
        if (!is_out) {
            table_leave_alone(p, 1);
        }
    }
}

static void look_at_run(struct chunk *c, const struct missing_run *run, bool may_take) {
    pages_there += run->is_there ? (run->end - run->start) >> FIRN_PAGE_SHIFT : 0;
    for (uintptr_t at = run->start; at < run->end; at += (uintptr_t)BATCH << FIRN_PAGE_SHIFT) {
        uintptr_t pages = (run->end - at) >> FIRN_PAGE_SHIFT;
        uint64_t wanted = 0;
        for (unsigned i = 0; i < pages && i < BATCH; i++) {
            wanted |= (uint64_t)judge_page(c, at + ((uintptr_t)i << FIRN_PAGE_SHIFT), run) << i;
        }
        hand_over(c, at, may_take ? wanted : 0);
    }
}

// What was freed while it was out is not out any more.
static void sweep(struct chunk *c) {
    for (unsigned i = 0; i < CHUNK_PAGES && table_away(c) > 0; i++) {
        struct cold_page *p = &c->pages[i];
        if (p->holds == HOLDS_SWAP && take_wanted(c, i)) {
            set_out(c, p, false);
        }
    }
}

static void look_at_chunk(uintptr_t base, uintptr_t end) {
    static struct missing_run runs[CHUNK_PAGES];
    struct chunk *c = table_make(base);
    if (c == NULL || !claim_keep(c, end)) {
        return;
    }
    sweep(c);
    int n = missing_scan(c->base, c->registered, runs, CHUNK_PAGES);
    bool may_take = n > 0 && has_room();
    for (int i = 0; i < n; i++) {
        look_at_run(c, &runs[i], may_take);
    }
    pace_keep();
}

// Without swap nothing is watched that was not before.
static void look(uint64_t now) {
    pages_there = 0;
    bool has_any = has_room();
    count(&figures.full, !has_any);
    if (has_any || atomic_load_explicit(&figures.off, memory_order_relaxed) == NULL) {
        claim_each(look_at_chunk);
    }
    age_note(now, atomic_load_explicit(&figures.back, memory_order_relaxed), pages_there);
    judge_look();
}

// ---- what the program says ------------------------------------------------------------------------

static void take_wishes(struct chunk *c, unsigned word) {
    static struct missing_run runs[BATCH];
    uint64_t wished = atomic_exchange_explicit(&c->wished[word], 0, memory_order_relaxed);
    uintptr_t from = c->base + (uintptr_t)word * BATCH * FIRN_PAGE;
    uintptr_t known = c->base + c->registered;
    size_t bytes = known > from ? known - from : 0;
    bytes = bytes < (size_t)BATCH * FIRN_PAGE ? bytes : (size_t)BATCH * FIRN_PAGE;
    int n = wished != 0 && bytes != 0 && has_room() ? missing_scan(from, bytes, runs, BATCH) : 0;
    uint64_t present = 0;
    for (int i = 0; i < n; i++) {
        for (uintptr_t at = runs[i].start; at < runs[i].end; at += FIRN_PAGE) {
            bool is_there = runs[i].is_there && runs[i].is_plain && may_go(c, at);
            present |= (uint64_t)is_there << (at - from) / FIRN_PAGE;
        }
    }
    hand_over(c, from, wished & present);
    pace_keep();
}

// What was wished away before is not any more.
static void bring_all_back(void) {
    for (struct chunk *c = table_first(); c != NULL; c = c->next) {
        for (unsigned w = 0; w < CHUNK_WORDS; w++) {
            atomic_store_explicit(&c->wished[w], 0, memory_order_relaxed);
        }
        for (unsigned i = 0; i < CHUNK_PAGES && table_away(c) > 0; i++) {
            struct cold_page *p = &c->pages[i];
            if (p->holds == HOLDS_SWAP) {
                swap_bring_back(c->base + ((uintptr_t)i << FIRN_PAGE_SHIFT), FIRN_PAGE);
                set_out(c, p, false);
                p->idle = 0;
                table_leave_alone(p, 1);
            }
        }
    }
}

// True when it is to be looked now.
static bool obey(void) {
    uint32_t number;
    if (hint_is_thaw_due(&number)) {
        bring_all_back();
        hint_note_thawed(number);
    }
    if (hint_take_call()) {
        claim_each_wished(take_wishes);
        tried = taken = 0;
    }
    bool is_short = hint_take_press();
    if (is_short) {
        age_press(now_ms());
    }
    return is_short;
}

void swapper_run(void) {
    atomic_store_explicit(&figures.thread, sys_thread_id(), memory_order_relaxed);
    pace_start();
    for (uint64_t last_look = 0;;) {
        bool is_pressed = obey();
        uint64_t look_ms = age_look_ms();
        uint64_t now = now_ms();
        if (now >= last_look + (is_pressed && look_ms > LEAST_MS ? LEAST_MS : look_ms)) {
            last_look = now;
            look(now);
        }
        uint64_t passed = now_ms() - last_look;
        hint_sleep((passed < look_ms ? look_ms - passed : 0) * MS);
    }
}

// ---- others' threads --------------------------------------------------------------------------------

bool swapper_release(uintptr_t address, size_t bytes, bool may_wait) {
    (void)may_wait;
    for (uintptr_t at = address, next; at < address + bytes; at = next) {
        struct chunk *c = table_find(at);
        next = (at | (c != NULL ? (uintptr_t)BATCH * FIRN_PAGE - 1 : CHUNK_BYTES - 1)) + 1;
        if (c == NULL) {
            continue;
        }
        unsigned w = table_index(c, at) / 64;
        uintptr_t until = next < address + bytes ? next : address + bytes;
        uint64_t pages = (until - at + FIRN_PAGE - 1) >> FIRN_PAGE_SHIFT;
        uint64_t mask = (pages < 64 ? ((uint64_t)1 << pages) - 1 : UINT64_MAX)
                        << table_index(c, at) % 64;
        if (atomic_load_explicit(&c->is_claimed, memory_order_relaxed)) {
            atomic_fetch_or_explicit(&c->wanted[w], mask, memory_order_relaxed);
        }
        if ((atomic_load_explicit(&c->excluded[w], memory_order_relaxed) & mask) != 0) {
            atomic_fetch_and(&c->excluded[w], ~mask);
        }
    }
    return true;
}

void swapper_figures(struct swapper_figures *out) {
    *out = (struct swapper_figures){
        .out = atomic_load_explicit(&figures.out, memory_order_relaxed),
        .back = atomic_load_explicit(&figures.back, memory_order_relaxed),
        .refused = atomic_load_explicit(&figures.refused, memory_order_relaxed),
        .full = atomic_load_explicit(&figures.full, memory_order_relaxed),
        .off = atomic_load_explicit(&figures.off, memory_order_relaxed),
        .held = atomic_load_explicit(&figures.held, memory_order_relaxed),
        .thread = atomic_load_explicit(&figures.thread, memory_order_relaxed),
    };
}
