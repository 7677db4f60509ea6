#include "mesh/mesh.h"

#include "mesh/exchange.h"
#include "mesh/frame.h"
#include "mesh/lend.h"
#include "mesh/merge.h"
#include "mesh/pages.h"
#include "mesh/plan.h"
#include "mesh/search.h"
#include "src/meta/arena.h"
#include "src/os/clock.h"
#include "src/os/fault.h"
#include "src/os/thread.h"
#include "src/slab/central.h"
#include "src/span/region.h"

#include <errno.h>
#include <string.h>

enum {
    REST_AFTER_NS = 1000000,
    GROUP_SPANS =
        32, // looked at under one lock, if they have one owner: its slow paths wait so long
    GROUP_PAGES = 64,
    CYCLE_MOST = 16, // pages
    GAP_MOST = 32    // pages that nothing is done to, between two that are staged
};

struct work {
    struct plan plan;
    struct purge_list empty; // pages of the spans under the lock that is held
    const struct mesh_pace *pace;
    uint64_t began_ns;     // work since the last rest
    size_t purged, merged; // pages
    bool is_over;          // told to stop, or no mapping left
};

// Whose pass it is. Not taken around fork: a forked child forgets the pass of a thread it does not have.
static struct lock pass_lock = LOCK_INIT(LOCK_MESH_PASS);
static struct work *work;
static _Atomic size_t passes;
static _Atomic uint64_t frames_tried;
static _Atomic uint32_t hurried; // threads that wait for a pass to end

// ---- gathering --------------------------------------------------------------------------------

