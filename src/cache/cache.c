#include "src/cache/cache.h"

#include "src/base/fatal.h"
#include "src/cache/apart.h"
#include "src/cache/fresh.h"
#include "src/cache/quarantine.h"
#include "src/cache/remote.h"
#include "src/cache/sample_clock.h"
#include "src/meta/arena.h"
#include "src/os/lock.h"
#include "src/slab/central.h"
#include "src/slab/owner.h"

// All zero: every address is beyond its cells, so its number, 0, is never compared with the marks of
// spans without an owner.
struct cache firn_empty_cache;
FIRN_TLS struct cache *firn_cache = &firn_empty_cache;

// Spans looked at in one refill: enough to fill a vector from a badly fragmented class, few enough
// to stay short.
enum { REFILL_SPANS = FRESH_RANGES - 1 };

// What a vector is filled with at first: a page's worth of slots, within bounds.
enum { FIRST_BYTES = FIRN_PAGE, FIRST_LEAST = 6, FIRST_MOST = 32, FIRST_CAPACITY = 46 };

static struct lock registry_lock = LOCK_INIT(LOCK_CACHES);
static struct cache *registry; // all caches ever made, by `next`
static struct cache *idle;     // those without a thread, by `next_idle`
static size_t caches_made, caches_used;

// ---- bins -------------------------------------------------------------------------------------

static const struct class_info *bin_class(const struct bin *b) {
    return &FIRN_ROOT.classes[root_cell_class(b->cell)];
}

// A mixer keeps no more than a page or two of slots from use.
static uint32_t mixer_mask(const struct class_info *info) {
    uint32_t places = MIXER;
    while (places > 2 && places * info->bytes > FIRN_PAGE) {
        places /= 2;
    }
    return places - 1;
}

// What a vector is first filled with.
static uint32_t first_fill(const struct class_info *info) {
    uint32_t first = FIRST_BYTES / info->bytes;
    return first > FIRST_MOST ? FIRST_MOST : first < FIRST_LEAST ? FIRST_LEAST : first;
}

// The least a vector of the class has room for: most cells of small programs never need more.
static uint32_t first_capacity(const struct class_info *info) {
    uint32_t room = 2 * first_fill(info) - 2;
    room = room < FIRST_CAPACITY ? room : FIRST_CAPACITY;
    return room < info->capacity ? room : info->capacity;
}

static void bin_set_vector(struct bin *b, uint64_t *vector, uint32_t capacity) {
    b->entries = &vector[1];
    b->entries[capacity] = VECTOR_END;
    b->capacity = capacity;
}

// Gives the bin a vector of `capacity` entries, empty. An earlier one is forgotten: it was small. (Whole
// cache lines: what lies beside it may be another thread's.)
static bool bin_extend(struct bin *b, uint32_t capacity) {
    uint64_t *vector = arena_alloc((capacity + 2) * sizeof *vector, FIRN_CACHE_LINE);
    if (vector != NULL) {
        bin_set_vector(b, vector, capacity);
    }
    return vector != NULL;
}

static struct bin *bin_make(struct cache *c, unsigned cell) {
    const struct class_info *info = &FIRN_ROOT.classes[root_cell_class(cell)];
    uint32_t capacity = first_capacity(info), mask = mixer_mask(info);
    size_t words = capacity + 2 + mask + 1;
    struct bin *b = arena_alloc(sizeof *b + words * sizeof(uint64_t), FIRN_CACHE_LINE);
    if (b == NULL) {
        return NULL;
    }
    uint64_t *mixer = (uint64_t *)(b + 1);
    bin_set_vector(b, &mixer[mask + 1], capacity);
    b->cache = c;
    b->cell = cell;
    for (unsigned i = 0; i < SPAN_BUCKETS; i++) {
        list_init(&b->lists[i]);
    }
    uintptr_t spans = (uintptr_t)span_by_index(cell, 0);
    uint32_t step_down = (uint32_t)info->span_shift + CACHE_STEP_UP - info->step_shift;
    spans -=
        (uintptr_t)cache_span(&(struct cache_cell){.step_down = step_down}, root_cell_base(cell));
    c->cells[cell] = (struct cache_cell){
        .top = cache_top_at(c, b->entries),
        .base = root_cell_base(cell),
        .spans = spans,
        .mixer = mixer,
        .reciprocal = info->reciprocal,
        .span_keep = ENTRY_ADDRESS & ~(uint64_t)info->span_mask,
        .step_down = step_down,
        .slot_bytes = info->bytes,
        .mixer_mask = mask,
    };
    c->bins[cell] = b;
    return b;
}

