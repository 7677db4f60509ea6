#include "src/slab/central.h"

#include "src/base/fatal.h"
#include "src/meta/page_state.h"
#include "src/os/caps.h"
#include "src/os/clock.h"
#include "src/os/map.h"
#include "src/slab/owner.h"

#include <errno.h>
#include <string.h>

struct central firn_central[SIZE_CLASSES];

static struct central_cell cells[CELLS];

enum { PURGE_BATCH = 32, DIRTY_MIN_BYTES = 512 << 10, DIRTY_BUDGET_MOST = 16 << 20 };

// Of all classes: bytes committed, and bytes of empty spans that were not given back. Each changes with a class
// lock; who reads them has but one.
static _Atomic size_t total_committed, total_dirty;

static uint32_t purge_delay_ms = 1000;
// Address space or commit charge is limited: what one class does not need must be there for others.
static bool is_rationed;
static central_dead_fn *dead_test;
static span_check_fn *link_check;
static central_part_fn *part_meshed;

void central_set_purge_delay(uint32_t ms) {
    purge_delay_ms = ms;
}

void central_set_hooks(central_dead_fn *is_dead, span_check_fn *check) {
    dead_test = is_dead;
    link_check = check;
}

void central_set_part(central_part_fn *part) {
    part_meshed = part;
}

void central_take_remote(struct span *s) {
    uintptr_t bad = 0;
    enum span_fault fault = span_take_remote(s, link_check, &bad);
    if (FIRN_LIKELY(fault == SPAN_FINE)) {
        return;
    }
    bool is_link = fault == SPAN_BAD_LINK;
    // Found in passing: the call is that of the thread that takes the block back, not the culprit's.
    struct fatal_info info = {
        .api = firn_call.api != NULL ? firn_call.api : "free",
        .address = bad,
        .class_bytes = span_class(s)->bytes,
        .size = FATAL_SIZE_UNKNOWN,
        .found = is_link ? "tag of a freed slot was overwritten" : "slot is already free",
        .caller = firn_call.site,
    };
    fatal(is_link ? FATAL_CORRUPT_LINK : FATAL_DOUBLE_FREE, &info);
}

static uint64_t now_ms(void) {
    return clock_coarse_ns() / 1000000;
}

static void init_cell(struct central_cell *cell) {
    for (unsigned b = 0; b < SPAN_BUCKETS; b++) {
        list_init(&cell->used[b]);
    }
    list_init(&cell->dirty);
    list_init(&cell->clean);
    cell->is_ready = true;
}

const struct central_cell *central_lists(unsigned cell) {
    return &cells[cell];
}

void central_start(void) {
    is_rationed = FIRN_ROOT.is_sparse || caps_limits()->is_strict_overcommit ||
                  caps_limits()->data_bytes != UINT64_MAX;
    owner_start();
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        firn_central[i].lock = (struct lock)LOCK_INIT(LOCK_CLASS);
    }
}

static void insert_used(struct span *s) {
    s->bucket = (uint8_t)span_bucket(s);
    list_push_front(&cells[s->cell].used[s->bucket], &s->links);
}

// So many of the class's spans are dirty that were not, or fewer.
static void note_dirty(unsigned class_index, ptrdiff_t spans) {
    size_t bytes = (size_t)spans << FIRN_ROOT.classes[class_index].span_shift;
    firn_central[class_index].dirty_spans += (size_t)spans;
    atomic_fetch_add_explicit(&total_dirty, bytes, memory_order_relaxed);
}

static void note_committed(struct central *c, size_t bytes) {
    c->committed_bytes += bytes;
    atomic_fetch_add_explicit(&total_committed, bytes, memory_order_relaxed);
}

static void insert_dirty(struct span *s) {
    atomic_store_explicit(&s->state, SPAN_DIRTY, memory_order_relaxed);
    s->emptied_ms = now_ms();
    list_push_back(&cells[s->cell].dirty, &s->links);
    note_dirty(root_cell_class(s->cell), 1);
}

static void insert_clean(struct span *s) {
    atomic_store_explicit(&s->state, SPAN_CLEAN, memory_order_relaxed);
    list_push_front(&cells[s->cell].clean, &s->links);
}

// An ownerless active span that is on no list. An empty one that was meshed must not be dirty: what
// its pages hold is its partners'.
static void insert_active(struct span *s) {
    bool is_empty = s->free_count == span_class(s)->slots;
    if (is_empty && !span_is_meshed(s)) {
        span_note_idle(s, -(int64_t)s->free_count);
        insert_dirty(s);
    } else if (is_empty && part_meshed(s)) {
        span_note_idle(s, -(int64_t)s->free_count);
        insert_clean(s);
    } else {
        insert_used(s);
    }
}

