// Where frozen pages are: packed (cold/pack.h), sealed (cold/seal.h) and shelved (cold/shelf.h).
//
// Callers have the program's signals blocked (os/thread.h, or the mask of a fault's handler), all of them
// but cold_store_figures: a handler of the program that touched a frozen page in the midst of one of these
// calls would wait for itself. Nothing here calls malloc. Locks: LOCK_STORE, one at a time, and LOCK_SEAL;
// while they are held no memory but the store's own is touched, so that a thread that faults on a page of
// the heap never holds one of them, and cold_store_get may be called by a fault's handler, whatever else
// the thread holds. Of the stack, 16 KiB are enough. errno is preserved.
//
// A forked child has a copy of the store as it was.
#ifndef FIRN_COLD_STORE_H
#define FIRN_COLD_STORE_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Names what is stored; 0 never does.
struct cold_blob {
    uint64_t word;
};

enum cold_put {
    COLD_ZERO,   // all zeros: there is nothing to store. cold_store_put does not say so
    COLD_STORED, // *out names it
    COLD_POOR,   // it does not get small enough to be worth a thaw
    COLD_FULL    // no memory for it, or the cap is reached
};

// Before cold_store_start, from the options. `seal` is an enum seal_mode, and raises what the level
// asks for, never lowers it; `most_bytes` caps what the store takes, 0: no cap.
void cold_store_choose(unsigned seal, uint64_t most_bytes);

// Reserves what the calls below need; nothing is touched. Again and again without effect. False when there
// is no memory: then nothing can be frozen, perhaps later. One thread at a time. Program's signals may
// come.
bool cold_store_start(void) FIRN_CHECKED;

// A shelf, by number below COLD_STORE_SHELVES: for tests that attack it.
enum { COLD_STORE_SHELVES = 8 };
struct shelf *cold_store_shelf(unsigned number);

// A page of which nothing needs to be stored.
bool cold_store_is_zero(const void *page);

// `page`, FIRN_PAGE bytes that nobody changes meanwhile and that no fault is needed to read, is the page
// at page_address; generation is higher each time that it is put.
enum cold_put cold_store_put(uintptr_t page_address, uint32_t generation, const void *page,
                             struct cold_blob *out);

// Writes FIRN_PAGE bytes. What was put for this address and generation, or the process ends: reports
// `cold-seal` when what is stored is not what was sealed, `cold-store` when it cannot be found or
// unpacked.
void cold_store_get(uintptr_t page_address, uint32_t generation, struct cold_blob blob,
                    void *page_out);

// It is overwritten, and its memory used again or given back.
void cold_store_drop(struct cold_blob blob);

// Moves some of what is stored, so that memory can be given back. False when there is nothing to win
// (a cheap question then). Some 20 us a call.
bool cold_store_tidy(void);

void cold_store_before_fork(void);
void cold_store_after_fork(bool in_child);

// In a forked child that needs nothing of what its parent stored, whichever call forked, and in whatever
// state the store was: it is empty again, and its memory given back. No other thread uses it.
void cold_store_abandon(void);

struct cold_store_figures {
    uint64_t pages;          // stored now, those of one repeated byte included
    uint64_t uniform_pages;  // of those, pages of one repeated byte, which take no memory
    uint64_t stored_bytes;   // what the others are packed and sealed to
    uint64_t resident_bytes; // what they occupy
    uint64_t index_bytes;    // and the store's own records
    uint64_t puts, gets, drops, poor, full; // since start
    const char *seal;                       // off, mac, aead
    bool is_key_hidden;                     // the key lies in memfd_secret
};
// Any thread. Zeros before start.
void cold_store_figures(struct cold_store_figures *out);

#endif
