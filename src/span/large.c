// Large objects. What costs time in proportion to an object's size (purging, moving, copying) is
// done outside of the lock: the run is marked RUN_BUSY or RUN_LEAVING first, and put into its final
// state under the lock afterwards.
#include "src/span/large.h"

#include "src/base/align.h"
#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/meta/arena.h"
#include "src/os/caps.h"
#include "src/os/clock.h"
#include "src/span/adjust.h"
#include "src/span/large_heap.h"
#include "src/span/move.h"
#include "src/span/recycle.h"

#include <errno.h>
#include <string.h>

enum {
    LARGE_BATCH = 16,           // runs purged for one taking of the lock
    LARGE_KEEP_MOST = 32 << 20, // larger ones are purged at once
    LARGE_PIECES_MOST = 16,     // moves after which an object is copied, to be one mapping again
    LARGE_PIECES_SHARE = 16     // of max_map_count, spent on moved objects
};
#define LARGE_DELAY_NS UINT64_C(1000000000)

struct large_heap firn_large = {
    .lock = LOCK_INIT(LOCK_LARGE), .delay_ns = LARGE_DELAY_NS, .due_ns = UINT64_MAX};
static struct large_heap *const large = &firn_large;

// Used when descriptor memory cannot be had.
static struct random_stream large_random;

void large_start(const struct reservation *range) {
    const struct limits *limits = caps_limits();
    struct random_stream *random = arena_alloc(FIRN_PAGE, FIRN_PAGE);
    // Without the wipe, large_after_fork has to do.
    bool is_wiped = random != NULL && map_wipe_on_fork((uintptr_t)random, FIRN_PAGE);
    (void)is_wiped;
    large->space.shared.random = random != NULL ? random : &large_random;
    large->space.is_rationed = limits->is_strict_overcommit || limits->data_bytes != UINT64_MAX;
    large->most_pieces = limits->max_map_count / LARGE_PIECES_SHARE;
    if (range->bytes > 2 * (size_t)FIRN_PAGE && !space_add(&large->space, range)) {
        // No descriptors: every request will fail with ENOMEM, as it should.
        large->space.count = 0;
    }
}

// ---- giving memory back ----

// Runs that are RUN_BUSY, on their way to being free.
struct large_batch {
    unsigned count;
    struct run *runs[LARGE_BATCH];
};

static void large_batch_add(struct large_batch *batch, struct run *run) {
    FIRN_ENSURE(batch->count < LARGE_BATCH);
    run->state = RUN_BUSY;
    batch->runs[batch->count++] = run;
    large->busy++;
    large->busy_bytes += run_body_bytes(run);
    large->pieces -= run->pieces;
}

static void large_note_due(void) {
    const struct run *oldest = large->reuse.oldest;
    uint64_t due = oldest != NULL ? oldest->free_ns + large->delay_ns : UINT64_MAX;
    atomic_store_explicit(&large->due_ns, due, memory_order_relaxed);
}

// Purges the batch outside of the lock, which is held before and after. In a sparse tract the lock
// stays held: a child forked meanwhile could not tell whether the addresses are still ours.
static void large_batch_purge(struct large_batch *batch) {
    if (batch->count == 0) {
        return;
    }
    bool is_sparse = false;
    for (unsigned i = 0; i < batch->count; i++) {
        is_sparse |= space_tract_of(&large->space, batch->runs[i])->range.is_sparse;
    }
    if (!is_sparse) {
        lock_release(&large->lock);
    }
    for (unsigned i = 0; i < batch->count; i++) {
        tract_purge(space_tract_of(&large->space, batch->runs[i]), batch->runs[i]);
    }
    if (!is_sparse) {
        lock_acquire(&large->lock);
    }
    for (unsigned i = 0; i < batch->count; i++) {
        struct run *run = batch->runs[i];
        large->busy--;
        large->busy_bytes -= run_body_bytes(run);
        tract_settle(space_tract_of(&large->space, run), run);
    }
    batch->count = 0;
}

// Takes what exceeds the bound out of the cache. A quarter more, so that a program that frees much
// purges in batches.
static void large_evict_excess(struct large_batch *batch) {
    if (!reuse_is_over(&large->reuse, large->live_bytes)) {
        return;
    }
    size_t target = reuse_bound(&large->reuse, large->live_bytes) / 4 * 3;
    do {
        struct run *run = reuse_evict(&large->reuse);
        if (run == NULL) {
            return;
        }
        reuse_note_evicted(&large->reuse, run_body_bytes(run));
        large_batch_add(batch, run);
    } while (batch->count < LARGE_BATCH && large->reuse.bins.bytes > target);
}

