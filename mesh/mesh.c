#include "mesh/mesh.h"

#include "mesh/frame.h"
#include "mesh/lend.h"
#include "mesh/merge.h"
#include "mesh/pages.h"
#include "mesh/search.h"
#include "src/base/bits.h"
#include "src/meta/arena.h"
#include "src/os/fault.h"
#include "src/os/thread.h"
#include "src/slab/central.h"
#include "src/span/region.h"

#include <errno.h>

// Candidates of one search. More of them find better groups; they cost 64 bytes each.
enum { BATCH = 2048, FRAMES_MOST = BATCH / 4 };

// What an item of the search stands for.
struct place {
    uintptr_t address; // a page, or
    uint32_t frame;    // a frame in use
};

struct work {
    struct search_item items[BATCH];
    struct place places[BATCH];
    uint16_t order[BATCH];
    unsigned count;
    bool is_forced;
    size_t purged, merged; // pages
};

// Whose pass it is. Not taken around fork: a forked child forgets the pass of a thread it does not have.
static struct lock pass_lock = LOCK_INIT(LOCK_MESH_PASS);
static struct work *work;
static _Atomic size_t passes;
static struct random_stream *seeds;

// ---- gathering --------------------------------------------------------------------------------

static void add_item(struct work *w, const uint64_t mask[SEARCH_WORDS], struct place place) {
    struct search_item *item = &w->items[w->count];
    for (unsigned i = 0; i < SEARCH_WORDS; i++) {
        item->mask[i] = mask[i];
    }
    item->is_frame = place.frame != FRAME_NONE;
    w->places[w->count++] = place;
}

static unsigned count_granules(const uint64_t mask[SEARCH_WORDS]) {
    return bits_count(mask[0]) + bits_count(mask[1]) + bits_count(mask[2]) + bits_count(mask[3]);
}

static void visit_frame(uint32_t number, struct frame *f, void *context) {
    struct work *w = context;
    if (w->count < FRAMES_MOST && count_granules(f->used) <= MERGE_DENSE) {
        add_item(w, f->used, (struct place){.frame = number});
    }
}

static void visit_clear(uint32_t number, struct frame *f, void *context) {
    (void)number;
    bool *any = context;
    *any = true;
    for (unsigned i = 0; i < SEARCH_WORDS; i++) {
        f->used[i] = 0;
    }
}

// What slots of a meshed span were freed since shows here, so that its frames take more.
static void recount_span(const struct span *s) {
    uintptr_t base = span_base(s);
    for (uintptr_t at = base; at <= base + span_class(s)->span_mask; at += FIRN_PAGE) {
        uint32_t entry = pages_get(at);
        uint64_t mask[SEARCH_WORDS];
        if (pages_kind(entry) == PAGES_MESHED) {
            merge_page_mask(mask, s, at, true);
            struct frame *f = frame_at(pages_frame(entry));
            for (unsigned i = 0; i < SEARCH_WORDS; i++) {
                f->used[i] |= mask[i];
            }
        }
    }
}

// Pages were given back, and then slots in them were used again.
static void forget_purged(struct span *s) {
    uintptr_t base = span_base(s);
    for (uintptr_t at = base; at <= base + span_class(s)->span_mask; at += FIRN_PAGE) {
        if (pages_kind(pages_get(at)) == PAGES_PURGED) {
            pages_set(at, pages_entry(PAGES_PRIVATE, 0));
        }
    }
    s->mesh &= (uint8_t)~SPAN_TOUCHED;
}

static void add_pages(struct work *w, const struct span *s) {
    uintptr_t base = span_base(s);
    for (uintptr_t at = base; at <= base + span_class(s)->span_mask; at += FIRN_PAGE) {
        uint64_t mask[SEARCH_WORDS];
        if (w->count < BATCH && pages_kind(pages_get(at)) == PAGES_PRIVATE) {
            merge_page_mask(mask, s, at, true);
            if (count_granules(mask) <= MERGE_DENSE) {
                add_item(w, mask, (struct place){.address = at});
            }
        }
    }
}

