#include "src/cold/stage.h"

#include "src/base/fatal.h"
#include "src/meta/root.h"
#include "src/os/map.h"
#include "src/os/missing.h"

struct record {
    uint64_t page; // of the heap
    uint32_t due;  // in ms, as far as it fits
};

static struct reservation area;
static struct record *records;
// Slots handed out, handed back, and given back to the kernel, counted from the time when all were.
static uint32_t taken, returned, flushed;

bool stage_start(void) {
    const size_t bytes = (size_t)STAGE_SLOTS << FIRN_PAGE_SHIFT;
    const size_t record_bytes = STAGE_SLOTS * sizeof(struct record);
    if (area.base == 0) {
        if (!map_reserve(&area, bytes + record_bytes, FIRN_PAGE,
                         FIRN_ROOT.data.base >> 39 ? 47 : 39, false) ||
            !map_commit(&area, area.base, bytes + record_bytes)) {
            return false;
        }
        records = (struct record *)(area.base + bytes);
    } else {
        map_purge(area.base, bytes);
    }
    taken = returned = flushed = 0;
    return missing_register(area.base, bytes, true);
}

uintptr_t stage_address(uint32_t slot) {
    return area.base + ((uintptr_t)slot << FIRN_PAGE_SHIFT);
}

static struct record *record_of(uint32_t number) {
    return &records[number % STAGE_SLOTS];
}

// Each slot's record is written before the slot is given to a page, under no lock; the page gets its slot
// with cold_lock.
bool stage_is_for(uint32_t slot, uintptr_t page_address) {
    uintptr_t page = (page_address - FIRN_ROOT.small_base) >> FIRN_PAGE_SHIFT;
    return slot < STAGE_SLOTS && records[slot].page == page;
}

uint32_t stage_take(uintptr_t page_address, uint32_t n, uint64_t due_ms) {
    if (taken == flushed) {
        taken = returned = flushed = 0;
    }
    uint32_t left = STAGE_SLOTS - taken % STAGE_SLOTS;
    uint32_t skipped = left < n ? left : 0; // neighbours do not lie across the end
    if (n + skipped > STAGE_SLOTS - (taken - flushed)) {
        return STAGE_NONE;
    }
    for (uint32_t i = 0; i < skipped; i++) {
        *record_of(taken++) = (struct record){0, (uint32_t)due_ms};
    }
    uint32_t first = taken % STAGE_SLOTS;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t page = ((page_address - FIRN_ROOT.small_base) >> FIRN_PAGE_SHIFT) + i;
        *record_of(taken++) = (struct record){page, (uint32_t)due_ms};
    }
    return first;
}

bool stage_oldest(uint32_t *slot, uintptr_t *page_address, uint64_t *due_ms) {
    if (returned == taken) {
        return false;
    }
    const struct record *r = record_of(returned);
    *slot = returned % STAGE_SLOTS;
    *page_address = FIRN_ROOT.small_base + ((uintptr_t)r->page << FIRN_PAGE_SHIFT);
    *due_ms = r->due;
    return true;
}

void stage_give_oldest(void) {
    FIRN_ENSURE(returned != taken);
    returned++;
}

void stage_flush(void) {
    while (flushed != returned) {
        uint32_t first = flushed % STAGE_SLOTS;
        uint32_t n = returned - flushed;
        n = n < STAGE_SLOTS - first ? n : STAGE_SLOTS - first;
        if (missing_engine() != FAULT_PROTECT) { // nothing is there
            map_purge(stage_address(first), (size_t)n << FIRN_PAGE_SHIFT);
        }
        flushed += n;
    }
}
