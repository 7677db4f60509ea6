#include "mesh/merge.h"

#include "hardening/canary.h"
#include "hardening/link.h"
#include "mesh/exchange.h"
#include "mesh/frame.h"
#include "mesh/pages.h"
#include "mesh/plan.h"
#include "src/base/bits.h"
#include "src/base/fatal.h"
#include "src/meta/page_state.h"
#include "src/os/caps.h"
#include "src/os/clock.h"
#include "src/os/fault.h"
#include "src/os/map.h"
#include "src/os/memfile.h"
#include "src/slab/central.h"
#include "src/slab/owner.h"

#include <string.h>

enum {
    GRANULE = 16,
    VMAS_MOST = 2,       // that one stretch costs
    PAUSE_BUCKETS = 256, // of PAUSE_NS each; the last one holds all that are longer
    PAUSE_NS = 4000
};
#define COUNT_EVERY_NS UINT64_C(1000000000)

struct lock firn_merge_lock = LOCK_INIT(LOCK_MESH);

static enum { UNTRIED, POSSIBLE, IMPOSSIBLE } possibility;
static _Atomic size_t meshed_pages, meshed_most, copied_pages, vmas, purged_pages;
static bool
    can_copy; // pages may be copies from the start, and those written to since are told apart
static size_t others; // mappings of this process that are not these: merge_count_others
static size_t vma_budget, budget_wanted, merged, refused, over_budget;
static uint64_t longest_ns;
static uint64_t pauses[PAUSE_BUCKETS]; // by their length

static bool part(struct span *s);

// Where memory is rationed, purged spans are unmapped, and others may settle there.
static bool is_rationed(void) {
    return FIRN_ROOT.data.is_sparse || caps_limits()->is_strict_overcommit ||
           caps_limits()->data_bytes != UINT64_MAX;
}

static bool try_start(void) {
    if (!fault_start(FIRN_ROOT.small_base, FIRN_ROOT.small_bytes) || !frame_start()) {
        return false;
    }
    central_set_part(part);
    return true;
}

void merge_count_others(void) {
    static uint64_t counted_ns;
    uint64_t now = clock_ns();
    if (counted_ns == 0 || now - counted_ns > COUNT_EVERY_NS) {
        others = memfile_count_others(atomic_load_explicit(&vmas, memory_order_relaxed));
        counted_ns = now;
    }
}

bool merge_start(void) {
    if (is_rationed()) { // from the start, or meanwhile (heap/ration.h)
        possibility = IMPOSSIBLE;
    }
    if (possibility == UNTRIED) {
        possibility = try_start() ? POSSIBLE : IMPOSSIBLE;
    }
    // Again in a forked child, which gave its parent's up.
    bool is_ready = possibility == POSSIBLE && frame_start();
    uint64_t written;
    can_copy = is_ready && memfile_can_map_copies() &&
               memfile_find_written(FIRN_ROOT.small_base, FIRN_PAGE, &written);
    vma_budget = is_ready ? memfile_vma_budget(others) : 0;
    if (budget_wanted > 0 && budget_wanted < vma_budget) {
        vma_budget = budget_wanted;
    }
    return is_ready;
}

void merge_end(void) {
    lock_acquire(&firn_merge_lock);
    possibility = IMPOSSIBLE;
    frame_seal();
    lock_release(&firn_merge_lock);
}

void merge_set_budget(size_t wanted) {
    budget_wanted = wanted;
}

bool merge_is_possible(void) {
    return possibility != IMPOSSIBLE;
}

// ---- spans ------------------------------------------------------------------------------------

struct span *merge_span_of(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    unsigned cell = (unsigned)(offset >> FIRN_ROOT.cell_shift);
    return span_at(offset, &FIRN_ROOT.classes[root_cell_class(cell)]);
}

static uint32_t owner_of(const struct span *s) {
    return span_owner_number(s);
}

static struct central *class_of(const struct span *s) {
    return &firn_central[root_cell_class(s->cell)];
}