static uint32_t bin_count(const struct bin *b) {
    return (uint32_t)(cache_place(b->cache, b->cache->cells[b->cell].top) - b->entries);
}

static void bin_set_count(struct bin *b, uint32_t n) {
    b->cache->cells[b->cell].top = cache_top_at(b->cache, &b->entries[n]);
}

// A vector that has been filled once over has shown that it is needed.
static void bin_grow(struct bin *b) {
    const uint64_t *old = b->entries;
    uint32_t full = bin_class(b)->capacity;
    uint32_t next = b->capacity < FIRST_CAPACITY && FIRST_CAPACITY < full ? FIRST_CAPACITY : full;
    uint32_t n = bin_count(b);
    if (b->capacity < full && b->taken >= b->capacity && bin_extend(b, next)) {
        for (uint32_t i = 0; i < n; i++) {
            b->entries[i] = old[i];
        }
        bin_set_count(b, n);
    }
}

static void bin_file(struct bin *b, struct span *s) {
    s->bucket = (uint8_t)span_bucket(s);
    list_push_front(&b->lists[s->bucket], &s->links);
}

void cache_settle(struct cache *c, struct span *s) {
    if (s->free_count == span_class(s)->slots) {
        list_remove(&s->links);
        central_give(s);
    } else if (s->bucket != span_bucket(s)) {
        list_remove(&s->links);
        bin_file(c->bins[s->cell], s);
    }
}

static struct span *bin_fullest(struct bin *b) {
    for (unsigned i = SPAN_FULL; i-- > 0;) {
        while (!list_is_empty(&b->lists[i])) {
            struct span *s = LIST_ENTRY(b->lists[i].next, struct span, links);
            if (FIRN_LIKELY(!span_is_meshed(s))) {
                return s;
            }
            list_remove(&s->links);
            bin_file(b, s);
        }
    }
    return NULL;
}

// All that is fetched is half of what was needed so far, and so the most that may be there in vain. Before a bin
// has needed half of a full vector its slots come page by page: small programs have many cells, and need few
// slots of each.
static bool bin_wants_pages(const struct bin *b) {
    const struct class_info *info = bin_class(b);
    return info->bytes <= FRESH_SLOT_MOST && b->taken >= info->capacity / 2;
}

// Moves free slots of `s` into the vector, each to a random place, until it has `target` entries.
// P-ORDER.
// Slots are taken in address order, so that a cell that needs few of them touches few pages.
static void bin_take_slots(struct bin *b, struct span *s, uint32_t target, struct fresh *fresh) {
    uintptr_t base = span_base(s);
    uint32_t bytes = bin_class(b)->bytes;
    struct random_stream *random = &b->cache->noise->stream;
    uint64_t *entries = b->entries;
    uint32_t n = bin_count(b);
    const uint32_t had = n;
    unsigned last = 0;
    span_set_mesh(s, SPAN_TOUCHED, 0);
    for (unsigned w = 0; w < SPAN_WORDS && n < target; w++) {
        while (s->free[w] != 0 && n < target) {
            unsigned bit = (unsigned)__builtin_ctzll(s->free[w]);
            uint64_t mask = (uint64_t)1 << bit;
            unsigned slot = w * 64 + bit;
            last = slot;
            uint64_t entry = cache_entry(base + slot * (uintptr_t)bytes, slot);
            entry |= s->virgin[w] & mask ? ENTRY_VIRGIN : 0;
            if (FIRN_UNLIKELY(s->is_torn) && (entry & ENTRY_VIRGIN) == 0) {
                slot_wipe(entry & ENTRY_ADDRESS, bytes);
            }
            s->free[w] &= ~mask;
            s->virgin[w] &= ~mask;
            s->free_count--;
            uint32_t j = (uint32_t)random_u8(random) * (n + 1) >> 8; // n < 256: reaches every place
            entries[n] = entries[j];
            entries[j] = entry;
            n++;
        }
    }
    span_note_idle(s, (int64_t)had - n);
    bin_set_count(b, n);
    if (n > had) {
        fresh_add(fresh, s, (last + 1) * bytes);
    }
}

// Of slots that are put back. Before cache_settle: an empty span takes its slots out of the count.
static void bin_note_idle(const struct bin *b, uint32_t slots) {
    atomic_fetch_add_explicit(&firn_span_idle_bytes, (int64_t)slots * bin_class(b)->bytes,
                              memory_order_relaxed);
}

