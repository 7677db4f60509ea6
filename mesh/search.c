#include "mesh/search.h"

#include "src/base/fatal.h"

enum { GRANULE = 16, GRANULES = FIRN_PAGE / GRANULE };

void search_set_granules(uint64_t mask[SEARCH_WORDS], unsigned first, unsigned count) {
    for (unsigned w = first / 64; count > 0; w++) {
        unsigned bit = first % 64;
        unsigned here = 64 - bit < count ? 64 - bit : count;
        mask[w] |= (here == 64 ? ~(uint64_t)0 : ((uint64_t)1 << here) - 1) << bit;
        first += here;
        count -= here;
    }
}

void search_page_mask(uint64_t mask[SEARCH_WORDS], const struct search_span *span, unsigned page) {
    unsigned slot_granules = span->slot_bytes / GRANULE;
    unsigned first = page * GRANULES;
    unsigned end = first + GRANULES;
    for (unsigned w = 0; w < SEARCH_WORDS; w++) {
        mask[w] = 0;
    }
    for (unsigned s = first / slot_granules; s < span->slots; s++) {
        unsigned from = s * slot_granules;
        unsigned to = from + slot_granules;
        from -= s > 0 ? span->before : 0;
        if (from >= end) {
            break;
        }
        if ((span->free_slots[s / 64] >> s % 64 & 1) == 0) {
            from = from < first ? first : from;
            to = to > end ? end : to;
            search_set_granules(mask, from - first, to - from);
        }
    }
}

// SplitMix64 (Steele, Lea, Flood 2014). Which pages are paired is no secret worth keeping from who
// can see what shares a frame; what matters is that no allocation pattern defeats the shuffle.
static uint32_t draw(uint64_t *state, uint32_t bound) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(((z ^ z >> 31) >> 32) * bound >> 32);
}

static void shuffle(uint16_t order[], unsigned n, uint64_t *state) {
    for (unsigned i = n; i > 1; i--) {
        unsigned j = draw(state, i);
        uint16_t kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

// A frame stays where it is: it heads the group.
static void join(struct search_item items[], uint16_t a, uint16_t b) {
    uint16_t head = items[b].is_frame ? b : a;
    uint16_t other = items[b].is_frame ? a : b;
    struct search_item *h = &items[head];
    struct search_item *o = &items[other];
    for (unsigned w = 0; w < SEARCH_WORDS; w++) {
        h->mask[w] |= o->mask[w];
    }
    items[h->last].next = other;
    h->last = o->last;
    h->members = (uint16_t)(h->members + o->members);
    o->members = 0;
}

static bool can_join(const struct search_item *a, const struct search_item *b) {
    return !(a->is_frame && b->is_frame) && search_is_disjoint(a->mask, b->mask);
}

// One round over the heads in order[0, n): pairs found. Who has been joined is SEARCH_NONE in `order`.
static unsigned run_round(struct search_item items[], uint16_t order[], unsigned n,
                          unsigned probes) {
    unsigned half = n / 2;
    uint16_t *right = order + half;
    unsigned width = n - half;
    unsigned joined = 0;
    for (unsigned i = 0; i < probes && i < width; i++) {
        for (unsigned j = 0; j < half; j++) {
            unsigned k = j + i < width ? j + i : j + i - width;
            uint16_t a = order[j];
            uint16_t b = right[k];
            if (a != SEARCH_NONE && b != SEARCH_NONE && can_join(&items[a], &items[b])) {
                join(items, a, b);
                order[j] = SEARCH_NONE;
                right[k] = SEARCH_NONE;
                joined++;
            }
        }
    }
    return joined;
}

unsigned search_group(struct search_item items[], uint16_t order[], unsigned n, unsigned probes,
                      uint64_t seed) {
    FIRN_ENSURE(n <= SEARCH_MOST);
    unsigned saved = 0;
    for (unsigned i = 0; i < n; i++) {
        items[i].next = SEARCH_NONE;
        items[i].last = (uint16_t)i;
        items[i].members = 1;
    }
    for (unsigned joined = 1; joined > 0;) {
        unsigned heads = 0;
        for (unsigned i = 0; i < n; i++) {
            order[heads] = (uint16_t)i;
            heads += items[i].members > 0;
        }
        shuffle(order, heads, &seed);
        joined = run_round(items, order, heads, probes);
        saved += joined;
    }
    return saved;
}