// What slots of a meshed span were freed since shows here, so that its frames take more.
static void recount_span(const struct span *s) {
    uintptr_t base = span_base(s);
    for (uintptr_t at = base; at <= base + span_class(s)->span_mask; at += FIRN_PAGE) {
        uint32_t entry = pages_get(at);
        uint64_t mask[SEARCH_WORDS];
        if (pages_kind(entry) == PAGES_MESHED) {
            merge_page_mask(mask, s, at);
            if (!merge_is_settled(s, at)) {
                memset(mask, 0xff, sizeof mask); // until the next time
            }
            frame_claim(pages_frame(entry), mask);
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
    span_set_mesh(s, 0, SPAN_TOUCHED);
}

static void add_pages(struct plan *p, const struct span *s, unsigned most) {
    uintptr_t base = span_base(s);
    for (uintptr_t at = base; at <= base + span_class(s)->span_mask; at += FIRN_PAGE) {
        uint64_t *mask = p->masks[p->count].mask;
        enum pages_kind kind = pages_kind(pages_get(at));
        if (p->count < PLAN_MOST && (kind == PAGES_PRIVATE || kind == PAGES_PURGED)) {
            merge_page_mask(mask, s, at);
            if (search_is_empty(mask) == (kind == PAGES_PURGED) &&
                search_count_granules(mask) <= most) {
                p->addresses[p->count++] = at;
            }
        }
    }
}

static bool has_remote(const struct span *s) {
    uint64_t any = 0;
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        any |= atomic_load_explicit(&s->remote[w], memory_order_relaxed);
    }
    return any != 0;
}

// With the span's lock.
static void look_at(struct work *w, struct span *s) {
    bool is_touched = span_has_mesh(s, SPAN_TOUCHED);
    uintptr_t bytes = (uintptr_t)span_class(s)->span_mask + 1;
    if ((s->free_count == 0 && !has_remote(s)) || span_has_mesh(s, SPAN_KEPT) ||
        !pages_prepare(span_base(s), bytes)) {
        span_set_mesh(s, 0, SPAN_TOUCHED);
        return;
    }
    if (is_touched) {
        forget_purged(s);
    }
    if (!is_touched || w->pace->is_forced) {
        w->purged += merge_purge_empty(s, &w->empty);
        if (fault_can_hold(span_class(s)->bytes)) {
            add_pages(&w->plan, s, w->pace->is_forced ? MERGE_DENSE : MERGE_DENSE_NOW);
        }
    }
}

typedef void visit_fn(struct work *w, struct span *s);

// The span *at of the cell, if it is in use, and those after it under the same lock. Their empty pages are
// given back together.
static void walk_group(unsigned cell, uint32_t *at, uintptr_t end, struct work *w,
                       visit_fn *visit) {
    struct merge_hold h;
    bool is_more = true;
    lock_acquire(&firn_merge_lock);
    w->is_over = w->is_over || !lend_is_over(); // the program forked, in the middle of the pass
    if (w->is_over || !merge_acquire(span_by_index(cell, (*at)++), &h)) {
        lock_release(&firn_merge_lock);
        return;
    }
    while (is_more) {
        visit(w, h.span);
        is_more = *at < end && merge_move_on(&h, span_by_index(cell, *at));
        *at += is_more;
    }
    purge_all(&w->empty);
    merge_release(&h);
    lock_release(&firn_merge_lock);
}

// Calls `visit` for each span of the cell in use from index *at on, with its lock, until the batch has no
// room for another span's pages. False after the last one.
static bool walk_spans(unsigned cell, uint32_t *at, struct work *w, visit_fn *visit) {
    uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    unsigned pages = (c->span_mask >> FIRN_PAGE_SHIFT) + 1;
    unsigned group = GROUP_PAGES / pages < GROUP_SPANS ? GROUP_PAGES / pages : GROUP_SPANS;
    uintptr_t spans = limit == 0 ? 0 : (limit - root_cell_base(cell)) >> c->span_shift;
    while (*at < spans && !w->is_over) {
        unsigned room = (PLAN_MOST - w->plan.count) / pages;
        uintptr_t most = room < group ? room : group;
        if (most == 0) {
            return true;
        }
        walk_group(cell, at, spans - *at < most ? spans : *at + most, w, visit);
    }
    return false;
}

static void visit_meshed(struct work *w, struct span *s) {
    (void)w;
    if (span_is_meshed(s)) {
        lend_join(s);
        recount_span(s);
    }
}

// Spans mesh only here, so that what is counted can only become less.
static void recount(unsigned cell, struct work *w) {
    uint32_t at = 0;
    w->plan.count = 0;
    if (frame_clear_used(cell)) {
        lend_look_anew();
        (void)walk_spans(cell, &at, w, visit_meshed);
    }
}

// ---- merging ----------------------------------------------------------------------------------

// After each millisecond or so of work as long a pause as the share of the processor asks for.
static void rest(struct work *w) {
    uint64_t worked = clock_thread_ns() - w->began_ns;
    if (w->pace->share < 100 && worked > REST_AFTER_NS) {
        if (atomic_load_explicit(&hurried, memory_order_relaxed) == 0) {
            thread_sleep(worked * (100 - w->pace->share) / w->pace->share);
        }
        w->began_ns = clock_thread_ns();
    }
    w->is_over = w->is_over || (w->pace->is_stopped != NULL && w->pace->is_stopped());
}

// So that nobody waits while the kernel finds memory for the frames.
static void fill_frames(const struct merge_run *run) {
    for (unsigned i = 0; i < run->pages; i++) {
        if (!search_is_empty(run->planned[i].mask)) {
            frame_fill(run->frame + i, 1);
        }
    }
}

// The plan's holds of what was not merged. With merge_lock.
static void settle_run(struct work *w, const struct merge_run *run) {
    w->is_over = w->is_over || run->result == MERGE_BUDGET;
    for (unsigned i = 0; i < run->pages; i++) {
        bool is_user = !search_is_empty(run->planned[i].mask);
        w->merged += is_user && i < run->done;
        if (is_user && i >= run->done) {
            frame_release(run->frame + i);
        }
    }
}

// Each set of runs with locks and signal mask of its own: nobody waits for more than one.
static void merge_some(struct work *w, struct merge_run runs[], unsigned count) {
    for (unsigned i = 0; i < count && !w->is_over; i++) {
        fill_frames(&runs[i]);
    }
    for (unsigned i = 0; i < count;) {
        unsigned n = 1;
        uint64_t signals = thread_block_signals();
        lock_acquire(&firn_merge_lock);
        runs[i].done = 0;
        w->is_over = w->is_over || !lend_is_over();
        if (!w->is_over) {
            n = merge_runs(&runs[i], count - i, w->pace->is_forced);
        }
        for (unsigned k = i; k < i + n; k++) {
            settle_run(w, &runs[k]);
        }
        lock_release(&firn_merge_lock);
        thread_allow_signals(signals);
        i += n;
    }
}

// Memory is saved as long as there are mappings, then mappings.
static unsigned stretch_now(void) {
    unsigned spent = merge_spent();
    return spent < 40 ? 2 : spent < 80 ? 4 : PLAN_STRETCH;
}

// Whether the run can be staged together with those before it: not far away, and without a page between them
// that maps a frame. Spans between them may be others', guards, or of no use at the moment.
static bool continues(const struct work *w, const struct merge_run runs[], unsigned count,
                      unsigned i, unsigned pages) {
    const struct plan *p = &w->plan;
    uintptr_t at = p->addresses[i];
    const struct merge_run *last = &runs[count - 1];
    uintptr_t end = last->address + ((uintptr_t)last->pages << FIRN_PAGE_SHIFT);
    bool is_near = count < exchange_most() && (at - end) >> FIRN_PAGE_SHIFT <= GAP_MOST &&
                   ((at - runs[0].address) >> FIRN_PAGE_SHIFT) + pages <= MERGE_RUNS_PAGES;
    for (; is_near && end < at; end += FIRN_PAGE) {
        is_near = !pages_is_mapped(pages_get(end));
    }
    return is_near;
}

// Slots that begin at no multiple of some larger power of two repeat late: 1 for those.
static unsigned cycle_of(uint32_t slot_bytes) {
    uint32_t power = slot_bytes & -slot_bytes;
    uint32_t cycle = slot_bytes / (power < FIRN_PAGE ? power : FIRN_PAGE);
    return cycle <= CYCLE_MOST ? cycle : 1;
}

static void merge_batch(struct work *w, unsigned cell) {
    struct plan *p = &w->plan;
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    struct merge_run runs[MERGE_RUNS];
    unsigned count = 0, users, n;
    p->span_pages = (c->span_mask >> FIRN_PAGE_SHIFT) + 1;
    p->cycle = cycle_of(c->bytes);
    p->stretch = stretch_now();
    plan_make(p, cell);
    for (unsigned i = 0; i < p->count; i += n) {
        n = 1;
        users = 0;
        if (p->frames[i] != FRAME_NONE) {
            n = plan_stretch(p, i, &users);
        }
        if (users > 0) {
            if (count > 0 && !continues(w, runs, count, i, n)) {
                merge_some(w, runs, count);
                rest(w);
                count = 0;
            }
            runs[count++] = (struct merge_run){.address = p->addresses[i],
                                               .frame = p->frames[i],
                                               .pages = n,
                                               .planned = &p->masks[i]};
        }
    }
    merge_some(w, runs, count);
    rest(w);
}

static void pass_cell(struct work *w, unsigned cell) {
    uint32_t at = 0;
    recount(cell, w);
    for (bool is_more = true; is_more && !w->is_over;) {
        w->plan.count = 0;
        is_more = walk_spans(cell, &at, w, look_at);
        merge_batch(w, cell);
        rest(w);
    }
}

// ---- passes -----------------------------------------------------------------------------------

static bool prepare(void) {
    lock_acquire(&firn_merge_lock);
    bool is_ready = merge_start() && lend_start() && lend_is_over();
    if (is_ready && work == NULL) {
        work = arena_alloc(sizeof *work, FIRN_CACHE_LINE);
    }
    lock_release(&firn_merge_lock);
    return is_ready && work != NULL;
}

static size_t pass_class(unsigned class_index, const struct mesh_pace *pace) {
    uint64_t tried = work->plan.tried;
    work->pace = pace;
    work->began_ns = clock_thread_ns();
    work->merged = work->purged = 0;
    work->is_over = false;
    for (unsigned p = 0; p < FIRN_PARTITIONS && !work->is_over; p++) {
        pass_cell(work, root_cell(class_index, p));
    }
    atomic_fetch_add_explicit(&frames_tried, work->plan.tried - tried, memory_order_relaxed);
    atomic_fetch_add_explicit(&passes, 1, memory_order_relaxed);
    return work->merged + work->purged;
}

size_t mesh_pass(unsigned class_index, const struct mesh_pace *pace) {
    const int saved = errno;
    size_t pages = 0;
    central_rebuild_if_due(class_index);
    if (merge_is_possible()) {
        // Whoever is at it without haste is told that somebody waits.
        atomic_fetch_add_explicit(&hurried, 1, memory_order_relaxed);
        lock_acquire(&pass_lock);
        atomic_fetch_sub_explicit(&hurried, 1, memory_order_relaxed);
        merge_count_others();
        if (prepare()) {
            pages = pass_class(class_index, pace);
        }
        lock_release(&pass_lock);
    }
    errno = saved;
    return pages << FIRN_PAGE_SHIFT;
}

void mesh_end(void) {
    merge_end();
}

void mesh_set_budget(size_t vmas) {
    merge_set_budget(vmas);
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
        .tried = atomic_load_explicit(&frames_tried, memory_order_relaxed),
        .longest_ns = f.longest_ns,
        .p99_ns = f.p99_ns,
        .engine = fault_engine_name(fault_engine()),
    };
}