// The same after its counts changed.
static void settle(struct span *s) {
    list_remove(&s->links);
    insert_active(s);
}

// ---- empty spans ------------------------------------------------------------------------------

// What may wait for reuse, all classes together: a quarter of what they have got so far, up to 16 MiB. A program
// that goes up and down would else fault its pages in again each time. Of what is in use at the moment it would
// be the least when a program is at its lowest: just before it goes up. None where others may be in want of it.
static size_t dirty_budget(void) {
    size_t quarter = atomic_load_explicit(&total_committed, memory_order_relaxed) / 4;
    return is_rationed ? 0 : quarter < DIRTY_BUDGET_MOST ? quarter : DIRTY_BUDGET_MOST;
}

// Beyond that half a MiB a class, or an eighth of what the class has: more than that is purged before its
// time, so that memory falls even if nothing ever runs again.
static bool is_over_dirty_limit(unsigned class_index) {
    const struct central *c = &firn_central[class_index];
    size_t limit = c->committed_bytes / 8;
    if (limit < DIRTY_MIN_BYTES) {
        limit = DIRTY_MIN_BYTES;
    }
    return c->dirty_spans << FIRN_ROOT.classes[class_index].span_shift > limit &&
           atomic_load_explicit(&total_dirty, memory_order_relaxed) > dirty_budget();
}

static unsigned collect_dirty(unsigned class_index, uint64_t now, bool everything,
                              struct span *batch[PURGE_BATCH]) {
    struct central *c = &firn_central[class_index];
    unsigned n = 0;
    for (unsigned p = 0; p < FIRN_PARTITIONS && c->dirty_spans > 0 && n < PURGE_BATCH; p++) {
        struct central_cell *cell = &cells[root_cell(class_index, p)];
        while (cell->is_ready && n < PURGE_BATCH && !list_is_empty(&cell->dirty)) {
            struct span *s = LIST_ENTRY(cell->dirty.next, struct span, links);
            bool is_old = now >= s->emptied_ms + purge_delay_ms;
            if (!everything && !is_old && !is_over_dirty_limit(class_index)) {
                break;
            }
            list_remove(&s->links);
            note_dirty(class_index, -1);
            atomic_store_explicit(&s->state, SPAN_PURGING, memory_order_relaxed);
            batch[n++] = s;
        }
    }
    return n;
}

static void sort_by_offset(uintptr_t offsets[], struct span *batch[], unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        struct span *s = batch[i];
        uintptr_t offset = span_offset(s);
        unsigned j = i;
        for (; j > 0 && offsets[j - 1] > offset; j--) {
            offsets[j] = offsets[j - 1];
            batch[j] = batch[j - 1];
        }
        offsets[j] = offset;
        batch[j] = s;
    }
}

// Neighbours go with one call.
static void purge_batch(unsigned class_index, struct span *batch[], unsigned n) {
    size_t span_bytes = (size_t)FIRN_ROOT.classes[class_index].span_mask + 1;
    uintptr_t offsets[PURGE_BATCH];
    sort_by_offset(offsets, batch, n);
    for (unsigned i = 0; i < n;) {
        unsigned run = 1;
        while (i + run < n && offsets[i + run] == offsets[i] + run * span_bytes) {
            run++;
        }
        if (is_rationed) {
            map_decommit(&FIRN_ROOT.data, FIRN_ROOT.small_base + offsets[i], run * span_bytes);
        } else {
            page_state_purge(FIRN_ROOT.small_base + offsets[i], run * span_bytes);
        }
        i += run;
    }
}

// Rationed: the addresses may be somebody else's as soon as they are given up, so the lock is held,
// lest a child forked meanwhile takes them for ours.
bool central_purge(unsigned class_index, uint64_t now, bool everything) {
    struct central *c = &firn_central[class_index];
    struct span *batch[PURGE_BATCH];
    bool any = false;
    // Not while spans are in purging: the rebuild would put them on a list, too.
    central_rebuild_if_due(class_index);
    for (;;) {
        lock_acquire(&c->lock);
        unsigned n = collect_dirty(class_index, now, everything, batch);
        if (n == 0) {
            lock_release(&c->lock);
            return any;
        }
        any = true;
        if (is_rationed) {
            purge_batch(class_index, batch, n);
            note_committed(c, -((size_t)n << FIRN_ROOT.classes[class_index].span_shift));
        } else {
            // No lock across the system call. In a child forked meanwhile these spans are
            // SPAN_PURGING for nobody; the rebuild there finds them.
            lock_release(&c->lock);
            purge_batch(class_index, batch, n);
            lock_acquire(&c->lock);
        }
        for (unsigned i = 0; i < n; i++) {
            insert_clean(batch[i]);
        }
        lock_release(&c->lock);
    }
}

