#include "src/fuzzbuild/blocks.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/fuzzbuild/pattern.h"
#include "src/fuzzbuild/settings.h"
#include "src/fuzzbuild/start.h"
#include "src/fuzzbuild/verdict.h"
#include "src/os/lock.h"
#include "src/os/sys.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/single_threaded.h>

enum {
    SITES = 2048,
    SAMPLE_MASK = 1023,   // of the frees beyond `revoke`, one in 1024 is revoked
    RESIDENT_PAGES = 256, // kept accessible per class before a slot is used again
    RESIDENT_SLOTS_LEAST = 4,
    PREFETCH_AHEAD = 3,
    RESIDENT_BLOCK_PAGES = 16, // larger blocks are always revoked: one call for many pages
    WATCHED_AFTER = 256,
    FINISH_TRIES = 1000,
};

// Slots linked by block.next, oldest first.
struct queue {
    uint32_t first, last;
    uint32_t count;
};
#define QUEUE_EMPTY                                                                                \
    { SPACE_NO_SLOT, SPACE_NO_SLOT, 0 }

static struct lock lock = LOCK_INIT(LOCK_LARGE);
// What every call writes lies together: in a fork server's child each page written is a page copied.
static struct {
    struct queue revoked; // of all classes
    size_t revoked_bytes;
    size_t live_bytes;
} now = {.revoked = QUEUE_EMPTY};
// A ring per class, for its slots in the order they were freed: what comes next can be looked up.
static struct {
    uint32_t ids[RESIDENT_PAGES];
    uint32_t oldest, count;
} resident[SPACE_CLASSES];
static struct queue ready[SPACE_CLASSES];   // to be used again, accessible
static struct queue retired[SPACE_CLASSES]; // to be used again, inaccessible
static uint16_t site_frees[SITES]; // by hash of (allocating, freeing) stack; stops at its maximum

void blocks_start(void) {
    const struct queue empty = QUEUE_EMPTY;
    for (unsigned i = 0; i < SPACE_CLASSES; i++) {
        ready[i] = retired[i] = empty;
    }
}

static void before_fork(void) {
    lock_acquire(&lock);
}

static void in_parent(void) {
    lock_release(&lock);
}

static void in_child(void) {
    lock_reset(&lock);
}

// The handlers come with the first second thread, before it takes the lock. A program without threads
// has none: in the child of a fork server each would cost page faults, for their code and for the lock.
static _Atomic bool has_handlers;

FIRN_COLD static void join_threads(void) {
    if (!atomic_exchange_explicit(&has_handlers, true, memory_order_relaxed)) {
        pthread_atfork(before_fork, in_parent, in_child); // allocates; the flag ends the recursion
    }
}

// libc says when the program has never had a second thread; no thread starts inside our calls.
static bool lock_if_threaded(void) {
    if (FIRN_LIKELY(__libc_single_threaded)) {
        return false;
    }
    if (FIRN_UNLIKELY(!atomic_load_explicit(&has_handlers, memory_order_relaxed))) {
        join_threads();
    }
    lock_acquire(&lock);
    return true;
}

static void unlock_if(bool is_locked) {
    if (is_locked) {
        lock_release(&lock);
    }
}

FIRN_INLINE void push(struct queue *q, uint32_t id) {
    space_block(id)->next = SPACE_NO_SLOT;
    if (q->count++ == 0) {
        q->first = id;
    } else {
        space_block(q->last)->next = id;
    }
    q->last = id;
}

// The queue is not empty.
FIRN_INLINE struct slot pop(struct queue *q) {
    struct slot s = space_slot(q->first);
    q->first = space_block(s.id)->next;
    q->count--;
    return s;
}

static uintptr_t origin_of_run(const struct slot *s) {
    return (uintptr_t)space_chunk(s->id / SPACE_SLOTS_MOST);
}

uintptr_t blocks_start_of(const struct slot *s, const struct block *b) {
    return (s->class == SPACE_LARGE ? origin_of_run(s) : s->data) + b->offset;
}

// From here on: which bytes around a block are watched.

static size_t watched_before(const struct slot *s, uintptr_t start) {
    size_t room = start - s->data;
    return room < PATTERN_BEFORE ? room : PATTERN_BEFORE;
}

static size_t watched_after(const struct slot *s, uintptr_t end) {
    size_t room = s->end - end;
    return room < WATCHED_AFTER ? room : WATCHED_AFTER;
}

FIRN_INLINE void watch(const struct slot *s, uintptr_t start, size_t size) {
    size_t before = watched_before(s, start);
    pattern_fill(start - before, before);
    pattern_fill(start + size, watched_after(s, start + size));
}

