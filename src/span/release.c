#include "src/span/release.h"

#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/meta/page_state.h"
#include "src/meta/root.h"
#include "src/os/caps.h"
#include "src/os/clock.h"
#include "src/span/large_heap.h"
#include "src/span/retire.h"

enum {
    RELEASE_KEEP_MOST = 32 << 20, // larger ones are purged at once
    RELEASE_WHOLE_MOST = 64 << 10 // up to here all of a run that is used again and again is wiped
};

static struct large_heap *const large = &firn_large;

static struct tract *tract_of(const struct run *run) {
    return space_tract_of(&large->space, run);
}

static void add(struct release_batch *batch, struct run *run, enum release_action action,
                uintptr_t from) {
    FIRN_ENSURE(batch->count < RELEASE_BATCH);
    run->state = RUN_BUSY;
    batch->entries[batch->count++] = (struct release_entry){run, from, action, true};
    large->busy++;
    large->busy_bytes += run_body_bytes(run);
    large->pieces -= run->pieces;
}

void release_purge(struct release_batch *batch, struct run *run) {
    add(batch, run, RELEASE_PURGE, run->body);
}

void release_note_due(void) {
    const struct run *oldest = large->reuse.oldest;
    uint64_t due = oldest != NULL ? oldest->free_ns + large->delay_ns : UINT64_MAX;
    atomic_store_explicit(&large->due_ns, due, memory_order_relaxed);
}

// Takes what exceeds the bound out of the cache. A quarter more, so that a program that frees much
// purges in batches.
static void evict_excess(struct release_batch *batch) {
    if (!reuse_is_over(&large->reuse, large->live_bytes)) {
        return;
    }
    size_t target = reuse_bound(&large->reuse, large->live_bytes) / 4 * 3;
    while (batch->count < RELEASE_BATCH) {
        struct run *run = reuse_evict(&large->reuse);
        if (run == NULL) {
            return;
        }
        reuse_note_evicted(&large->reuse, run_body_bytes(run));
        release_purge(batch, run);
        if (large->reuse.bins.bytes <= target) {
            return;
        }
    }
}

static void keep(struct release_batch *batch, struct run *run) {
    reuse_put(&large->reuse, run, clock_coarse_ns());
    evict_excess(batch);
    release_note_due();
}

// Whether something else may be in want of what closed runs hold: commit charge, or addresses.
static bool is_scarce(void) {
    return large->space.is_rationed || FIRN_ROOT.data.is_sparse ||
           large->space.tracts[0].range.is_sparse;
}

static void open_excess(struct release_batch *batch) {
    while (batch->count < RELEASE_BATCH &&
           closed_is_over(&large->closed, large->live_bytes, is_scarce())) {
        struct run *run = closed_take(&large->closed);
        add(batch, run, RELEASE_OPEN, run->body);
    }
}

// A mapping that map_move left behind is renewed first, or it would stay apart for good; where that
// gives up the commitment, too, the run is inaccessible already, and free.
// Not by mprotect: every closed run would cost mappings that the guards of live objects need.
static bool can_close(const struct run *run) {
    return FIRN_LARGE_CLOSE && caps_has(CAP_GUARD_MARKER) &&
           (run->pieces == 0 || !tract_of(run)->is_exact);
}

// What is away of a cached run would come back some time; its guards may be anywhere by then. False: it
// cannot be forgotten now.
static bool is_forgotten(struct run *run) {
    run->state = RUN_BUSY; // before: what is not live goes away no more
    return page_state_try_release(run->body, run_body_bytes(run));
}

void release_discard(struct release_batch *batch, struct run *run, uintptr_t object) {
    bool may_wait = run_body_bytes(run) <= RELEASE_KEEP_MOST && large->delay_ns != 0;
    if (may_wait && can_close(run)) {
        add(batch, run, RELEASE_CLOSE, object);
    } else if (may_wait && FIRN_LARGE_RETIRE) {
        add(batch, run, RELEASE_WIPE, object);
    } else if (may_wait && is_forgotten(run)) {
        keep(batch, run);
    } else {
        release_purge(batch, run);
    }
}

// ---- outside of the lock ----

// A small run that goes round and is used in part costs three system calls each time, to find out which
// pages are there. More than to have all of them there, and to wipe and check them.
static bool is_worth_filling(const struct run *run) {
    return run->is_reused && !run->is_resident && run_body_bytes(run) <= RELEASE_WHOLE_MOST &&
           !page_state_is_kept(run->body, run_body_bytes(run));
}

// P-LARGE-RETIRE
static void wipe(struct release_entry *entry) {
    struct run *run = entry->run;
    if (is_worth_filling(run)) {
        run->is_resident = retire_wipe(run->body, run->end, true);
        return;
    }
    bool is_resident = retire_wipe(entry->from, run->end, run->is_resident);
    run->is_resident = is_resident && entry->from == run->body;
}