// With the span's lock.
static void look_at(struct work *w, struct span *s) {
    bool is_touched = (s->mesh & SPAN_TOUCHED) != 0;
    uintptr_t bytes = (uintptr_t)span_class(s)->span_mask + 1;
    if (s->free_count == 0 || !pages_prepare(span_base(s), bytes)) {
        s->mesh &= (uint8_t)~SPAN_TOUCHED;
        return;
    }
    if (is_touched) {
        forget_purged(s);
    }
    if (!is_touched || w->is_forced) {
        w->purged += merge_purge_empty(s);
        if (fault_can_hold(span_class(s)->bytes)) {
            add_pages(w, s);
        }
    }
}

// Calls `visit` for each span of the cell in use from index *at on, with its lock, until the batch has no
// room for another span's pages. False after the last one.
static bool walk_spans(unsigned cell, uint32_t *at, struct work *w,
                       void (*visit)(struct work *w, struct span *s)) {
    uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    unsigned pages = (c->span_mask >> FIRN_PAGE_SHIFT) + 1;
    uintptr_t spans = limit == 0 ? 0 : (limit - root_cell_base(cell)) >> c->span_shift;
    for (; *at < spans; ++*at) {
        struct span *s = span_by_index(cell, *at);
        struct merge_hold h;
        if (w->count + pages > BATCH) {
            return true;
        }
        lock_acquire(&firn_merge_lock);
        if (merge_acquire(s, &h)) {
            visit(w, s);
            merge_release(&h);
        }
        lock_release(&firn_merge_lock);
    }
    return false;
}

static void visit_recount(struct work *w, struct span *s) {
    (void)w;
    if (span_is_meshed(s)) {
        recount_span(s);
    }
}

static void visit_join(struct work *w, struct span *s) {
    (void)w;
    if (span_is_meshed(s)) {
        lend_join(s);
    }
}

// After a fork.
static void join(unsigned cell, struct work *w) {
    uint32_t at = 0;
    w->count = 0;
    if (merge_copied_pages() > 0) {
        (void)walk_spans(cell, &at, w, visit_join);
    }
}

// Spans mesh only here, so that what is counted can only become less.
static void recount(unsigned cell, struct work *w) {
    bool any = false;
    uint32_t at = 0;
    frame_walk(cell, visit_clear, &any);
    w->count = 0;
    if (any) {
        (void)walk_spans(cell, &at, w, visit_recount);
    }
}

// ---- merging ----------------------------------------------------------------------------------

// Each page with locks and signal mask of its own: nobody waits for more than one.
static enum merge_result merge_one(const struct work *w, uintptr_t address, uint32_t frame) {
    uint64_t signals = thread_block_signals();
    lock_acquire(&firn_merge_lock);
    enum merge_result result = merge_page(address, frame, w->is_forced);
    lock_release(&firn_merge_lock);
    thread_allow_signals(signals);
    return result;
}

// A frame next to that of a neighbour of one of the pages, if there is one: a mapping less.
static uint32_t wish(const struct work *w, unsigned head, unsigned cell) {
    for (unsigned i = head; i != SEARCH_NONE; i = w->items[i].next) {
        uintptr_t address = w->places[i].address;
        uint32_t left = pages_get(address - FIRN_PAGE);
        uint32_t right = pages_get(address + FIRN_PAGE);
        if (pages_is_mapped(left) && frame_is_free(cell, pages_frame(left) + 1)) {
            return pages_frame(left) + 1;
        }
        if (pages_is_mapped(right) && pages_frame(right) > 1 &&
            frame_is_free(cell, pages_frame(right) - 1)) {
            return pages_frame(right) - 1;
        }
    }
    return FRAME_NONE;
}

static uint32_t take_frame(const struct work *w, unsigned head, unsigned cell) {
    uint32_t number = w->places[head].frame;
    lock_acquire(&firn_merge_lock);
    if (number == FRAME_NONE) {
        number = frame_take(cell, wish(w, head, cell));
    } else if (!frame_hold(number)) {
        number = FRAME_NONE;
    }
    lock_release(&firn_merge_lock);
    return number;
}

