#include "src/heap/life.h"

#include "hardening/link.h"
#include "hardening/sample.h"
#include "hardening/slot.h"
#include "mesh/mesh.h"
#include "src/base/fatal.h"
#include "src/base/text.h"
#include "src/heap/upkeep.h"
#include "src/meta/arena.h"
#include "src/os/caps.h"
#include "src/os/fault.h"
#include "src/os/lock.h"
#include "src/os/map.h"
#include "src/os/sys.h"
#include "src/os/walk.h"
#include "src/slab/central.h"
#include "src/span/large.h"

#include <pthread.h>
#include <stdatomic.h>

enum start_state { UNDECIDED, NOT_STARTED, STARTED, IMPOSSIBLE, ASIDE };

static struct lock start_lock = LOCK_INIT(LOCK_START);
static _Atomic int start_state; // stored under start_lock
static pthread_key_t exit_key;
static bool has_exit_key;
// One word on a page that reads as zero in every forked child.
static _Atomic uint32_t *same_process;

// ---- threads ----------------------------------------------------------------------------------

static FIRN_TLS bool is_ending;

// Runs with the other destructors of thread-specific data, in any order: one that runs later and
// allocates gets a cache for each call.
static void thread_exit(void *cache) {
    fatal_note_call("thread exit", 0);
    is_ending = true;
    if (firn_has_keeper) {
        keeper_thread_ends();
    }
    cache_detach(cache);
    if (firn_has_cold_upkeep) {
        cold_leave_thread();
    }
}

// For guarded samples, before a sandbox may forbid to ask.
static void note_thread(void) {
    if (firn_sample_rate != 0 && firn_cache != &firn_empty_cache) {
        firn_cache->noise->thread = sys_thread_id();
    }
}

static FIRN_COLD struct cache *attach(void) {
    life_start();
    if (!life_has_started() || !cache_attach()) {
        return NULL;
    }
    note_thread();
    if (has_exit_key && !is_ending) {
        // May allocate (from the cache just attached) when the program has many keys.
        (void)pthread_setspecific(exit_key, firn_cache);
        if (firn_has_cold_upkeep) {
            cold_enter_thread();
        }
    }
    return firn_cache;
}

struct cache *life_thread_cache(void) {
    if (FIRN_UNLIKELY(firn_cache == &firn_empty_cache)) {
        return attach();
    }
    life_check_fork();
    return firn_cache;
}

void life_let_go(void) {
    if (FIRN_UNLIKELY(is_ending) && firn_cache != &firn_empty_cache) {
        cache_detach(firn_cache);
    }
}

// ---- fork -------------------------------------------------------------------------------------

static atomic_bool has_fork_handlers;
// Calls of fork this thread is in, by which it holds all locks: another handler may fork.
static FIRN_TLS unsigned forks;

// Locks in order of rank; released in reverse. While they are held no other thread is inside the
// shared structures, so the child finds them whole. Other threads' caches are not covered: they are
// abandoned in the child and their spans recovered (central_rebuild_if_due).
static void before_fork(void) {
    if (!lock_is_any_held()) {
        life_start(); // so that what is held here and what is let go afterwards are the same
    }
    if (firn_has_cold_upkeep) {
        cold_before_fork();
    }
    // A signal handler that interrupted this thread under a lock, and forks, would wait for itself.
    // Its child counts as one of a raw clone.
    if (lock_is_any_held()) {
        return;
    }
    if (!life_has_started() || forks++ > 0) {
        return;
    }
    lock_acquire(&start_lock);
    mesh_before_fork();
    cache_before_fork();
    central_before_fork();
    large_before_fork();
    arena_before_fork();
    mesh_before_fork_last();
    lock_set_all_held(true);
}

static void after_fork_in_parent(void) {
    if (firn_has_cold_upkeep) {
        cold_after_fork(false);
    }
    if (forks == 0 || --forks > 0) {
        return;
    }
    lock_set_all_held(false);
    arena_after_fork(false);
    large_after_fork(false);
    central_after_fork(false, false);
    (void)cache_after_fork(false);
    mesh_after_fork_in_parent();
    lock_release(&start_lock);
}

static void in_child(bool other_threads_inside) {
    fault_after_fork_in_child(); // first: it holds what acts on the parent
    if (firn_has_cold_upkeep) {
        cold_after_fork(true);
    }
    if (forks > 0) {
        forks = 0;
        lock_set_all_held(false);
    }
    arena_after_fork(true);
    large_after_fork(true);
    bool any_dead = cache_after_fork(true);
    bool any_meshed = mesh_after_fork_in_child(!other_threads_inside);
    bool was_kept = firn_has_keeper && keeper_after_fork_in_child(); // at work on spans, perhaps
    central_after_fork(true, any_dead || any_meshed || was_kept || other_threads_inside);
    lock_reset(&start_lock);
    note_thread();
    if (same_process != NULL) {
        atomic_store_explicit(same_process, 1, memory_order_relaxed);
    }
}

