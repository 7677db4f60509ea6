// The shadow model of a heap: which blocks there are, where, how large, and what is in them.
// Kept in static memory, far from the heap under test. One heap, one model.
#ifndef FIRN_FUZZ_MODEL_H
#define FIRN_FUZZ_MODEL_H

#include "fuzz/fuzz.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MODEL_BLOCKS = 256, MODEL_STALE = 16, MODEL_MOST_BYTES = 64 << 20 };

struct block {
    uint8_t *p;      // NULL: an empty place of the table
    size_t size;     // asked for
    size_t usable;   // the heap said so when the block was made
    size_t align;    // 0: asked for without one
    uint8_t pattern; // what it is filled with
};

struct model {
    struct block blocks[MODEL_BLOCKS];
    unsigned count;
    size_t bytes; // usable, of all blocks
    // Addresses freed lately, the latest at (freed - 1) % MODEL_STALE.
    uintptr_t stale[MODEL_STALE];
    unsigned freed;
    unsigned made, made_at_last_free;
    uint8_t next_pattern;
};
extern struct model firn_fuzz_model;

// A place of the table by number: the wanted one or, if that is empty (or full), the next that is
// not. NULL: there is none.
struct block *model_find(unsigned wanted);
struct block *model_find_empty(unsigned wanted);
// The block that contains the address, or NULL.
struct block *model_containing(uintptr_t address);

// Enters a block just handed out: it must overlap no other and be aligned. Fills it.
void model_add(struct block *b, void *p, size_t size, size_t usable, size_t align);
// Checks the content and strikes the block out; to be freed next.
void *model_remove(struct block *b);
// The block moved or changed its size: its first bytes must be as they were. Fills it anew.
void model_resized(struct block *b, void *p, size_t size, size_t usable);
void model_check(const struct block *b);
void model_check_all(void);
// Fresh from calloc (or known to be zeros): reads as zeros, as far as it is looked at.
void model_check_zeros(const uint8_t *p, size_t size);

#endif
