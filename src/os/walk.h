// Stacks, walked along frame pointers: the library may use nothing but libc, and an unwinder that
// reads .eh_frame costs more than an allocation. Frames exist where the program was compiled with
// -fno-omit-frame-pointer; without, rbp holds anything, and the walk ends at the first value that is
// not a frame: frames must ascend, lie within a megabyte of each other, and their return address must
// follow a call instruction.
#ifndef FIRN_OS_WALK_H
#define FIRN_OS_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Reads the word at an address where nothing may be; false if it cannot be read. Any context.
typedef bool walk_peek_fn(uintptr_t address, uintptr_t *word);
// Whether an address is known to hold data: never a return address.
typedef bool walk_data_fn(uintptr_t address);

// Notes the bounds of the main stack. NULL: a peek that asks the kernel first. Called once, before
// the others.
void walk_start(walk_peek_fn *peek, walk_data_fn *is_data);

// Adds to frames[n..most) the return addresses of the frame at `fp` and of those it leads to; each
// must lie above `above`, which is on the stack. Returns their number with the first n. Any thread,
// any context.
size_t walk_from(uintptr_t above, uintptr_t fp, uintptr_t *frames, size_t n, size_t most);

// True if `pc` follows a call instruction.
bool walk_is_return_address(uintptr_t pc);

#endif