static void bin_put_back(struct bin *b, uint64_t entry) {
    const struct class_info *info = bin_class(b);
    struct span *s = span_at((entry & ENTRY_ADDRESS) - FIRN_ROOT.small_base, info);
    span_put_free(s, (unsigned)(entry >> ENTRY_SLOT_SHIFT), (entry & ENTRY_VIRGIN) != 0);
    cache_settle(b->cache, s);
}

// Puts the first `n` entries, those longest there, back among their spans' free slots.
static void bin_flush(struct bin *b, uint32_t n) {
    uint64_t *entries = b->entries;
    sample_clock_take_back(b->cache, n);
    bin_note_idle(b, n);
    for (uint32_t i = 0; i < n; i++) {
        bin_put_back(b, entries[i]);
    }
    uint32_t left = bin_count(b) - n;
    for (uint32_t i = 0; i < left; i++) {
        entries[i] = entries[i + n];
    }
    bin_set_count(b, left);
}

static void bin_flush_mixer(struct bin *b) {
    const struct cache_cell *e = &b->cache->cells[b->cell];
    for (unsigned i = 0; i <= e->mixer_mask; i++) {
        uint64_t *place = &e->mixer[i];
        uint64_t entry = *place;
        *place = 0;
        if (entry != 0) {
            bin_note_idle(b, 1);
            bin_put_back(b, entry);
        }
    }
}

// What a stashed bin shows: a vector that is full and empty at once, so that pops and pushes both take
// their slow paths.
static uint64_t stashed_vector[2] = {0, VECTOR_END};

static bool is_stashed(const struct bin *b) {
    return cache_place(b->cache, b->cache->cells[b->cell].top) == &stashed_vector[1];
}

uint32_t cache_count_entries(const struct bin *b) {
    return is_stashed(b) ? b->stash : bin_count(b);
}

static void bin_stash(struct bin *b) {
    if (!is_stashed(b) && bin_count(b) != 0) {
        b->stash = bin_count(b);
        b->cache->cells[b->cell].top = cache_top_at(b->cache, &stashed_vector[1]);
    }
}

// A vector inherited over fork: the same slots in an order the parent does not know. If a signal
// handler forked in the middle of a malloc or free, that has meanwhile ended in the child, and what
// it left in the cell is true.
static void bin_unstash(struct bin *b) {
    bin_set_count(b, cache_count_entries(b));
    b->stash = 0;
    if (!b->is_paused) {
        apart_shuffle(b->entries, bin_count(b), &b->cache->noise->stream);
        apart_order(b->entries, bin_count(b), 0, bin_class(b)->bytes, &b->cache->noise->stream);
    }
    b->is_paused = false;
}

// Makes room in a full vector, or unpacks a stash. With the owner's lock.
FIRN_COLD static void bin_make_room(struct bin *b) {
    if (b->stash != 0) {
        bin_unstash(b);
    }
    bin_grow(b);
    if (bin_count(b) == b->capacity) {
        bin_flush(b, b->capacity / 2);
    }
}

void cache_release(struct cache *c, uint64_t entry) {
    uintptr_t at = cache_cell_at(c, entry & ENTRY_ADDRESS);
    struct cache_cell *e = cache_cell(c, at);
    if (FIRN_UNLIKELY(*cache_place(c, e->top) == VECTOR_END)) {
        bin_make_room(c->bins[at >> CELL_LINE_SHIFT]);
    }
    if (FIRN_UNLIKELY(*c->noise_at == 0)) {
        cache_make_noise(c);
    }
    uint64_t noise = *c->noise_at++;
    cache_push(c, at, e->top, noise, entry);
}

void cache_release_all(struct cache *c, const uint64_t *entries, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        uintptr_t at = cache_cell_at(c, entries[i] & ENTRY_ADDRESS);
        uintptr_t top = cache_cell(c, at)->top;
        const uint8_t *noise_at = c->noise_at;
        uint64_t noise = *noise_at;
        if (FIRN_LIKELY(*cache_place(c, top) != VECTOR_END) && FIRN_LIKELY(noise != 0)) {
            c->noise_at = noise_at + 1;
            cache_push(c, at, top, noise, entries[i]);
        } else {
            cache_release(c, entries[i]);
        }
    }
}

void cache_put_back(struct cache *c, uint64_t entry) {
    bin_put_back(c->bins[cache_cell_at(c, entry & ENTRY_ADDRESS) >> CELL_LINE_SHIFT], entry);
}

