// userfaultfd(2): write protection that lets the kernel hold whoever would write, without a signal.
// One descriptor, for one range. Every function preserves errno and may be called by any thread.
#ifndef FIRN_OS_UFFD_H
#define FIRN_OS_UFFD_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Opens the descriptor. `is_full`: system calls that write wait like threads do; else they fail with
// EFAULT, which needs no privilege. False when the kernel refuses, or cannot do what is needed.
// Once at a time.
bool uffd_open(bool is_full) FIRN_CHECKED;
// Whether the descriptor is there and still ours. A program that closes all descriptors takes it away,
// and all protection with it.
bool uffd_is_open(void);
// Forgets the descriptor and closes it if it is still ours. Protection ends, whoever waits goes on.
void uffd_close(void);

// Puts a range under the descriptor's care; without effect on pages until uffd_deny_writes, which does it
// too where it was not done.
bool uffd_register(uintptr_t address, size_t bytes);
// False with nothing changed.
bool uffd_deny_writes(uintptr_t address, size_t bytes) FIRN_CHECKED;
// Lets whoever waits go on.
void uffd_allow_writes(uintptr_t address, size_t bytes);
// The same for a range that was mapped anew since, and is not protected any more.
void uffd_wake(uintptr_t address, size_t bytes);

// In a range that is write-protected: from here on who reads a page that is not there waits, too; until
// uffd_release. False: perhaps in a part of the range.
bool uffd_deny_reads(uintptr_t address, size_t bytes) FIRN_CHECKED;
// Puts a copy of the page `from` where no page is, for who waits there to find. True also if there is one.
bool uffd_fill(uintptr_t address, uintptr_t from) FIRN_CHECKED;
// Ends all protection of the range, and the descriptor's care. What of it was mapped anew has to be woken.
void uffd_release(uintptr_t address, size_t bytes);

// For a thread whose descriptor table is not the program's: no page of the range is protected, and it
// leaves the descriptor's care, or comes back to it. False: it stays as it is, unless there is no
// descriptor at all.
bool uffd_leave(uintptr_t address, size_t bytes) FIRN_CHECKED;
bool uffd_come_back(uintptr_t address, size_t bytes);

#endif