// Who owns the span may change until the lock that the owner needs for that is held.
bool merge_acquire(struct span *s, struct merge_hold *h) {
    h->span = s;
    while (span_state(s) == SPAN_ACTIVE) {
        h->owner = owner_of(s);
        if (h->owner != 0) {
            owner_lock(h->owner);
        } else {
            lock_acquire(&class_of(s)->lock);
        }
        if (owner_of(s) == h->owner && span_state(s) == SPAN_ACTIVE) {
            return true;
        }
        merge_release(h);
    }
    return false;
}

bool merge_move_on(struct merge_hold *h, struct span *s) {
    bool is_same =
        class_of(s) == class_of(h->span) && span_state(s) == SPAN_ACTIVE && owner_of(s) == h->owner;
    h->span = is_same ? s : h->span;
    return is_same;
}

void merge_release(struct merge_hold *h) {
    if (h->owner != 0) {
        owner_unlock(h->owner);
    } else {
        lock_release(&class_of(h->span)->lock);
    }
}

// Handed out next, its owner may write the canary in front of it (hardening/slot.c).
static void leading_slots(uint64_t leading[SPAN_WORDS], const struct span *s) {
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        leading[w] = ~(s->free[w] | atomic_load_explicit(&s->live[w], memory_order_relaxed));
    }
}

static unsigned page_of(const struct span *s, uintptr_t address) {
    return (unsigned)((address - span_base(s)) >> FIRN_PAGE_SHIFT);
}

static void page_mask(uint64_t mask[SEARCH_WORDS], const struct span *s, uintptr_t address,
                      bool has_leading) {
    const struct class_info *c = span_class(s);
    uint64_t leading[SPAN_WORDS];
    struct search_span span = {.free_slots = s->free, .slots = c->slots, .slot_bytes = c->bytes};
    if (has_leading) {
        leading_slots(leading, s);
        span.leading = leading;
    }
    search_page_mask(mask, &span, page_of(s, address));
}

void merge_page_mask(uint64_t mask[SEARCH_WORDS], const struct span *s, uintptr_t address) {
    page_mask(mask, s, address, FIRN_CANARY);
}

void merge_content_mask(uint64_t mask[SEARCH_WORDS], const struct span *s, uintptr_t address) {
    page_mask(mask, s, address, false);
}

bool merge_is_settled(const struct span *s, uintptr_t address) {
    const struct class_info *c = span_class(s);
    uintptr_t base = span_base(s);
    uint32_t within = (uint32_t)(address - base);
    unsigned last = (within + FIRN_PAGE) / c->bytes;
    for (unsigned i = within / c->bytes; FIRN_CANARY && i <= last && i < c->slots; i++) {
        bool is_free = (s->free[i / 64] & span_bit(i)) != 0;
        uintptr_t slot = base + i * (uintptr_t)c->bytes;
        if (!is_free && span_is_live(s, i) && canary_is_unset(slot, canary_load(slot, c->bytes))) {
            return false;
        }
    }
    atomic_thread_fence(memory_order_acquire); // pairs with canary_store of the slot's own
    return true;
}

// What other threads freed counts as free if its tag is whole. (Else its owner will find out.)
static void given_slots(uint64_t given[SPAN_WORDS], const struct span *s) {
    uintptr_t base = span_base(s);
    uint32_t bytes = span_class(s)->bytes;
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        given[w] = s->free[w];
        uint64_t rest = atomic_load_explicit(&s->remote[w], memory_order_seq_cst) & ~s->free[w];
        for (; rest != 0; rest &= rest - 1) {
            unsigned slot = w * 64 + bits_lowest(rest);
            uintptr_t address = base + slot * (uintptr_t)bytes;
            if (!FIRN_SAFE_LINK ||
                link_decode(link_load(address), address, s->secret) == (int)slot) {
                given[w] |= span_bit(slot);
            }
        }
    }
}

