#include "src/heap/heap.h"

#include "hardening/sample.h"
#include "hardening/slack.h"
#include "src/base/text.h"
#include "src/cache/inspect.h"
#include "src/cache/quarantine.h"
#include "src/cache/remote.h"
#include "src/heap/aside.h"
#include "src/heap/fast.h"
#include "src/heap/find.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/os/sys.h"
#include "src/slab/central.h"
#include "src/slab/owner.h"
#include "src/span/large.h"

#include <errno.h>
#include <string.h>

// ---- allocation -------------------------------------------------------------------------------

static void *fail(void) {
    errno = ENOMEM;
    return NULL;
}

// Only a thread without a cache can be one of a process that Firn stands aside in.
FIRN_INLINE bool is_aside(void) {
    return FIRN_UNLIKELY(firn_cache == &firn_empty_cache) && life_is_aside();
}

// A block that large_only leaves to the next allocator.
FIRN_INLINE bool is_next(const void *p) {
    return FIRN_UNLIKELY(firn_large_only != 0) && find_is_outside(p);
}

static void *alloc_large(size_t size, size_t align, bool *is_zero) {
    // Also starts the heap: a program's first allocation may be a large one.
    struct cache *c = life_thread_cache();
    if (c == NULL) {
        return fail();
    }
    upkeep_tick_alloc(c);
    void *p = large_alloc(size, align, is_zero);
    // What other classes no longer need may be what is missing.
    if (p == NULL && heap_trim()) {
        p = large_alloc(size, align, is_zero);
    }
    if (FIRN_LARGE_SLACK && p != NULL) {
        slack_fill((uintptr_t)p + size, large_page_end((uintptr_t)p, size));
    }
    life_let_go();
    return p;
}

// A small block that is wanted. `align` is a power of two that divides the class's size.
struct request {
    size_t size;
    size_t align;
    unsigned class_index;
    uintptr_t site;
};

// The next slot of a cell, NULL when there is neither one nor memory for one.
static void *take_slot(struct cache *c, unsigned cell, size_t size, uintptr_t site) {
    struct cache_cell *e = &c->cells[cell];
    uint64_t entry = cache_peek(c, e->top);
    if (entry == 0 && cache_refill(c, cell)) {
        entry = cache_peek(c, e->top);
    }
    if (entry == 0) {
        return NULL;
    }
    uintptr_t address = cache_take(e, e->top, entry);
    size_t slot_bytes = e->slot_bytes;
    size_t before_bytes = entry >> ENTRY_SLOT_SHIFT != 0 ? slot_bytes : 0;
    void *p = slot_issue(address, slot_bytes, before_bytes, (entry & ENTRY_VIRGIN) != 0, site);
    slack_note(address, slot_bytes, size);
    return p;
}

// The number of this thread. To ask costs a system call: it is kept where a forked child finds 0.
static int thread_number(struct cache *c) {
    if (c == &firn_empty_cache) {
        return sys_thread_id();
    }
    if (c->noise->thread == 0) {
        c->noise->thread = sys_thread_id();
    }
    return c->noise->thread;
}

// A guarded sample instead of a slot. `frame` is of the slow path that was called: what stands there
// is the program's rbp, unless a function of ours between has used it.
static FIRN_NOINLINE void *take_sample(size_t size, size_t align, uintptr_t site,
                                       const void *frame) {
    struct cache *c = firn_cache;
    struct sample_call call = {site, (uintptr_t)frame, thread_number(c)};
    c->samples_due--;
    return sample_alloc(size, align, &c->noise->stream, &call);
}

static _Atomic bool has_larger;

void heap_note_larger(void) {
    atomic_store_explicit(&has_larger, true, memory_order_relaxed);
}

