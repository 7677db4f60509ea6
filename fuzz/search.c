// The mesher's search: what it says fits does, granule by granule, and nothing longer does.
//
// Input: which bins are usable (8 bytes), how many of the following items are pages to be placed (the rest
// are bins), then the items: a byte of flags (how many runs of granules), and for each run its first
// granule and its length. The first page is never empty: then it has its last granule.
#include "mesh/search.h"
#include "fuzz/fuzz.h"

#include <string.h>

enum { PAGES = 16, GRANULES = 256 };

static struct search_page pages[PAGES], bins[SEARCH_PLACES];

static void read_item(struct input *in, struct search_page *item) {
    uint8_t flags = input_u8(in);
    memset(item, 0, sizeof(*item));
    for (unsigned run = flags & 7; run > 0; run--) {
        unsigned first = input_u8(in);
        unsigned count = input_u8(in);
        search_set_granules(item->mask, first, count > GRANULES - first ? GRANULES - first : count);
    }
}

static bool is_occupied(const struct search_page *item, unsigned granule) {
    return (item->mask[granule / 64] >> granule % 64 & 1) != 0;
}

static unsigned count(const struct search_page *item) {
    unsigned n = 0;
    for (unsigned g = 0; g < GRANULES; g++) {
        n += is_occupied(item, g);
    }
    return n;
}

static bool fits(const struct search_page *page, unsigned bin, uint64_t usable) {
    if (count(page) == 0) {
        return true;
    }
    for (unsigned g = 0; g < GRANULES; g++) {
        if (is_occupied(page, g) && is_occupied(&bins[bin], g)) {
            return false;
        }
    }
    return (usable >> bin & 1) != 0;
}

// Slowly, from what the header says.
static unsigned length_at(unsigned n, uint64_t usable, unsigned place) {
    unsigned length = 0;
    for (unsigned i = 0; i < n && place + i < SEARCH_PLACES && fits(&pages[i], place + i, usable);
         i++) {
        length = count(&pages[i]) != 0 ? i + 1 : length;
    }
    return length;
}

int firn_fuzz_search(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    uint64_t usable = input_u64(&in);
    unsigned n = 1 + input_u8(&in) % PAGES;
    for (unsigned i = 0; i < n; i++) {
        read_item(&in, &pages[i]);
    }
    if (count(&pages[0]) == 0) {
        search_set_granules(pages[0].mask, GRANULES - 1, 1);
    }
    for (unsigned i = 0; i < SEARCH_PLACES; i++) {
        read_item(&in, &bins[i]);
    }
    const struct search_fit found = search_best(pages, n, bins, usable, ~(uint64_t)0);
    struct search_fit best = {0, 0};
    unsigned fullest = 0;
    for (unsigned place = 0; place < SEARCH_PLACES; place++) {
        unsigned length = length_at(n, usable, place);
        FUZZ_ENSURE(search_length(pages, n, bins, usable, place) == length);
        FUZZ_ENSURE(search_count_granules(bins[place].mask) == count(&bins[place]));
        if (length > best.pages ||
            (length == best.pages && length != 0 && count(&bins[place]) > fullest)) {
            best = (struct search_fit){place, length};
            fullest = count(&bins[place]);
        }
    }
    FUZZ_ENSURE(found.pages == best.pages && (best.pages == 0 || found.place == best.place));
    return 0;
}
