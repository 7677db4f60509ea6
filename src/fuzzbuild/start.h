// The first allocation, and the exported functions' ways into it.
#ifndef FIRN_FUZZBUILD_START_H
#define FIRN_FUZZBUILD_START_H

#include "src/base/compiler.h"

#include <stdbool.h>

extern bool start_is_done;
// Reads the options, reserves the address space, installs the crash handler. Ends the process with a
// message when there is no address space at all.
FIRN_COLD void start_now(void);

// Every way into the heap begins here. The first call comes before any second thread.
FIRN_INLINE void start_once(void) {
    if (FIRN_UNLIKELY(!start_is_done)) {
        start_now();
    }
}

#endif
