// A span with blocks of one thread that others free, and the steps of remote.h one by one: for tests
// that play all the threads in one.
#ifndef FIRN_TESTS_REMOTE_CASE_H
#define FIRN_TESTS_REMOTE_CASE_H

#include "src/cache/cache.h"

#include <stdbool.h>
#include <stdint.h>

enum { REMOTE_SIZE = 64, REMOTE_BLOCKS = 6, R_STEPS = 4, O_STEPS = 4 };

struct remote_case {
    struct cache *owner, *freer;
    unsigned char *block[REMOTE_BLOCKS]; // all in one span of the owner's
    struct span *span;
    unsigned char *adopted; // what remote_adopt got
    uintptr_t site;
};
extern struct remote_case remote_case;

// Makes owner, freer and blocks. The calling thread acts as the freer.
void remote_set_up(void);

// R, on its way through the free of one block.
struct freeing {
    unsigned char *p;
    bool must_queue; // what step 3 found
};
// Does the steps from `from` (0: tag) up to but without `to`.
void remote_r_does(struct freeing *f, unsigned from, unsigned to);

// O, on its way through a drain of its queue: takes the queue, a, b, files the span.
struct draining {
    struct span *s;
    struct span *next;
};
void remote_o_does(struct draining *d, unsigned step);

// Neither live nor waiting to be taken back.
bool remote_is_free(const unsigned char *p);
// Drains as the owner. Then the first `blocks` blocks are free, the others are not, nothing is queued
// and all is whole.
void remote_ensure_drained(unsigned blocks);
// `c` allocates from the cell until it owns the span. It may get a block that was freed before.
void remote_adopt(struct cache *c);

#endif
