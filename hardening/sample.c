// P-SAMPLE. A slot:   | guard page | up to 8 pages, the object's first | guard pages |
//
// A block of up to a page lies on the first of them, against its start or its end, so that the guards
// beside it stay from one use of the slot to the next and only that page is opened and closed: two
// system calls a sample, or none while many are freed. A larger block begins or ends likewise; its slot is cut anew if it was cut
// for another number of pages.
#include "hardening/sample.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/base/text.h"
#include "src/meta/arena.h"
#include "src/meta/size_class.h"
#include "src/os/caps.h"
#include "src/os/clock.h"
#include "src/os/map.h"
#include "src/os/walk.h"
#include "src/os/watch.h"

#include <errno.h>
#include <string.h>

enum {
    RIM_BYTES = 128,       // on each side of a block: filled, and checked when it is freed
    CLOSE_MOST_NS = 100000 // what closing is taken to cost at most
};

enum sample_state {
    SAMPLE_FREE,
    SAMPLE_BUSY, // in the hands of a thread that changes it
    SAMPLE_LIVE
};

struct sample {
    _Atomic uint32_t state;
    uint32_t pages;   // that its guards leave open; 0: not cut yet
    uint32_t size;    // bytes the program asked for, at least 1
    uint8_t filler;   // what the rim of the block holds
    uintptr_t object; // address of the block
    struct fatal_trace allocated;
    struct fatal_trace freed; // count 0 while live
};

uint32_t firn_sample_rate = FIRN_SAMPLE_RATE;
uint32_t firn_sample_share = SAMPLE_SHARE;
_Atomic uintptr_t firn_sample_base;

static struct sample *samples;
static _Atomic uint32_t pool_state; // 0 not made, 1 being made, 2 there, 3 impossible
static _Atomic uint64_t frees;      // frees so far: the clock of freed_at
// When a slot that can be taken was freed, plus 1; 0: never used. In the lowest byte how many pages of it
// are still open. UNTAKABLE: in use, or damaged. Apart from the slots, so that looking for one touches
// little.
static _Atomic uint64_t freed_at[SAMPLE_SLOTS];
#define UNTAKABLE UINT64_MAX
enum { FREED_SHIFT = 8, FREED_PAGES = 255 };
static _Atomic uint64_t next_close_ns; // nothing is closed before
static _Atomic uint64_t closed_until;  // what was freed before that is closed by sample_close
static _Atomic size_t live_count, live_bytes;

// ---- reports ----------------------------------------------------------------------------------

size_t sample_class_bytes(size_t size) {
    return size_class_bytes(size_class_of(size));
}

static struct sample *sample_at(uintptr_t address) {
    return &samples[(address - firn_sample_base) / SAMPLE_STRIDE];
}

// "12 bytes past the end of a sampled block of 40 bytes". Static: only one report is ever made.
static const char *phrase(const struct sample *s, uintptr_t address, bool is_live) {
    static char buffer[96];
    struct text t = text_on(buffer, sizeof buffer);
    uintptr_t end = s->object + s->size;
    if (address >= end) {
        text_dec(&t, address - end);
        text_str(&t, " bytes past the end of ");
    } else if (address < s->object) {
        text_dec(&t, s->object - address);
        text_str(&t, " bytes before the start of ");
    } else {
        text_dec(&t, address - s->object);
        text_str(&t, " bytes into ");
    }
    text_str(&t, is_live ? "a sampled block of " : "a freed sampled block of ");
    text_dec(&t, s->size);
    text_str(&t, " bytes");
    return buffer;
}

// `at`: the byte that was touched. Completes *info.
static FIRN_NORETURN void report(const struct sample *s, uintptr_t at, bool is_live,
                                 struct fatal_info *info) {
    enum fatal_id id = !is_live         ? FATAL_SAMPLED_USE_AFTER_FREE
                       : at < s->object ? FATAL_SAMPLED_UNDERFLOW
                                        : FATAL_SAMPLED_OVERFLOW;
    info->class_bytes = sample_class_bytes(s->size);
    info->size = FATAL_SIZE_UNKNOWN; // the call, if there is one, names none
    info->found = phrase(s, at, is_live);
    fatal(id, info);
}

