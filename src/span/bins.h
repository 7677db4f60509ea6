// Runs binned by the size of their body: eight bins a doubling. Callers hold LOCK_LARGE.
#ifndef FIRN_SPAN_BINS_H
#define FIRN_SPAN_BINS_H

#include "src/base/compiler.h"
#include "src/os/random.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct run;

enum { BINS_COUNT = 320 };

// Valid when zero-filled.
struct bins {
    struct run *heads[BINS_COUNT];
    uint64_t used[BINS_COUNT / 64]; // bit b: bin b is not empty
    size_t runs;
    size_t bytes; // sum of the bodies
};

// The run's body must not change while it is in a bin.
void bins_insert(struct bins *bins, struct run *run);
void bins_remove(struct bins *bins, struct run *run);

// A run whose body can hold `bytes` at a multiple of `align`, and is at most `most` bytes long. One
// of several fitting ones of the smallest bin that has any, chosen at random. NULL: none was found
// (a crowded bin is searched in part only). The run stays in its bin.
struct run *bins_fit(const struct bins *bins, size_t bytes, size_t align, size_t most,
                     struct random_stream *random);

#endif
