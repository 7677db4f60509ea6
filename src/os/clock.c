// The coarse clock is a read of the vDSO's page: no system call, no cycle counter.
#include "src/os/clock.h"

#include "src/base/compiler.h"
#include "src/os/sys.h"

#include <time.h>

FIRN_INLINE uint64_t now_ns(clockid_t clock) {
    struct timespec now = {0, 0};
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clock_coarse_ns(void) {
    return now_ns(CLOCK_MONOTONIC_COARSE);
}

// Under the strict mode the kernel lets a thread read no cycle counter either (disable_TSC): the vDSO's exact clock
// would be a SIGSEGV.
uint64_t clock_ns(void) {
    return now_ns(sys_is_mute() ? CLOCK_MONOTONIC_COARSE : CLOCK_MONOTONIC);
}

uint64_t clock_thread_ns(void) {
    return now_ns(CLOCK_THREAD_CPUTIME_ID);
}

// The kernel's number for the clock of a thread: libc makes it only of a pthread_t.
uint64_t clock_other_thread_ns(int thread) {
    enum { PER_THREAD = 4, SCHEDULED = 2 };
    return now_ns((clockid_t)(~(unsigned)thread << 3 | PER_THREAD | SCHEDULED));
}

uint64_t clock_process_ns(void) {
    return now_ns(CLOCK_PROCESS_CPUTIME_ID);
}
