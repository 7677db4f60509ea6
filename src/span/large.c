// Large objects. What costs time in proportion to an object's size (purging, moving, copying) is
// done outside of the lock: the run is marked RUN_BUSY or RUN_LEAVING first, and put into its final
// state under the lock afterwards.
#include "src/span/large.h"

#include "src/base/align.h"
#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/base/text.h"
#include "src/meta/arena.h"
#include "src/meta/page_state.h"
#include "src/os/caps.h"
#include "src/os/clock.h"
#include "src/span/adjust.h"
#include "src/span/large_heap.h"
#include "src/span/move.h"
#include "src/span/recycle.h"
#include "src/span/release.h"
#include "src/span/retire.h"

#include <errno.h>
#include <string.h>

enum {
    LARGE_PIECES_MOST = 16, // moves after which an object is copied, to be one mapping again
    LARGE_PIECES_SHARE = 16 // of max_map_count, spent on moved objects
};
#define LARGE_DELAY_NS UINT64_C(1000000000)

struct large_heap firn_large = {
    .lock = LOCK_INIT(LOCK_LARGE), .delay_ns = LARGE_DELAY_NS, .due_ns = UINT64_MAX};
static struct large_heap *const large = &firn_large;

// Used when descriptor memory cannot be had.
static struct random_stream large_random;

void large_start(const struct reservation *range) {
    const struct limits *limits = caps_limits();
    bool is_wiped; // if not, large_after_fork has to do
    struct random_stream *random = arena_alloc_wiped(sizeof *random, &is_wiped);
    large->space.shared.random = random != NULL ? random : &large_random;
    large->space.is_rationed = limits->is_strict_overcommit || limits->data_bytes != UINT64_MAX;
    large->most_pieces = limits->max_map_count / LARGE_PIECES_SHARE;
    if (range->bytes > 2 * (size_t)FIRN_PAGE && !space_add(&large->space, range)) {
        // No descriptors: every request will fail with ENOMEM, as it should.
        large->space.count = 0;
    }
}

// ---- giving memory back ----

bool large_trim(void) {
    int saved = errno;
    lock_acquire(&large->lock);
    bool any = release_trim(clock_coarse_ns());
    lock_release(&large->lock);
    if (FIRN_DEBUG) {
        large_check();
    }
    errno = saved;
    return any;
}

void large_upkeep(uint64_t now_ns) {
    if (now_ns < atomic_load_explicit(&large->due_ns, memory_order_relaxed)) {
        return;
    }
    int saved = errno;
    lock_acquire(&large->lock);
    if (now_ns >= large->delay_ns) {
        (void)release_cached(now_ns - large->delay_ns);
    }
    lock_release(&large->lock);
    errno = saved;
}

void large_set_purge_delay(uint64_t delay_ns) {
    lock_acquire(&large->lock);
    large->delay_ns = delay_ns;
    release_note_due();
    lock_release(&large->lock);
}

// ---- finding ----

// What an address is that is not the start of a live object; *found is the run it lies in, if any.
static enum large_kind large_explain(const struct tract *tract, uintptr_t address,
                                     struct run **found) {
    if (address >= tract->frontier) {
        return LARGE_NEVER;
    }
    struct run *run = page_map_get_before(&tract->map, address);
    if (run == NULL || address < run->body || address >= run->end || run->state == RUN_LOST) {
        return LARGE_NEVER;
    }
    *found = run;
    if (run->state == RUN_LIVE && address >= run->object) {
        return LARGE_INTERIOR;
    }
    // A live object may follow what is left of a larger one that was freed.
    return address < tract->high_water ? LARGE_FREED : LARGE_NEVER;
}

// The lock is held. *found is set for LARGE_LIVE and LARGE_INTERIOR.
static enum large_kind large_look_up(uintptr_t address, struct run **found) {
    struct tract *tract = space_find(&large->space, address);
    if (tract == NULL) {
        return LARGE_FOREIGN;
    }
    if (FIRN_LIKELY(align_is_aligned(address, FIRN_PAGE))) {
        struct run *run = page_map_get(&tract->map, address);
        if (FIRN_LIKELY(run != NULL && run->state == RUN_LIVE && run->object == address)) {
            *found = run;
            return LARGE_LIVE;
        }
    }
    return large_explain(tract, address, found);
}

