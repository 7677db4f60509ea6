// Where blobs lie: packed one behind the other in blocks of 64 KiB, found by a number that stays when
// they move. Several shelves, each with a lock of its own, so that threads rarely meet.
//
// All calls are made under the shelf's lock (shelf_lock), but for shelf_give_back. None touches memory of
// the program, none makes a system call but to commit memory while the shelf grows.
//
// The waste: what is resident beyond the live blobs' bytes. shelf_tidy brings it to a 32nd of them and
// eight pages. New blobs go into space that dead ones left before new blocks are begun.
//
// Nothing in a block is believed. Each step from one blob to the next, and from a number to a blob and
// back, is checked; what does not agree is SHELF_DAMAGED to the caller, who ends the process. Records and
// blocks that contradict themselves end it at once (`cold-store`).
#ifndef FIRN_COLD_SHELF_H
#define FIRN_COLD_SHELF_H

#include "src/base/compiler.h"
#include "src/os/lock.h"
#include "src/os/map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SHELF_BLOCK_SHIFT = 16,
    SHELF_BLOCK = 1 << SHELF_BLOCK_SHIFT,
    SHELF_GRANULE = 8, // blobs begin and end at multiples of it
    SHELF_BLOCK_GRANULES = SHELF_BLOCK / SHELF_GRANULE,
    SHELF_BINS = 64,
    SHELF_RECORD_BITS = 27
};
#define SHELF_NONE UINT32_MAX // no block, no record

enum shelf_result { SHELF_DONE, SHELF_FULL, SHELF_DAMAGED };

// Stands before each blob's bytes.
struct shelf_head {
    uint32_t record;   // SHELF_NONE: dead, its bytes are zeros
    uint16_t granules; // head included
    uint16_t kind;     // the owner's
};

// Memory that nobody uses any more and that stays out of use until shelf_give_back.
struct shelf_scrap {
    uint32_t block; // SHELF_NONE: there is none
    uint32_t pages;
};

struct shelf_block {
    uint32_t used;       // granules that heads account for, from the start; zeros behind
    uint32_t live;       // granules of live blobs
    uint32_t touched;    // pages from the start that may be resident
    uint32_t next, prev; // in its bin, or SHELF_NONE
    uint32_t bin;        // SHELF_NONE: in none (the current block, a scrap, or an empty one)
    uint32_t sum;        // of the above: a bit that changed by itself is noticed
};

// Which of 512 records are free.
struct shelf_records {
    uint64_t free[8];
    uint32_t used;
    uint32_t is_committed;
};

struct shelf {
    struct lock lock;
    struct reservation range; // all of it; the areas below lie in it, in this order
    uintptr_t blocks_at;      // the blobs
    struct shelf_block *blocks;
    struct shelf_records *records;
    uint64_t *places; // by record: where the blob is; 0: free
    uint32_t most_blocks, most_records;
    uint32_t block_count;                         // begun so far
    uint32_t committed_blocks;                    // may be used
    uint32_t described_blocks, described_records; // have descriptors
    uint32_t record_page;                         // none below it has a free record
    uint32_t current;                             // blobs are appended to it, or SHELF_NONE
    uint32_t empty;                               // list of blocks without pages, by next
    uint32_t bins[SHELF_BINS];                    // blocks by granules not live
    uint64_t bin_mask;
    uint64_t live_bytes, resident_bytes; // of blocks
    uint64_t index_bytes;                // resident: descriptors and records
    uint64_t count;                      // live blobs
    bool is_dumped;                      // whether core dumps show it
};

// Its lock can be taken before shelf_make.
#define SHELF_UNMADE                                                                               \
    { .lock = LOCK_INIT(LOCK_STORE) }

// Address space that a shelf with room for so many blocks takes.
size_t shelf_bytes(uint32_t blocks);
// `range`, of shelf_bytes(blocks), is the shelf's alone, nothing of it committed. No lock.
void shelf_make(struct shelf *s, const struct reservation *range, uint32_t blocks, bool is_dumped);

// Gives up all that was committed, whatever state the shelf is in; its lock is free, and it may be made
// again. For a forked child in which nobody else uses it.
void shelf_unmake(struct shelf *s);

// Puts `bytes` bytes there; *record names them from now on.
enum shelf_result shelf_put(struct shelf *s, uint16_t kind, const void *blob, size_t bytes,
                            uint32_t *record) FIRN_CHECKED;
// Head and bytes of a live blob; valid until the lock is released. NULL when it is damaged, or was
// never there. Its bytes lie in the block, whatever the head says; behind those of the blob are zeros up
// to the next granule, which the owner may check.
const struct shelf_head *shelf_find(const struct shelf *s, uint32_t record) FIRN_CHECKED;
// Overwrites it with zeros. *scrap is to be given back.
enum shelf_result shelf_drop(struct shelf *s, uint32_t record,
                             struct shelf_scrap *scrap) FIRN_CHECKED;

bool shelf_is_untidy(const struct shelf *s);
// Empties one block, that with the most room, into others. At most 64 KiB are moved.
enum shelf_result shelf_tidy(struct shelf *s, struct shelf_scrap *scrap) FIRN_CHECKED;

// Without the lock: takes it when the pages are gone.
void shelf_give_back(struct shelf *s, const struct shelf_scrap *scrap);

#endif
