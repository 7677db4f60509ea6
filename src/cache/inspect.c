#include "src/cache/inspect.h"

#include "src/base/fatal.h"
#include "src/cache/quarantine.h"
#include "src/cache/remote.h"

static bool is_owned(const struct span *s, const struct cache *c) {
    return atomic_load_explicit(&s->owner, memory_order_relaxed) == c;
}

static uint64_t mixer_entry(const struct cache *c, unsigned cell, unsigned place) {
    return c->cells[cell].mixer[place];
}

static void hold_entry(uint64_t entry, uintptr_t base, uintptr_t bytes, struct valid_holding *out) {
    unsigned slot = (unsigned)(entry >> ENTRY_SLOT_SHIFT);
    if (entry != 0 && (entry & ENTRY_ADDRESS) - base < bytes) {
        out->is_doubled |= (out->in_hand[slot >> 6] & span_bit(slot)) != 0;
        out->in_hand[slot >> 6] |= span_bit(slot);
    }
}

static bool find_holding(const struct span *s, const void *self, struct valid_holding *out) {
    const struct cache *owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
    if (self != NULL && self != owner) {
        return false;
    }
    const struct bin *b = owner->bins[s->cell];
    if (b == NULL) {
        return true;
    }
    uintptr_t base = span_base(s);
    uintptr_t bytes = (uintptr_t)span_class(s)->span_mask + 1;
    uint32_t n = cache_count_entries(b);
    for (uint32_t i = 0; i < n; i++) {
        hold_entry(b->entries[i], base, bytes, out);
    }
    for (unsigned i = 0; i <= owner->cells[s->cell].mixer_mask; i++) {
        hold_entry(mixer_entry(owner, s->cell, i), base, bytes, out);
    }
    uint32_t held;
    const uint64_t *entries;
    for (unsigned i = 0; (entries = quarantine_segment(owner, i, &held)) != NULL; i++) {
        for (uint32_t k = 0; k < held; k++) {
            hold_entry(entries[k], base, bytes, out);
        }
    }
    return true;
}

// The entry names a slot of an owned span, by address and by index alike.
static bool check_entry(const struct cache *c, const struct bin *b, uint64_t entry,
                        struct valid_fault *fault) {
    const struct class_info *info = &FIRN_ROOT.classes[root_cell_class(b->cell)];
    uintptr_t address = entry & ENTRY_ADDRESS;
    uintptr_t offset = address - FIRN_ROOT.small_base;
    unsigned slot = (unsigned)(entry >> ENTRY_SLOT_SHIFT);
    if (!VALID_HOLDS(offset < FIRN_ROOT.small_bytes, NULL, fault) ||
        !VALID_HOLDS(offset >> FIRN_ROOT.cell_shift == b->cell, NULL, fault) ||
        !VALID_HOLDS(region_is_described(offset), NULL, fault)) {
        return false;
    }
    const struct span *s = span_at(offset, info);
    return VALID_HOLDS(is_owned(s, c), s, fault) && VALID_HOLDS(slot < info->slots, s, fault) &&
           VALID_HOLDS(address == span_base(s) + slot * (uintptr_t)info->bytes, s, fault);
}

static bool check_vector(const struct cache *c, const struct bin *b, struct valid_fault *fault) {
    const struct cache_cell *cell = &c->cells[b->cell];
    uint32_t capacity = b->capacity;
    uint32_t n = cache_count_entries(b);
    if (!VALID_HOLDS(n <= capacity, NULL, fault) ||
        !VALID_HOLDS(b->entries[-1] == 0, NULL, fault) ||
        !VALID_HOLDS(b->entries[capacity] == VECTOR_END, NULL, fault) ||
        !VALID_HOLDS(cell->base == root_cell_base(b->cell), NULL, fault)) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!check_entry(c, b, b->entries[i], fault)) {
            return false;
        }
    }
    for (uint32_t i = 0; i <= cell->mixer_mask; i++) {
        uint64_t entry = mixer_entry(c, b->cell, i);
        if (entry != 0 && !check_entry(c, b, entry, fault)) {
            return false;
        }
    }
    return true;
}

static bool check_lists(const struct cache *c, const struct bin *b, size_t *listed,
                        struct valid_fault *fault) {
    for (unsigned i = 0; i < SPAN_BUCKETS; i++) {
        const struct list *head = &b->lists[i];
        for (struct list *at = head->next; at != head; at = at->next) {
            const struct span *s = LIST_ENTRY(at, struct span, links);
            uint32_t number = span_owner_number(s);
            if (!VALID_HOLDS(at->prev->next == at && at->next->prev == at, s, fault) ||
                !VALID_HOLDS(is_owned(s, c), s, fault) ||
                !VALID_HOLDS(number == c->number, s, fault) ||
                !VALID_HOLDS(s->cell == b->cell, s, fault) ||
                !VALID_HOLDS(s->bucket == i, s, fault) ||
                // The mesher marks, and unmarks in a forked child; the owner files when it passes.
                !VALID_HOLDS(span_bucket(s) == i || span_is_meshed(s) || i == SPAN_WITHDRAWN, s,
                             fault)) {
                return false;
            }
            (*listed)++;
        }
    }
    return true;
}