static void large_describe(const struct run *run, struct large_block *block) {
    block->base = run->object;
    block->size = run->size;
    block->capacity = run_object_bytes(run);
}

enum large_kind large_find(uintptr_t address, struct large_block *block) {
    struct run *run = NULL;
    lock_acquire(&large->lock);
    enum large_kind kind = large_look_up(address, &run);
    if (kind == LARGE_LIVE || kind == LARGE_INTERIOR) {
        large_describe(run, block);
    }
    lock_release(&large->lock);
    return kind;
}

// ---- allocating and freeing ----

// A live run; the lock is held.
static struct run *large_take(const struct carve_request *request, bool *is_zero) {
    struct run *run = recycle_take(&large->reuse, &large->space, request);
    *is_zero = run == NULL;
    if (run == NULL) {
        reuse_note_missed(&large->reuse, request->bytes);
        run = space_take(&large->space, request);
    }
    return run;
}

static void large_count_in(struct run *run, size_t size) {
    run->size = size;
    large->live++;
    large->live_bytes += run_object_bytes(run);
}

static void large_count_out(struct run *run) {
    large->live--;
    large->live_bytes -= run_object_bytes(run);
}

// Rounds a size up to whole pages; false unless size and alignment together leave the result, and
// every address computed from it, in range.
static bool large_round(size_t size, size_t align, size_t *bytes) {
    size_t sum;
    return size != 0 && align_up_checked(size, FIRN_PAGE, bytes) &&
           !__builtin_add_overflow(*bytes, align, &sum) && sum <= PTRDIFF_MAX;
}

// P-LARGE-RETIRE: all of the object is still as it was left. Found by an innocent call.
static void large_verify(uintptr_t object, size_t bytes, bool is_resident) {
    size_t at = retire_find_change(object, bytes, is_resident);
    if (FIRN_LIKELY(at == bytes)) {
        return;
    }
    char found[64];
    struct text t = text_on(found, sizeof found);
    text_str(&t, "byte ");
    text_dec(&t, at);
    text_str(&t, " of a freed block was written to");
    struct fatal_info info = {
        .api = firn_call.api != NULL ? firn_call.api : "malloc",
        .address = object,
        .class_bytes = FATAL_CLASS_LARGE,
        .size = FATAL_SIZE_UNKNOWN,
        .found = found,
        .caller = firn_call.site,
    };
    fatal(FATAL_WRITE_AFTER_FREE, &info);
}