// ---- leaving ----------------------------------------------------------------------------------

// NULL: no span was ever there.
static struct span *span_that_contains(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    uintptr_t cell = offset >> FIRN_ROOT.cell_shift;
    if (offset >= FIRN_ROOT.small_bytes || cell >= CELLS) {
        return NULL;
    }
    uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
    bool is_used = address >= root_cell_base((unsigned)cell) && address < limit;
    return is_used ? merge_span_of(address) : NULL;
}

// With the span's lock.
static bool leave(struct span *s) {
    span_set_mesh(s, SPAN_KEPT, 0);
    return !span_is_meshed(s) || lend_part(s);
}

bool mesh_leave(uintptr_t address, size_t bytes) {
    bool is_done = true;
    uint64_t signals = thread_block_signals();
    lock_acquire(&firn_merge_lock);
    for (uintptr_t at = address; is_done && at - address < bytes;) {
        struct merge_hold h;
        struct span *s = span_that_contains(at);
        if (s == NULL) {
            break;
        }
        if (merge_acquire(s, &h)) {
            is_done = leave(s);
            merge_release(&h);
        }
        at = span_base(s) + span_class(s)->span_mask + 1;
    }
    lock_release(&firn_merge_lock);
    thread_allow_signals(signals);
    return is_done;
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
    atomic_store_explicit(&hurried, 0, memory_order_relaxed);
    return lend_after_fork_in_child(is_expected);
}