// Descriptors of a cell that name `c` as owner.
static size_t count_owned(const struct cache *c, unsigned cell) {
    uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
    uintptr_t bytes = limit == 0 ? 0 : limit - root_cell_base(cell);
    size_t spans = bytes >> FIRN_ROOT.classes[root_cell_class(cell)].span_shift;
    size_t n = 0;
    for (size_t i = 0; i < spans; i++) {
        n += is_owned(span_by_index(cell, i), c);
    }
    return n;
}

static bool check_quarantine(const struct cache *c, struct valid_fault *fault) {
    uint32_t slots;
    size_t bytes = 0;
    const uint64_t *entries;
    for (unsigned i = 0; (entries = quarantine_segment(c, i, &slots)) != NULL; i++) {
        for (uint32_t k = 0; k < slots; k++) {
            uintptr_t offset = (entries[k] & ENTRY_ADDRESS) - FIRN_ROOT.small_base;
            unsigned cell = (unsigned)(offset >> FIRN_ROOT.cell_shift);
            if (!VALID_HOLDS(offset < FIRN_ROOT.small_bytes, NULL, fault) ||
                !VALID_HOLDS(c->bins[cell] != NULL, NULL, fault) ||
                !check_entry(c, c->bins[cell], entries[k], fault)) {
                return false;
            }
            bytes += c->cells[cell].slot_bytes;
        }
    }
    size_t held = quarantine_bytes(c);
    return VALID_HOLDS(held == bytes, NULL, fault) &&
           VALID_HOLDS(held <= QUARANTINE_MOST_BYTES, NULL, fault);
}

// Other threads may add at the front meanwhile; only the owner takes away.
static bool check_queue(const struct cache *c, struct valid_fault *fault) {
    const struct span *s = atomic_load_explicit(&c->pending, memory_order_acquire);
    const struct span *hare = s; // two steps at a time: meets `s` again in a circle only
    while (s != NULL && s != CACHE_CLOSED) {
        for (unsigned i = 0; i < 2 && hare != NULL; i++) {
            hare = atomic_load_explicit(&hare->pending_next, memory_order_relaxed);
        }
        if (!VALID_HOLDS(span_pending(s) == firn_span_mark, s, fault) ||
            !VALID_HOLDS(hare != s, s, fault)) {
            return false;
        }
        s = atomic_load_explicit(&s->pending_next, memory_order_relaxed);
    }
    return true;
}

bool inspect_cache(const struct cache *c, struct valid_fault *fault) {
    // Numbers from there on are no class's.
    for (unsigned cell = 0; cell < root_cell(SIZE_CLASSES, 0); cell++) {
        const struct bin *b = c->bins[cell];
        size_t listed = 0;
        if (b != NULL && (!VALID_HOLDS(b->cell == cell && b->cache == c, NULL, fault) ||
                          !check_vector(c, b, fault) || !check_lists(c, b, &listed, fault))) {
            return false;
        }
        bool are_owned_spans_listed = count_owned(c, cell) == listed;
        if (!VALID_HOLDS(are_owned_spans_listed, NULL, fault)) {
            return false;
        }
    }
    return check_quarantine(c, fault) && check_queue(c, fault);
}

static bool check_caches(const struct cache *self, struct valid_fault *fault) {
    if (self != NULL) {
        return inspect_cache(self, fault);
    }
    for (const struct cache *c = cache_first(); c != NULL; c = c->next) {
        // What the dead had in hand is recovered from their spans, not from their caches.
        if (!atomic_load_explicit(&c->is_dead, memory_order_relaxed) && !inspect_cache(c, fault)) {
            return false;
        }
    }
    return true;
}

bool inspect_all(const struct cache *self, struct valid_fault *fault) {
    // First the classes: in a forked child that recovers what dead threads owned.
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        if (!valid_class(i, find_holding, self, fault)) {
            return false;
        }
    }
    return check_caches(self, fault);
}

void inspect_ensure(const struct cache *self) {
    struct valid_fault fault;
    if (!inspect_all(self, &fault)) {
        fatal_internal(fault.relation, __FILE__, __LINE__);
    }
}
