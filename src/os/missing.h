// userfaultfd(2) for pages that are away: taken out of the heap, and brought back by a thread of Firn's
// own when somebody touches them. Engine `event`: threads and system calls alike sleep in the kernel
// until the page is there. Engine `signal`, which needs no privilege: threads do; a system call fails with
// EFAULT, so that who makes one has to touch the page first (os/pin.h), and nothing tells of forks.
//
// `signal` is served by the same thread, not by a SIGBUS in the thread that touches: that would fail where
// signals are blocked, and on a stack that is itself away; 38 us against 23 to 30 where both were
// measured (a virtual machine, Linux 6.18).
//
// A descriptor of its own, beside os/uffd.h's: its write protection is asynchronous (a write to an armed
// page is noted by the kernel and held up by nobody), which is how written pages are told from idle
// ones. A range belongs to one of the two descriptors at a time.
//
// The descriptor lives in the descriptor table of Firn's threads, which is apart from the program's:
// no program can close it, and no child inherits it. All functions but missing_isolate are for the
// threads that share that table. They preserve nothing in particular: no program code runs there.
#ifndef FIRN_OS_MISSING_H
#define FIRN_OS_MISSING_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Gives the calling thread, and those it starts, a descriptor table of their own, and empties it. Before
// missing_open. False: the kernel or a filter refuses; nothing has changed.
bool missing_isolate(void) FIRN_CHECKED;

// In a thread that such a thread started.
void missing_enter(void);

// fatal_open_fn: in such a thread, the program's standard error of this moment becomes its own.
void missing_open_error(void);

// Opens what is needed, for `event` or for `signal`. NULL, or a phrase that says what is missing.
const char *missing_open(bool is_event);
// Instead: only writes are noted (missing_scan). Nothing is missing for us, as whatever the kernel takes away it brings
// back itself; so there are no events, no privilege is needed, and fresh memory costs nothing.
const char *missing_open_writes(void);
void missing_close(void);
// Whether each forked child is announced (MISSING_FORK): without it a child reads zeros where pages are
// away.
bool missing_sees_forks(void);
// Whether a system call waits, too, like a thread. Any thread, once it is open.
bool missing_serves_calls(void);

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
// Moves pages. *moved: how many bytes were, from the start, also when it failed.
enum missing_result missing_move(uintptr_t from, uintptr_t to, size_t bytes, size_t *moved);
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

// What the kernel knows of neighbouring pages that are there, or, after missing_open_writes, in swap.
struct missing_run {
    uintptr_t start, end;
    bool is_there;   // else in swap
    bool is_written; // since the last look
    bool is_plain;   // private memory with something in it: neither a file's nor the page of zeros
};
// Looks at the pages of a registered range, and arms those of them: *runs, in order, at most
// `most`. Returns how many; -1 when it cannot be known.
int missing_scan(uintptr_t address, size_t bytes, struct missing_run *runs, unsigned most);

#endif