// An idle owner never takes back what others freed: the pages go all the same, tags and all, and the span
// is marked, so that its owner misses none of them.
unsigned merge_purge_empty(struct span *s, struct purge_list *l) {
    const struct class_info *c = span_class(s);
    uintptr_t base = span_base(s);
    uintptr_t end = base + c->span_mask + 1;
    uint64_t given[SPAN_WORDS];
    struct search_span span = {.free_slots = given, .slots = c->slots, .slot_bytes = c->bytes};
    unsigned purged = 0;
    given_slots(given, s);
    if (memcmp(given, s->free, sizeof given) != 0) {
        span_set_mesh(s, SPAN_DROPPED, 0);
    }
    for (uintptr_t at = base; at < end;) {
        uintptr_t from = at;
        uint64_t mask[SEARCH_WORDS];
        for (; at < end && pages_kind(pages_get(at)) == PAGES_PRIVATE; at += FIRN_PAGE) {
            search_page_mask(mask, &span, page_of(s, at));
            if (!search_is_empty(mask)) {
                break;
            }
            pages_set(at, pages_entry(PAGES_PURGED, 0));
            purged++;
        }
        if (at > from) {
            if (page_state_is_inherited(from, at - from)) {
                page_state_purge(from, at - from);
            } else {
                page_state_release(from, at - from);
                purge_add(l, from, at - from);
            }
        }
        at += FIRN_PAGE;
    }
    atomic_fetch_add_explicit(&purged_pages, purged, memory_order_relaxed);
    return purged;
}

// ---- pauses -----------------------------------------------------------------------------------

static void note_pause(uint64_t ns) {
    uint64_t bucket = ns / PAUSE_NS;
    pauses[bucket < PAUSE_BUCKETS ? bucket : PAUSE_BUCKETS - 1]++;
    longest_ns = ns > longest_ns ? ns : longest_ns;
}

// Not shorter than 99 of 100.
static uint64_t pause_p99(void) {
    uint64_t all = 0, seen = 0;
    for (unsigned i = 0; i < PAUSE_BUCKETS; i++) {
        all += pauses[i];
    }
    for (unsigned i = 0; i < PAUSE_BUCKETS; i++) {
        seen += pauses[i];
        if (all > 0 && seen * 100 >= all * 99) {
            uint64_t bound = (i + 1) * (uint64_t)PAUSE_NS;
            return bound < longest_ns ? bound : longest_ns;
        }
    }
    return longest_ns;
}

// ---- merging ----------------------------------------------------------------------------------

void merge_copy_granules(const uint64_t mask[SEARCH_WORDS], uintptr_t from, uintptr_t to) {
    for (unsigned w = 0; w < SEARCH_WORDS; w++) {
        for (uint64_t rest = mask[w]; rest != 0; rest &= rest - 1) {
            size_t at = (w * 64 + (unsigned)__builtin_ctzll(rest)) * (size_t)GRANULE;
            memcpy((void *)(to + at), (const void *)(from + at), GRANULE);
        }
    }
}

void merge_note_entry(uintptr_t address, uint32_t entry) {
    int copies = (int)pages_is_copy(entry) - (int)pages_is_copy(pages_get(address));
    atomic_fetch_add_explicit(&copied_pages, (size_t)(ptrdiff_t)copies, memory_order_relaxed);
    atomic_fetch_add_explicit(&vmas, (size_t)(ptrdiff_t)pages_vmas(address, entry),
                              memory_order_relaxed);
    pages_set(address, entry);
}

// Nothing of the page is in use, not even a canary that somebody may look at.
static bool is_filler(const struct span *s, uintptr_t address) {
    uint64_t mask[SEARCH_WORDS];
    if (pages_kind(pages_get(address)) != PAGES_PURGED) {
        return false;
    }
    merge_page_mask(mask, s, address);
    return search_is_empty(mask);
}

