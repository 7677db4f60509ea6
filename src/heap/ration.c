#include "src/heap/ration.h"

#include "mesh/mesh.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/meta/arena.h"
#include "src/meta/root.h"
#include "src/os/caps.h"
#include "src/os/lock.h"
#include "src/os/sys.h"
#include "src/slab/central.h"
#include "src/span/large.h"
#include "src/span/region.h"

#include <errno.h>

// Whoever commits addresses holds one of the locks that fork takes, too; all of them are held. Where
// memory was rationed from the start (strict overcommit, RLIMIT_DATA) spans and runs that were given
// back are addresses in reserve like the rest.
static bool give_back(bool is_urgent) {
    if (!large_release(is_urgent)) {
        return false;
    }
    region_release();
    central_release();
    arena_release();
    map_make_writable((uintptr_t)&firn_root_pages, sizeof firn_root_pages);
    map_begin_sparse(&FIRN_ROOT.data);
    map_begin_sparse(&FIRN_ROOT.meta);
    map_make_readonly((uintptr_t)&firn_root_pages, sizeof firn_root_pages); // P-ROOT
    caps_forget(CAP_RESERVE);
    return true;
}

static bool try_once(bool is_urgent) {
    central_before_fork();
    large_before_fork();
    arena_before_fork();
    bool is_done = FIRN_ROOT.data.is_sparse || give_back(is_urgent);
    arena_after_fork(false);
    large_after_fork(false);
    central_after_fork(false, false);
    return is_done;
}

void ration_addresses(void) {
    enum { TRIES = 1000 };
    if (!life_has_started() || lock_is_any_held()) {
        return;
    }
    int saved = errno;
    life_check_fork();
    for (unsigned i = 1; !try_once(i == TRIES); i++) {
        sys_yield(); // a system call's time, at most
    }
    errno = saved;
}

void ration_before_lock(void) {
    if (lock_is_any_held()) {
        return;
    }
    if (firn_has_keeper) {
        keeper_forbid("the program locked its memory");
    }
    mesh_end();
}