// Its class is out of addresses (64 GiB of one size; less where addresses are narrow), not out of
// memory: the next larger one that keeps the alignment has others, and so have runs of pages.
FIRN_COLD static void *alloc_larger(struct cache *c, const struct request *request) {
    unsigned class_index = request->class_index;
    size_t align = request->align;
    uintptr_t site = request->site;
    unsigned partition = partition_of(site, root_site_key());
    heap_note_larger();
    while (++class_index < SIZE_CLASSES) {
        unsigned cell = root_cell(class_index, partition);
        if (FIRN_ROOT.classes[class_index].bytes % align == 0) {
            void *p = take_slot(c, cell, request->size, site);
            if (p != NULL) {
                return p;
            }
            if (!firn_regions[cell].is_exhausted) {
                return fail();
            }
        }
    }
    bool is_zero;
    return alloc_large(FIRN_ROOT.classes[request->class_index].bytes, FIRN_PAGE, &is_zero);
}

static void *alloc_class(const struct request *request) {
    unsigned class_index = request->class_index;
    uintptr_t site = request->site;
    struct cache *c = life_thread_cache();
    if (c == NULL) {
        return fail();
    }
    upkeep_tick_alloc(c);
    unsigned cell = root_cell(class_index, partition_of(site, root_site_key()));
    void *p = take_slot(c, cell, request->size, site);
    if (FIRN_UNLIKELY(p == NULL) && firn_regions[cell].is_exhausted) {
        return alloc_larger(c, request);
    }
    if (FIRN_UNLIKELY(p == NULL) && heap_trim()) {
        p = take_slot(c, cell, request->size, site);
    }
    life_let_go();
    return FIRN_LIKELY(p != NULL) ? p : fail();
}

FIRN_NOINLINE void *heap_alloc_slow(size_t size, uintptr_t site) {
    if (aside_takes(size)) { // first, as that is all there is to most calls then
        return firn_aside.malloc(size);
    }
    fatal_note_call("malloc", site);
    if (size > PTRDIFF_MAX) {
        return fail();
    }
    if (is_aside() || aside_takes(size)) {
        return firn_aside.malloc(size);
    }
    size_t class_size = aside_class_size(size);
    if (class_size > SMALL_MAX - FIRN_SLOT_EXTRA) {
        bool is_zero;
        return alloc_large(size, FIRN_PAGE, &is_zero);
    }
    if (FIRN_UNLIKELY(firn_cache->samples_due != 0)) {
        void *p = take_sample(size, 16, site, __builtin_frame_address(0));
        if (p != NULL) {
            return p;
        }
    }
    unsigned class_index = size_class_of(class_size + FIRN_SLOT_EXTRA);
    return alloc_class(&(struct request){size, 16, class_index, site});
}

void *heap_alloc(size_t size, uintptr_t site) {
    return heap_alloc_fast(size, site);
}

void *heap_alloc_zeroed(size_t size, uintptr_t site) {
    if (size > PTRDIFF_MAX) {
        return fail();
    }
    bool is_zero;
    void *p;
    if (is_aside()) {
        return firn_aside.calloc(1, size);
    }
    if (size > SMALL_MAX - FIRN_SLOT_EXTRA) {
        if (aside_takes(size)) { // smaller ones go there by themselves
            return firn_aside.calloc(1, size);
        }
        fatal_note_call("calloc", site);
        p = alloc_large(size, FIRN_PAGE, &is_zero);
    } else {
        p = heap_alloc_fast(size, site);
        // A slot was found to be so; what stands in for one (a sample, a run of pages) may not be.
        is_zero = FIRN_VERIFY && (uintptr_t)p - FIRN_ROOT.small_base < FIRN_ROOT.small_bytes;
    }
    if (p != NULL && !is_zero) {
        memset(p, 0, size);
    }
    return p;
}

// The class that a block of this size and alignment has; SIZE_CLASSES: a run of pages.
static unsigned class_expected(size_t size, size_t align) {
    size_t class_size = aside_class_size(size);
    return class_size > SMALL_MAX - FIRN_SLOT_EXTRA
               ? SIZE_CLASSES
               : size_class_aligned(class_size + FIRN_SLOT_EXTRA, align);
}

