// Fork. A child must have each meshed page as it was at that moment, as a page of its own, whatever the
// parent's threads write meanwhile, and from its first instruction on: libc writes to blocks of the heap in
// the child (the locks of its streams) before any handler runs.
//
// So before the fork each mapping of frames is replaced by a private one of the same frames, a *copy*: the
// kernel then does for it what it does for all private memory. In the parent it stays so: who writes there
// gets a page of his own, who does not goes on sharing. The next pass *joins* pages that were written to with
// their frames again. As long as the child has not taken what it needs, frames are *lent*: nothing is written
// to them or dropped.
//
// To replace 36,000 mappings takes a quarter of a second (on a virtual machine), so what is merged while the program
// is silent is a copy from the start. What is written to becomes shared as it is joined, until the next fork.
//
//   forking thread F, span A on frame f     a thread T that writes to A     the child C
//   1 takes all locks: nobody merges,
//     joins or parts
//   2 replaces A's mapping, in one step     before: goes into f; after: a
//                                           page of its own. Nothing is
//                                           written to f from here on
//   3 clone                                 what T wrote before is in C,    the same pages, copied on
//                                           what it writes after is not     write: libc's work, and
//                                                                           handlers of others, find all
//   4 releases the locks, goes on           frees A's last slot: A is       takes A's bytes aside, maps
//                                           parted, f stays as it is        memory of its own, puts
//                                                                           them there; says so
//   5 a pass, which has heard C: A's slots
//     go to f, where they have their place;
//     A maps f. Not before.
//
// Where the kernel has no such mapping (MREMAP_DONTUNMAP of a file's is of Linux 5.13), or a limit might
// be met half-way, children find holes instead, and fill them in their fork handler from the frames, while
// the forking thread waits: then libc's own accesses before that end the child, and what the parent's
// other threads write until then is seen there.
//
// A child that no handler sees (a raw clone) has holes where pages are not copies. It fills
// them when it next takes a slow path of the heap.
#ifndef FIRN_MESH_LEND_H
#define FIRN_MESH_LEND_H

#include "src/base/compiler.h"
#include "src/span/span.h"

#include <stdbool.h>

// Once, with merge_lock, before the first merge. False: no memory.
bool lend_start(void) FIRN_CHECKED;
// Whether frames may be written to: no child needs them any more. With merge_lock.
bool lend_is_over(void) FIRN_CHECKED;
// Joins the span's copies that were written to with their frames again, as far as possible. With merge_lock and
// the span's lock, when nothing is lent.
void lend_join(struct span *s);
// What has been seen of written copies is old.
void lend_look_anew(void);

// Gives each page of the span that maps a frame memory of its own, with what it holds. Who writes there
// meanwhile waits. False: not all of them. With merge_lock, the span's lock, and signals blocked.
bool lend_part(struct span *s) FIRN_CHECKED;

// Takes merge_lock.
void lend_before_fork(void);
// When all other locks of the heap are held.
void lend_copy_all(void);
void lend_after_fork_in_parent(void);
// Each meshed page gets memory of its own with what it held. True if there was any: then the central
// lists are to be rebuilt. `is_expected`: by the thread that called lend_copy_all; else another one may have
// been at it.
bool lend_after_fork_in_child(bool is_expected) FIRN_CHECKED;

#endif