// fatal_recall_fn: also for a double free, or a pointer into the middle.
static void recall(const struct fatal_info *info, struct fatal_record *out) {
    if (sample_contains(info->address)) {
        const struct sample *s = sample_at(info->address);
        if (s->object != 0) {
            out->requested = s->size;
            out->allocated = s->allocated;
            out->freed = s->freed;
        }
    }
}

// watch_fn. A slot that is being changed has nothing to say.
static void look_at_fault(const struct watch_fault *fault) {
    if (!sample_contains(fault->address)) {
        return;
    }
    const struct sample *s = sample_at(fault->address);
    uint32_t state = atomic_load_explicit(&s->state, memory_order_acquire);
    if (state != SAMPLE_BUSY && s->object != 0) {
        struct fatal_info info = {
            .api = fault->is_write ? "write" : "read",
            .address = fault->address,
            .caller = fault->pc,
        };
        report(s, fault->address, state == SAMPLE_LIVE, &info);
    }
}

void sample_watch(void) {
    (void)!watch_install(look_at_fault);
}

// ---- the pool ---------------------------------------------------------------------------------

static bool is_rationed(void) {
    const struct limits *limits = caps_limits();
    return !caps_has(CAP_RESERVE) || limits->is_strict_overcommit ||
           limits->data_bytes != UINT64_MAX;
}

static bool make_pool(void) {
    struct reservation range;
    size_t bytes = (size_t)SAMPLE_SLOTS * SAMPLE_STRIDE;
    unsigned limit_bits = caps_has(CAP_WIDE_ADDRESS) ? 47 : 39;
    if (is_rationed()) {
        return false;
    }
    samples = arena_alloc(SAMPLE_SLOTS * sizeof *samples, FIRN_CACHE_LINE);
    if (samples == NULL || !map_reserve(&range, bytes + FIRN_PAGE, FIRN_PAGE, limit_bits, false) ||
        !map_commit(&range, range.base, bytes)) {
        return false;
    }
    (void)!fatal_add_recall(recall);
    atomic_store_explicit(&firn_sample_base, range.base, memory_order_relaxed);
    return true;
}

static bool has_pool(void) {
    uint32_t state = atomic_load_explicit(&pool_state, memory_order_acquire);
    if (state == 0 && atomic_compare_exchange_strong_explicit(
                          &pool_state, &state, 1, memory_order_relaxed, memory_order_relaxed)) {
        state = make_pool() ? 2 : 3;
        // release: pairs with the acquire above, and with those of slots' states.
        atomic_store_explicit(&pool_state, state, memory_order_release);
    }
    return state == 2;
}

static uintptr_t body_of(const struct sample *s) {
    return firn_sample_base + (uintptr_t)(s - samples) * SAMPLE_STRIDE + FIRN_PAGE;
}

// Takes a free slot for whoever sees `word` in its place. acquire: pairs with the release in put_back.
static bool claim(unsigned i, uint64_t word) {
    return atomic_compare_exchange_strong_explicit(&freed_at[i], &word, UNTAKABLE,
                                                   memory_order_acquire, memory_order_relaxed);
}

// A slot for `pages` pages, now SAMPLE_BUSY, and how many of its pages are open; NULL when all are in
// use. The one that has been closed for longest; where enough are open, the one that has been open
// for longest, which costs no system call.
static struct sample *take_slot(uint32_t pages, uint32_t *open_pages) {
    enum { CLOSED, OPEN, OTHER, KINDS };
    uint64_t oldest[KINDS] = {UNTAKABLE, UNTAKABLE, UNTAKABLE};
    unsigned at[KINDS] = {0}, open = 0;
    for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
        uint64_t word = atomic_load_explicit(&freed_at[i], memory_order_relaxed);
        uint32_t n = word & FREED_PAGES;
        unsigned kind = n == 0 ? CLOSED : n == pages ? OPEN : OTHER;
        open += kind == OPEN;
        if (word < oldest[kind]) {
            oldest[kind] = word;
            at[kind] = i;
        }
    }
    unsigned kind = open >= SAMPLE_OPEN           ? OPEN
                    : oldest[CLOSED] != UNTAKABLE ? CLOSED
                    : open > 0                    ? OPEN
                                                  : OTHER;
    // Somebody was faster: no sample then.
    if (oldest[kind] == UNTAKABLE || !claim(at[kind], oldest[kind])) {
        return NULL;
    }
    *open_pages = oldest[kind] & FREED_PAGES;
    atomic_store_explicit(&samples[at[kind]].state, SAMPLE_BUSY, memory_order_relaxed);
    return &samples[at[kind]];
}

