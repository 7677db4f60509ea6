// Coarse monotonic time (vDSO, ~5 ns, 1-4 ms steps): for ages and delays, never for benchmarks.
#ifndef FIRN_OS_CLOCK_H
#define FIRN_OS_CLOCK_H

#include <stdint.h>

uint64_t clock_coarse_ns(void);
// Monotonic, exact to tens of nanoseconds; dearer. After sys_go_mute as coarse as the other.
uint64_t clock_ns(void);
// What the calling thread has had of a processor.
uint64_t clock_thread_ns(void);
// What another thread of the process has had of one; 0 when there is none of that number. Signal-safe.
uint64_t clock_other_thread_ns(int thread);
// And the whole process, this thread included.
uint64_t clock_process_ns(void);

#endif
