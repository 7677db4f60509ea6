// Ranges that nobody may write for the moment: what a merge needs while it copies.
//
// Three engines, probed at first use, never at start (a program whose heap never fragments opens no
// descriptor, starts no thread and installs no handler):
//
//   event    userfaultfd, full mode. A toucher sleeps in the kernel until the range is published or
//            released; so does a system call that writes there. Needs CAP_SYS_PTRACE,
//            vm.unprivileged_userfaultfd=1 or the right to open /dev/userfaultfd.
//   signal   userfaultfd for user mode only. A thread sleeps in the kernel likewise, but a system
//            call that writes into a staged range fails with EFAULT.
//   protect  mprotect. A thread that writes gets SIGSEGV, and our handler waits. A system call that
//            writes there fails with EFAULT.
//
// `signal` and `protect` are used only in a process whose system calls are pinned (os/pin.h), so that
// none of them meets a staged page.
//
// In all of them readers, and system calls that read, go on undisturbed, and a forked child has
// its own copy with the content of the moment; until fault_empty.
#ifndef FIRN_OS_FAULT_H
#define FIRN_OS_FAULT_H

#include "src/base/compiler.h"
#include "src/os/purge.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fault_engine {
    FAULT_NONE, // not probed yet, or nothing works: no range can be staged
    FAULT_EVENT,
    FAULT_SIGNAL,
    FAULT_PROTECT
};

enum {
    FAULT_RANGES = 64,       // staged at the same time
    FAULT_STACK_LEAST = 2048 // no stack is smaller
};

// The engine to use; FAULT_NONE: the best there is. Before the first of the calls below, else
// without effect. One that does not work falls through to the next.
void fault_choose(enum fault_engine wanted);

// Names the range in which pages will be staged: the small cells. Nothing in it may ever be moved with
// mremap: a move inside a range that a userfaultfd cares for was seen to lose pages (Linux 6.18; perl,
// growing an array of 512 KiB), so that large objects must stay out.
// Probes the engine. A later call's range lies in that of the first. False when no engine works, or
// another thread is probing. Preserves errno.
bool fault_start(uintptr_t address, size_t bytes) FIRN_CHECKED;
enum fault_engine fault_engine(void);
const char *fault_engine_name(enum fault_engine engine);

// Whether pages of slots of so many bytes may be staged at all. Under `protect`, none that could hold a
// stack: the kernel would have to put the signal's frame there. Under `signal` and `protect`, none that
// libc hands to the kernel behind our back, which would fail with EFAULT.
bool fault_can_hold(size_t slot_bytes);
// The buffers of libc's streams: of the file's block size, but 8,192 bytes at most: 4,096, or 1,024 for
// terminals and /proc.
bool fault_may_be_buffer(size_t slot_bytes);

// From here until fault_publish or fault_release nobody can change the range, which lies in that of
// fault_start, is mapped readable and writable, and is not staged. Every write that others made
// before is visible. False, with nothing changed, when that is not possible now (no memory for the
// mapping, too many ranges, a system call of the program may be writing there, the caller's stack may lie
// there, an engine that the program switched off): try another one, or later.
//
// The thread that stages allocates nothing and touches no block of the program until it is done.
// It may hold locks only if no thread takes them between a touch of a block and the lock's release.
bool fault_stage(uintptr_t address, size_t bytes) FIRN_CHECKED;

// The range has been mapped anew, readable and writable (mmap with MAP_FIXED), and is complete.
// Whoever waited for it goes on there.
void fault_publish(uintptr_t address, size_t bytes);

// A part of a staged range is what it was, and can be written to again; the rest is still to be published. Who
// waits there goes on now or, under `protect`, when the rest is published.
void fault_open(uintptr_t address, size_t bytes);

// Many parts of a staged range are about to be mapped anew: what is in them goes back to the kernel, by one
// call, and mapping costs a tenth. Who touches them, or reads what was never touched in the range, waits for
// fault_uncover; a child forked meanwhile by a call that no handler sees does not get the parts. Only where
// fault_can_empty: system calls wait, too. False: the parts are as they were; fault_uncover all the same.
bool fault_can_empty(void);
bool fault_empty(uintptr_t address, size_t bytes, const struct purge_list *parts) FIRN_CHECKED;
// A page of a part is not mapped anew: it gets a copy of the page `from`.
void fault_fill(uintptr_t address, uintptr_t from);
// All parts are mapped anew or filled. What else is in the range can be written to; fault_adopt makes it as it
// was, before fault_publish.
void fault_uncover(uintptr_t address, size_t bytes);

// The range is what it was. Whoever waited goes on.
void fault_release(uintptr_t address, size_t bytes);

// Returns when no part of the range is staged; at once under `event`. For pin_enter.
void fault_wait(uintptr_t address, size_t bytes);

// To be called for a range of the heap that was mapped anew, before or after fault_publish: it
// becomes one mapping with its neighbours again where possible, and can be staged. Without it
// everything works, with more mappings. Preserves errno.
void fault_adopt(uintptr_t address, size_t bytes);

// Ranges that others have taken (the cold tier's, os/missing.h): they are not staged. Set once; asked
// after a range was entered among those that are, so that whoever takes a range and then looks whether
// any of it is staged (sequentially consistent, both) cannot miss one that is about to be.
typedef bool fault_taken_fn(uintptr_t address);
void fault_set_taken(fault_taken_fn *is_taken);
bool fault_is_staged(uintptr_t address, size_t bytes);
// For a thread whose descriptor table is not the program's: the range, of which nothing is staged and
// nothing will be, goes to another's care, and comes back. False: not now.
bool fault_yield(uintptr_t address, size_t bytes) FIRN_CHECKED;
void fault_regain(uintptr_t address, size_t bytes);

// First thing in a forked child: what was staged in the parent is not, here; descriptors that act on
// the parent are closed. The next fault_stage starts anew. Done by itself, where the kernel can wipe
// a page on fork, in a child that no fork handler saw, when it touches a staged page or stages one.
void fault_after_fork_in_child(void);

struct fault_figures {
    uint64_t stages;   // ranges staged
    uint64_t refused;  // not staged
    uint64_t waits;    // touches that our handler saw (`protect`); the kernel counts no others
    uint64_t replaced; // times the program's own handler had taken our place
};
void fault_figures(struct fault_figures *out);

#endif
