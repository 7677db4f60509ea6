#include "src/heap/keeper.h"

#include "mesh/mesh.h"
#include "src/heap/upkeep.h"
#include "src/meta/size_class.h"
#include "src/os/clock.h"
#include "src/os/futex.h"
#include "src/os/loader.h"
#include "src/os/pressure.h"
#include "src/os/sys.h"
#include "src/os/thread.h"
#include "src/span/span.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

enum {
    STEP = 4 << 20,        // bytes of free slots more than last time that are worth a thread
    ROUND_MS = 400,        // from the end of a round to the next
    ROUND_MOST_MS = 25600, // the same when nothing is gained
    COST_FACTOR = 8, // one without gain is followed by so many times the processor time it took
    IDLE_ROUNDS = 4, // without gain, after which the thread ends
    GAIN_LEAST = 64 << 10, // bytes that count as one
    QUIET_SHARE = 3,       // times the share while nobody frees
    RETRY_MS = 10000,      // after a thread could not be started
    HERE_EVERY_MS = 400,   // without a thread: from one slice of work to the next
    HERE_NS = 5000000,     // a slice
    PRESSURE_MS = 2000     // between looks at the machine's memory pressure
};

enum state { STOPPED, RUNNING, STOPPING };

static _Atomic uint32_t state;   // enum state
static _Atomic uint32_t wakeups; // what the thread sleeps on
static _Atomic int thread_id;    // the kernel's, of the last one; 0: not known yet
static atomic_bool is_allowed;
static unsigned share;
static pthread_t main_thread;
// Free bytes when a thread last ended: so many are not worth another one.
static _Atomic int64_t settled_bytes;
static _Atomic uint64_t retry_ms, here_ms;
static _Atomic uint64_t starts, rounds;
static _Atomic(const char *) why = "never needed";
// From one thread to the next: a program where nothing is to be gained is looked at less and less often.
static _Atomic uint32_t wait_ms = ROUND_MS;

void keeper_set_share(unsigned percent) {
    share = percent > 100 ? 100 : percent;
    firn_has_keeper = share > 0;
}

void keeper_allow(void) {
    if (share > 0) {
        loader_note_ranges();
        main_thread = pthread_self();
        atomic_store_explicit(&is_allowed, true, memory_order_release);
    }
}

static int64_t idle_bytes(void) {
    return atomic_load_explicit(&firn_span_idle_bytes, memory_order_relaxed) +
           atomic_load_explicit(&firn_span_pending_bytes, memory_order_relaxed);
}

static uint64_t now_ms(void) {
    return clock_coarse_ns() / 1000000;
}

static void say(const char *text) {
    atomic_store_explicit(&why, text, memory_order_relaxed);
}

static bool is_to_stop(void) {
    return atomic_load_explicit(&state, memory_order_acquire) == STOPPING;
}

// ---- the thread -------------------------------------------------------------------------------

static size_t compact(bool is_forced, bool is_quiet) {
    unsigned percent = is_quiet ? share * QUIET_SHARE : share;
    struct mesh_pace pace = {is_forced, percent < 100 ? percent : 100, is_to_stop};
    size_t bytes = 0;
    for (unsigned i = 0; i < SIZE_CLASSES && !is_to_stop(); i++) {
        bytes += mesh_pass(i, &pace);
    }
    return bytes;
}

static void pause_for(uint64_t ns) {
    uint32_t seen = atomic_load(&wakeups);
    if (!is_to_stop()) {
        futex_wait_for(&wakeups, seen, ns);
    }
}

// Under memory pressure what was just allocated from counts as sparse, too.
static size_t run_round(bool is_quiet) {
    static uint64_t looked_ms;
    uint64_t now = now_ms();
    bool is_pressed = now - looked_ms >= PRESSURE_MS && pressure_is_high();
    looked_ms = now - looked_ms >= PRESSURE_MS ? now : looked_ms;
    size_t bytes = 0;
    if (is_pressed) {
        bytes += upkeep_purge_all() ? GAIN_LEAST : 0;
    } else {
        upkeep_run();
    }
    bytes += compact(is_pressed, is_quiet);
    upkeep_run(); // what has become old enough meanwhile
    atomic_fetch_add_explicit(&rounds, 1, memory_order_relaxed);
    return bytes;
}

// What it waits before the next round, after one that gained or did not.
static uint64_t next_wait_ns(bool is_gain, uint64_t worked_ns) {
    uint32_t ms = atomic_load_explicit(&wait_ms, memory_order_relaxed);
    ms = is_gain ? ROUND_MS : ms * 2 < ROUND_MOST_MS ? ms * 2 : ROUND_MOST_MS;
    atomic_store_explicit(&wait_ms, ms, memory_order_relaxed);
    uint64_t ns = (uint64_t)ms * 1000000;
    return is_gain || ns > worked_ns * COST_FACTOR ? ns : worked_ns * COST_FACTOR;
}

static void keep(void) {
    unsigned without_gain = 0;
    int64_t before = idle_bytes();
    uint64_t wait_ns = (uint64_t)atomic_load_explicit(&wait_ms, memory_order_relaxed) * 1000000;
    atomic_store(&thread_id, sys_thread_id());
    while (!is_to_stop() && without_gain < IDLE_ROUNDS) {
        pause_for(wait_ns);
        int64_t now = idle_bytes();
        uint64_t began_ns = clock_thread_ns();
        size_t gained = is_to_stop() ? 0 : run_round(now == before);
        // The first one after a burst only notes what is in use.
        bool is_gain = gained >= GAIN_LEAST || now > before + STEP;
        without_gain = is_gain ? 0 : without_gain + 1;
        wait_ns = next_wait_ns(is_gain, clock_thread_ns() - began_ns);
        before = now;
    }
    if (is_to_stop()) {
        say("stopped for a call of the program");
    } else {
        say("nothing more to gain");
        atomic_store_explicit(&settled_bytes, idle_bytes(), memory_order_relaxed);
    }
    atomic_store_explicit(&state, STOPPED, memory_order_release);
    atomic_fetch_add(&wakeups, 1);
    futex_wake(&wakeups, INT32_MAX);
}