// The slow path of a free undoes it: tried again a few times, lest a long run of frees pays for it.
FIRN_COLD void cache_pause(struct cache *c, unsigned cell) {
    struct bin *b = c->bins[cell];
    if (c->sample_tries > 0 && !is_stashed(b) && bin_count(b) != 0) {
        c->sample_tries--;
        bin_stash(b);
        b->is_paused = true;
    }
}

// With the owner's lock.
// Takes slots until there are `target`, from the fullest span, or from one that nobody owns. False: there is none.
static bool bin_take_span(struct bin *b, uint32_t target, struct fresh *fresh) {
    struct span *s = bin_fullest(b);
    if (s != NULL) {
        list_remove(&s->links);
    } else if ((s = central_take(b->cell, b->cache, b->cache->number, &b->cache->noise->stream)) ==
               NULL) {
        return false;
    }
    bin_take_slots(b, s, target, fresh);
    bin_file(b, s);
    return true;
}

static void refill(struct cache *c, unsigned cell, struct fresh *fresh) {
    struct bin *b = c->bins[cell];
    if (b->stash != 0) {
        bool has_all = b->is_paused && is_stashed(b);
        bin_unstash(b);
        if (has_all) {
            return;
        }
    }
    uint64_t last = b->entries[0]; // what was handed out when the vector became empty
    remote_drain(c);
    uint32_t before = bin_count(b);
    // Half of what was needed so far, so that refills grow with use and small programs stay small.
    bin_grow(b);
    uint32_t first = first_fill(bin_class(b));
    uint32_t target = b->taken / 2 < first ? first : b->taken / 2;
    target = target < b->capacity ? target : b->capacity;
    uint32_t enough = (target + 1) / 2 > FIRST_LEAST ? (target + 1) / 2 : FIRST_LEAST;
    enough = enough < target ? enough : target;
    for (unsigned i = 0; i < REFILL_SPANS && bin_count(b) < enough; i++) {
        if (!bin_take_span(b, target, fresh)) {
            break;
        }
    }
    b->taken += b->taken < 2 * b->capacity ? bin_count(b) : 0;
    apart_order(b->entries, bin_count(b), last, bin_class(b)->bytes, &b->cache->noise->stream);
    // 0: not even the first span could be committed. Then nothing is in the cell.
    uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
    c->cells[cell].bytes = limit != 0 ? limit - c->cells[cell].base : 0;
    if (bin_count(b) == 0) {
        // No memory but what waits in quarantine and in the mixer.
        quarantine_flush(c);
        bin_flush_mixer(b);
        // What became empty went to central.
        (void)bin_take_span(b, b->capacity, fresh);
    }
    sample_clock_add(c, bin_count(b) - before);
}

FIRN_NOINLINE bool cache_refill(struct cache *c, unsigned cell) {
    if (c->bins[cell] == NULL && bin_make(c, cell) == NULL) {
        return false;
    }
    struct fresh fresh;
    fresh.count = 0;
    fresh.is_wanted = bin_wants_pages(c->bins[cell]);
    owner_lock(c->number);
    refill(c, cell, &fresh);
    owner_unlock(c->number);
    fresh_populate(&fresh);
    return bin_count(c->bins[cell]) > 0;
}

// With the owner's lock.
static void flush_all(struct cache *c) {
    remote_drain(c);
    quarantine_flush(c);
    for (unsigned i = 0; i < CELLS; i++) {
        struct bin *b = c->bins[i];
        if (b == NULL) {
            continue;
        }
        if (b->stash != 0) {
            bin_unstash(b);
        }
        bin_flush_mixer(b);
        bin_flush(b, bin_count(b));
    }
}

void cache_flush_all(struct cache *c) {
    owner_lock(c->number);
    flush_all(c);
    owner_unlock(c->number);
}

bool cache_is_virgin(const struct span *s, uintptr_t address) {
    unsigned slot = span_slot(span_class(s), address - FIRN_ROOT.small_base);
    if (s->virgin[slot >> 6] >> (slot & 63) & 1) {
        return true;
    }
    const struct cache *owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
    const struct bin *b = owner != NULL ? owner->bins[s->cell] : NULL;
    if (b == NULL) {
        return false;
    }
    uint32_t n = cache_count_entries(b);
    for (uint32_t i = 0; i < n && i < b->capacity; i++) {
        if ((b->entries[i] & ENTRY_ADDRESS) == address) {
            return (b->entries[i] & ENTRY_VIRGIN) != 0;
        }
    }
    return false;
}

// ---- threads ----------------------------------------------------------------------------------