// Puts the guards beside `pages` pages.
static bool cut(struct sample *s, uint32_t pages) {
    uintptr_t body = body_of(s);
    uintptr_t end = body + pages * (uintptr_t)FIRN_PAGE;
    uintptr_t slot = body - FIRN_PAGE;
    if (s->pages != 0 && !map_unguard(slot, SAMPLE_STRIDE)) {
        return false;
    }
    s->pages = 0;
    if (!map_guard(slot, FIRN_PAGE) || !map_guard(end, slot + SAMPLE_STRIDE - end)) {
        return false;
    }
    s->pages = pages;
    return true;
}

static bool prepare(struct sample *s, uint32_t pages, bool is_open) {
    if (s->pages == pages) {
        return is_open || map_unguard(body_of(s), pages * (size_t)FIRN_PAGE);
    }
    return cut(s, pages);
}

// ---- blocks -----------------------------------------------------------------------------------

static void record(struct fatal_trace *trace, const struct sample_call *call) {
    trace->thread = call->thread;
    trace->pcs[0] = call->site;
    trace->count = 1;
    uintptr_t caller_fp;
    memcpy(&caller_fp, (const void *)call->fp, sizeof caller_fp);
    trace->count = (unsigned)walk_from(call->fp, caller_fp, trace->pcs, 1, FATAL_FRAMES);
}

// What surrounds the block on its pages, as far as it is filled and checked.
struct rim {
    uintptr_t low, high;
};

static struct rim rim_of(const struct sample *s) {
    uintptr_t body = body_of(s);
    uintptr_t end = body + s->pages * (uintptr_t)FIRN_PAGE;
    uintptr_t after = s->object + s->size;
    return (struct rim){
        .low = s->object - body > RIM_BYTES ? s->object - RIM_BYTES : body,
        .high = end - after > RIM_BYTES ? after + RIM_BYTES : end,
    };
}

static void fill_rim(const struct sample *s) {
    struct rim rim = rim_of(s);
    uintptr_t after = s->object + s->size;
    memset((void *)rim.low, s->filler, s->object - rim.low);
    memset((void *)after, s->filler, rim.high - after);
}

static void check_rim(const struct sample *s, const char *api, uintptr_t site) {
    struct fatal_info info = {.api = api, .address = s->object, .caller = site};
    struct rim rim = rim_of(s);
    for (uintptr_t at = s->object + s->size; at < rim.high; at++) {
        if (*(const uint8_t *)at != s->filler) {
            report(s, at, true, &info);
        }
    }
    for (uintptr_t at = s->object; at-- > rim.low;) {
        if (*(const uint8_t *)at != s->filler) {
            report(s, at, true, &info);
        }
    }
}

// What a free one that is open holds, from rim to rim. `s` is SAMPLE_BUSY.
static void fill_open(const struct sample *s) {
    struct rim rim = rim_of(s);
    memset((void *)rim.low, s->filler, rim.high - rim.low);
}

static void check_open(const struct sample *s) {
    struct fatal_info info = {
        .api = firn_call.api != NULL ? firn_call.api : "malloc",
        .address = s->object,
        .caller = firn_call.site,
    };
    struct rim rim = rim_of(s);
    for (uintptr_t at = rim.low; at < rim.high; at++) {
        if (*(const uint8_t *)at != s->filler) {
            report(s, at, false, &info);
        }
    }
}