// ---- without a thread -------------------------------------------------------------------------

static uint64_t here_until_ns;

static bool is_here_over(void) {
    return clock_ns() >= here_until_ns;
}

// Class after class, as far as each gets in its time: what was merged the last time is not looked at again.
static void work_here(void) {
    static unsigned next_class;
    uint32_t stopped = STOPPED;
    uint64_t now = now_ms();
    if (now < atomic_load_explicit(&here_ms, memory_order_relaxed) ||
        !atomic_compare_exchange_strong(&state, &stopped, RUNNING)) {
        return;
    }
    struct mesh_pace pace = {false, 100, is_here_over};
    here_until_ns = clock_ns() + HERE_NS;
    for (unsigned i = 0; i < SIZE_CLASSES && !is_here_over() && !is_to_stop(); i++) {
        (void)mesh_pass(next_class, &pace);
        next_class = (next_class + 1) % SIZE_CLASSES;
    }
    atomic_store_explicit(&here_ms, now_ms() + HERE_EVERY_MS, memory_order_relaxed);
    atomic_store(&state, STOPPED);
    atomic_fetch_add(&wakeups, 1);
    futex_wake(&wakeups, INT32_MAX);
}

// ---- starting and stopping ----------------------------------------------------------------------

static FIRN_COLD void start(void) {
    uint32_t stopped = STOPPED;
    if (now_ms() < atomic_load_explicit(&retry_ms, memory_order_relaxed)) {
        work_here();
        return;
    }
    if (!atomic_compare_exchange_strong(&state, &stopped, RUNNING)) {
        return;
    }
    // Said before it runs: it may end before thread_start returns.
    say("running");
    atomic_store(&thread_id, 0);
    if (thread_start(keep)) {
        atomic_fetch_add_explicit(&starts, 1, memory_order_relaxed);
        return;
    }
    say("no thread could be started: compaction is done by whoever allocates and frees");
    atomic_store_explicit(&retry_ms, now_ms() + RETRY_MS, memory_order_relaxed);
    atomic_store(&state, STOPPED);
}

void keeper_look(uintptr_t free_site) {
    if (atomic_load_explicit(&state, memory_order_relaxed) != STOPPED ||
        !atomic_load_explicit(&is_allowed, memory_order_acquire)) {
        return;
    }
    int64_t now = idle_bytes();
    int64_t settled = atomic_load_explicit(&settled_bytes, memory_order_relaxed);
    if (now < settled) {
        atomic_store_explicit(&settled_bytes, now, memory_order_relaxed);
    } else if (now - settled > STEP + settled / 4 &&
               (free_site == 0 || !loader_may_hold_locks(free_site))) {
        start();
    }
}

static void wait_until_gone(int id) {
    enum { PATIENCE = 20000 }; // times 50 us: numbers are used again, if not soon
    for (unsigned i = 0; id != 0 && i < PATIENCE && sys_has_thread(id); i++) {
        thread_sleep(50000);
    }
}

void keeper_stop(void) {
    uint32_t running = RUNNING;
    if (!firn_has_keeper) {
        return;
    }
    if (atomic_compare_exchange_strong(&state, &running, STOPPING)) {
        atomic_fetch_add(&wakeups, 1);
        futex_wake(&wakeups, INT32_MAX);
    }
    for (uint32_t seen; atomic_load(&state) == STOPPING;) {
        seen = atomic_load(&wakeups);
        if (atomic_load(&state) == STOPPING) {
            futex_wait_for(&wakeups, seen, 1000000);
        }
    }
    // Its last instructions are libc's; only the kernel knows when they are done.
    wait_until_gone(atomic_exchange(&thread_id, 0));
}

void keeper_forbid(const char *reason) {
    if (atomic_exchange(&is_allowed, false)) {
        keeper_stop();
        say(reason);
    }
}

void keeper_thread_ends(void) {
    if (atomic_load_explicit(&is_allowed, memory_order_relaxed) &&
        pthread_equal(pthread_self(), main_thread) != 0) {
        keeper_forbid("the main thread has ended");
    }
}

bool keeper_after_fork_in_child(void) {
    bool was_running = atomic_load(&state) != STOPPED;
    if (was_running) {
        say("not in this process yet");
    }
    main_thread = pthread_self();
    atomic_store(&state, STOPPED);
    atomic_store(&thread_id, 0);
    atomic_store_explicit(&settled_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&wait_ms, ROUND_MS, memory_order_relaxed);
    return was_running;
}

void keeper_stats(struct keeper_stats *out) {
    *out = (struct keeper_stats){
        .is_running = atomic_load_explicit(&state, memory_order_relaxed) != STOPPED,
        .starts = atomic_load_explicit(&starts, memory_order_relaxed),
        .rounds = atomic_load_explicit(&rounds, memory_order_relaxed),
        .why = share == 0 ? "off" : atomic_load_explicit(&why, memory_order_relaxed),
    };
}
