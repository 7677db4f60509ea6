#include "src/cache/apart.h"

#include "src/cache/cache.h"

// What is to be put in order.
struct row {
    uint64_t *entries;
    uint64_t last;
    uintptr_t slot_bytes;
    struct random_stream *stream;
    uint32_t n;
};

static bool are_neighbours(uint64_t a, uint64_t b, uintptr_t bytes) {
    uintptr_t distance = (a & ENTRY_ADDRESS) - (b & ENTRY_ADDRESS);
    return distance == bytes || distance == -bytes;
}

static uint64_t handed_out_before(const struct row *r, uint32_t i) {
    return i + 1 < r->n ? r->entries[i + 1] : r->last;
}

// Is entry `i` a neighbour of one that is handed out just before or after it?
static bool is_clash(const struct row *r, uint32_t i) {
    return are_neighbours(r->entries[i], handed_out_before(r, i), r->slot_bytes) ||
           (i > 0 && are_neighbours(r->entries[i], r->entries[i - 1], r->slot_bytes));
}

static void swap(uint64_t *entries, uint32_t i, uint32_t j) {
    uint64_t entry = entries[i];
    entries[i] = entries[j];
    entries[j] = entry;
}

// Moves what clashes to random places where it does not. False if that did not do.
static bool part_once(const struct row *r) {
    enum { ATTEMPTS = 12 };
    bool is_parted = true;
    for (uint32_t i = r->n; i-- > 0;) {
        if (FIRN_LIKELY(!are_neighbours(r->entries[i], handed_out_before(r, i), r->slot_bytes))) {
            continue;
        }
        for (unsigned k = 0; k < ATTEMPTS && is_clash(r, i); k++) {
            uint32_t j = random_below(r->stream, r->n);
            swap(r->entries, i, j);
            if (is_clash(r, j)) {
                swap(r->entries, i, j);
            }
        }
        is_parted &= !is_clash(r, i);
    }
    return is_parted;
}

void apart_shuffle(uint64_t *entries, uint32_t n, struct random_stream *stream) {
    for (uint32_t i = 1; i < n; i++) {
        swap(entries, i, random_below(stream, i + 1));
    }
}

void apart_order(uint64_t *entries, uint32_t n, uint64_t last, uintptr_t slot_bytes,
                 struct random_stream *stream) {
    enum { SHUFFLES = 6 };
    const struct row row = {entries, last, slot_bytes, stream, n};
    for (unsigned i = 0; i < SHUFFLES && !part_once(&row); i++) {
        apart_shuffle(entries, n, stream);
    }
}
