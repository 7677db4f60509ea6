// Which memory system calls of the program may be at right now. Under the engines `signal` and `protect` a
// system call that writes to a staged page, or touches one that the cold tier took away, fails with EFAULT: so
// the exported calls pin what they hand to the kernel, and fault_stage and the cold tier leave it alone.
// (Under `event` the kernel waits by itself.)
//
// Not seen: calls made past libc's exported functions, by libc itself among them. See
// fault_can_hold_buffers.
#ifndef FIRN_OS_PIN_H
#define FIRN_OS_PIN_H

#include "src/base/compiler.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PIN_SLOTS = 512, PIN_DEPTH = 7 };

// One thread's. Depth: a signal handler may make calls while a call is under way.
struct pin_slot {
    _Alignas(FIRN_CACHE_LINE) _Atomic int owner; // thread; 0: free
    struct {
        _Atomic uintptr_t address;
        _Atomic size_t bytes; // 0: not in use
    } entries[PIN_DEPTH];
};
_Static_assert(sizeof(struct pin_slot) == 2 * FIRN_CACHE_LINE,
               "a thread writes to lines of its own");

// Somebody pins: the exported calls are in the process. Else the engines that need it are not used.
void pin_announce(void);
bool pin_is_announced(void);

// Pins [address, +bytes): whatever was staged there is published or released when this returns, and
// nothing there is staged until pin_leave. Returns what to give to that. Signal-safe; errno preserved.
// A call that is left by longjmp keeps its entry; beyond PIN_DEPTH of them in a thread, each keeps
// everything from being staged.
unsigned pin_enter(uintptr_t address, size_t bytes);
void pin_leave(unsigned pin);

// The calling thread will make no other system calls than the program's from now on, perhaps: what it takes to pin is
// got now. Without it everything is pinned while it calls, where it may not ask for its number.
void pin_prepare(void);

// Pages of the heap may be away, and `touch` brings those of the range back that are; for large blocks, too. Once.
typedef void pin_touch_fn(uintptr_t address, size_t bytes);
void pin_set_touch(pin_touch_fn *touch);
// Whether it was set in this process; and does it, if so. For a range that is pinned.
bool pin_needs_touch(void);
void pin_touch(uintptr_t address, size_t bytes);

// Whether any thread but those that ended pins a part of the range. Sequentially consistent with
// pin_enter: one of the two sees the other.
bool pin_is_any(uintptr_t address, size_t bytes);
// In a forked child: the other threads' pins are void.
void pin_after_fork_in_child(void);

#endif
