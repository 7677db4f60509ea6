#include "src/cold/cold.h"

#include "src/base/fatal.h"
#include "src/cold/age.h"
#include "src/cold/freeze.h"
#include "src/cold/hint.h"
#include "src/cold/mark.h"
#include "src/cold/release.h"
#include "src/cold/stage.h"
#include "src/cold/swapper.h"
#include "src/cold/table.h"
#include "src/cold/thaw.h"
#include "src/cold/touch.h"
#include "src/meta/arena.h"
#include "src/meta/page_state.h"
#include "src/meta/root.h"
#include "src/os/caps.h"
#include "src/os/clock.h"
#include "src/os/fault.h"
#include "src/os/map.h"
#include "src/os/missing.h"
#include "src/os/pin.h"
#include "src/os/signals.h"
#include "src/os/strain.h"
#include "src/os/swap.h"
#include "src/os/sys.h"
#include "src/os/thread.h"
#include "src/os/veil.h"

#include <errno.h>
#include <string.h>

enum {
    CPU_PERCENT = 10,
    STAGE_TRIES = 200,
    STAGE_WAIT_NS = 50000000,
    THREAD_BLOCK_BYTES = 4096 // of a library's variables: not known, and few have more
};
enum phase { NOT_STARTED, STARTING, RUNNING, IMPOSSIBLE };

// On a page that reads as zeros in every forked child: there nothing of this runs.
struct process {
    _Atomic int phase; // enum phase
};
static struct process *process;
static bool is_asked, is_forbidden, is_swapping, is_seal_named;
static _Atomic int engine; // enum fault_engine
static _Atomic(const char *) reason, lesser;

static void set_phase(enum phase phase) {
    atomic_store_explicit(&process->phase, (int)phase, memory_order_release);
}

static enum fault_engine chosen_engine(void) {
    return (enum fault_engine)atomic_load_explicit(&engine, memory_order_acquire);
}

static enum phase phase_now(void) {
    return process == NULL
               ? NOT_STARTED
               : (enum phase)atomic_load_explicit(&process->phase, memory_order_acquire);
}

bool cold_is_running(void) {
    return phase_now() == RUNNING;
}

// signals_claim_fn
static bool claim_touch(uintptr_t address) {
    return phase_now() == RUNNING && touch_claim(address);
}

static void touch(uintptr_t address, size_t bytes) {
    if (phase_now() == RUNNING) {
        hint_touch(address, bytes);
    }
}

// ---- fork ---------------------------------------------------------------------------------------

static FIRN_TLS unsigned forks_held; // of this thread's forks, those that hold
static atomic_bool is_stopped;       // see cold_stop

void cold_before_fork(void) {
    // Also before it runs: it may at any moment.
    if (!missing_serves_calls()) {
        forks_held++;
        atomic_fetch_add(&table_holds, 1);
        if (phase_now() == RUNNING) { // else, in a child, states are those of its parent
            hint_bring_all_back();
        }
    }
}

void cold_after_fork(bool in_child) {
    if (in_child) {
        missing_after_fork_in_child();
        forks_held = 0;
        atomic_store(&table_holds, 0);
        atomic_store(&is_stopped, false);
        signals_after_fork_in_child();
    } else if (forks_held > 0) {
        forks_held--;
        atomic_fetch_sub(&table_holds, 1);
    }
}

void cold_note_filter(void) {
    if (is_asked) {
        mark_give_up();
    }
}

// The holds of this process end with it.
void cold_stop(void) {
    if (chosen_engine() == FAULT_PROTECT && !atomic_exchange(&is_stopped, true)) {
        atomic_fetch_add(&table_holds, 1);
        if (phase_now() == RUNNING) {
            hint_bring_all_back();
        }
    }
}

// ---- start --------------------------------------------------------------------------------------

static bool is_rationed(void) {
    const struct limits *limits = caps_limits();
    return FIRN_ROOT.is_sparse || limits->is_strict_overcommit || limits->data_bytes != UINT64_MAX;
}

// Memory that must not be paged is not to be taken away either, and everything mapped from now on might
// have to be there at once.
static bool is_locked(void) {
    char text[4096];
    static const char key[] = "VmLck:";
    const char *at =
        sys_read_file("/proc/self/status", text, sizeof text) > 0 ? strstr(text, key) : NULL;
    for (at = at != NULL ? at + sizeof key - 1 : ""; *at != '\0' && *at != '\n'; at++) {
        if (*at >= '1' && *at <= '9') {
            return true;
        }
    }
    return false;
}

