#include "src/cache/sample_clock.h"

#include "hardening/sample.h"

enum { PAUSES_MOST = 8 };

void sample_clock_add(struct cache *c, uint32_t slots) {
    uint32_t rate = firn_sample_rate;
    if (rate == 0) {
        return;
    }
    while (c->sample_left <= slots) {
        if (c->sample_left != 0) {
            slots -= c->sample_left;
            c->samples_due = (uint8_t)(c->samples_due + (c->samples_due < UINT8_MAX));
            c->sample_tries = PAUSES_MOST;
        }
        c->sample_left = 1 + random_below(&c->noise->stream, 2 * rate - 1); // `rate` on average
    }
    c->sample_left -= slots;
}

void sample_clock_take_back(struct cache *c, uint32_t slots) {
    c->sample_left += c->sample_left != 0 && c->sample_left <= UINT32_MAX / 2 ? slots : 0;
}