// Right-aligned: whatever the alignment leaves between the block and the guard is filled, too.
static void place(struct sample *s, size_t size, size_t align, struct random_stream *random) {
    uintptr_t body = body_of(s);
    uintptr_t end = body + s->pages * (uintptr_t)FIRN_PAGE;
    uint32_t draw = random_u32(random);
    s->size = (uint32_t)size;
    s->object = (draw & 1) != 0 ? body : align_down(end - size, align);
    s->filler = (uint8_t)(draw >> 8 | 1); // zero is what overflows write most
    s->freed = (struct fatal_trace){0};
    fill_rim(s);
}

// For whoever takes it next; a slot whose guards could not be placed is not put back.
static void put_back(struct sample *s, uint64_t freed, uint32_t open_pages) {
    atomic_store_explicit(&s->state, SAMPLE_FREE, memory_order_release);
    if (freed != UNTAKABLE) {
        atomic_store_explicit(&freed_at[s - samples], freed << FREED_SHIFT | open_pages,
                              memory_order_release);
    }
}

static void issue(struct sample *s, size_t size, const struct sample_call *call) {
    record(&s->allocated, call);
    atomic_fetch_add_explicit(&live_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&live_bytes, size, memory_order_relaxed);
    atomic_store_explicit(&s->state, SAMPLE_LIVE, memory_order_release);
}

void *sample_alloc(size_t size, size_t align, struct random_stream *random,
                   const struct sample_call *call) {
    int saved = errno;
    void *p = NULL;
    uint32_t open_pages = 0;
    size = size > 0 ? size : 1;
    uint32_t pages = (uint32_t)(align_up(size, FIRN_PAGE) >> FIRN_PAGE_SHIFT);
    bool is_possible = pages <= SAMPLE_PAGES && align <= FIRN_PAGE && has_pool();
    struct sample *s = is_possible ? take_slot(pages, &open_pages) : NULL;
    if (s != NULL && open_pages != 0) {
        check_open(s);
    }
    if (s != NULL && prepare(s, pages, open_pages != 0)) {
        place(s, size, align < 16 ? 16 : align, random);
        if (open_pages != 0) {
            memset((void *)s->object, 0, size);
        }
        issue(s, size, call);
        p = (void *)s->object;
    } else if (s != NULL) {
        put_back(s, UNTAKABLE, 0);
    }
    errno = saved;
    return p;
}

enum large_kind sample_find(uintptr_t address, struct large_block *block) {
    const struct sample *s = sample_at(address);
    uint32_t state = atomic_load_explicit(&s->state, memory_order_acquire);
    uintptr_t object = s->object;
    *block = (struct large_block){.base = object, .size = s->size, .capacity = s->size};
    if (object == 0 || address - body_of(s) >= s->pages * (uintptr_t)FIRN_PAGE) {
        return LARGE_NEVER;
    }
    if (state != SAMPLE_LIVE) {
        return LARGE_FREED;
    }
    if (address == object) {
        return LARGE_LIVE;
    }
    return address - object < s->size ? LARGE_INTERIOR : LARGE_NEVER;
}

// Makes what lies between the outer guards of `n` slots in a row inaccessible, all of them SAMPLE_BUSY.
static bool shut(const struct sample *first, unsigned n) {
    const struct sample *last = first + n - 1;
    uintptr_t from = body_of(first);
    size_t bytes = body_of(last) + last->pages * (uintptr_t)FIRN_PAGE - from;
    // Only markers may be put over the guards between slots: all else would touch them.
    bool is_guarded = n > 1 ? map_mark_guards(from, bytes) : map_guard(from, bytes);
    for (unsigned i = 0; !is_guarded && i < n; i++) {
        map_purge(body_of(&first[i]), first[i].pages * (size_t)FIRN_PAGE);
    }
    return is_guarded;
}

// To close a slot is allowed once in SAMPLE_SHARE times as long as it took the last time. Whoever gets
// true and the time calls has_closed.
static bool may_close(uint64_t *now) {
    *now = clock_ns();
    uint64_t next = atomic_load_explicit(&next_close_ns, memory_order_relaxed);
    uint64_t until = *now + CLOSE_MOST_NS * (uint64_t)firn_sample_share;
    return *now >= next &&
           atomic_compare_exchange_strong_explicit(&next_close_ns, &next, until,
                                                   memory_order_relaxed, memory_order_relaxed);
}