// In a forked child all this describes the parent. Not yet what page_state_purge goes by.
static void forget_parent(void) {
    lock_reset(&cold_lock);
    signals_after_unseen_fork();
    for (struct chunk *c = table_first(); c != NULL; c = c->next) {
        memset(c->pages, 0, sizeof c->pages);
        c->registered = 0;
        c->wait = c->rest = 0;
        atomic_store_explicit(&c->filled, 0, memory_order_relaxed);
        atomic_store_explicit(&c->away, 0, memory_order_relaxed);
    }
    thaw_reset();
    veil_reset();
    cold_store_abandon();
}

static void forget_states(const struct chunk *c) {
    static const enum page_state before_fresh[] = {PAGE_RESIDENT, PAGE_TRACKED, PAGE_STAGED,
                                                   PAGE_FROZEN};
    for (unsigned i = 0; i < CHUNK_PAGES; i++) {
        uintptr_t at = c->base + ((uintptr_t)i << FIRN_PAGE_SHIFT);
        (void)!page_state_move(at, PAGE_THAWING, PAGE_RESIDENT);
        for (unsigned k = 0; k < sizeof before_fresh / sizeof before_fresh[0]; k++) {
            (void)!page_state_move(at, before_fresh[k], PAGE_FRESH);
        }
    }
}

// And the parent has filled in all that was missing.
static void forget_claims(void) {
    for (struct chunk *c = table_first(); c != NULL; c = c->next) {
        forget_states(c);
        atomic_store(&c->is_claimed, false);
    }
}

// veil_bring_fn. In a child that was made behind our back nobody brings anything.
static bool bring(uintptr_t page) {
    return phase_now() == RUNNING ? hint_bring(page) : hint_open(page);
}

static void arm(void) {
    veil_arm(FIRN_ROOT.data.base, FIRN_ROOT.data.bytes, bring);
}

void cold_enter_thread(void) {
    if (chosen_engine() == FAULT_PROTECT) {
        veil_enter_thread();
    }
}

// What the loader frees when the thread has blocked its signals, or another thread later on, likewise.
void cold_leave_thread(void) {
    uintptr_t address;
    size_t bytes;
    if (chosen_engine() != FAULT_EVENT) {
        veil_thread_vector(&address, &bytes);
        cold_keep(address, bytes);
        for (size_t module = 1; veil_thread_block(module, &address); module++) {
            if (address != 0) {
                cold_keep(address, THREAD_BLOCK_BYTES);
            }
        }
    }
    veil_leave_thread();
}

// Threads may come here at the same time: they find the same.
enum fault_engine cold_settle_engine(void) {
    enum fault_engine best = chosen_engine();
    if (best == FAULT_NONE) {
        const char *why;
        best = FAULT_EVENT;
        while (best < FAULT_PROTECT && (why = missing_try(best)) != NULL) {
            atomic_store_explicit(&lesser, why, memory_order_relaxed);
            best++;
        }
        atomic_store_explicit(&engine, (int)best, memory_order_release);
    }
    if (best == FAULT_PROTECT) {
        arm();
        cold_enter_thread();
    }
    return best;
}

static enum fault_engine engine_to_use(void) {
    return chosen_engine() != FAULT_NONE ? chosen_engine() : FAULT_EVENT;
}

static const char *prepare_store(void) {
    const char *missing = missing_open(engine_to_use());
    if (missing != NULL) {
        return missing;
    }
    // Before anything is registered: from then on a fork waits, with the heap's locks, until somebody has read of it, and to
    // start a thread takes those locks. Should the rest fail, it has nothing to do for ever.
    if (!thread_start(thaw_run)) {
        return "no thread";
    }
    if (!cold_store_start()) {
        return "no memory for the store";
    }
    // A child's staging area is its parent's business until the parent has filled what the child lacks.
    for (unsigned i = 0; i < STAGE_TRIES; i++) {
        if (stage_start()) {
            return NULL;
        }
        thread_sleep(STAGE_WAIT_NS);
    }
    return "no staging area";
}