// With registry_lock.
static struct cache *cache_make(void) {
    bool is_wiped; // if not, stash_all has to do
    struct noise *noise = arena_alloc_wiped(sizeof *noise, &is_wiped);
    struct cache *c = noise != NULL ? arena_alloc(sizeof *c, FIRN_CACHE_LINE) : NULL;
    if (c == NULL) {
        return NULL;
    }
    c->noise = noise;
    c->noise_at = noise->bytes;
    c->number = (uint32_t)++caches_made;
    c->small_base = FIRN_ROOT.small_base;
    c->line_shift = FIRN_ROOT.line_shift;
    for (unsigned i = 0; i <= SIZE_TABLE_MAX / 16; i++) {
        c->first_cells[i] = (uint32_t)cache_first_cell(size_class_table[i]);
    }
    c->next = registry;
    registry = c;
    return c;
}

bool cache_attach(void) {
    lock_acquire(&registry_lock);
    struct cache *c = idle;
    if (c != NULL) {
        idle = c->next_idle;
    } else {
        c = cache_make();
    }
    if (c != NULL) {
        caches_used++;
        atomic_store_explicit(&c->is_used, true, memory_order_relaxed);
        atomic_store_explicit(&c->pending, NULL, memory_order_seq_cst); // open
    }
    lock_release(&registry_lock);
    if (c == NULL) {
        return false;
    }
    c->noise->thread = 0;
    firn_cache = c;
    return true;
}

static void bin_abandon(struct bin *b) {
    for (unsigned i = 0; i < SPAN_BUCKETS; i++) {
        while (!list_is_empty(&b->lists[i])) {
            struct span *s = LIST_ENTRY(b->lists[i].next, struct span, links);
            list_remove(&s->links);
            central_give(s);
        }
    }
}

void cache_detach(struct cache *c) {
    firn_cache = &firn_empty_cache;
    owner_lock(c->number);
    flush_all(c);
    for (unsigned i = 0; i < CELLS; i++) {
        if (c->bins[i] != NULL) {
            bin_abandon(c->bins[i]);
        }
    }
    owner_unlock(c->number);
    // Only now: a queue that refuses while spans still name this owner would keep others waiting.
    remote_close(c);
    lock_acquire(&registry_lock);
    atomic_store_explicit(&c->is_used, false, memory_order_relaxed);
    c->next_idle = idle;
    idle = c;
    caches_used--;
    lock_release(&registry_lock);
}

struct cache *cache_first(void) {
    lock_acquire(&registry_lock);
    struct cache *first = registry;
    lock_release(&registry_lock);
    return first;
}

void cache_count(size_t *made, size_t *used) {
    lock_acquire(&registry_lock);
    *made = caches_made;
    *used = caches_used;
    lock_release(&registry_lock);
}

// ---- fork -------------------------------------------------------------------------------------

void cache_before_fork(void) {
    lock_acquire(&registry_lock);
}

static void stash_all(struct cache *c) {
    for (unsigned i = 0; i < CELLS; i++) {
        struct bin *b = c->bins[i];
        if (b != NULL) {
            bin_stash(b);
            b->is_paused = false;
        }
    }
    *c->noise = (struct noise){0};
    c->noise_at = c->noise->bytes;
}

// What other threads had queued for this one is queued in the child, too.
static void mark_queued(const struct cache *c) {
    struct span *s = atomic_load_explicit(&c->pending, memory_order_acquire);
    while (s != NULL && s != CACHE_CLOSED) {
        (void)!span_mark_pending(s);
        s = atomic_load_explicit(&s->pending_next, memory_order_relaxed);
    }
}

bool cache_after_fork(bool in_child) {
    if (!in_child) {
        lock_release(&registry_lock);
        return false;
    }
    lock_reset(&registry_lock);
    bool any_dead = false;
    firn_span_mark++;
    for (struct cache *c = registry; c != NULL; c = c->next) {
        if (c == firn_cache) {
            stash_all(c);
            mark_queued(c);
        } else if (atomic_load_explicit(&c->is_used, memory_order_relaxed) &&
                   !atomic_load_explicit(&c->is_dead, memory_order_relaxed)) {
            // Never used again: its bins and vectors may be half changed.
            atomic_store_explicit(&c->is_dead, true, memory_order_relaxed);
            atomic_store_explicit(&c->pending, CACHE_CLOSED, memory_order_relaxed);
            any_dead = true;
        }
    }
    caches_used = firn_cache == &firn_empty_cache ? 0 : 1;
    return any_dead;
}
