#include "src/heap/own.h"

#include "mesh/mesh.h"
#include "src/cold/cold.h"
#include "src/heap/life.h"
#include "src/meta/page_state.h"
#include "src/os/lock.h"
#include "src/os/thread.h"

#include <errno.h>

enum { TRIES = 200, BETWEEN_NS = 50000 };

// Refused for the moment, perhaps: a system call that writes there, a fork.
bool own_take(uintptr_t address, size_t bytes) {
    // In a signal handler that interrupted us, nothing can be done, and what is meshed stays so.
    if (!life_has_started() || lock_is_any_held()) {
        return true;
    }
    life_check_fork();
    bool is_small = address - FIRN_ROOT.small_base < FIRN_ROOT.small_bytes;
    for (unsigned i = 0; is_small && !mesh_leave(address, bytes); i++) {
        if (i == TRIES) {
            errno = ENOMEM;
            return false;
        }
        thread_sleep(BETWEEN_NS);
    }
    return cold_exclude(address, bytes);
}

void own_drop(uintptr_t address, size_t bytes) {
    if (page_state_is_inherited(address, bytes)) {
        page_state_purge(address, bytes);
    } else {
        page_state_refill(address, bytes);
    }
}
