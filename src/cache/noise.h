// The random bytes that decide where a freed slot goes.
#ifndef FIRN_CACHE_NOISE_H
#define FIRN_CACHE_NOISE_H

#include "src/os/random.h"

#include <stdint.h>

struct cache;

// What a cache draws its places from: one byte a free, its lower five bits random, never 0. The 0 at
// the end says: fetch more.
// So does the kernel, by wiping the page it lies on in a forked child.
enum { NOISE_BYTES = 504 }; // with the rest a quarter of a page
struct noise {
    struct random_stream stream;
    int thread; // its number, 0 until asked for
    uint8_t bytes[NOISE_BYTES];
};

// Fetches more noise if there is none left.
void cache_make_noise(struct cache *c);

#endif
