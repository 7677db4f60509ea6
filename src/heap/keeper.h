// The background thread, and when there is one. It compacts, and gives back what is empty, while the
// program does not come by itself: a burst of frees followed by silence is its case.
//
// While the program does nothing at all, it has up to four times its share of a processor, from a tenth of a
// second on.
//
// A program that never fragments has none: the thread is started from a slow path of malloc or free once
// the free slots of spans in use (span_note_idle) have grown by some MiB, and ends when a few rounds have
// gained nothing. It runs with all signals blocked but those of faults and libc's own two (setuid reaches
// it). A forked child has none, and starts its own as it fragments.
//
// Where no thread can be started (RLIMIT_NPROC, no memory), whoever comes by compacts, a few milliseconds
// at a time and a few times a second at most.
#ifndef FIRN_HEAP_KEEPER_H
#define FIRN_HEAP_KEEPER_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stdint.h>

// `share`: percent of a processor that compaction may take; 0: no thread, ever. Before any other thread.
void keeper_set_share(unsigned share);
// From now on a thread may be started: constructors have run. By the main thread.
void keeper_allow(void);

// Starts the thread if there is reason to. For slow paths, with no lock held; a few loads. `free_site`: what
// called free, or 0 in an allocation: libc and the loader free under locks that the start of a thread
// needs. May allocate. Preserves errno.
void keeper_look(uintptr_t free_site);

// Ends the thread, if there is one, and returns when the kernel has let go of it: for calls that only a
// process with one thread may make. It may be started again later. Not by the thread itself, nor in a
// signal handler.
void keeper_stop(void);
// The same, and it is never started again. `why` is static.
void keeper_forbid(const char *why);
// The calling thread ends. When it is the main one, the process may end with its last thread: that must not
// be ours.
void keeper_thread_ends(void);

// True if there was a thread at work, which the child does not have.
bool keeper_after_fork_in_child(void) FIRN_CHECKED;

struct keeper_stats {
    bool is_running;
    uint64_t starts, rounds;
    const char *why; // it is not running, or what it does
};
void keeper_stats(struct keeper_stats *out);

#endif
