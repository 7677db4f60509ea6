// Pages that are away without a userfaultfd: engine `protect` of os/missing.h, for where containers refuse it.
//
// Such a page is inaccessible. Who touches one gets SIGSEGV; our handler (os/signals.h) leaves the address for
// Firn's thread, sleeps until that has put the page back, and lets the instruction run again. So all that
// takes a lock, a descriptor or some stack is that thread's, as under the other engines. It is brought to the processor
// of who waits: a touch took 85 to 100 us where another one had to be roused, each time, and 25 to 31 so.
// (Linux 6.18, a virtual machine of two processors.)
//
// Content is read and written through /proc/self/mem, which the protection does not stop: the page is complete
// before anybody can access it. Nothing tells of writes; what the page table tells is read from
// /proc/self/pagemap.
//
// Each row of such pages takes up to two of the mappings that a process may have. A half of them, of the program,
// of guards and of merging together, is all that rows are made within.
//
// "Firn's threads": those that share the descriptor table of os/missing.h.
#ifndef FIRN_OS_VEIL_H
#define FIRN_OS_VEIL_H

#include "src/base/compiler.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- Firn's threads ----

// Opens what is needed, and tries it. NULL, or a phrase that says what is missing.
const char *veil_open(void);
void veil_close(void);

// Makes the pages inaccessible, which are private memory, readable and writable. False: they are as they were.
bool veil_hide(uintptr_t address, size_t bytes) FIRN_CHECKED;
// Undoes it. False: there are too many mappings.
bool veil_show(uintptr_t address, size_t bytes) FIRN_CHECKED;
// The content of one page, accessible or not.
bool veil_read(uintptr_t page, void *out) FIRN_CHECKED;
bool veil_write(uintptr_t page, const void *content) FIRN_CHECKED;

// The thread that calls the next three, once, before.
void veil_enter(void);
// A page that somebody waits for; 0: none.
uintptr_t veil_next(void);
// Sleeps until there is one, or for no reason; or until the other descriptor (-1: none) has one of `events`, which
// is noticed within a second: returns these.
short veil_wait(int other, short events);
// Whoever waits for the page looks again.
void veil_wake(uintptr_t page);

// Whether pages may go at all now, asked at each look: NULL, or a phrase that says why not. A thread that
// blocks SIGSEGV would be killed by a touch, and what a device writes to a page must not be thought of as known.
const char *veil_refusal(void);
// Whether a row of so many more pages can be made inaccessible, as the mappings were counted by veil_refusal; and that
// one was, or that one has been parted. The fewer mappings are left the longer a row has to be.
bool veil_has_room(size_t pages);
void veil_note_split(void);

// In a forked child: nobody waits.
void veil_reset(void);

// ---- any thread ----

// Whether the page was away and the touch is to be tried again; in the context of the signal.
typedef bool veil_bring_fn(uintptr_t page);
// Takes SIGSEGV over, for touches of [base, +bytes). Once; early, as threads that have it blocked by then keep pages
// from going.
void veil_arm(uintptr_t base, size_t bytes, veil_bring_fn *bring);

// The calling thread gets a stack for the handler where it has none for signals: it may run on one that lies in a page
// which is away (coroutines have them in blocks). Gives it back. Nothing happens before veil_arm.
void veil_enter_thread(void);
void veil_leave_thread(void);
// For sigaltstack, which was just called: to the program that stack is none, and when it has switched its own off
// the other takes its place.
void veil_hide_stack(const stack_t *set, stack_t *old);
// Where the loader keeps what it looks up thread-local variables by, in a block of the heap: a thread touches it when
// it ends, with all signals blocked.
void veil_thread_vector(uintptr_t *address, size_t *bytes);
// The block of the calling thread's variables that it made for a module, from 1 on; 0: none. False: there is no such
// module.
bool veil_thread_block(size_t module, uintptr_t *address);

// Has Firn's thread bring the page back, and returns when it was looked at: perhaps it is still away. Signal-safe.
void veil_ask(uintptr_t page);

#endif
