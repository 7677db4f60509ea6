// Background threads, and code during which no signal handler of the program may run.
#ifndef FIRN_OS_THREAD_H
#define FIRN_OS_THREAD_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stdint.h>

// Blocks what the program could handle, but for the signals of faults. Returns what
// thread_allow_signals needs. Preserves errno.
uint64_t thread_block_signals(void);
void thread_allow_signals(uint64_t before);

// Starts a detached thread with all signals blocked but those of faults and libc's own two. False when that
// is not possible. May allocate; the caller holds no lock. Preserves errno.
bool thread_start(void (*body)(void)) FIRN_CHECKED;
// From now on it is not possible: a filter of system calls is about to judge this thread and all that it starts,
// and may end the process for starting one. Those that run already go on.
void thread_forbid(void);

// Returns after `ns`, or earlier for no reason.
void thread_sleep(uint64_t ns);

#endif