void *heap_alloc_aligned(size_t align, size_t size, uintptr_t site) {
    if (size > PTRDIFF_MAX) {
        return fail();
    }
    if (align <= 16) {
        return heap_alloc_fast(size, site);
    }
    fatal_note_call("aligned_alloc", site);
    if (is_aside() || aside_takes(size)) {
        return firn_aside.memalign(align, size);
    }
    // Before start there are no classes, but their geometry is constant.
    unsigned class_index = class_expected(size, align);
    if (class_index < SIZE_CLASSES) {
        void *p = NULL;
        if (FIRN_UNLIKELY(firn_cache->samples_due != 0)) {
            p = take_sample(size, align, site, __builtin_frame_address(0));
        }
        return p != NULL ? p : alloc_class(&(struct request){size, align, class_index, site});
    }
    bool is_zero;
    return alloc_large(size > 0 ? size : 1, align > FIRN_PAGE ? align : FIRN_PAGE, &is_zero);
}

// ---- freeing ----------------------------------------------------------------------------------

static void report_bad(void *p, struct found *f, enum fatal_id id, const char *what,
                       const struct heap_call *call) {
    f->id = id;
    f->what = what;
    find_report(p, f, call);
}

static void free_slot(void *p, struct found *f, const struct heap_call *call) {
    struct cache *c = firn_cache;
    if (atomic_load_explicit(&f->span->owner, memory_order_relaxed) != c) {
        if (!cache_free_remote(f->span, (uintptr_t)p)) {
            report_bad(p, f, FATAL_DOUBLE_FREE, "slot is already free", call);
        }
        if (c != &firn_empty_cache) {
            upkeep_tick(c, call->site);
        }
        return;
    }
    // Ours, and live: other threads freed something in its span, too. What is queued is taken over,
    // so that the next free here is fast again. What is marked and still not queued is either on its
    // way, or its thread stayed in the parent of this process, and then nobody else will take it.
    owner_lock(c->number);
    remote_drain(c);
    remote_settle(c, f->span);
    owner_unlock(c->number);
    FIRN_ENSURE(heap_free_owned(p, UINT64_MAX, call->api, call->site));
}

FIRN_COLD void heap_retire_slow(struct cache *c, uintptr_t at, uint64_t entry, const char *api,
                                uintptr_t site) {
    int saved = errno;
    life_check_fork();
    unsigned cell = (unsigned)(at >> CELL_LINE_SHIFT);
    struct cache_cell *e = &c->cells[cell];
    owner_lock(c->number);
    quarantine_add(c, cell, entry);
    owner_unlock(c->number);
    if (FIRN_UNLIKELY(c->samples_due != 0)) {
        cache_pause(c, cell);
    }
    size_t slot_bytes = e->slot_bytes;
    bool is_first = entry >> ENTRY_SLOT_SHIFT == 0;
    slack_retire(entry & ENTRY_ADDRESS, slot_bytes, api, site);
    slot_retire(entry & ENTRY_ADDRESS, slot_bytes, is_first ? 0 : slot_bytes, api, site);
    upkeep_tick(c, site); // a burst of frees has no other slow path
    errno = saved;
}

// A broken canary is often found on the fast path, which does not keep the size: it is never shown.
FIRN_NORETURN static void report_free(void *p, const struct found *f,
                                      const struct heap_call *call) {
    struct heap_call shown = *call;
    if (f->id == FATAL_OVERFLOW || f->id == FATAL_UNDERFLOW) {
        shown.size = FATAL_SIZE_UNKNOWN;
    }
    find_report(p, f, &shown);
}

FIRN_NOINLINE void heap_free_slow(void *p, const struct heap_call *call) {
    if (p == NULL) {
        return;
    }
    int saved = errno;
    if (is_next(p) || is_aside()) {
        firn_aside.free(p);
        errno = saved;
        return;
    }
    fatal_note_call(call->api, call->site);
    life_check_fork();
    struct found f;
    find_pointer(p, &f);
    find_check(&f);
    if (f.kind == FOUND_LARGE) {
        find_describe_large(large_free((uintptr_t)p, &f.block), &f);
        if (firn_cache != &firn_empty_cache) { // which all threads share
            upkeep_tick(firn_cache, call->site);
        }
    } else if (f.kind == FOUND_SLOT) {
        free_slot(p, &f, call);
    } else if (f.kind == FOUND_SAMPLE) {
        struct sample_call from = {call->site, (uintptr_t)__builtin_frame_address(0),
                                   thread_number(firn_cache)};
        find_describe_sample(sample_free((uintptr_t)p, call->api, &from), &f);
    }
    if (f.kind == FOUND_BAD) {
        report_free(p, &f, call);
    }
    errno = saved;
}

