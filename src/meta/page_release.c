// Apart from the rest of page_state.h, which is not in use, and not resident, where nothing is merged or
// frozen: spans are given back in every process.
#include "src/meta/page_state.h"

#include <stdatomic.h>
#include <stddef.h>

static _Atomic(const struct page_state_keeper *) keeper;

void page_state_set_keeper(const struct page_state_keeper *k) {
    atomic_store_explicit(&keeper, k, memory_order_release);
}

void page_state_release(uintptr_t address, size_t bytes) {
    const struct page_state_keeper *k = atomic_load_explicit(&keeper, memory_order_acquire);
    if (FIRN_UNLIKELY(k != NULL)) {
        (void)k->release(address, bytes, true);
    }
}

bool page_state_try_release(uintptr_t address, size_t bytes) {
    const struct page_state_keeper *k = atomic_load_explicit(&keeper, memory_order_acquire);
    return FIRN_LIKELY(k == NULL) || k->release(address, bytes, false);
}

bool page_state_is_kept(uintptr_t address, size_t bytes) {
    const struct page_state_keeper *k = atomic_load_explicit(&keeper, memory_order_acquire);
    return FIRN_UNLIKELY(k != NULL) && k->is_kept(address, bytes);
}