// The page, and with it its part of the plan, is still what the planner saw, or fits all the same.
static bool is_as_planned(const struct merge_run *run, const struct span *s, unsigned i,
                          struct search_page *now) {
    uintptr_t at = run->address + i * (uintptr_t)FIRN_PAGE;
    const uint64_t *planned = run->planned[i].mask;
    if (search_is_empty(planned)) {
        *now = (struct search_page){{0}};
        return is_filler(s, at) && merge_is_settled(s, at);
    }
    const uint64_t *used = frame_used(run->frame + i);
    merge_page_mask(now->mask, s, at);
    bool fits = pages_kind(pages_get(at)) == PAGES_PRIVATE && merge_is_settled(s, at);
    for (unsigned w = 0; w < SEARCH_WORDS; w++) {
        fits = fits && (now->mask[w] & used[w] & ~planned[w]) == 0;
    }
    return fits;
}

// How many of its first pages are; 0 if none of these occupies anything.
static unsigned count_as_planned(const struct merge_run *run, struct search_page now[]) {
    const struct span *s = merge_span_of(run->address);
    unsigned good = 0, users = 0;
    for (; good < run->pages && is_as_planned(run, s, good, &now[good]); good++) {
        users += !search_is_empty(run->planned[good].mask);
    }
    return users > 0 ? good : 0;
}

// Looked at again once nobody can write: what was being handed out is settled now, or is not merged.
static void settle(struct exchange *x) {
    for (unsigned i = 0; i < x->count; i++) {
        struct merge_run *run = &x->runs[i];
        if (run->done > 0 && count_as_planned(run, exchange_now(x, run)) < run->done) {
            run->done = 0;
            run->result = MERGE_CHANGED;
        }
        // At once: the next run may go to the same frames, and have grown, too.
        for (unsigned k = 0; k < run->done; k++) {
            if (!search_is_empty(run->planned[k].mask)) {
                frame_claim(run->frame + k, exchange_now(x, run)[k].mask);
            }
        }
    }
}

static uintptr_t end_of(const struct merge_run *run) {
    return run->address + ((uintptr_t)run->done << FIRN_PAGE_SHIFT);
}

// Sets `done` to what would be merged now, and the bounds; false if that is nothing.
static bool look_over(struct exchange *t, bool is_forced) {
    t->address = t->end = 0;
    for (unsigned i = 0; i < t->count; i++) {
        struct merge_run *run = &t->runs[i];
        const struct span *s = merge_span_of(run->address);
        bool may = !span_has_mesh(s, SPAN_KEPT) && (is_forced || !span_has_mesh(s, SPAN_TOUCHED));
        run->done = may ? count_as_planned(run, exchange_now(t, run)) : 0;
        run->result = MERGE_CHANGED;
        if (run->done > 0) {
            t->address = t->address == 0 ? run->address : t->address;
            t->end = end_of(run);
        }
    }
    return t->end != 0;
}

static void give_up(struct exchange *t, enum merge_result why) {
    for (unsigned i = 0; i < t->count; i++) {
        t->runs[i].result = t->runs[i].done > 0 ? why : t->runs[i].result;
        t->runs[i].done = 0;
    }
    refused += why == MERGE_REFUSED;
    over_budget += why == MERGE_BUDGET;
}

// Begins and ends the time that others may have to wait.
static void merge_set(struct exchange *x) {
    uint64_t began_ns = clock_ns();
    if (!fault_stage(x->address, x->end - x->address)) {
        give_up(x, MERGE_REFUSED);
        return;
    }
    settle(x);
    exchange_all(x);
    note_pause(clock_ns() - began_ns);
    for (unsigned i = 0; i < x->count; i++) {
        refused += x->runs[i].result == MERGE_REFUSED;
    }
}

static bool has_budget(unsigned runs) {
    return atomic_load_explicit(&vmas, memory_order_relaxed) + (size_t)VMAS_MOST * runs <=
           vma_budget;
}

// Whether the program has changed pages of a span from `s` to that of `address`: they would be staged with the
// rest.
static bool has_kept(const struct span *s, uintptr_t address) {
    bool any = false;
    for (uintptr_t at = span_base(s); at <= address && !any; at += span_class(s)->span_mask + 1) {
        any = span_has_mesh(merge_span_of(at), SPAN_KEPT);
    }
    return any;
}

