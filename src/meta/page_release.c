// Apart from the rest of page_state.h, which is not in use, and not resident, where nothing is merged or
// frozen: spans are given back in every process.
#include "src/meta/page_state.h"

#include "src/os/map.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

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

bool page_state_is_inherited(uintptr_t address, size_t bytes) {
    const struct page_state_keeper *k = atomic_load_explicit(&keeper, memory_order_acquire);
    return FIRN_UNLIKELY(k != NULL) && k->is_inherited(address, bytes);
}

void page_state_refill(uintptr_t address, size_t bytes) {
    const struct page_state_keeper *k = atomic_load_explicit(&keeper, memory_order_acquire);
    if (FIRN_UNLIKELY(k != NULL)) {
        k->refill(address, bytes);
    }
}

static bool is_away(uintptr_t page) {
    enum page_state state = page_state_get(page);
    return state == PAGE_STAGED || state == PAGE_FROZEN || state == PAGE_THAWING;
}

// The states are the parent's at the moment of the fork: what was away then may be filled at any time, but
// only where nothing is. So there zeros are left, and all else can go.
static FIRN_COLD void purge_inherited(uintptr_t address, size_t bytes) {
    for (uintptr_t at = address, end = address + bytes; at < end;) {
        uintptr_t from = at;
        while (at < end && !is_away(at)) {
            at += FIRN_PAGE;
        }
        if (at > from) {
            map_purge(from, at - from);
        }
        for (; at < end && is_away(at); at += FIRN_PAGE) {
            memset((void *)at, 0, FIRN_PAGE); // NOLINT(performance-no-int-to-ptr)
        }
    }
}

void page_state_purge(uintptr_t address, size_t bytes) {
    page_state_release(address, bytes);
    if (FIRN_UNLIKELY(page_state_is_inherited(address, bytes))) {
        purge_inherited(address, bytes);
    } else {
        map_purge(address, bytes);
        page_state_refill(address, bytes);
    }
}

// Asked after the pages were released: who holds says so first, and then looks which pages are away.
static bool is_held(void) {
    const struct page_state_keeper *k = atomic_load_explicit(&keeper, memory_order_acquire);
    return FIRN_UNLIKELY(k != NULL) && k->is_held();
}

bool page_state_guard(uintptr_t address, size_t bytes) {
    return !page_state_is_inherited(address, bytes) && !is_held() && map_guard(address, bytes);
}

bool page_state_unguard(uintptr_t address, size_t bytes) {
    bool is_open = map_unguard(address, bytes);
    if (is_open) {
        page_state_refill(address, bytes);
    }
    return is_open;
}