static bool merge_group(struct work *w, unsigned head, unsigned cell) {
    uint32_t frame = take_frame(w, head, cell);
    bool has_budget = frame != FRAME_NONE;
    size_t done = 0;
    for (unsigned i = head; has_budget && i != SEARCH_NONE; i = w->items[i].next) {
        if (w->places[i].frame == FRAME_NONE) {
            enum merge_result result = merge_one(w, w->places[i].address, frame);
            has_budget = result != MERGE_BUDGET;
            done += result == MERGE_DONE;
        }
    }
    if (frame != FRAME_NONE) {
        lock_acquire(&firn_merge_lock);
        frame_release(frame);
        lock_release(&firn_merge_lock);
    }
    bool is_new = w->places[head].frame == FRAME_NONE;
    w->merged += done > 0 && is_new ? done - 1 : done;
    return has_budget;
}

static bool merge_batch(struct work *w, unsigned cell) {
    (void)search_group(w->items, w->order, w->count, SEARCH_PROBES, random_u64(seeds));
    for (unsigned i = 0; i < w->count; i++) {
        if (w->items[i].members > 1 && !merge_group(w, i, cell)) {
            return false;
        }
    }
    return true;
}

static void pass_cell(struct work *w, unsigned cell) {
    uint32_t at = 0;
    join(cell, w);
    recount(cell, w);
    for (bool is_more = true; is_more;) {
        w->count = 0;
        frame_walk(cell, visit_frame, w);
        is_more = walk_spans(cell, &at, w, look_at);
        is_more = merge_batch(w, cell) && is_more;
    }
}

// ---- passes -----------------------------------------------------------------------------------

static bool prepare(void) {
    lock_acquire(&firn_merge_lock);
    bool is_ready = merge_start() && lend_start() && lend_is_over();
    if (is_ready && work == NULL) {
        seeds = arena_alloc(sizeof *seeds, FIRN_CACHE_LINE);
        work = seeds != NULL ? arena_alloc(sizeof *work, FIRN_CACHE_LINE) : NULL;
    }
    lock_release(&firn_merge_lock);
    return is_ready && work != NULL;
}

size_t mesh_pass(unsigned class_index, bool is_forced) {
    const int saved = errno;
    size_t pages = 0;
    central_rebuild_if_due(class_index);
    if (merge_is_possible() && lock_try(&pass_lock)) {
        if (prepare()) {
            work->is_forced = is_forced;
            work->merged = work->purged = 0;
            for (unsigned p = 0; p < FIRN_PARTITIONS; p++) {
                pass_cell(work, root_cell(class_index, p));
            }
            pages = work->merged + work->purged;
            atomic_fetch_add_explicit(&passes, 1, memory_order_relaxed);
        }
        lock_release(&pass_lock);
    }
    errno = saved;
    return pages << FIRN_PAGE_SHIFT;
}

void mesh_stats(struct mesh_stats *out) {
    struct merge_figures f;
    merge_figures(&f);
    *out = (struct mesh_stats){
        .meshed_pages = f.pages,
        .meshed_pages_most = f.pages_most,
        .frames = frame_count(),
        .purged_pages = f.purged,
        .merged_pages = f.merged,
        .refused = f.refused,
        .over_budget = f.over_budget,
        .vmas = f.vmas,
        .vma_budget = f.vma_budget,
        .passes = atomic_load_explicit(&passes, memory_order_relaxed),
        .longest_ns = f.longest_ns,
        .engine = fault_engine_name(fault_engine()),
    };
}

// ---- fork -------------------------------------------------------------------------------------

void mesh_before_fork(void) {
    lend_before_fork();
}

void mesh_before_fork_last(void) {
    lend_copy_all();
}

void mesh_after_fork_in_parent(void) {
    lend_after_fork_in_parent();
}

bool mesh_after_fork_in_child(bool is_expected) {
    fault_after_fork_in_child();
    lock_reset(&pass_lock);
    if (seeds != NULL) {
        *seeds = (struct random_stream){0};
    }
    return lend_after_fork_in_child(is_expected);
}
