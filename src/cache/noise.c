#include "src/cache/noise.h"

#include "src/cache/cache.h"
#include "src/cache/sample_clock.h"

#include <string.h>

// Eight times five bits, each in a byte of its own, with a bit above them so that none is 0.
static uint64_t spread_fives(uint64_t x) {
    x = (x & 0xfffff) | (x & 0xfffff00000) << 12;
    x = (x & 0x000003ff000003ff) | (x & 0x000ffc00000ffc00) << 6;
    x = (x & 0x001f001f001f001f) | (x & 0x03e003e003e003e0) << 3;
    return x | 0x2020202020202020;
}

FIRN_COLD void cache_make_noise(struct cache *c) {
    enum { RAW = NOISE_BYTES / 8 * 5 };
    if (*c->noise_at != 0) {
        return;
    }
    sample_clock_add(c, NOISE_BYTES - 1); // frees since the last time
    // From the back of the buffer to all of it: no group is written over one still to be read.
    uint8_t *bytes = c->noise->bytes;
    const uint8_t *raw = &bytes[NOISE_BYTES - RAW];
    random_bytes(&c->noise->stream, &bytes[NOISE_BYTES - RAW], RAW);
    for (unsigned i = 0; i < NOISE_BYTES; i += 8, raw += 5) {
        uint64_t group = 0;
        memcpy(&group, raw, 5);
        group = spread_fives(group);
        memcpy(&bytes[i], &group, sizeof group);
    }
    bytes[NOISE_BYTES - 1] = 0;
    c->noise_at = bytes;
}