// P-LARGE-CLOSE
static void close_body(struct release_entry *entry) {
    struct run *run = entry->run;
    if (run->pieces > 0) {
        tract_purge(tract_of(run), run);
        run->pieces = 0;
    }
    if (page_state_guard(run->body, run_body_bytes(run))) {
        run->is_resident = false;
    } else {
        entry->action = RELEASE_WIPE;
        wipe(entry);
    }
}

static void work(struct release_entry *entry) {
    struct run *run = entry->run;
    if (entry->action == RELEASE_WIPE || entry->action == RELEASE_CLOSE) {
        page_state_release(run->body, run_body_bytes(run)); // what is away reads as zeros
        run->is_resident = run->is_resident && !page_state_is_kept(run->body, run_body_bytes(run));
    }
    switch (entry->action) {
    case RELEASE_WIPE:
        wipe(entry);
        return;
    case RELEASE_CLOSE:
        close_body(entry);
        return;
    case RELEASE_OPEN:
        entry->is_done = page_state_unguard(run->body, run_body_bytes(run));
        if (!entry->is_done) {
            return;
        }
        if (!tract_of(run)->is_exact) { // empty since it was closed
            return;
        }
        break;
    case RELEASE_PURGE:
        break;
    }
    tract_purge(tract_of(run), run);
}

// ---- with it again ----

static void settle(const struct release_entry *entry, struct release_batch *more) {
    struct run *run = entry->run;
    large->busy--;
    large->busy_bytes -= run_body_bytes(run);
    if (entry->action == RELEASE_WIPE) {
        large->pieces += run->pieces;
        keep(more, run);
    } else if (entry->action == RELEASE_CLOSE) {
        closed_put(&large->closed, run);
        open_excess(more);
    } else if (entry->is_done) {
        tract_settle(tract_of(run), run);
    } else { // the guard stays: for want of memory mappings
        closed_put(&large->closed, run);
    }
}

// In a sparse tract the lock stays held: a child forked meanwhile could not tell whether the addresses
// are still ours.
static bool has_sparse(const struct release_batch *batch) {
    bool any = false;
    for (unsigned i = 0; i < batch->count; i++) {
        any |= tract_of(batch->entries[i].run)->range.is_sparse;
    }
    return any;
}

void release_finish(struct release_batch *batch) {
    while (batch->count > 0) {
        bool is_sparse = has_sparse(batch);
        if (!is_sparse) {
            lock_release(&large->lock);
        }
        for (unsigned i = 0; i < batch->count; i++) {
            work(&batch->entries[i]);
        }
        if (!is_sparse) {
            lock_acquire(&large->lock);
        }
        struct release_batch more;
        more.count = 0;
        for (unsigned i = 0; i < batch->count; i++) {
            settle(&batch->entries[i], &more);
        }
        batch->count = more.count;
        for (unsigned i = 0; i < more.count; i++) {
            batch->entries[i] = more.entries[i];
        }
    }
}

bool release_cached(uint64_t now_ns) {
    bool any = false;
    for (;;) {
        struct release_batch batch;
        batch.count = 0;
        while (batch.count < RELEASE_BATCH && large->reuse.oldest != NULL &&
               large->reuse.oldest->free_ns <= now_ns) {
            release_purge(&batch, reuse_evict(&large->reuse));
        }
        if (batch.count == 0) {
            break;
        }
        any = true;
        release_finish(&batch);
    }
    release_note_due();
    return any;
}

bool release_all(uint64_t now_ns) {
    bool any = release_cached(now_ns);
    // Each once: one that cannot be opened comes back.
    for (size_t left = large->closed.runs; left > 0;) {
        struct release_batch batch;
        batch.count = 0;
        for (; batch.count < RELEASE_BATCH && left > 0; left--) {
            struct run *run = closed_take(&large->closed);
            if (run == NULL) {
                left = 0;
                break;
            }
            add(&batch, run, RELEASE_OPEN, run->body);
        }
        any |= batch.count > 0;
        release_finish(&batch);
    }
    return any;
}

bool release_trim(uint64_t now_ns) {
    return is_scarce() ? release_all(now_ns) : release_cached(now_ns);
}

// Wiping, closing or purging twice does no harm.
void release_recover(struct run *run) {
    if (FIRN_LARGE_CLOSE && !page_state_unguard(run->body, run_body_bytes(run))) {
        run->pieces = 0;
        run->is_resident = false;
        closed_put(&large->closed, run);
        return;
    }
    run->is_resident = false;
    tract_purge(tract_of(run), run);
    (void)tract_settle(tract_of(run), run);
}