unsigned merge_runs(struct merge_run runs[], unsigned count, bool is_forced) {
    struct merge_hold h;
    static struct exchange t; // merge_lock's
    t.runs = runs;
    t.count = 1;
    t.are_copies = is_forced && can_copy;
    if (!merge_acquire(merge_span_of(runs[0].address), &h)) {
        runs[0].done = 0;
        runs[0].result = MERGE_CHANGED;
        return 1;
    }
    while (t.count < count && has_budget(t.count + 1) && !has_kept(h.span, runs[t.count].address) &&
           merge_move_on(&h, merge_span_of(runs[t.count].address))) {
        t.count++;
    }
    if (look_over(&t, is_forced)) {
        if (has_budget(1)) {
            merge_set(&t);
        } else {
            give_up(&t, MERGE_BUDGET);
        }
    }
    merge_release(&h);
    return t.count;
}

// ---- parting ----------------------------------------------------------------------------------

// central_part_fn. No live slot: the content is nobody's any more, but what the frames hold besides is
// the partners'.
static bool part(struct span *s) {
    uintptr_t base = span_base(s);
    size_t bytes = (size_t)span_class(s)->span_mask + 1;
    if (!map_renew(&FIRN_ROOT.data, base, bytes)) {
        return false;
    }
    fault_adopt(base, bytes);
    for (uintptr_t at = base; at < base + bytes; at += FIRN_PAGE) {
        uint32_t entry = pages_get(at);
        merge_note_entry(at, pages_entry(PAGES_PURGED, 0));
        if (pages_kind(entry) == PAGES_MESHED) {
            frame_release(pages_frame(entry));
            merge_count_parted(1);
        }
    }
    span_set_mesh(s, 0, SPAN_MESHED);
    return true;
}

size_t merge_meshed_pages(void) {
    return atomic_load_explicit(&meshed_pages, memory_order_relaxed);
}

void merge_count_meshed(size_t pages) {
    size_t now = atomic_fetch_add_explicit(&meshed_pages, pages, memory_order_relaxed) + pages;
    if (now > atomic_load_explicit(&meshed_most, memory_order_relaxed)) {
        atomic_store_explicit(&meshed_most, now, memory_order_relaxed);
    }
    merged += pages;
}

void merge_count_unmeshed(size_t pages) {
    merge_count_parted(pages);
    merged -= pages;
}

void merge_note_unmeshed(struct span *s) {
    uintptr_t base = span_base(s);
    bool any = false;
    for (uintptr_t at = base; at <= base + span_class(s)->span_mask; at += FIRN_PAGE) {
        any = any || pages_is_mapped(pages_get(at));
    }
    if (!any) {
        span_set_mesh(s, 0, SPAN_MESHED);
    }
}

void merge_count_parted(size_t pages) {
    atomic_fetch_sub_explicit(&meshed_pages, pages, memory_order_relaxed);
}

size_t merge_copied_pages(void) {
    return atomic_load_explicit(&copied_pages, memory_order_relaxed);
}

void merge_after_fork_in_child(void) {
    atomic_store_explicit(&meshed_pages, 0, memory_order_relaxed);
    atomic_store_explicit(&copied_pages, 0, memory_order_relaxed);
    atomic_store_explicit(&vmas, 0, memory_order_relaxed);
}

unsigned merge_spent(void) {
    size_t spent = atomic_load_explicit(&vmas, memory_order_relaxed);
    return spent >= vma_budget ? 100 : (unsigned)(spent * 100 / vma_budget);
}

void merge_figures(struct merge_figures *out) {
    *out = (struct merge_figures){
        .pages = atomic_load_explicit(&meshed_pages, memory_order_relaxed),
        .pages_most = atomic_load_explicit(&meshed_most, memory_order_relaxed),
        .vmas = atomic_load_explicit(&vmas, memory_order_relaxed),
        .vma_budget = vma_budget,
        .purged = atomic_load_explicit(&purged_pages, memory_order_relaxed),
        .merged = merged,
        .refused = refused,
        .over_budget = over_budget,
        .longest_ns = longest_ns,
        .p99_ns = pause_p99(),
    };
}
