// Two passes over each cell. The first looks at every span and counts what ought to be on each
// central list; the second walks the lists and finds exactly those: nodes of a circular list whose
// links agree are distinct, so equal counts mean equal sets.
#include "src/slab/valid.h"

#include "src/base/bits.h"
#include "src/os/caps.h"

struct tally {
    size_t used[SPAN_BUCKETS];
    size_t dirty, clean;
};

struct walk {
    valid_holding_fn *holding;
    const void *context;
    struct valid_fault *fault;
    unsigned cell;
    struct tally tally;
};

bool valid_note(bool holds, const char *relation, const struct span *s, struct valid_fault *fault) {
    if (!holds) {
        fault->relation = relation;
        fault->span = s;
    }
    return holds;
}

static uint64_t load(const _Atomic uint64_t *word) {
    return atomic_load_explicit(word, memory_order_relaxed);
}

// ---- one span ---------------------------------------------------------------------------------

// For every slot exactly one of: live, free, in hand.
static bool check_slots(const struct span *s, const struct valid_holding *held,
                        struct valid_fault *fault) {
    unsigned counted = 0;
    for (unsigned w = 0; w < SPAN_WORDS; w++) {
        uint64_t slots_there = span_word_mask(span_class(s), w);
        uint64_t live = load(&s->live[w]);
        uint64_t is_free = s->free[w];
        uint64_t in_hand = held->in_hand[w];
        uint64_t remote = load(&s->remote[w]);
        if (!VALID_HOLDS((live & is_free) == 0, s, fault) ||
            !VALID_HOLDS((live & in_hand) == 0, s, fault) ||
            !VALID_HOLDS((is_free & in_hand) == 0, s, fault) ||
            !VALID_HOLDS((live | is_free | in_hand) == slots_there, s, fault) ||
            !VALID_HOLDS((s->virgin[w] & ~is_free) == 0, s, fault) ||
            // Unchecked, a double free leaves such a bit.
            !VALID_HOLDS((remote & ~live) == 0 || !FIRN_CHECK_FREE, s, fault)) {
            return false;
        }
        counted += bits_count(is_free);
    }
    return VALID_HOLDS(s->free_count == counted, s, fault) &&
           VALID_HOLDS(!held->is_doubled, s, fault);
}

static bool check_unused(const struct span *s, struct valid_fault *fault) {
    const uint64_t *words = (const uint64_t *)s;
    for (size_t i = 0; i < sizeof *s / sizeof *words; i++) {
        bool is_zero_if_unused = words[i] == 0;
        if (!VALID_HOLDS(is_zero_if_unused, s, fault)) {
            return false;
        }
    }
    return true;
}

static bool check_span(const struct span *s, struct walk *walk) {
    static const struct valid_holding nothing;
    struct valid_fault *fault = walk->fault;
    unsigned state = span_state(s);
    const struct cache *owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
    if (state == SPAN_UNUSED) {
        return check_unused(s, fault);
    }
    if (!VALID_HOLDS(s->cell == walk->cell, s, fault) ||
        !VALID_HOLDS(span_pending(s) <= firn_span_mark, s, fault)) {
        return false;
    }
    if (owner != NULL) {
        struct valid_holding held = {{0}, false};
        return VALID_HOLDS(state == SPAN_ACTIVE, s, fault) &&
               (!walk->holding(s, walk->context, &held) || check_slots(s, &held, fault));
    }
    uint32_t number = span_owner_number(s);
    if (!VALID_HOLDS(number == 0, s, fault) || !check_slots(s, &nothing, fault)) {
        return false;
    }
    bool is_empty = s->free_count == span_class(s)->slots;
    if (state == SPAN_ACTIVE) {
        // A meshed span is filed where the mesher found it until somebody passes by.
        unsigned bucket = span_is_meshed(s) ? s->bucket : span_bucket(s);
        if (!VALID_HOLDS(bucket < SPAN_BUCKETS, s, fault)) {
            return false;
        }
        walk->tally.used[bucket]++;
        return VALID_HOLDS(!is_empty || span_is_meshed(s), s, fault);
    }
    walk->tally.dirty += state == SPAN_DIRTY;
    walk->tally.clean += state == SPAN_CLEAN;
    return VALID_HOLDS(is_empty, s, fault) && VALID_HOLDS(state <= SPAN_PURGING, s, fault);
}

// ---- lists ------------------------------------------------------------------------------------

