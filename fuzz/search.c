// The mesher's search: whatever the pages look like, members of a group do not overlap.
//
// Input: a seed (8 bytes), probes, then pages: a byte of flags (frame, how many
// runs of granules), and for each run its first granule and its length.
#include "mesh/search.h"
#include "fuzz/fuzz.h"

#include <string.h>

enum { ITEMS = 256 };

static struct search_item items[ITEMS], before[ITEMS];
static uint16_t order[ITEMS];

static unsigned read_items(struct input *in) {
    unsigned n = 0;
    for (; n < ITEMS && in->left > 0; n++) {
        uint8_t flags = input_u8(in);
        items[n] = (struct search_item){.is_frame = (flags & 0x80) != 0};
        for (unsigned run = flags & 7; run > 0; run--) {
            unsigned first = input_u8(in);
            unsigned count = input_u8(in);
            search_set_granules(items[n].mask, first, count > 256 - first ? 256 - first : count);
        }
    }
    return n;
}

// Follows each group, clearing what it sees: members are disjoint, each item has one place.
static void check_groups(unsigned n, unsigned saved) {
    bool is_seen[ITEMS] = {false};
    unsigned groups = 0, members = 0;
    for (unsigned h = 0; h < n; h++) {
        uint64_t left[SEARCH_WORDS];
        if (items[h].members == 0) {
            continue;
        }
        groups++;
        memcpy(left, items[h].mask, sizeof(left));
        unsigned in_group = 0;
        for (unsigned i = h; i != SEARCH_NONE; i = items[i].next, in_group++) {
            FUZZ_ENSURE(i < n && !is_seen[i] && (i == h || !before[i].is_frame));
            is_seen[i] = true;
            for (unsigned w = 0; w < SEARCH_WORDS; w++) {
                FUZZ_ENSURE((before[i].mask[w] & ~left[w]) == 0);
                left[w] &= ~before[i].mask[w];
            }
        }
        FUZZ_ENSURE((left[0] | left[1] | left[2] | left[3]) == 0);
        FUZZ_ENSURE(in_group == items[h].members);
        members += in_group;
    }
    FUZZ_ENSURE(members == n && members - groups == saved);
}

int firn_fuzz_search(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    uint64_t seed = input_u64(&in);
    unsigned probes = input_u8(&in);
    unsigned n = read_items(&in);
    memcpy(before, items, sizeof(before));
    check_groups(n, search_group(items, order, n, probes, seed));
    return 0;
}
