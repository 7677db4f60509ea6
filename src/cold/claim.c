#include "src/cold/claim.h"

#include "src/base/bits.h"
#include "src/os/caps.h"
#include "src/os/fault.h"
#include "src/os/map.h"
#include "src/os/missing.h"
#include "src/span/large.h"
#include "src/span/large_extent.h"
#include "src/span/region.h"

enum {
    REST_MOST = 64, // looks for which such a chunk is left alone
    BUSY_ZEROS = 64 // pages of zeros given between two looks to a chunk that is better left alone
};

static _Atomic uint64_t claimed_chunks;

// ---- what is there ------------------------------------------------------------------------------

static const struct span *span_of(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    unsigned cell = (unsigned)(offset >> FIRN_ROOT.cell_shift);
    return span_at(offset, &FIRN_ROOT.classes[root_cell_class(cell)]);
}

bool claim_is_in_use(uintptr_t page) {
    if (table_is_large(page)) {
        size_t extent = large_extent(page);
        return extent != 0 && extent != LARGE_EXTENT_FOREIGN;
    }
    return span_state(span_of(page)) == SPAN_ACTIVE;
}

uint16_t claim_fingerprint(uintptr_t page) {
    enum { WORD_BITS = 64, KEPT_BITS = 16 };
    if (table_is_large(page)) {
        return 0;
    }
    const struct span *s = span_of(page);
    const struct class_info *info = span_class(s);
    size_t in_span = page & info->span_mask;
    size_t from = in_span / info->bytes, until = (in_span + FIRN_PAGE - 1) / info->bytes + 1;
    uint64_t sum = 0;
    for (size_t slot = from; slot < until && slot < info->slots;) {
        size_t n = WORD_BITS - slot % WORD_BITS;
        n = n < until - slot ? n : until - slot;
        uint64_t live = atomic_load_explicit(&s->live[slot / WORD_BITS], memory_order_relaxed);
        sum = (sum ^ (live >> slot % WORD_BITS & bits_mask((unsigned)n))) *
              UINT64_C(0x9e3779b97f4a7c15);
        slot += n;
    }
    return (uint16_t)(sum >> (WORD_BITS - KEPT_BITS));
}

static uintptr_t clip(uintptr_t base, uintptr_t limit) {
    return limit <= base ? base : limit - base < CHUNK_BYTES ? limit : base + CHUNK_BYTES;
}

static uintptr_t cell_limit(uintptr_t address) {
    unsigned cell = (unsigned)((address - FIRN_ROOT.small_base) >> FIRN_ROOT.cell_shift);
    return atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
}

uintptr_t claim_end(const struct chunk *c) {
    uintptr_t from, until;
    if (!table_is_large(c->base)) {
        return clip(c->base, cell_limit(c->base));
    }
    return large_watch_range(&from, &until) && c->base >= from ? clip(c->base, until) : c->base;
}

static void each_large(claim_look_fn *look) {
    uintptr_t from, until;
    if (!large_watch_range(&from, &until)) {
        return;
    }
    // The range begins where a chunk does, as the small regions end there.
    for (uintptr_t base = from; base < until; base += CHUNK_BYTES) {
        uintptr_t end = clip(base, until);
        if (table_find(base) != NULL || large_fingerprint(base, end) != 0) {
            look(base, end);
        }
    }
}

void claim_each(claim_look_fn *look) {
    for (unsigned cell = 0; cell < CELLS; cell++) {
        uintptr_t limit = atomic_load_explicit(&firn_cell_limits[cell], memory_order_acquire);
        if (limit == 0) {
            continue;
        }
        for (uintptr_t base = root_cell_base(cell); base < limit; base += CHUNK_BYTES) {
            look(base, clip(base, limit));
        }
    }
    each_large(look);
}

static const struct class_info *class_at(uintptr_t small) {
    unsigned cell = (unsigned)((small - FIRN_ROOT.small_base) >> FIRN_ROOT.cell_shift);
    return &FIRN_ROOT.classes[root_cell_class(cell)];
}

// Nobody hands its pages to the kernel behind our back.
static bool is_fit(const struct chunk *c) {
    return missing_serves_calls() || table_is_large(c->base) ||
           !fault_may_be_buffer(class_at(c->base)->bytes);
}

// A number that changes with what is in use; 0: nothing is.
static uint64_t use_of(uintptr_t from, uintptr_t end, bool *any_meshed) {
    if (table_is_large(from)) {
        return large_fingerprint(from, end);
    }
    const struct class_info *info = class_at(from);
    uint64_t used = 0;
    for (uintptr_t at = from; at < end; at += (uintptr_t)info->span_mask + 1) {
        const struct span *s = span_of(at);
        used += span_state(s) == SPAN_ACTIVE;
        *any_meshed |= span_is_meshed(s);
    }
    return used;
}

// ---- beginning and end --------------------------------------------------------------------------

static void count_claim(struct chunk *c, uintptr_t end) {
    c->registered = end - c->base;
    atomic_fetch_add_explicit(&claimed_chunks, 1, memory_order_relaxed);
}

