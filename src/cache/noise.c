#include "src/cache/noise.h"

#include "src/cache/cache.h"
#include "src/cache/sample_clock.h"

#include <string.h>

// A word of draws from one of random bytes: the lower five bits of each byte, with a bit above them so
// that none is 0.
static uint64_t draws(uint64_t random) {
    return (random & 0x1f1f1f1f1f1f1f1f) | 0x2020202020202020;
}

FIRN_COLD void cache_make_noise(struct cache *c) {
    enum { GROUP = 24, RAW_GROUP = 16, GROUPS = NOISE_BYTES / GROUP, RAW = GROUPS * RAW_GROUP };
    _Static_assert(GROUPS * GROUP == NOISE_BYTES, "whole groups");
    if (*c->noise_at != 0) {
        return;
    }
    sample_clock_add(c, NOISE_BYTES - 1); // frees since the last time
    // From the back of the buffer to all of it: no group is written over one still to be read.
    uint8_t *bytes = c->noise->bytes;
    const uint8_t *raw = &bytes[NOISE_BYTES - RAW];
    random_bytes(&c->noise->stream, &bytes[NOISE_BYTES - RAW], RAW);
    for (unsigned i = 0; i < NOISE_BYTES; i += GROUP, raw += RAW_GROUP) {
        uint64_t in[2], out[3];
        memcpy(in, raw, sizeof in);
        out[0] = draws(in[0]);
        out[1] = draws(in[1]);
        // Of a third word, the bits that are left: three of each byte, and two.
        out[2] = draws((in[0] >> 5 & 0x0707070707070707) | (in[1] >> 2 & 0x1818181818181818));
        memcpy(&bytes[i], out, sizeof out);
    }
    bytes[NOISE_BYTES - 1] = 0;
    c->noise_at = bytes;
}