FIRN_INLINE uintptr_t first_change(const struct slot *s, uintptr_t start, size_t size) {
    size_t before = watched_before(s, start);
    uintptr_t changed = pattern_check(start - before, before);
    return changed != 0 ? changed : pattern_check(start + size, watched_after(s, start + size));
}

// From here on: taking a slot. What is marked inline passes a struct slot on, which the compiler keeps in
// registers only within one function; through memory it would wait for its own stores.

// What is known about the bytes of a slot that is taken: they are zero, or the last `filled` of them
// hold free_fill.
struct content {
    bool is_zero;
    size_t filled;
};

FIRN_INLINE bool take_small(unsigned class, struct slot *out, struct content *was) {
    if (ready[class].count > 0) {
        *out = pop(&ready[class]);
        const struct block *b = space_block(out->id);
        bool touches_end = blocks_start_of(out, b) + b->size == out->end;
        *was = (struct content){false, touches_end ? b->size : 0};
        return true;
    }
    *was = (struct content){true, 0};
    while (retired[class].count > 0) {
        *out = pop(&retired[class]);
        if (space_restore(out)) {
            return true;
        }
        // Only without guard markers, with VMAs spent: the slot stays out of use for good.
    }
    return space_take_slot(class, out);
}

static bool is_above_limit(size_t size) {
    const struct settings *s = settings_get();
    return size > PTRDIFF_MAX || size > s->max_size || size > s->max_total ||
           now.live_bytes > s->max_total - size;
}

static void *refuse(const struct blocks_request *r) {
    const struct settings *s = settings_get();
    if (s->is_limit_fatal) {
        verdict_limit(r->size, s->max_size < s->max_total ? s->max_size : s->max_total, r->from);
    }
    errno = ENOMEM;
    return NULL;
}

static void retire_oldest(void) {
    struct slot s = pop(&now.revoked);
    struct block *b = space_block(s.id);
    now.revoked_bytes -= s.end - s.data;
    b->state = BLOCK_RETIRED;
    if (s.class == SPACE_LARGE) {
        space_give_run(s.id);
    } else {
        push(&retired[s.class], s.id);
    }
}

// Small slots serve alignments up to a page: their data begins and ends on one.
FIRN_INLINE bool try_slot(size_t size, size_t align, struct slot *out, struct content *was) {
    size_t rounded = align_up(size, align < FIRN_PAGE ? align : FIRN_PAGE);
    size_t pages = rounded == 0 ? 1 : (rounded + FIRN_PAGE - 1) >> FIRN_PAGE_SHIFT;
    unsigned class = align > FIRN_PAGE ? SPACE_LARGE : space_class_of(pages);
    if (class != SPACE_LARGE) {
        return take_small(class, out, was);
    }
    *was = (struct content){true, 0};
    return space_take_run(size, align, out);
}

// Where address space is short the quarantine gives way: a program that fits runs.
FIRN_INLINE bool take_slot(size_t size, size_t align, struct slot *out, struct content *was) {
    while (FIRN_UNLIKELY(!try_slot(size, align, out, was))) {
        if (now.revoked.count == 0) {
            return false;
        }
        retire_oldest();
    }
    return true;
}

FIRN_INLINE struct block *take_block(const struct blocks_request *r, struct slot *s,
                                     struct content *was) {
    size_t align = r->align > settings_get()->align ? r->align : settings_get()->align;
    if (FIRN_UNLIKELY(is_above_limit(r->size)) || !take_slot(r->size, align, s, was)) {
        return NULL;
    }
    bool is_left = settings_get()->is_left != 0;
    uintptr_t start = is_left ? s->data : align_down(s->end - r->size, align);
    struct block *b = space_block(s->id);
    uintptr_t origin = s->class == SPACE_LARGE ? origin_of_run(s) : s->data;
    b->size = r->size;
    b->offset = (uint32_t)(start - origin);
    b->alloc_trace = trace_record(r->from);
    b->free_trace = 0;
    b->alloc_thread = (uint16_t)verdict_thread();
    b->kind = (uint8_t)r->kind;
    b->state = BLOCK_LIVE;
    now.live_bytes += r->size;
    watch(s, start, r->size); // with the lock held: blocks_finish looks at every live block
    return b;
}

