// Apart from the rest of page_state.h, which is not in use, and not resident, where nothing is merged or
// frozen: spans are given back in every process.
#include "src/meta/page_state.h"

#include <stdatomic.h>
#include <stddef.h>

static _Atomic(page_state_release_fn *) keeper;

void page_state_set_keeper(page_state_release_fn *release) {
    atomic_store_explicit(&keeper, release, memory_order_release);
}

void page_state_release(uintptr_t address, size_t bytes) {
    page_state_release_fn *release = atomic_load_explicit(&keeper, memory_order_acquire);
    if (FIRN_UNLIKELY(release != NULL)) {
        release(address, bytes);
    }
}
