#include "src/heap/upkeep.h"

#include "hardening/sample.h"
#include "src/base/config.h"
#include "src/heap/sweep.h"
#include "src/os/clock.h"
#include "src/os/loader.h"
#include "src/slab/central.h"
#include "src/span/large.h"

enum { PERIOD_MS = 100 };

static _Atomic uint32_t last_ms;
static uint32_t period_ms = PERIOD_MS;
bool firn_has_cold_upkeep, firn_has_keeper;

void upkeep_set_delay(uint32_t ms) {
    central_set_purge_delay(ms);
    large_set_purge_delay((uint64_t)ms * 1000000);
    period_ms = ms / 2 < PERIOD_MS ? ms / 2 : PERIOD_MS;
}

static bool is_constructed;

void upkeep_add_cold(void) {
    firn_has_cold_upkeep = true;
    if (is_constructed) {
        loader_note_ranges(); // for front.c, here and below
    }
}

void upkeep_note_constructed(void) {
    is_constructed = true;
    if (firn_has_cold_upkeep) {
        loader_note_ranges();
    }
    if (firn_has_keeper) {
        keeper_allow();
    }
}

void upkeep_add_keeper(unsigned share) {
    keeper_set_share(share);
    if (is_constructed) {
        keeper_allow();
    }
}

FIRN_COLD void upkeep_run(void) {
    uint64_t now_ns = clock_coarse_ns();
    uint32_t now = (uint32_t)(now_ns / 1000000);
    uint32_t last = atomic_load_explicit(&last_ms, memory_order_relaxed);
    // One thread at a time: whoever moves the mark does the work.
    if (now - last < period_ms ||
        !atomic_compare_exchange_strong_explicit(&last_ms, &last, now, memory_order_relaxed,
                                                 memory_order_relaxed)) {
        return;
    }
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        (void)central_purge(i, now_ns / 1000000, false);
    }
    large_upkeep(now_ns);
    sample_close(false);
    if (FIRN_SWEEP != 0) {
        sweep_some();
    }
}

bool upkeep_purge_all(void) {
    bool any = false;
    sample_close(true);
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        any |= central_purge(i, 0, true);
    }
    any |= large_trim();
    return any;
}