// A slot used again still ends in free_fill, which is as good a filling when it is the same byte.
FIRN_INLINE void fill_new(const struct slot *slot, uintptr_t start, const struct blocks_request *r,
                          const struct content *was) {
    const struct settings *s = settings_get();
    size_t bytes = r->size < s->fill_most ? r->size : s->fill_most;
    if (r->is_zeroed) {
        if (!was->is_zero) {
            memset((void *)start, 0, r->size);
        }
    } else if (s->fill != SETTINGS_NO_FILL) {
        bool is_kept = s->fill == s->free_fill && start + r->size == slot->end;
        size_t kept = !is_kept ? 0 : was->filled < bytes ? was->filled : bytes;
        memset((void *)start, (int)s->fill, bytes - kept);
    }
}

void *blocks_alloc(const struct blocks_request *r) {
    struct slot s;
    struct content was;
    start_once();
    bool is_locked = lock_if_threaded();
    struct block *b = take_block(r, &s, &was);
    unlock_if(is_locked);
    if (FIRN_UNLIKELY(b == NULL)) {
        return refuse(r);
    }
    uintptr_t start = blocks_start_of(&s, b);
    fill_new(&s, start, r, &was);
    return (void *)start;
}

// From here on: giving back.

// The slot of a block that may be freed now. Anything else does not return.
FIRN_INLINE struct slot live_slot(const void *p, const char *api, struct trace_origin from) {
    struct slot s;
    uintptr_t address = (uintptr_t)p;
    if (!space_find(address, &s)) {
        verdict_bad_pointer(api, address, from);
    }
    const struct block *b = space_block(s.id);
    if (b->state == BLOCK_UNUSED || blocks_start_of(&s, b) != address) {
        verdict_bad_pointer(api, address, from);
    }
    if (b->state != BLOCK_LIVE) {
        verdict_freed(&s, api, address, from);
    }
    return s;
}

FIRN_INLINE bool wants_revoke(const struct slot *s, const struct block *b) {
    uint64_t most = settings_get()->revoke;
    if (most == SETTINGS_REVOKE_ALL || s->class == SPACE_LARGE ||
        space_class_pages(s->class) > RESIDENT_BLOCK_PAGES) {
        return true;
    }
    if (most == 0) {
        return false;
    }
    uint64_t pair = (uint64_t)b->alloc_trace << 32 | b->free_trace;
    uint16_t *frees = &site_frees[pair * UINT64_C(0x9e3779b97f4a7c15) >> 53];
    uint64_t before = *frees;
    // Beyond the maximum the count goes round in a circle above every `revoke` that fits in it.
    *frees = (uint16_t)(before == UINT16_MAX ? UINT16_MAX - SAMPLE_MASK : before + 1);
    return before < most || (before & SAMPLE_MASK) == 0;
}

FIRN_INLINE void check_resident(const struct slot *s, const struct block *b,
                                struct trace_origin from) {
    uintptr_t start = blocks_start_of(s, b);
    uintptr_t changed =
        pattern_check_byte(start, b->size, (unsigned char)settings_get()->free_fill);
    if (FIRN_UNLIKELY(changed != 0)) {
        verdict_changed(s, changed, from);
    }
}

static size_t resident_slots_most(unsigned class) {
    size_t slots = RESIDENT_PAGES / space_class_pages(class);
    return slots < RESIDENT_SLOTS_LEAST ? RESIDENT_SLOTS_LEAST : slots;
}

// Checking a slot is mostly waiting for lines last touched long ago. So the descriptor is asked for
// some slots ahead, the block itself one ahead.
static void prefetch_resident(const uint32_t *ids, uint32_t at, size_t most) {
    size_t ahead = at + PREFETCH_AHEAD;
    uint32_t first = ids[at], later = ids[ahead < most ? ahead : ahead - most];
    struct slot s = space_slot(first);
    const struct block *b = space_block(first);
    uintptr_t start = blocks_start_of(&s, b);
    __builtin_prefetch((const void *)start);
    __builtin_prefetch((const void *)(start + b->size));
    __builtin_prefetch(space_block(later));
}

// A full ring lets go of its oldest slot.
FIRN_INLINE void keep_resident(const struct slot *s, struct block *b, struct trace_origin from) {
    size_t most = resident_slots_most(s->class);
    uint32_t *ids = resident[s->class].ids, *oldest = &resident[s->class].oldest;
    b->state = BLOCK_RESIDENT;
    memset((void *)blocks_start_of(s, b), (int)settings_get()->free_fill, b->size);
    if (resident[s->class].count < most) {
        ids[resident[s->class].count++] = s->id;
        return;
    }
    struct slot leaving = space_slot(ids[*oldest]);
    struct block *l = space_block(leaving.id);
    ids[*oldest] = s->id;
    *oldest = *oldest + 1 < most ? *oldest + 1 : 0;
    prefetch_resident(ids, *oldest, most);
    check_resident(&leaving, l, from);
    l->state = BLOCK_READY;
    push(&ready[s->class], leaving.id);
}