// ---- taking and giving ------------------------------------------------------------------------

static struct span *take_used(struct central_cell *cell) {
    for (unsigned b = SPAN_FULL; b-- > 0;) {
        while (!list_is_empty(&cell->used[b])) {
            struct span *s = LIST_ENTRY(cell->used[b].next, struct span, links);
            if (FIRN_LIKELY(!span_is_meshed(s))) {
                return s;
            }
            list_remove(&s->links);
            insert_used(s);
        }
    }
    return NULL;
}

// A clean one, accessible.
static struct span *take_clean(struct central *c, struct central_cell *cell) {
    while (!list_is_empty(&cell->clean)) {
        struct span *s = LIST_ENTRY(cell->clean.next, struct span, links);
        size_t bytes = (size_t)span_class(s)->span_mask + 1;
        if (!is_rationed) {
            return s;
        }
        if (map_commit(&FIRN_ROOT.data, span_base(s), bytes)) {
            note_committed(c, bytes);
            return s;
        }
        if (!FIRN_ROOT.data.is_sparse || errno != EEXIST) {
            return NULL;
        }
        // Somebody else has these addresses now: for ever, as far as this cell is concerned.
        list_remove(&s->links);
        memset(s, 0, sizeof *s); // SPAN_UNUSED
    }
    return NULL;
}

// The youngest dirty one (warm), else a clean one.
static struct span *take_empty(struct central *c, struct central_cell *cell) {
    if (!list_is_empty(&cell->dirty)) {
        note_dirty((unsigned)(c - firn_central), -1);
        return LIST_ENTRY(cell->dirty.prev, struct span, links);
    }
    return take_clean(c, cell);
}

static struct span *take_fresh(struct central *c, unsigned cell, struct random_stream *random) {
    uint64_t before = firn_regions[cell].committed_bytes;
    struct span *s = region_take(cell, random);
    note_committed(c, firn_regions[cell].committed_bytes - before);
    return s;
}

struct span *central_take(unsigned cell, struct cache *owner, uint64_t number,
                          struct random_stream *random) {
    unsigned class_index = root_cell_class(cell);
    struct central *c = &firn_central[class_index];
    struct central_cell *lists = &cells[cell];
    central_rebuild_if_due(class_index);
    lock_acquire(&c->lock);
    if (!lists->is_ready) {
        init_cell(lists);
    }
    struct span *s = take_used(lists);
    if (s != NULL) {
        list_remove(&s->links);
    } else {
        s = take_empty(c, lists);
        if (s != NULL) {
            list_remove(&s->links);
        } else {
            s = take_fresh(c, cell, random);
        }
        if (s != NULL) {
            span_set_up(s, cell, random_u64(random));
        }
    }
    if (s != NULL) {
        span_set_owner(s, owner, number);
    }
    lock_release(&c->lock);
    return s;
}

void central_give(struct span *s) {
    unsigned class_index = root_cell_class(s->cell);
    struct central *c = &firn_central[class_index];
    lock_acquire(&c->lock);
    span_set_owner(s, NULL, 0);
    // A remote free that read the old owner may still be on its way: it finds no owner, or the
    // closed queue of one, and comes to central_deliver.
    central_take_remote(s);
    settle(s);
    bool over = is_over_dirty_limit(class_index);
    lock_release(&c->lock);
    if (over) {
        (void)central_purge(class_index, now_ms(), false);
    }
}

bool central_deliver(struct span *s) {
    unsigned class_index = root_cell_class(s->cell);
    struct central *c = &firn_central[class_index];
    lock_acquire(&c->lock);
    bool is_ours = atomic_load_explicit(&s->owner, memory_order_relaxed) == NULL;
    bool over = false;
    if (is_ours) {
        span_unqueue(s);
        // Not active: nothing in it can be live, whatever was freed there was freed twice.
        central_take_remote(s);
        if (span_state(s) == SPAN_ACTIVE) {
            settle(s);
            over = is_over_dirty_limit(class_index);
        }
    }
    lock_release(&c->lock);
    if (over) {
        (void)central_purge(class_index, now_ms(), false);
    }
    return is_ours;
}

// ---- fork -------------------------------------------------------------------------------------

void central_before_fork(void) {
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        lock_acquire(&firn_central[i].lock);
    }
}

