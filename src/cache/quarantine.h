// P-QUARANTINE: a thread's freed slots wait, in the order they were freed, until QUARANTINE_KEPT_BYTES
// were freed after them; only then they go to the mixer of their cell.
//
// The queue is of slots of all classes, so that its bytes are bounded for the thread, not for each of
// a hundred cells. It is made of segments: a free appends to the open one (cache_hold), and when that is full
// the oldest are let go as a whole. So a free costs one store, and finding the cell of what leaves, and
// a random place for it, is done for many slots in a row.
//
// A slot in it is in hand: neither live nor free. What other threads freed joins when the owner takes
// it back. Slots of spans without an owner have no thread to wait for: such spans are shuffled anew
// when a thread takes them. A thread that exits, malloc_trim, and a class that is out of memory end
// the wait.
#ifndef FIRN_CACHE_QUARANTINE_H
#define FIRN_CACHE_QUARANTINE_H

#include "src/cache/cache.h"

enum {
    // Small ones are dear: to close one costs some 50 ns.
    QUARANTINE_SEGMENTS = FIRN_QUARANTINE >= 64 * 1024 ? 16 : 2,
    QUARANTINE_SEGMENT_BYTES = FIRN_QUARANTINE / QUARANTINE_SEGMENTS,
    // In closed segments. The open one comes on top, and what the oldest closed one has more than it needs.
    QUARANTINE_KEPT_BYTES = FIRN_QUARANTINE - QUARANTINE_SEGMENT_BYTES,
    QUARANTINE_MOST_BYTES = FIRN_QUARANTINE + QUARANTINE_SEGMENT_BYTES + SMALL_MAX,
    // A segment is full before it has one more.
    QUARANTINE_SEGMENT_SLOTS = QUARANTINE_SEGMENT_BYTES / 16 + 1
};

// Adds a slot of this cell, and lets go what is then too much. With the owner's lock.
void quarantine_add(struct cache *c, unsigned cell, uint64_t entry);
// All slots go back among the free ones of their spans. With the owner's lock.
void quarantine_flush(struct cache *c);

// Bytes of the slots in it. Any thread; exact for the owner.
size_t quarantine_bytes(const struct cache *c);
// Entries of its `index`-th segment, the oldest first; NULL when there are not so many. Any thread; for
// the owner they are exact.
const uint64_t *quarantine_segment(const struct cache *c, unsigned index, uint32_t *slots);
// For reports, as above.
bool quarantine_has(const struct cache *c, uintptr_t address);

#endif