// The state changes first: a second thread that touches the block while it goes sees a freed block.
FIRN_INLINE void give_back(const struct slot *s, struct block *b, struct trace_origin from) {
    now.live_bytes -= b->size;
    b->free_trace = trace_record(from);
    b->free_thread = (uint16_t)verdict_thread();
    b->state = BLOCK_REVOKED;
    if (!wants_revoke(s, b) || !space_revoke(s)) {
        if (s->class == SPACE_LARGE) {
            return; // no markers and no VMA to spare: the run is not used again
        }
        keep_resident(s, b, from);
        return;
    }
    now.revoked_bytes += s->end - s->data;
    push(&now.revoked, s->id);
    while (now.revoked_bytes > settings_get()->quarantine) {
        retire_oldest();
    }
}

FIRN_INLINE void check_block(const struct slot *s, const struct block *b,
                             const struct blocks_release *how) {
    if (FIRN_UNLIKELY(b->kind != how->kind)) {
        verdict_kind_mismatch(s, how->by, how->from);
    }
    if (FIRN_UNLIKELY(how->size != BLOCKS_SIZE_UNKNOWN && how->size != b->size)) {
        verdict_size_mismatch(s, how->size, how->from);
    }
    uintptr_t changed = first_change(s, blocks_start_of(s, b), b->size);
    if (FIRN_UNLIKELY(changed != 0)) {
        verdict_changed(s, changed, how->from);
    }
}

void blocks_free(void *p, const struct blocks_release *how) {
    if (p == NULL) {
        return;
    }
    int saved = errno;
    __builtin_prefetch((const char *)p - PATTERN_BEFORE);
    bool is_locked = lock_if_threaded();
    struct slot s = live_slot(p, how->by, how->from);
    struct block *b = space_block(s.id);
    check_block(&s, b, how);
    give_back(&s, b, how->from);
    unlock_if(is_locked);
    errno = saved;
}

void *blocks_resize(void *p, size_t size, struct trace_origin from) {
    const struct blocks_request request = {.size = size, .from = from};
    const struct blocks_release release = {
        .by = "realloc", .size = BLOCKS_SIZE_UNKNOWN, .from = from};
    if (p == NULL) {
        return blocks_alloc(&request);
    }
    size_t old_size = 0;
    if (size != 0) {
        bool is_locked = lock_if_threaded();
        struct slot s = live_slot(p, "realloc", from);
        check_block(&s, space_block(s.id), &release);
        old_size = space_block(s.id)->size;
        unlock_if(is_locked);
    }
    void *q = size != 0 ? blocks_alloc(&request) : NULL;
    if (q != NULL) {
        memcpy(q, p, old_size < size ? old_size : size);
    }
    if (q != NULL || size == 0) {
        blocks_free(p, &release);
    }
    return q;
}

size_t blocks_usable(const void *p, struct trace_origin from) {
    if (p == NULL) {
        return 0;
    }
    bool is_locked = lock_if_threaded();
    struct slot s = live_slot(p, "malloc_usable_size", from);
    size_t size = space_block(s.id)->size;
    unlock_if(is_locked);
    return size;
}

void blocks_set_kind(void *p, enum block_kind kind) {
    struct slot s;
    if (space_find((uintptr_t)p, &s)) {
        space_block(s.id)->kind = (uint8_t)kind;
    }
}

void blocks_next_input(void) {
    memset(site_frees, 0, sizeof(site_frees));
}

static void finish_one(const struct slot *s, struct block *b) {
    const struct trace_origin nobody = {0, 0};
    if (b->state == BLOCK_RESIDENT) {
        check_resident(s, b, nobody);
    } else if (b->state == BLOCK_LIVE) {
        uintptr_t changed = first_change(s, blocks_start_of(s, b), b->size);
        if (changed != 0) {
            verdict_changed(s, changed, nobody);
        }
    }
}

// Other threads may be at work still. One that holds the lock for good, because exit was called from a
// signal handler in the middle of malloc, is not waited for.
void blocks_finish(void) {
    const struct settings *s = settings_get();
    bool is_alone = __libc_single_threaded;
    for (unsigned tries = 0; !is_alone && !lock_try(&lock); tries++) {
        if (tries == FINISH_TRIES) {
            return;
        }
        sys_yield();
    }
    space_visit(finish_one);
    if (s->leaks != 0 && verdict_leaks() > 0 && s->leaks == 2) {
        verdict_die();
    }
    if (!is_alone) {
        lock_release(&lock);
    }
}