// A thread that was interrupted meanwhile must not make the others wait for long.
static void has_closed(uint64_t since) {
    uint64_t now = clock_ns();
    uint64_t took = now - since < CLOSE_MOST_NS ? now - since : CLOSE_MOST_NS;
    atomic_store_explicit(&next_close_ns, now + took * firn_sample_share, memory_order_relaxed);
}

static void retire(struct sample *s) {
    uint64_t freed = atomic_fetch_add_explicit(&frees, 1, memory_order_relaxed) + 1;
    uint64_t since;
    if (may_close(&since)) {
        bool is_shut = shut(s, 1);
        has_closed(since);
        put_back(s, is_shut ? freed : UNTAKABLE, 0);
    } else {
        fill_open(s);
        put_back(s, freed, s->pages);
    }
}

enum large_kind sample_free(uintptr_t address, const char *api, const struct sample_call *call) {
    struct large_block block;
    struct sample *s = sample_at(address);
    enum large_kind kind = sample_find(address, &block);
    uint32_t expected = SAMPLE_LIVE;
    if (kind != LARGE_LIVE) {
        return kind;
    }
    // Of two frees of one block at the same time one finds it freed.
    if (!atomic_compare_exchange_strong_explicit(&s->state, &expected, SAMPLE_BUSY,
                                                 memory_order_acquire, memory_order_relaxed)) {
        return LARGE_FREED;
    }
    int saved = errno;
    check_rim(s, api, call->site);
    record(&s->freed, call);
    atomic_fetch_sub_explicit(&live_count, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&live_bytes, s->size, memory_order_relaxed);
    retire(s);
    errno = saved;
    return LARGE_LIVE;
}

// ---- closing what stayed open -----------------------------------------------------------------

static void shut_run(unsigned first, unsigned n, const uint64_t words[]) {
    bool is_shut = n == 0 || shut(&samples[first], n);
    for (unsigned i = first; i < first + n; i++) {
        put_back(&samples[i], is_shut ? words[i] >> FREED_SHIFT : UNTAKABLE, 0);
    }
}

// Neighbours with one call, whose guards are guards already; but a guard that is a mapping of its own is
// counted, and not to be placed twice.
void sample_close(bool everything) {
    uint64_t words[SAMPLE_SLOTS];
    unsigned first = 0, n = 0;
    unsigned most = caps_has(CAP_GUARD_MARKER) ? SAMPLE_SLOTS : 1;
    if (atomic_load_explicit(&pool_state, memory_order_acquire) != 2) {
        return;
    }
    int saved = errno;
    uint64_t freed = atomic_load_explicit(&frees, memory_order_relaxed);
    uint64_t until = atomic_exchange_explicit(&closed_until, freed, memory_order_relaxed);
    until = everything ? freed : until;
    for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
        words[i] = atomic_load_explicit(&freed_at[i], memory_order_relaxed);
        bool is_due = words[i] != UNTAKABLE && (words[i] & FREED_PAGES) != 0 &&
                      words[i] >> FREED_SHIFT <= until && claim(i, words[i]);
        if (n > 0 && (!is_due || n == most)) {
            shut_run(first, n, words);
            n = 0;
        }
        if (is_due) {
            atomic_store_explicit(&samples[i].state, SAMPLE_BUSY, memory_order_relaxed);
            check_open(&samples[i]);
            first = n == 0 ? i : first;
            n++;
        }
    }
    shut_run(first, n, words);
    errno = saved;
}

size_t sample_extent(uintptr_t address) {
    const struct sample *s = sample_at(address);
    uintptr_t object = s->object;
    bool is_live = atomic_load_explicit(&s->state, memory_order_acquire) == SAMPLE_LIVE;
    return is_live && address - object < s->size ? object + s->size - address : 0;
}

void sample_stats(size_t *live, size_t *bytes, size_t *reserved) {
    *live = atomic_load_explicit(&live_count, memory_order_relaxed);
    *bytes = atomic_load_explicit(&live_bytes, memory_order_relaxed);
    bool is_there = atomic_load_explicit(&firn_sample_base, memory_order_relaxed) != 0;
    *reserved = is_there ? (size_t)SAMPLE_SLOTS * SAMPLE_STRIDE : 0;
}
