// Pages that are away: taken out of the heap, and brought back by a thread of Firn's own when somebody touches
// them. By userfaultfd(2), or without it where nobody may have one (os/veil.h, which is all of engine `protect`:
// system calls fail likewise, and nothing tells of writes or forks). Engine `event`: threads and system calls alike sleep in the kernel
// until the page is there. Engine `signal`, which needs no privilege: threads do; a system call fails with
// EFAULT, so that who makes one has to touch the page first (os/pin.h), and nothing tells of forks.
//
// `signal` is served by the same thread, not by a SIGBUS in the thread that touches: that would fail where signals are
// blocked, and on a stack that is itself away. But where it cannot fail cold/mark.h has the thread that touches do the work.
//
// A userfaultfd of its own, beside os/uffd.h's: its write protection is asynchronous (a write to an armed
// page is noted by the kernel and held up by nobody), which is how written pages are told from idle
// ones. A range belongs to one of the two descriptors at a time.
//
// The descriptor lives in the descriptor table of Firn's threads, which is apart from the program's:
// no program can close it, and no child inherits it. All functions but missing_isolate are for the
// threads that share that table. They preserve nothing in particular: no program code runs there.
#ifndef FIRN_OS_MISSING_H
#define FIRN_OS_MISSING_H

#include "src/base/compiler.h"
#include "src/os/fault.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Gives the calling thread, and those it starts, a descriptor table of their own, and empties it. Before
// missing_open. False: the kernel or a filter refuses; nothing has changed.
bool missing_isolate(void) FIRN_CHECKED;

// Before that: what missing_open will open for `signal` is opened now, so that threads of the program can call
// missing_fill and missing_move, too: a copy of the descriptor is in their table, with a high number. False: they
// cannot.
bool missing_lend(void) FIRN_CHECKED;
bool missing_lends(void);
// Around such calls of a thread of the program. It may have closed the copy: then they fail.
void missing_borrow(void);
void missing_return(void);
// In a forked child: the copy acts on the parent.
void missing_after_fork_in_child(void);

// In a thread that such a thread started.
void missing_enter(void);

// fatal_open_fn: in such a thread, the program's standard error of this moment becomes its own.
void missing_open_error(void);

// NULL, or a phrase that says why that engine cannot be had, as far as can be told beforehand. Any thread.
const char *missing_try(enum fault_engine engine);
// Opens what is needed. NULL, or a phrase that says what is missing.
const char *missing_open(enum fault_engine engine);
// Instead: only writes are noted (missing_scan). Nothing is missing for us, as whatever the kernel takes away it brings
// back itself; so there are no events, no privilege is needed, and fresh memory costs nothing. The engine is said to
// be `event`, as system calls need no help.
const char *missing_open_writes(void);
void missing_close(void);
// The one that is open, or was last; FAULT_NONE before. Any thread.
enum fault_engine missing_engine(void);
// Whether each forked child is announced (MISSING_FORK): without it a child reads zeros where pages are
// away.
bool missing_sees_forks(void);
// Whether a system call waits, too, like a thread. Any thread, once it is open.
bool missing_serves_calls(void);
// Whether a touch of memory where nothing is yet waits for the thread as well: then a system call that does not
// wait fails there. Likewise.
bool missing_holes_fail(void);
// Why nothing may go for now, to be asked at each look: NULL, or a phrase.
const char *missing_refusal(void);
// Whether that many neighbours may go, as far as mappings count (os/veil.h).
bool missing_has_room(size_t pages);

// From here on a touch of a page that is not there is an event. `is_moved_to`: no events; only a place
// that pages are moved to.
bool missing_register(uintptr_t address, size_t bytes, bool is_moved_to) FIRN_CHECKED;
// No page of the range is away.
void missing_unregister(uintptr_t address, size_t bytes);

enum missing_kind {
    MISSING_NOTHING, // for the moment
    MISSING_FAULT,   // somebody waits for the page at `address`
    MISSING_FORK,    // a child: `child` is a descriptor for its memory, to be closed
    MISSING_OTHER
};
struct missing_event {
    enum missing_kind kind;
    uintptr_t address;
    int child;
};

// The process itself, where a descriptor of a child can stand, too.
enum { MISSING_SELF = -1 };

// Sleeps until this process has an event, or for no reason; or the other descriptor (-1: none) one of
// `events`: returns these.
short missing_wait(int other, short events);
struct missing_event missing_read(int child);
void missing_close_child(int child);

enum missing_result {
    MISSING_DONE,
    MISSING_THERE, // there is a page already; who waits for it has been woken
    MISSING_AGAIN, // a fork is under way whose event has not been read, or there is no memory for now
    MISSING_BUSY,    // the page is shared with a child, or in use by a device: it cannot be moved
    MISSING_NOWHERE, // nothing is registered there, or nothing is there to be moved
    MISSING_GONE     // the child is
};
// Fills the page at `address` and wakes who waits for it. Atomic: nobody sees half of it.
enum missing_result missing_fill(int child, uintptr_t address, const void *page);
// The same with zeros, for `bytes` from `address` on, as far as nothing is there.
enum missing_result missing_fill_zero(int child, uintptr_t address, size_t bytes);
// A page whose state says from now on that it is not away: for who waits for that.
void missing_settle(uintptr_t address);
// Moves pages. *moved: how many bytes were, from the start, also when it failed. Under `protect` they stay where they
// are, and nobody can touch them.
enum missing_result missing_move(uintptr_t from, uintptr_t to, size_t bytes, size_t *moved);
// The page at `address`, which was moved to `slot`, back.
enum missing_result missing_move_back(uintptr_t slot, uintptr_t address);
// Whether something is at the page, in memory or in swap.
bool missing_is_there(uintptr_t page);
// Of up to 64 pages, a bit for each that no other process maps. A page that was shared with a child says so,
// too, once the child is gone; but is not moved before it has been written to.
uint64_t missing_unshared(uintptr_t address, unsigned pages);
// Likewise, for each that is in swap.
uint64_t missing_swapped(uintptr_t address, unsigned pages);
// As if each of the pages were written to, where that is allowed: those that were shared with a child no
// longer are. Waits for pages that are away, like any touch of them. False: some could not be.
bool missing_unshare(uintptr_t address, size_t bytes) FIRN_CHECKED;
// Whoever waits for the page looks again.
void missing_wake(int child, uintptr_t address);

// The content of a page that was moved from `address` to `slot`. False: it cannot be read.
bool missing_read_moved(uintptr_t address, uintptr_t slot, void *out) FIRN_CHECKED;
// And that content is stored elsewhere now: its memory is given back. (Else it goes with the slot.)
void missing_drop_moved(uintptr_t address);

// What the kernel knows of neighbouring pages that are there, or, after missing_open_writes, in swap.
struct missing_run {
    uintptr_t start, end;
    bool is_there;   // else in swap
    bool is_written; // since the last look; under `protect` never
    // Private memory with something in it: neither a file's nor the page of zeros. Under `protect` also: of which no
    // other process has a part.
    bool is_plain;
};
// Looks at the pages of a registered range, and arms those of them: *runs, in order, at most
// `most`. Returns how many; -1 when it cannot be known.
int missing_scan(uintptr_t address, size_t bytes, struct missing_run *runs, unsigned most);

#endif