static void after_fork_in_child(void) {
    // In a signal handler that interrupted this thread under a lock, nothing: what it was changing is
    // whole again when the handler returns, and life_check_fork then sees to the rest.
    if (life_has_started() && (forks > 0 || same_process == NULL)) {
        in_child(forks == 0);
    } else if (firn_has_cold_upkeep) {
        cold_after_fork(true);
    }
}

void life_prepare_fork(void) {
    if (!atomic_exchange_explicit(&has_fork_handlers, true, memory_order_relaxed)) {
        (void)pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
    }
}

void life_begin_fork(void) {
    before_fork();
}

void life_end_fork(bool in_child) {
    if (in_child) {
        after_fork_in_child();
    } else {
        after_fork_in_parent();
    }
}

void life_check_fork(void) {
    if (FIRN_UNLIKELY(same_process != NULL &&
                      atomic_load_explicit(same_process, memory_order_relaxed) == 0)) {
        in_child(true);
    }
}

// ---- start ------------------------------------------------------------------------------------

static bool is_dead(const struct cache *c) {
    return atomic_load_explicit(&c->is_dead, memory_order_relaxed);
}

// Then it has served its purpose.
static bool is_link_whole(const struct span *s, unsigned slot, uintptr_t address) {
    uint64_t word = link_load(address);
    bool is_dropped = word == 0 && span_has_mesh(s, SPAN_DROPPED); // looked at then (mesh/merge.c)
    bool is_whole = is_dropped || link_decode(word, address, s->secret) == (int)slot;
    if (FIRN_WIPE && is_whole) {
        link_store(address, 0);
    }
    return is_whole;
}

static uint32_t capability_mask(void) {
    const char *text = FIRN_TEST_HOOKS ? sys_environment("FIRN_TEST_CAPS") : NULL;
    uint32_t mask = 0;
    if (text == NULL) {
        return ~mask;
    }
    for (; *text != '\0'; text++) {
        unsigned c = (unsigned char)*text;
        mask = mask << 4 | ((c <= '9' ? c : c + 9) & 15);
    }
    return mask;
}

static bool start_parts(void) {
    caps_probe(capability_mask());
    walk_start(NULL, NULL); // while the environment is where the kernel put it
    if (!root_start()) {
        return false;
    }
    central_start();
    struct reservation large = FIRN_ROOT.data;
    size_t half = FIRN_ROOT.data.bytes / 2;
    large.base += half;
    large.bytes -= half;
    large_start(&large);
    slot_start();
    central_set_hooks(is_dead, FIRN_SAFE_LINK ? is_link_whole : NULL);
    bool is_wiped;
    _Atomic uint32_t *word = arena_alloc_wiped(sizeof *word, &is_wiped);
    if (word != NULL && is_wiped) {
        atomic_store_explicit(word, 1, memory_order_relaxed);
        same_process = word;
    }
    return true;
}

// Set while this thread decides: what it allocates meanwhile (the loader, for the text of an error) fails.
static FIRN_TLS bool is_deciding;

static int state_now(void) {
    return atomic_load_explicit(&start_state, memory_order_acquire);
}

static void decide(void) {
    if (state_now() != UNDECIDED) {
        return;
    }
    is_deciding = true;
    bool is_aside = !life_may_start();
    is_deciding = false;
    atomic_store_explicit(&start_state, is_aside ? ASIDE : NOT_STARTED, memory_order_release);
}

void life_decide(void) {
    if (state_now() == UNDECIDED && !is_deciding) {
        lock_acquire(&start_lock);
        decide();
        lock_release(&start_lock);
    }
}

bool life_is_decided(void) {
    return state_now() != UNDECIDED;
}

bool life_is_aside(void) {
    life_decide();
    return state_now() == ASIDE;
}

void life_start(void) {
    if (FIRN_LIKELY(state_now() > NOT_STARTED) || is_deciding) {
        return;
    }
    bool is_mine = false;
    lock_acquire(&start_lock);
    decide();
    if (state_now() == NOT_STARTED) {
        fatal_set_locator(sys_locate);
        bool done = start_parts();
        if (done) {
            has_exit_key = pthread_key_create(&exit_key, thread_exit) == 0;
            // P-ROOT
            map_make_readonly((uintptr_t)&firn_root_pages, sizeof firn_root_pages);
        }
        atomic_store_explicit(&start_state, done ? STARTED : IMPOSSIBLE, memory_order_release);
        is_mine = done;
    }
    lock_release(&start_lock);
    if (is_mine) {
        life_prepare_fork();
        life_started();
    }
}

bool life_has_started(void) {
    return state_now() == STARTED;
}
