// The cold tier: pages of small blocks that nobody has touched for a while are taken out of memory,
// compressed, and brought back by the next touch. Off unless asked for.
//
// Two threads, started with the first upkeep of a process that asks for it: one that looks for idle
// pages and freezes them (freeze.h), one that brings them back (thaw.h). Neither ever touches a page
// that may be away. Their descriptors are in a table of their own.
//
// With the mesher it shares no page: a chunk of 2 MiB is claimed for the cold tier, and then no page of
// it is merged; a chunk with a merged page is not claimed.
//
// Fork: see thaw.h. A child starts with no page away and no threads; it starts its own when it comes to
// its first upkeep.
#ifndef FIRN_COLD_COLD_H
#define FIRN_COLD_COLD_H

#include "src/base/compiler.h"
#include "src/os/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Asks for it. Single-threaded, at start. `after_ms`: the age at which a page is frozen. `seal` and
// `most_bytes`: as cold_store_choose.
void cold_choose(bool is_on, uint64_t after_ms, unsigned seal, uint64_t most_bytes);

// Pages are to go into the kernel's swap instead of a store of Firn's (swapper.h). `has_seal`: they are to be sealed, too,
// which cannot be: then it stays off. Likewise.
void cold_choose_swap(bool has_seal);

// Of the engines of os/fault.h. FAULT_NONE: the best there is, of those that cold_settle_engine may choose; `event`
// where that is not called. Likewise.
void cold_choose_engine(enum fault_engine engine);
// That no program can notice, or none. Where another one was chosen: none.
void cold_choose_event_only(void);
// For a process whose system calls are seen (pin_announce): which engine it will be, as far as can be told at start.
// Where it is `protect`, SIGSEGV is taken over. Any thread. Preserves errno.
enum fault_engine cold_settle_engine(void);

// The calling thread has begun, and is about to end: for touches by it under `protect`. It holds no lock.
void cold_enter_thread(void);
void cold_leave_thread(void);

// Whether it is at work in this process. Any thread.
bool cold_is_running(void);

// To be called now and then, by a thread that holds no lock and can afford the start of one: starts the
// cold tier, once in each process. May allocate. Preserves errno.
void cold_upkeep(void);

// Around a fork, in any thread, with any lock: where nobody tells Firn's threads of a child, all that is away
// comes back first, and nothing goes until the child is there. Pairs, one in the other perhaps.
void cold_before_fork(void);
void cold_after_fork(bool in_child);

// A filter of system calls comes: the program's threads make no call of ours any more when they touch a page that is
// away. The caller holds no lock; may wait for a page that is on its way.
void cold_note_filter(void);

// libc is about to start a thread that blocks all signals. Under `protect` nothing goes any more in this process, and what
// is away comes back. The caller holds no lock.
void cold_stop(void);

// firn_hint_cold and its like (firn.h). The caller holds no lock. errno is preserved, but for ENOMEM of
// cold_exclude.
void cold_hint_cold(uintptr_t address, size_t bytes);
void cold_hint_hot(uintptr_t address, size_t bytes);
bool cold_exclude(uintptr_t address, size_t bytes) FIRN_CHECKED;
void cold_thaw_all(void);
// cold_exclude for a small block of libc's and what a free of it looks at, as far as it can be had; not where a touch of a page
// that is away is never a signal.
void cold_keep(uintptr_t address, size_t bytes);

enum { COLD_TIMES = 24 };
struct cold_stats {
    const char *engine; // "event", "signal", "protect", "swap"; "none" before it runs
    const char *reason; // why not: NULL when it runs, or was not asked for
    const char *
        lesser; // it runs: why with no better engine; NULL: there is none, or another was asked for
    const char *paused; // it runs: why nothing goes for now, or NULL
    uint64_t staged, frozen, zeros, poor, spared, refused, full; // pages, so far (freeze.h)
    uint64_t thaws, returns, fetched, touched, filled, forks;    // likewise (thaw.h)
    uint64_t thaw_p50_ns, thaw_p99_ns, thaw_longest_ns;          // upper ends of powers of two
    uint64_t thaw_times[COLD_TIMES]; // thaws somebody waited for that took [2^i, 2^(i+1)) ns
    uint64_t refaults;               // waited for, in the last minute
    uint64_t idle_ms;                // the age at which pages go now
    uint64_t presses;                // times memory was short
    uint64_t away;                   // pages that are now
    uint64_t chunks;
    uint64_t freeze_cpu_ns, thaw_cpu_ns; // of Firn's two threads
    // By tier, pages that are frozen now: of one repeated byte, which take no memory, and packed.
    uint64_t uniform_pages, packed_pages;
    uint64_t stored_bytes; // what the latter are packed and sealed to
    uint64_t store_bytes;  // what that occupies, with the store's own records
    const char *seal;      // off, mac, aead
    // With "swap" `frozen` are the pages that were put out, `thaws` those of them that were found to be there again,
    // `full` the looks at which nothing could go.
    const char *held; // why nothing goes at the moment; NULL: it does
};
// Any thread; async-signal-safe.
void cold_stats(struct cold_stats *out);

// Memory is short, or the program asks for what can be had (malloc_trim): what is idle goes sooner, for ten
// seconds. Any thread.
void cold_press(void);

#endif