// Where a system call would not wait for a page, none is missing: what was never touched, or was given back, gets
// the page of zeros, here and in page_state_purge. (A call into a new block would fail, libc's own among
// them.) Order, against who gives pages back: the chunk is claimed first, and filled second; there it is the
// other way round. Inaccessible pages in between stop the kernel, hence smaller and smaller steps.
static void fill_holes(uintptr_t from, uintptr_t end) {
    enum { STEPS = 16 };
    for (uintptr_t at = from; at < end;) {
        size_t bytes = (end - at) & ~(FIRN_PAGE * STEPS - 1);
        bytes = bytes > 0 && (at & (FIRN_PAGE * STEPS - 1)) == 0 ? FIRN_PAGE * STEPS : FIRN_PAGE;
        if (map_populate_zero(at, bytes) || bytes == FIRN_PAGE) {
            at += bytes;
            continue;
        }
        for (uintptr_t until = at + bytes; at < until; at += FIRN_PAGE) {
            (void)!map_populate_zero(at, FIRN_PAGE);
        }
    }
}

// The lesser way: in the moment between, a call may fail.
static void fill_watched_holes(uintptr_t from, uintptr_t end) {
    for (uintptr_t at = from; at < end; at += FIRN_PAGE) {
        (void)missing_fill_zero(MISSING_SELF, at, FIRN_PAGE);
    }
}

static bool watch(const struct chunk *c, uintptr_t end) {
    bool can_fill = missing_holes_fail() && caps_has(CAP_POPULATE);
    uintptr_t from = c->base + c->registered;
    if (can_fill) {
        fill_holes(from, end);
    }
    if (!missing_register(c->base, end - c->base, false)) {
        return false;
    }
    if (missing_holes_fail() && !can_fill) {
        fill_watched_holes(from, end);
    }
    return true;
}

// Order, against a merge that begins: claimed first, looked second; fault_stage does it the other way round.
static bool take_small(struct chunk *c, uintptr_t end) {
    bool any_meshed = false;
    atomic_store(&c->is_claimed, true);
    if (!fault_is_staged(c->base, CHUNK_BYTES)) {
        (void)use_of(c->base, end, &any_meshed);
        if (!any_meshed && fault_yield(c->base, end - c->base)) {
            if (watch(c, end)) {
                count_claim(c, end);
                return true;
            }
            fault_regain(c->base, end - c->base);
        }
    }
    atomic_store(&c->is_claimed, false);
    return false;
}

struct taking {
    struct chunk *chunk;
    uintptr_t end;
};

// With LOCK_LARGE, and nobody moves anything: who looks whether a chunk is claimed does so with it, too.
static bool take_large(void *context) {
    const struct taking *t = context;
    atomic_store(&t->chunk->is_claimed, true);
    bool is_watched = watch(t->chunk, t->end);
    if (is_watched) {
        count_claim(t->chunk, t->end);
    } else {
        atomic_store(&t->chunk->is_claimed, false);
    }
    return is_watched;
}

bool claim_take(struct chunk *c, uintptr_t end) {
    if (!is_fit(c)) {
        return false;
    }
    if (!table_is_large(c->base)) {
        return take_small(c, end);
    }
    struct taking t = {c, end};
    return large_while_settled(take_large, &t);
}

static void give_up(struct chunk *c) {
    missing_unregister(c->base, c->registered);
    atomic_store(&c->is_claimed, false);
    if (!table_is_large(c->base)) {
        fault_regain(c->base, c->registered);
    }
    c->registered = 0;
    atomic_fetch_sub_explicit(&claimed_chunks, 1, memory_order_relaxed);
}

static bool yields(const struct chunk *c, uintptr_t end) {
    return table_is_large(c->base) || fault_yield(c->base, end - c->base);
}

// Something of it may have been mapped behind what is registered meanwhile: then it is, too.
static bool keep_registered(struct chunk *c, uintptr_t end) {
    uint32_t filled = atomic_exchange_explicit(&c->filled, 0, memory_order_relaxed);
    if (table_away(c) == 0) {
        bool is_empty = table_is_large(c->base) && large_fingerprint(c->base, end) == 0;
        if (is_empty || filled > BUSY_ZEROS) {
            give_up(c);
            c->rest = is_empty ? 0 : c->rest < REST_MOST ? (uint8_t)(2 * c->rest + 2) : REST_MOST;
            c->wait = c->rest;
            return false;
        }
    }
    c->rest /= 2;
    if (end - c->base > c->registered && yields(c, end) && watch(c, end)) {
        c->registered = end - c->base;
    }
    return c->registered != 0;
}

// Not before it has stopped growing: fresh memory there would have to be asked of a thread.
bool claim_keep(struct chunk *c, uintptr_t end) {
    if (c->registered != 0) {
        return keep_registered(c, end);
    }
    if (c->wait > 0) {
        c->wait--;
        return false;
    }
    bool any_meshed = false;
    uint64_t used = use_of(c->base, end, &any_meshed);
    if (used != c->used) {
        c->used = used;
        return false;
    }
    return used != 0 && !any_meshed && claim_take(c, end);
}

void claim_each_wished(claim_wish_fn *take) {
    for (struct chunk *c = table_first(); c != NULL; c = c->next) {
        uint64_t any = 0;
        for (unsigned w = 0; w < CHUNK_WORDS; w++) {
            any |= atomic_load_explicit(&c->wished[w], memory_order_relaxed);
        }
        uintptr_t end = any != 0 ? claim_end(c) : c->base;
        if (any == 0 || (c->registered == 0 && (end <= c->base || !claim_take(c, end)))) {
            continue;
        }
        for (unsigned w = 0; w < CHUNK_WORDS; w++) {
            take(c, w);
        }
    }
}

uint64_t claim_count(void) {
    return atomic_load_explicit(&claimed_chunks, memory_order_relaxed);
}
