#include "mesh/merge.h"

#include "hardening/slot.h"
#include "mesh/frame.h"
#include "mesh/pages.h"
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
    VMAS_MOST = 2 // that one stretch costs
};

struct lock firn_merge_lock = LOCK_INIT(LOCK_MESH);

static enum { UNTRIED, POSSIBLE, IMPOSSIBLE } possibility;
static _Atomic size_t meshed_pages, meshed_most, copied_pages, vmas, purged_pages;
static size_t vma_budget, merged, refused, over_budget;
static uint64_t longest_ns;

static bool part(struct span *s);

// Where memory is rationed, purged spans are unmapped, and others may settle there.
static bool try_start(void) {
    bool is_rationed = FIRN_ROOT.data.is_sparse || caps_limits()->is_strict_overcommit ||
                       caps_limits()->data_bytes != UINT64_MAX;
    if (is_rationed || !fault_start(FIRN_ROOT.small_base, FIRN_ROOT.small_bytes) ||
        !frame_start()) {
        return false;
    }
    central_set_part(part);
    return true;
}

bool merge_start(void) {
    if (possibility == UNTRIED) {
        possibility = try_start() ? POSSIBLE : IMPOSSIBLE;
    }
    // Again in a forked child, which gave its parent's up.
    bool is_ready = possibility == POSSIBLE && frame_start();
    vma_budget = is_ready ? memfile_vma_budget() : 0;
    return is_ready;
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

void merge_release(struct merge_hold *h) {
    if (h->owner != 0) {
        owner_unlock(h->owner);
    } else {
        lock_release(&class_of(h->span)->lock);
    }
}

void merge_page_mask(uint64_t mask[SEARCH_WORDS], const struct span *s, uintptr_t address,
                     bool with_canaries) {
    const struct class_info *c = span_class(s);
    struct search_span span = {
        .free_slots = s->free,
        .slots = c->slots,
        .slot_bytes = c->bytes,
        .before = with_canaries && FIRN_SLOT_EXTRA > 0,
    };
    search_page_mask(mask, &span, (unsigned)((address - span_base(s)) >> FIRN_PAGE_SHIFT));
}

static bool is_empty(const uint64_t mask[SEARCH_WORDS]) {
    return (mask[0] | mask[1] | mask[2] | mask[3]) == 0;
}

unsigned merge_purge_empty(struct span *s) {
    uintptr_t base = span_base(s);
    uintptr_t end = base + span_class(s)->span_mask + 1;
    unsigned purged = 0;
    for (uintptr_t at = base; at < end;) {
        uintptr_t from = at;
        uint64_t mask[SEARCH_WORDS] = {0};
        for (; at < end && pages_kind(pages_get(at)) == PAGES_PRIVATE; at += FIRN_PAGE) {
            merge_page_mask(mask, s, at, false);
            if (!is_empty(mask)) {
                break;
            }
            pages_set(at, pages_entry(PAGES_PURGED, 0));
            purged++;
        }
        if (at > from) {
            page_state_release(from, at - from);
            map_purge(from, at - from);
        }
        at += FIRN_PAGE;
    }
    atomic_fetch_add_explicit(&purged_pages, purged, memory_order_relaxed);
    return purged;
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

// What is mapped in one call: the page, and empty ones beside it that would else each be a mapping more.
struct stretch {
    uintptr_t start;
    size_t pages;
    uint32_t frame; // of the first
};

// Nothing of the page is in use, not even a canary that somebody may look at.
static bool is_filler(const struct span *s, uintptr_t address) {
    uint64_t mask[SEARCH_WORDS];
    if (pages_kind(pages_get(address)) != PAGES_PURGED) {
        return false;
    }
    merge_page_mask(mask, s, address, true);
    return is_empty(mask);
}

static struct stretch plan_stretch(const struct span *s, uintptr_t address, uint32_t frame) {
    uintptr_t base = span_base(s);
    uintptr_t end = base + span_class(s)->span_mask + 1;
    struct stretch x = {address, 1, frame};
    while (x.start > base && frame_place(x.frame) > 0 && x.frame > 1 &&
           is_filler(s, x.start - FIRN_PAGE)) {
        x.start -= FIRN_PAGE;
        x.frame--;
        x.pages++;
    }
    for (uintptr_t at = address + FIRN_PAGE;
         at < end && frame_place(x.frame) + x.pages < FRAME_BLOCK && is_filler(s, at);
         at += FIRN_PAGE) {
        x.pages++;
    }
    return x;
}

static void note_merged(const struct stretch *x, uintptr_t address, uint64_t began_ns) {
    for (size_t i = 0; i < x->pages; i++) {
        uintptr_t at = x->start + (i << FIRN_PAGE_SHIFT);
        merge_note_entry(
            at, pages_entry(at == address ? PAGES_MESHED : PAGES_FILLER, x->frame + (uint32_t)i));
    }
    size_t now = atomic_fetch_add_explicit(&meshed_pages, 1, memory_order_relaxed) + 1;
    if (now > atomic_load_explicit(&meshed_most, memory_order_relaxed)) {
        atomic_store_explicit(&meshed_most, now, memory_order_relaxed);
    }
    merged++;
    uint64_t took_ns = clock_ns() - began_ns;
    longest_ns = took_ns > longest_ns ? took_ns : longest_ns;
}

// The page at `address` is staged by us. What was lost on the way is still in the frame.
static bool exchange(const struct stretch *x, uintptr_t address, uint32_t frame,
                     const uint64_t mask[SEARCH_WORDS]) {
    bool is_lost = false;
    merge_copy_granules(mask, address, frame_view(frame));
    if (frame_map(x->frame, x->start, x->pages, &is_lost)) {
        fault_publish(address, FIRN_PAGE);
        return true;
    }
    if (is_lost) {
        merge_copy_granules(mask, frame_view(frame), address);
        fault_publish(address, FIRN_PAGE);
        fault_adopt(x->start, x->pages << FIRN_PAGE_SHIFT);
    } else {
        fault_release(address, FIRN_PAGE);
    }
    return false;
}

static enum merge_result merge_held(struct span *s, uintptr_t address, uint32_t frame) {
    uint64_t mask[SEARCH_WORDS];
    struct frame *f = frame_at(frame);
    merge_page_mask(mask, s, address, true);
    if (pages_kind(pages_get(address)) != PAGES_PRIVATE || !search_is_disjoint(mask, f->used)) {
        return MERGE_CHANGED;
    }
    if (atomic_load_explicit(&vmas, memory_order_relaxed) + VMAS_MOST > vma_budget) {
        over_budget++;
        return MERGE_BUDGET;
    }
    if (!frame_hold(frame)) {
        return MERGE_CHANGED;
    }
    struct stretch x = plan_stretch(s, address, frame);
    uint64_t began_ns = clock_ns();
    if (!fault_stage(address, FIRN_PAGE) || !exchange(&x, address, frame, mask)) {
        frame_release(frame);
        refused++;
        return MERGE_REFUSED;
    }
    note_merged(&x, address, began_ns);
    for (unsigned w = 0; w < SEARCH_WORDS; w++) {
        f->used[w] |= mask[w];
    }
    s->mesh |= SPAN_MESHED;
    return MERGE_DONE;
}

enum merge_result merge_page(uintptr_t address, uint32_t frame, bool is_forced) {
    struct merge_hold h;
    struct span *s = merge_span_of(address);
    enum merge_result result = MERGE_CHANGED;
    if (merge_acquire(s, &h)) {
        if (is_forced || (s->mesh & SPAN_TOUCHED) == 0) {
            result = merge_held(s, address, frame);
        }
        merge_release(&h);
    }
    return result;
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
    s->mesh &= (uint8_t)~SPAN_MESHED;
    return true;
}

size_t merge_meshed_pages(void) {
    return atomic_load_explicit(&meshed_pages, memory_order_relaxed);
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
    };
}
