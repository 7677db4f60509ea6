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
    LOOK_MS = 100,         // between looks at whether the program does anything
    LOOKS = 10,            // after which they are ROUND_MS apart
    CALM = 16,             // it does not if it has had less than one in so many of a processor
    CALM_SHARE = 4,        // times the share while it does not
    BUSY_SHARE = 3,        // the same where others want the processor
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

// ---- what the program does ----------------------------------------------------------------------

// By this thread alone.
struct look {
    int64_t idle_bytes;
    uint64_t at_ns, own_ns, others_ns; // the latter two in time of processors
};
static struct look last_look;

static struct look look_now(void) {
    uint64_t own_ns = clock_thread_ns();
    uint64_t all_ns = clock_process_ns();
    return (struct look){idle_bytes(), clock_ns(), own_ns, all_ns > own_ns ? all_ns - own_ns : 0};
}

static bool is_calm(const struct look *before, const struct look *now) {
    return (now->others_ns - before->others_ns) * CALM < now->at_ns - before->at_ns;
}

// Nothing was allocated or freed on a slow path either.
static bool is_silent(const struct look *before, const struct look *now) {
    return is_calm(before, now) && now->idle_bytes == before->idle_bytes;
}

// ---- the thread -------------------------------------------------------------------------------

static struct mesh_pace pace;

static unsigned times_share(unsigned times) {
    return share * times < 100 ? share * times : 100;
}

// While the program does nothing the rest of its processors' time is compaction's, as far as other processes
// leave it.
static void choose_pace(const struct look *before, const struct look *now) {
    if (!is_calm(before, now)) {
        pace.share = share;
        return;
    }
    uint64_t had_ns = now->own_ns - before->own_ns;
    bool had_all = had_ns * 100 >= (now->at_ns - before->at_ns) * (pace.share * 3 / 4);
    pace.share = times_share(had_all ? CALM_SHARE : BUSY_SHARE);
}

// In a pass, between two pieces of work.
static bool is_pass_over(void) {
    struct look now = look_now();
    if (now.at_ns - last_look.at_ns > (uint64_t)LOOK_MS * 1000000) {
        choose_pace(&last_look, &now);
        last_look = now;
    }
    return is_to_stop();
}

static size_t compact(bool is_forced, bool is_in_silence) {
    size_t bytes = 0;
    pace = (struct mesh_pace){is_forced, times_share(is_in_silence ? CALM_SHARE : 1), is_pass_over};
    last_look = look_now();
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

// Under memory pressure, and in silence, what was just allocated from counts as sparse, too.
static size_t run_round(bool is_in_silence) {
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
    bytes += compact(is_pressed || is_in_silence, is_in_silence);
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

// Waits so long, or until the program has been silent for a moment after it freed more than `settled`. True
// if it was silent lately.
static bool wait_for_round(uint64_t wait_ns, int64_t settled) {
    const uint64_t until_ns = clock_ns() + wait_ns;
    struct look before = look_now();
    for (unsigned i = 0;; i++) {
        uint64_t left_ns = until_ns > before.at_ns ? until_ns - before.at_ns : 0;
        uint64_t step_ns = (uint64_t)(i < LOOKS ? LOOK_MS : ROUND_MS) * 1000000;
        pause_for(left_ns < step_ns ? left_ns : step_ns);
        struct look now = look_now();
        bool is_now = is_silent(&before, &now);
        if (is_to_stop() || now.at_ns >= until_ns || (is_now && now.idle_bytes > settled + STEP)) {
            return is_now;
        }
        before = now;
    }
}

static void keep(void) {
    unsigned without_gain = 0;
    int64_t before = idle_bytes();
    int64_t settled = atomic_load_explicit(&settled_bytes, memory_order_relaxed);
    uint64_t wait_ns = (uint64_t)atomic_load_explicit(&wait_ms, memory_order_relaxed) * 1000000;
    atomic_store(&thread_id, sys_thread_id());
    while (!is_to_stop() && without_gain < IDLE_ROUNDS) {
        bool is_in_silence = wait_for_round(wait_ns, settled);
        int64_t now = idle_bytes();
        uint64_t began_ns = clock_thread_ns();
        size_t gained = is_to_stop() ? 0 : run_round(is_in_silence);
        settled = is_in_silence ? idle_bytes() : settled;
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
    struct mesh_pace here = {false, 100, is_here_over};
    here_until_ns = clock_ns() + HERE_NS;
    for (unsigned i = 0; i < SIZE_CLASSES && !is_here_over() && !is_to_stop(); i++) {
        (void)mesh_pass(next_class, &here);
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