// There the other thread has only to listen whether memory is short.
static const char *prepare_swapping(void) {
    const char *missing = missing_open_writes();
    if (missing == NULL && strain_poll().descriptor >= 0 && !thread_start(thaw_run)) {
        return "no thread";
    }
    return missing;
}

// Why the option does not go with the others; NULL: it does.
static const char *judge_options(void) {
    if (is_swapping) {
        return is_seal_named ? "swap cannot be sealed: without seal=, or cold_store=firn" : NULL;
    }
    if (is_forbidden) {
        return "cold=auto takes engine event only";
    }
    // In a static archive nothing is interposed.
    return engine_to_use() != FAULT_EVENT && !pin_is_announced()
               ? "the program's system calls are not seen"
               : NULL;
}

// The mesher's descriptor, where it will have one, is opened before ours takes anything from it.
static const char *prepare(void) {
    const char *why = judge_options();
    if (why != NULL) {
        return why;
    }
    if (is_rationed()) {
        return "memory is rationed";
    }
    if (is_locked()) {
        return "memory is locked";
    }
    (void)!fault_start(FIRN_ROOT.small_base, FIRN_ROOT.small_bytes);
    if (!is_swapping && engine_to_use() == FAULT_SIGNAL) {
        (void)!missing_lend();
    }
    if (!missing_isolate()) {
        return "no descriptor table of its own";
    }
    strain_open();
    return is_swapping ? prepare_swapping() : prepare_store();
}

static void run(void) {
    forget_parent();
    const char *why = prepare();
    if (why != NULL) {
        missing_close();
        atomic_store_explicit(&reason, why, memory_order_release);
        set_phase(IMPOSSIBLE);
        return;
    }
    fatal_set_opener(missing_open_error);
    forget_claims();
    fault_set_taken(release_is_taken);
    mark_start(claim_touch);
    page_state_set_keeper(is_swapping ? &release_keeper_swapping : &release_keeper);
    if (!missing_serves_calls()) {
        pin_set_touch(touch);
    }
    set_phase(RUNNING);
    if (missing_engine() == FAULT_PROTECT) {
        arm();
    }
    if (is_swapping) {
        swapper_run();
    }
    freeze_run();
}

void cold_choose(bool is_on, uint64_t after_ms, unsigned seal, uint64_t most_bytes) {
    is_asked = is_on;
    cold_store_choose(seal, most_bytes);
    freeze_configure(after_ms, CPU_PERCENT);
    if (!is_on || process != NULL) {
        return;
    }
    process = arena_alloc(FIRN_PAGE, FIRN_PAGE);
    if (process == NULL || !map_wipe_on_fork((uintptr_t)process, FIRN_PAGE)) {
        process = NULL;
        atomic_store_explicit(&reason, "no memory that is wiped on fork", memory_order_release);
    }
}

void cold_choose_swap(bool has_seal) {
    is_swapping = true;
    is_seal_named = has_seal;
}

void cold_choose_engine(enum fault_engine chosen) {
    atomic_store_explicit(&engine, (int)chosen, memory_order_relaxed);
}

void cold_choose_event_only(void) {
    is_forbidden = chosen_engine() > FAULT_EVENT;
    cold_choose_engine(FAULT_EVENT);
}

void cold_upkeep(void) {
    int expected = NOT_STARTED;
    if (FIRN_LIKELY(!is_asked) || process == NULL ||
        !atomic_compare_exchange_strong_explicit(&process->phase, &expected, STARTING,
                                                 memory_order_acq_rel, memory_order_relaxed)) {
        return;
    }
    if (!thread_start(run)) {
        atomic_store_explicit(&reason, "no thread", memory_order_release);
        set_phase(IMPOSSIBLE);
    }
}

// ---- what the program says ----------------------------------------------------------------------

void cold_hint_cold(uintptr_t address, size_t bytes) {
    if (phase_now() == RUNNING) {
        hint_cold(address, bytes);
    }
}

void cold_hint_hot(uintptr_t address, size_t bytes) {
    if (phase_now() == RUNNING) {
        hint_hot(address, bytes);
        if (is_swapping) {
            swap_announce(address, bytes);
        }
    }
}

// In a forked child, before it runs its own: under `event` its parent still fills what was away.
static bool may_be_away(void) {
    return phase_now() == RUNNING || missing_serves_calls();
}