// `expected` spans in `state`, ownerless; of that bucket if active.
static bool check_list(const struct list *head, size_t expected, unsigned state, unsigned bucket,
                       const struct walk *walk) {
    struct valid_fault *fault = walk->fault;
    size_t found = 0;
    uint64_t before_ms = 0;
    for (struct list *at = head->next; at != head; at = at->next) {
        const struct span *s = LIST_ENTRY(at, struct span, links);
        if (!VALID_HOLDS(at->prev->next == at && at->next->prev == at, s, fault) ||
            !VALID_HOLDS(found < expected, s, fault) ||
            !VALID_HOLDS(s->cell == walk->cell, s, fault) ||
            !VALID_HOLDS(span_state(s) == state, s, fault) ||
            !VALID_HOLDS(atomic_load_explicit(&s->owner, memory_order_relaxed) == NULL, s, fault)) {
            return false;
        }
        if (state == SPAN_ACTIVE &&
            (!VALID_HOLDS(s->bucket == bucket, s, fault) ||
             !VALID_HOLDS(span_bucket(s) == bucket || span_is_meshed(s), s, fault))) {
            return false;
        }
        if (state == SPAN_DIRTY) {
            if (!VALID_HOLDS(s->emptied_ms >= before_ms, s, fault)) {
                return false;
            }
            before_ms = s->emptied_ms;
        }
        found++;
    }
    return VALID_HOLDS(found == expected, NULL, fault);
}

static bool check_lists(const struct walk *walk) {
    const struct central_cell *lists = central_lists(walk->cell);
    const struct tally *t = &walk->tally;
    if (!lists->is_ready) {
        size_t ownerless = t->dirty + t->clean;
        for (unsigned b = 0; b < SPAN_BUCKETS; b++) {
            ownerless += t->used[b];
        }
        return VALID_HOLDS(ownerless == 0, NULL, walk->fault);
    }
    for (unsigned b = 0; b < SPAN_BUCKETS; b++) {
        if (!check_list(&lists->used[b], t->used[b], SPAN_ACTIVE, b, walk)) {
            return false;
        }
    }
    return check_list(&lists->dirty, t->dirty, SPAN_DIRTY, 0, walk) &&
           check_list(&lists->clean, t->clean, SPAN_CLEAN, 0, walk);
}

// ---- a cell, a class --------------------------------------------------------------------------

static bool check_window(const struct walk *walk) {
    const struct region *r = &firn_regions[walk->cell];
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(walk->cell)];
    uintptr_t limit = atomic_load_explicit(&firn_cell_limits[walk->cell], memory_order_relaxed);
    uintptr_t end = root_cell_base(walk->cell) + ((uintptr_t)r->committed << c->span_shift);
    uint32_t left = 0;
    if (!VALID_HOLDS(r->committed == 0 ? limit == 0 : limit == end, NULL, walk->fault) ||
        !VALID_HOLDS(r->committed <= c->max_spans, NULL, walk->fault) ||
        !VALID_HOLDS(r->window_left <= REGION_WINDOW, NULL, walk->fault)) {
        return false;
    }
    for (uint32_t i = 0; i < REGION_WINDOW; i++) {
        if ((r->window[i / 64] >> i % 64 & 1) == 0) {
            continue;
        }
        const struct span *s = span_by_index(walk->cell, r->window_base + i);
        left++;
        if (!VALID_HOLDS(r->window_base + i < r->committed, NULL, walk->fault) ||
            !VALID_HOLDS(span_state(s) == SPAN_UNUSED, s, walk->fault)) {
            return false;
        }
    }
    if (!VALID_HOLDS(left == r->window_left, NULL, walk->fault)) {
        return false;
    }
    return true;
}

static bool check_cell(struct walk *walk) {
    for (uint32_t i = 0; i < firn_regions[walk->cell].committed; i++) {
        if (!check_span(span_by_index(walk->cell, i), walk)) {
            return false;
        }
    }
    return check_lists(walk) && check_window(walk);
}

static bool check_class(unsigned class_index, struct walk *walk) {
    const struct central *c = &firn_central[class_index];
    uint64_t dirty = 0, clean = 0, committed = 0;
    for (unsigned p = 0; p < FIRN_PARTITIONS; p++) {
        walk->cell = root_cell(class_index, p);
        walk->tally = (struct tally){{0}, 0, 0};
        if (!check_cell(walk)) {
            return false;
        }
        dirty += walk->tally.dirty;
        clean += walk->tally.clean;
        committed += firn_regions[walk->cell].committed_bytes;
    }
    // Where memory is rationed, clean spans are not committed, and some of their addresses are lost.
    const struct limits *limits = caps_limits();
    bool is_rationed =
        FIRN_ROOT.is_sparse || limits->is_strict_overcommit || limits->data_bytes != UINT64_MAX;
    uint64_t clean_bytes = clean << FIRN_ROOT.classes[class_index].span_shift;
    return VALID_HOLDS(c->dirty_spans == dirty, NULL, walk->fault) &&
           VALID_HOLDS(is_rationed ? c->committed_bytes + clean_bytes <= committed
                                   : c->committed_bytes == committed,
                       NULL, walk->fault);
}

bool valid_class(unsigned class_index, valid_holding_fn *holding, const void *context,
                 struct valid_fault *fault) {
    struct walk walk = {.holding = holding, .context = context, .fault = fault};
    central_rebuild_if_due(class_index);
    lock_acquire(&firn_central[class_index].lock);
    bool is_valid = check_class(class_index, &walk);
    lock_release(&firn_central[class_index].lock);
    return is_valid;
}