// Purges everything in the cache that was freed at or before `now_ns`. The lock is released and
// taken again. True if there was anything.
static bool large_purge_cache(uint64_t now_ns) {
    bool any = false;
    for (;;) {
        struct large_batch batch = {0};
        while (batch.count < LARGE_BATCH && large->reuse.oldest != NULL &&
               large->reuse.oldest->free_ns <= now_ns) {
            large_batch_add(&batch, reuse_evict(&large->reuse));
        }
        if (batch.count == 0) {
            break;
        }
        any = true;
        large_batch_purge(&batch);
    }
    large_note_due();
    return any;
}

// A run that no longer has an object goes to the cache, or is purged with the batch.
static void large_discard(struct run *run, struct large_batch *batch) {
    if (run_body_bytes(run) > LARGE_KEEP_MOST || large->delay_ns == 0) {
        large_batch_add(batch, run);
        return;
    }
    reuse_put(&large->reuse, run, clock_coarse_ns());
    large_evict_excess(batch);
    large_note_due();
}

bool large_trim(void) {
    int saved = errno;
    lock_acquire(&large->lock);
    bool any = large_purge_cache(clock_coarse_ns());
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
        large_purge_cache(now_ns - large->delay_ns);
    }
    lock_release(&large->lock);
    errno = saved;
}

void large_set_purge_delay(uint64_t delay_ns) {
    lock_acquire(&large->lock);
    large->delay_ns = delay_ns;
    large_note_due();
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
    if (FIRN_UNLIKELY(run == NULL) && large_purge_cache(clock_coarse_ns())) {
        run = large_take(&request, is_zero);
    }
    void *object = NULL;
    if (FIRN_LIKELY(run != NULL)) {
        large_count_in(run, size);
        object = (void *)run->object; // NOLINT(performance-no-int-to-ptr)
    }
    lock_release(&large->lock);
    errno = object != NULL ? saved : ENOMEM;
    return object;
}

enum large_kind large_free(uintptr_t address, struct large_block *block) {
    int saved = errno;
    struct run *run = NULL;
    struct large_batch batch;
    batch.count = 0;
    lock_acquire(&large->lock);
    enum large_kind kind = large_look_up(address, &run);
    if (kind == LARGE_LIVE || kind == LARGE_INTERIOR) {
        large_describe(run, block);
    }
    if (FIRN_LIKELY(kind == LARGE_LIVE)) {
        large_count_out(run);
        adjust_clear(space_tract_of(&large->space, run), run);
        large_discard(run, &batch);
        large_batch_purge(&batch);
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
static struct run *large_move(struct run *run, size_t bytes, struct large_batch *batch) {
    struct run *to = large_take_for(run, bytes);
    if (to == NULL && large_purge_cache(clock_coarse_ns())) {
        to = large_take_for(run, bytes);
    }
    if (to == NULL) {
        return NULL;
    }
    size_t old_bytes = run_object_bytes(run);
    bool can_move = large_can_move(run);
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
    adjust_clear(space_tract_of(&large->space, run), run);
    if (result == MOVE_COPIED) {
        large_discard(run, batch);
    } else {
        large_batch_add(batch, run);
    }
    return to;
}

static bool large_shrink(struct run *run, size_t bytes, struct large_batch *batch) {
    struct run *tail;
    struct tract *tract = space_tract_of(&large->space, run);
    if (!adjust_shrink(tract, run, bytes, &tail)) {
        return false;
    }
    if (tail != NULL) {
        large->pieces += tail->pieces;
        large_batch_add(batch, tail);
    }
    return true;
}

// The new place of a live object; NULL when memory is exhausted. The lock may be released.
static struct run *large_refit(struct run *run, size_t bytes, struct large_batch *batch) {
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
    struct large_batch batch;
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
        large_batch_purge(&batch);
    }
    lock_release(&large->lock);
    errno = object != NULL || *kind != LARGE_LIVE ? saved : ENOMEM;
    return object;
}

// ---- statistics and fork ----

void large_stats(struct large_stats *out) {
    lock_acquire(&large->lock);
    out->allocated_bytes = large->live_bytes;
    out->live = large->live;
    out->dirty_bytes = large->reuse.bins.bytes + large->busy_bytes;
    out->retained_bytes = large->space.shared.free.bytes;
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

// In a child: what other threads had in hand outside of the lock is finished for them. Purging
// twice does no harm. An object on its way to another place stays where it was: its owner does not
// exist here, but somebody may know its address; the place it was going to is lost.
static void large_recover(struct tract *tract) {
    for (uintptr_t at = tract->range.base; at < tract->frontier;) {
        struct run *run = page_map_get(&tract->map, at);
        if (run->state == RUN_BUSY) {
            tract_purge(tract, run);
            run = tract_settle(tract, run);
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