// Before it runs, too: it is to hold then.
bool cold_exclude(uintptr_t address, size_t bytes) {
    const int saved = errno;
    bool is_done = !is_asked || hint_exclude(address, bytes, may_be_away());
    errno = is_done ? saved : ENOMEM;
    return is_done;
}

// The canary of the slot before it, and that of the slot behind it, at its end. A slot is a quarter larger than what was
// asked for, and somewhat more.
void cold_keep(uintptr_t address, size_t bytes) {
    enum { BEFORE = 16, MORE = 256 };
    if (!missing_serves_calls() && !lock_is_any_held()) {
        (void)!cold_exclude(address - BEFORE, BEFORE + 3 * bytes + MORE);
    }
}

void cold_thaw_all(void) {
    if (phase_now() == RUNNING) {
        hint_thaw_all();
    }
}

void cold_press(void) {
    if (phase_now() == RUNNING) {
        hint_press();
    }
}

// ---- statistics ---------------------------------------------------------------------------------

static uint64_t quantile(const uint64_t times[THAW_BUCKETS], unsigned percent) {
    uint64_t all = 0, seen = 0;
    for (unsigned i = 0; i < THAW_BUCKETS; i++) {
        all += times[i];
    }
    for (unsigned i = 0; i < THAW_BUCKETS && all > 0; i++) {
        seen += times[i];
        if (seen * 100 >= all * percent) {
            return (uint64_t)2 << i;
        }
    }
    return 0;
}

_Static_assert((int)COLD_TIMES == (int)THAW_BUCKETS, "the same histogram");

static void add_swapping(struct cold_stats *out) {
    struct swapper_figures s;
    swapper_figures(&s);
    bool is_running = phase_now() == RUNNING;
    if (is_running) {
        out->engine = "swap";
        out->reason = s.off;
        out->freeze_cpu_ns = clock_other_thread_ns(s.thread);
    }
    out->held = s.held;
    out->frozen = s.out;
    out->thaws = s.back;
    out->refused = s.refused;
    out->full = s.full;
    out->seal = "off";
}

void cold_stats(struct cold_stats *out) {
    struct freeze_figures f;
    struct thaw_figures t;
    freeze_figures(&f);
    thaw_figures(&t);
    struct cold_store_figures s;
    struct age_figures a;
    age_figures(&a);
    bool is_running = phase_now() == RUNNING;
    cold_store_figures(&s);
    *out = (struct cold_stats){
        .engine = is_running ? fault_engine_name(missing_engine()) : "none",
        .reason = atomic_load_explicit(&reason, memory_order_acquire),
        .lesser = is_running ? atomic_load_explicit(&lesser, memory_order_relaxed) : NULL,
        .paused = !is_running                ? NULL
                  : atomic_load(&is_stopped) ? "a thread of libc's blocks SIGSEGV"
                                             : f.refusal,
        .staged = f.staged,
        .frozen = f.frozen,
        .zeros = f.zeros,
        .poor = f.poor,
        .spared = f.spared,
        .refused = f.refused,
        .full = f.full,
        .thaws = t.thaws,
        .returns = t.returns,
        .fetched = t.fetched,
        .touched = t.touched,
        .filled = t.zeros,
        .forks = t.forks,
        .thaw_p50_ns = quantile(t.times, 50),
        .thaw_p99_ns = quantile(t.times, 99),
        .thaw_longest_ns = t.longest_ns,
        .away = is_running ? f.away : 0,
        .chunks = f.chunks,
        .refaults = is_running ? a.last_minute : 0,
        .idle_ms = a.idle_ms,
        .presses = a.presses,
        .freeze_cpu_ns = is_running ? clock_other_thread_ns(f.thread) : 0,
        .thaw_cpu_ns = is_running ? clock_other_thread_ns(t.thread) : 0,
        .uniform_pages = is_running ? s.uniform_pages : 0,
        .packed_pages = is_running ? s.pages - s.uniform_pages : 0,
        .stored_bytes = is_running ? s.stored_bytes : 0,
        .store_bytes = is_running ? s.resident_bytes + s.index_bytes : 0,
        .seal = s.seal,
    };
    memcpy(out->thaw_times, t.times, sizeof out->thaw_times);
    if (is_swapping) {
        add_swapping(out);
    }
}