void central_after_fork(bool in_child, bool must_rebuild) {
    if (in_child) {
        owner_after_fork_in_child();
    }
    for (unsigned i = SIZE_CLASSES; i-- > 0;) {
        struct central *c = &firn_central[i];
        if (in_child) {
            lock_reset(&c->lock);
            if (must_rebuild) { // never cleared here: the parent may not have got to it
                atomic_store_explicit(&c->must_rebuild, true, memory_order_relaxed);
            }
        } else {
            lock_release(&c->lock);
        }
    }
}

// The owner's thread does not exist in this process: what it had in hand is free, what other
// threads freed is free. `pending` stays: the parent's mark means nothing here, and a thread of this
// process that has set ours is on its way to central_deliver, or to the next owner.
static void orphan(struct span *s) {
    const struct class_info *c = span_class(s);
    span_set_owner(s, NULL, 0);
    s->is_torn = true;
    span_note_idle(s, -(int64_t)s->free_count);
    s->free_count = 0;
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        uint64_t live = atomic_load_explicit(&s->live[w], memory_order_relaxed) &
                        ~atomic_exchange_explicit(&s->remote[w], 0, memory_order_relaxed);
        atomic_store_explicit(&s->live[w], live, memory_order_relaxed);
        s->free[w] = span_word_mask(c, w) & ~live;
        s->virgin[w] &= s->free[w];
        s->free_count = (uint16_t)(s->free_count + __builtin_popcountll(s->free[w]));
    }
    span_note_idle(s, s->free_count);
}

static void rebuild_span(struct span *s) {
    struct cache *owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
    switch (span_state(s)) {
    case SPAN_ACTIVE:
        if (owner != NULL && !dead_test(owner)) {
            return; // this thread's own
        }
        if (owner != NULL) {
            orphan(s);
        }
        insert_active(s);
        return;
    case SPAN_DIRTY:
    case SPAN_PURGING: // perhaps purged, perhaps not
        insert_dirty(s);
        return;
    case SPAN_CLEAN:
        insert_clean(s);
        return;
    default:
        return;
    }
}

// Calls `visit` for every span ever used of a class, in address order.
static void walk(unsigned class_index, void (*visit)(struct span *s, void *context),
                 void *context) {
    const struct class_info *info = &FIRN_ROOT.classes[class_index];
    for (unsigned p = 0; p < FIRN_PARTITIONS; p++) {
        unsigned cell = root_cell(class_index, p);
        uintptr_t base = root_cell_offset(cell);
        uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
        uintptr_t end = limit == 0 ? base : limit - FIRN_ROOT.small_base;
        for (uintptr_t at = base; at < end; at += (uintptr_t)info->span_mask + 1) {
            visit(span_at(at, info), context);
        }
    }
}

static void visit_rebuild(struct span *s, void *context) {
    (void)context;
    rebuild_span(s);
}

void central_rebuild_if_due(unsigned class_index) {
    struct central *c = &firn_central[class_index];
    if (FIRN_LIKELY(!atomic_load_explicit(&c->must_rebuild, memory_order_relaxed))) {
        return;
    }
    lock_acquire(&c->lock);
    if (atomic_load_explicit(&c->must_rebuild, memory_order_relaxed)) {
        for (unsigned p = 0; p < FIRN_PARTITIONS; p++) {
            init_cell(&cells[root_cell(class_index, p)]);
        }
        note_dirty(class_index, -(ptrdiff_t)c->dirty_spans);
        walk(class_index, visit_rebuild, NULL);
        atomic_store_explicit(&c->must_rebuild, false, memory_order_relaxed);
    }
    lock_release(&c->lock);
}

static void visit_release(struct span *s, void *context) {
    (void)context;
    if (span_state(s) == SPAN_CLEAN) {
        uintptr_t base = span_base(s);
        map_give_up(&FIRN_ROOT.data, base, base + span_class(s)->span_mask + 1);
    }
}

void central_release(void) {
    for (unsigned i = 0; is_rationed && i < SIZE_CLASSES; i++) {
        walk(i, visit_release, NULL);
    }
}

// ---- statistics -------------------------------------------------------------------------------

static void visit_count(struct span *s, void *context) {
    struct central_stats *out = context;
    unsigned state = span_state(s);
    out->active_spans += state == SPAN_ACTIVE;
    out->dirty_spans += state == SPAN_DIRTY || state == SPAN_PURGING;
    out->clean_spans += state == SPAN_CLEAN;
    out->live += state == SPAN_ACTIVE ? span_count_live(s) : 0;
}

void central_stats(unsigned class_index, struct central_stats *out) {
    *out = (struct central_stats){0};
    walk(class_index, visit_count, out);
}
