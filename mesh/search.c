#include "mesh/search.h"

#include "src/base/bits.h"

#include <stddef.h>

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

unsigned search_count_granules(const uint64_t mask[SEARCH_WORDS]) {
    return bits_count(mask[0]) + bits_count(mask[1]) + bits_count(mask[2]) + bits_count(mask[3]);
}

static bool has(const uint64_t *bits, unsigned i) {
    return (bits[i / 64] >> i % 64 & 1) != 0;
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
        from -= s > 0 && span->leading != NULL && has(span->leading, s);
        if (from >= end) {
            break;
        }
        if (!has(span->free_slots, s)) {
            from = from < first ? first : from;
            to = to > end ? end : to;
            search_set_granules(mask, from - first, to - from);
        }
    }
}

unsigned search_length(const struct search_page pages[], unsigned n,
                       const struct search_page bins[SEARCH_PLACES], uint64_t usable,
                       unsigned place) {
    unsigned length = 0;
    for (unsigned i = 0; i < n && place + i < SEARCH_PLACES; i++) {
        if (search_is_empty(pages[i].mask)) {
            continue;
        }
        if ((usable >> (place + i) & 1) == 0 ||
            !search_is_disjoint(pages[i].mask, bins[place + i].mask)) {
            break;
        }
        length = i + 1;
    }
    return length;
}

struct search_fit search_best(const struct search_page pages[], unsigned n,
                              const struct search_page bins[SEARCH_PLACES], uint64_t usable,
                              uint64_t starts) {
    struct search_fit best = {0, 0};
    unsigned fullest = 0;
    for (uint64_t rest = usable & starts; rest != 0; rest &= rest - 1) {
        unsigned place = bits_lowest(rest);
        if (!search_is_disjoint(pages[0].mask, bins[place].mask)) {
            continue;
        }
        unsigned length = search_length(pages, n, bins, usable, place);
        unsigned full = search_count_granules(bins[place].mask);
        if (length > best.pages || (length == best.pages && full > fullest)) {
            best = (struct search_fit){place, length};
            fullest = full;
        }
    }
    return best;
}
