// Makes the Nth call into the kernel fail. For tests linked with
//   -Wl,--wrap on mmap, munmap, mprotect, madvise, mremap, munlock, mlock2, getrlimit and syscall
// (the wrap= directive of tests/fail). Calls that cannot fail are not counted.
#ifndef FIRN_TESTS_INJECT_H
#define FIRN_TESTS_INJECT_H

#include <stdbool.h>

enum inject_mode {
    INJECT_ONCE,   // the Nth call fails, those after it succeed
    INJECT_FOREVER // the Nth call and all after it fail
};

// Counts from 1. `error` is the errno of failing calls; 0 stands for one that suits the call.
void inject_start(unsigned nth, enum inject_mode mode, int error);
// Returns whether a call failed since inject_start.
bool inject_stop(void);
// Whether a munmap was among the failures: what it was to take away is still there.
bool inject_hit_munmap(void);

#endif