void *large_alloc(size_t size, size_t align, bool *is_zero) {
    int saved = errno;
    size_t bytes;
    if (align < FIRN_PAGE) {
        align = FIRN_PAGE;
    }
    if (!large_round(size, align, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    lock_acquire(&large->lock);
    struct carve_request request = {.bytes = bytes, .align = align};
    struct run *run = large_take(&request, is_zero);
    if (FIRN_UNLIKELY(run == NULL) && release_all(clock_coarse_ns())) {
        run = large_take(&request, is_zero);
    }
    void *object = NULL;
    bool is_resident = false;
    if (FIRN_LIKELY(run != NULL)) {
        large_count_in(run, size);
        object = (void *)run->object; // NOLINT(performance-no-int-to-ptr)
        is_resident = run->is_resident;
    }
    lock_release(&large->lock);
    if (object != NULL && page_state_is_inherited((uintptr_t)object, bytes)) {
        // What was done to it before the fork, in the middle of which its page was away, is not undone.
        *is_zero = false;
    } else if (FIRN_LARGE_RETIRE && object != NULL) {
        large_verify((uintptr_t)object, bytes, is_resident);
        *is_zero = true;
    }
    errno = object != NULL ? saved : ENOMEM;
    return object;
}

enum large_kind large_free(uintptr_t address, struct large_block *block) {
    int saved = errno;
    struct run *run = NULL;
    struct release_batch batch;
    batch.count = 0;
    lock_acquire(&large->lock);
    enum large_kind kind = large_look_up(address, &run);
    if (kind == LARGE_LIVE || kind == LARGE_INTERIOR) {
        large_describe(run, block);
    }
    if (FIRN_LIKELY(kind == LARGE_LIVE)) {
        large_count_out(run);
        adjust_clear(space_tract_of(&large->space, run), run);
        release_discard(&batch, run, address);
        release_finish(&batch);
    }
    lock_release(&large->lock);
    errno = saved;
    return kind;
}

// ---- resizing ----

// Whether the pages of a live run shall be moved rather than copied when it needs another place.
static bool large_can_move(const struct run *run) {
    return run_object_bytes(run) >= MOVE_LEAST && caps_has(CAP_MREMAP_KEEP) &&
           run->pieces < LARGE_PIECES_MOST && large->pieces < large->most_pieces;
}

// A run for an object of `bytes` that leaves `run`. Pages are moved to memory that was never
// touched, with room behind it for the next time; a copy may go to a cached run as well.
static struct run *large_take_for(const struct run *run, size_t bytes) {
    struct carve_request request = {.bytes = bytes, .align = FIRN_PAGE, .is_roomy = true};
    bool is_zero;
    return large_can_move(run) ? space_take(&large->space, &request)
                               : large_take(&request, &is_zero);
}

// Moves a live object to a new run of `bytes`, larger than its own. The lock is held, released for
// the work, and taken again. NULL when memory is exhausted; the object is untouched then.
static struct run *large_move(struct run *run, size_t bytes, struct release_batch *batch) {
    struct run *to = large_take_for(run, bytes);
    if (to == NULL && release_all(clock_coarse_ns())) {
        to = large_take_for(run, bytes);
    }
    if (to == NULL) {
        return NULL;
    }
    size_t old_bytes = run_object_bytes(run);
    // What is watched must stay where it is: a move would lose pages that are away, and the watch.
    bool can_move = large_can_move(run) && !page_state_is_kept(run->object, old_bytes) &&
                    !page_state_is_kept(to->object, bytes);
    enum move_result result = MOVE_COPIED;
    large_count_in(to, run->size);
    run->state = RUN_LEAVING;
    large->busy++;
    lock_release(&large->lock);
    if (can_move) {
        result = move_pages(run->object, to->object, old_bytes);
    } else {
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        memcpy((void *)to->object, (const void *)run->object, old_bytes);
    }
    lock_acquire(&large->lock);
    large->busy--;
    if (result != MOVE_COPIED) {
        to->pieces = (uint8_t)(run->pieces + 1 + to->pieces);
        large->pieces += run->pieces + 1u;
    }
    large_count_out(run);
    uintptr_t object = run->object;
    adjust_clear(space_tract_of(&large->space, run), run);
    if (result == MOVE_COPIED) {
        release_discard(batch, run, object);
    } else {
        release_purge(batch, run);
    }
    return to;
}

static bool large_shrink(struct run *run, size_t bytes, struct release_batch *batch) {
    struct run *tail;
    struct tract *tract = space_tract_of(&large->space, run);
    if (!adjust_shrink(tract, run, bytes, &tail)) {
        return false;
    }
    if (tail != NULL) {
        large->pieces += tail->pieces;
        release_purge(batch, tail);
    }
    return true;
}

// The new place of a live object; NULL when memory is exhausted. The lock may be released.
static struct run *large_refit(struct run *run, size_t bytes, struct release_batch *batch) {
    size_t old_bytes = run_object_bytes(run);
    if (bytes < old_bytes) {
        // If the tail cannot be cut off, the object keeps it: nothing the program could notice.
        if (large_shrink(run, bytes, batch)) {
            large->live_bytes -= old_bytes - bytes;
        }
        return run;
    }
    if (bytes > old_bytes) {
        if (!adjust_extend(space_tract_of(&large->space, run), run, bytes)) {
            return large_move(run, bytes, batch);
        }
        large->live_bytes += bytes - old_bytes;
    }
    return run;
}

void *large_resize(uintptr_t address, size_t size, enum large_kind *kind) {
    int saved = errno;
    size_t bytes;
    struct run *run = NULL;
    struct release_batch batch;
    batch.count = 0;
    void *object = NULL;
    bool is_possible = large_round(size, FIRN_PAGE, &bytes);
    lock_acquire(&large->lock);
    *kind = large_look_up(address, &run);
    if (*kind == LARGE_LIVE && is_possible) {
        run = large_refit(run, bytes, &batch);
        if (run != NULL) {
            run->size = size;
            object = (void *)run->object; // NOLINT(performance-no-int-to-ptr)
        }
        release_finish(&batch);
    }
    lock_release(&large->lock);
    errno = object != NULL || *kind != LARGE_LIVE ? saved : ENOMEM;
    return object;
}

// ---- for who watches pages of large objects ----

// No lock: set at start.
bool large_watch_range(uintptr_t *from, uintptr_t *until) {
    const struct tract *tract = &large->space.tracts[0];
    lock_acquire(&large->lock);
    *from = tract->range.base;
    *until = tract->frontier;
    bool is_fit = large->space.count > 0 && !tract->is_exact && caps_has(CAP_GUARD_MARKER);
    lock_release(&large->lock);
    return is_fit && *from < *until;
}

uint64_t large_fingerprint(uintptr_t from, uintptr_t until) {
    const struct tract *tract = &large->space.tracts[0];
    uint64_t print = 0;
    lock_acquire(&large->lock);
    uintptr_t at = from > tract->range.base ? from : tract->range.base;
    until = until < tract->frontier ? until : tract->frontier;
    while (at < until) {
        const struct run *run = page_map_get_before(&tract->map, at);
        if (run == NULL || run->end <= at) {
            break;
        }
        if (run->state == RUN_LIVE && run->end > from) {
            print = (print ^ run->object) * UINT64_C(0x9e3779b97f4a7c15);
            print = (print ^ run->end) * UINT64_C(0x9e3779b97f4a7c15) | 1;
        }
        at = run->end;
    }
    lock_release(&large->lock);
    return print;
}

bool large_while_settled(bool (*act)(void *context), void *context) {
    lock_acquire(&large->lock);
    bool is_done = large->busy == 0 && !large->space.tracts[0].is_exact && act(context);
    lock_release(&large->lock);
    return is_done;
}

// ---- statistics and fork ----

void large_stats(struct large_stats *out) {
    lock_acquire(&large->lock);
    out->allocated_bytes = large->live_bytes;
    out->live = large->live;
    out->dirty_bytes = large->reuse.bins.bytes + large->busy_bytes;
    out->retained_bytes = large->space.shared.free.bytes + large->closed.bytes;
    out->mapped_bytes = large->space.shared.mapped_bytes;
    lock_release(&large->lock);
}

bool large_release(bool is_urgent) {
    if (large->busy > 0 && !is_urgent) {
        return false;
    }
    for (unsigned i = 0; i < large->space.count; i++) {
        tract_release_unused(&large->space.tracts[i]);
    }
    return true;
}

void large_before_fork(void) {
    lock_acquire(&large->lock);
}

// In a child: what other threads had in hand outside of the lock is finished for them. An object on its way to another place stays where it was: its owner does not
// exist here, but somebody may know its address; the place it was going to is lost.
static void large_recover(struct tract *tract) {
    for (uintptr_t at = tract->range.base; at < tract->frontier;) {
        struct run *run = page_map_get(&tract->map, at);
        if (run->state == RUN_BUSY) {
            uintptr_t start = run->start;
            release_recover(run);
            run = page_map_get_before(&tract->map, start);
        } else if (run->state == RUN_LEAVING) {
            run->state = RUN_LIVE;
        }
        at = run->end;
    }
}

void large_after_fork(bool in_child) {
    if (!in_child) {
        lock_release(&large->lock);
        return;
    }
    *large->space.shared.random = (struct random_stream){0};
    if (large->busy > 0) {
        for (unsigned i = 0; i < large->space.count; i++) {
            large_recover(&large->space.tracts[i]);
        }
        large->busy = 0;
        large->busy_bytes = 0;
    }
    lock_reset(&large->lock);
}