FIRN_NOINLINE void heap_free_plain_slow(void *p, uintptr_t site) {
    heap_free_slow(p, &(struct heap_call){"free", site, FATAL_SIZE_UNKNOWN, 0});
}

void heap_free(void *p, uintptr_t site) {
    heap_free_fast(p, site);
}

// The phrase a size mismatch is reported with. Static: a report never allocates, and only one is
// ever made.
static const char *mismatch_phrase(const struct found *f, unsigned expected) {
    static char phrase[64];
    struct text t = text_on(phrase, sizeof phrase);
    if (f->kind != FOUND_SLOT) {
        text_str(&t, "block of ");
        text_dec(&t, f->block.size);
        text_str(&t, " bytes");
    } else if (expected == SIZE_CLASSES) {
        text_str(&t, "size belongs to a large block");
    } else {
        text_str(&t, "size belongs to class ");
        text_dec(&t, size_class_bytes(expected));
    }
    return phrase;
}

static bool is_size_right(const struct found *f, size_t size, unsigned expected) {
    bool may_be_larger = atomic_load_explicit(&has_larger, memory_order_relaxed);
    if (f->kind == FOUND_SAMPLE) { // as strict as the class it would have had
        return size <= SMALL_MAX && size_class_of(size) == size_class_of(f->block.size);
    }
    if (f->kind != FOUND_LARGE) {
        unsigned actual = root_cell_class(f->span->cell);
        return expected == actual || (may_be_larger && expected < actual);
    }
    // A small size with a large alignment is a run of pages, too; nothing takes one page. A run that
    // could not be cut when it shrank still knows its size.
    size_t taken = size > 0 ? size : 1;
    bool is_same = taken <= f->block.capacity && f->block.capacity - taken < FIRN_PAGE;
    return (expected == SIZE_CLASSES && (is_same || size == f->block.size)) ||
           (may_be_larger && size <= f->block.capacity);
}

// P-FREE-SIZE
void heap_free_sized(void *p, const struct heap_call *call) {
    if (FIRN_CHECK_FREE && call->size != FATAL_SIZE_UNKNOWN && !is_next(p)) {
        struct found f;
        find_pointer(p, &f);
        unsigned expected = class_expected(call->size, call->align > 16 ? call->align : 16);
        if (f.kind != FOUND_BAD && !is_size_right(&f, call->size, expected)) {
            report_bad(p, &f, FATAL_SIZE_MISMATCH, mismatch_phrase(&f, expected), call);
        }
    }
    if (FIRN_UNLIKELY(!heap_free_local(p, call->api, call->site))) {
        heap_free_slow(p, call);
    }
}

size_t heap_usable(const void *p, uintptr_t site) {
    struct found f;
    if (is_aside() || is_next(p)) {
        return firn_aside.malloc_usable_size((void *)(uintptr_t)p);
    }
    find_pointer(p, &f);
    if (f.kind == FOUND_BAD) {
        find_report(p, &f, &(struct heap_call){"malloc_usable_size", site, FATAL_SIZE_UNKNOWN, 0});
    }
    return f.kind == FOUND_SLOT                        ? slack_size((uintptr_t)p, f.class_bytes)
           : f.kind == FOUND_LARGE && FIRN_LARGE_SLACK ? f.block.size
                                                       : f.block.capacity;
}

bool heap_trim(void) {
    bool is_made = firn_cache == &firn_empty_cache;
    struct cache *c = life_thread_cache();
    bool any = false;
    if (c != NULL) {
        cache_flush_all(c);
        any = upkeep_purge_all();
    }
    if (FIRN_DEBUG && c != NULL) {
        inspect_ensure(c);
    }
    if (is_made) {
        life_let_go();
    }
    return any;
}
