// The threads of this process, as the kernel lists them.
#ifndef FIRN_OS_THREADS_H
#define FIRN_OS_THREADS_H

#include <stdbool.h>
#include <stdint.h>

// Whether any thread has one of these signals in its mask (bit n-1 is signal n). True, too, when that
// cannot be found out. Reads /proc/self/task: some 20 us a thread. Preserves errno.
bool threads_any_blocks(uint64_t signals);

#endif
