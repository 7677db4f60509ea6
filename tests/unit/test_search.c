// The search for pages that can share a frame, against definitions spelled out slot by slot and
// pair by pair.
#include "mesh/search.h"

#include "src/base/compiler.h"
#include "src/meta/size_class.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { GRANULES = 256, PAGES_MOST = 16 };

static struct search_page pages[PAGES_MOST], bins[SEARCH_PLACES];
static uint64_t seed;

static uint32_t draw(uint32_t bound) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 32) * bound >> 32);
}

static bool has(const uint64_t *mask, unsigned bit) {
    return (mask[bit / 64] >> bit % 64 & 1) != 0;
}

static void sets_granules(void **state) {
    (void)state;
    for (unsigned first = 0; first < GRANULES; first++) {
        for (unsigned count = 0; count <= GRANULES - first; count++) {
            uint64_t mask[SEARCH_WORDS] = {0};
            search_set_granules(mask, first, count);
            unsigned set = 0;
            for (unsigned i = 0; i < GRANULES; i++) {
                set += has(mask, i);
            }
            assert_int_equal(set, count);
            assert_true(count == 0 || (has(mask, first) && has(mask, first + count - 1)));
        }
    }
}

static bool is_occupied(const uint64_t *is_free, size_t slots, size_t slot) {
    return slot < slots && !has(is_free, (unsigned)slot);
}

static void check_page(const uint64_t *is_free, unsigned slots, size_t bytes, unsigned page) {
    uint64_t bare[SEARCH_WORDS], wide[SEARCH_WORDS], leading[4];
    struct search_span span = {is_free, slots, (uint32_t)bytes, NULL};
    search_page_mask(bare, &span, page);
    for (unsigned w = 0; w < 4; w++) {
        leading[w] = (uint64_t)draw(~0u) << 32 | draw(~0u);
    }
    span.leading = leading;
    search_page_mask(wide, &span, page);
    for (unsigned g = 0; g < GRANULES; g++) {
        size_t at = page * (size_t)FIRN_PAGE + g * 16;
        bool is_own = is_occupied(is_free, slots, at / bytes);
        bool is_before = (at + 16) % bytes == 0 && is_occupied(is_free, slots, (at + 16) / bytes) &&
                         has(leading, (unsigned)((at + 16) / bytes));
        assert_int_equal(has(bare, g), is_own);
        assert_int_equal(has(wide, g), is_own || is_before);
    }
}

// Every class, every page of its spans: a granule is occupied just when the slot it belongs to is
// not free, and what is behind the last slot never is.
static void masks_pages(void **state) {
    (void)state;
    seed = 1;
    for (unsigned c = 0; c < SIZE_CLASSES; c++) {
        size_t bytes = size_class_bytes(c);
        size_t span = (size_t)1 << size_class_span_shift(c);
        unsigned slots = (unsigned)(span / bytes);
        uint64_t is_free[4];
        for (unsigned w = 0; w < 4; w++) {
            is_free[w] = (uint64_t)draw(~0u) << 32 | draw(~0u);
        }
        for (unsigned page = 0; page < span / FIRN_PAGE; page++) {
            check_page(is_free, slots, bytes, page);
        }
    }
}

static void fill(struct search_page *page, unsigned occupied_of_256) {
    *page = (struct search_page){{0}};
    for (unsigned g = 0; g < GRANULES; g++) {
        if (draw(256) < occupied_of_256) {
            search_set_granules(page->mask, g, 1);
        }
    }
}

static void counts_granules(void **state) {
    (void)state;
    seed = 2;
    for (unsigned round = 0; round < 256; round++) {
        unsigned set = 0;
        fill(&pages[0], round);
        for (unsigned g = 0; g < GRANULES; g++) {
            set += has(pages[0].mask, g);
        }
        assert_int_equal(search_count_granules(pages[0].mask), set);
        assert_int_equal(search_is_empty(pages[0].mask), set == 0);
    }
}

static bool collide(const struct search_page *a, const struct search_page *b) {
    bool any = false;
    for (unsigned g = 0; g < GRANULES; g++) {
        any = any || (has(a->mask, g) && has(b->mask, g));
    }
    return any;
}

// Granule by granule: how many of the pages fit there, up to the last that occupies anything.
static unsigned expected_length(unsigned n, uint64_t usable, unsigned at) {
    unsigned length = 0;
    for (unsigned i = 0; i < n && at + i < SEARCH_PLACES; i++) {
        bool needs_none = search_count_granules(pages[i].mask) == 0;
        if (!needs_none && (!has(&usable, at + i) || collide(&pages[i], &bins[at + i]))) {
            break;
        }
        length = needs_none ? length : i + 1;
    }
    return length;
}

static uint64_t some_case(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        fill(&pages[i], i > 0 && draw(4) == 0 ? 0 : 2 + draw(6));
    }
    search_set_granules(pages[0].mask, draw(GRANULES), 1);
    for (unsigned i = 0; i < SEARCH_PLACES; i++) {
        fill(&bins[i], draw(120));
    }
    return ((uint64_t)draw(~0u) << 32 | draw(~0u)) | ((uint64_t)draw(~0u) << 32 | draw(~0u));
}

static void lengths_are_right(void **state) {
    (void)state;
    unsigned longest = 0;
    seed = 3;
    for (unsigned round = 0; round < 300; round++) {
        unsigned n = 1 + draw(PAGES_MOST);
        uint64_t usable = some_case(n);
        for (unsigned at = 0; at < SEARCH_PLACES; at++) {
            unsigned length = search_length(pages, n, bins, usable, at);
            assert_int_equal(length, expected_length(n, usable, at));
            longest = length > longest ? length : longest;
        }
    }
    assert_in_range(longest, 4, PAGES_MOST);
}

// No other place takes more, and of those that take as many none begins with a fuller bin.
static void the_best_is_found(void **state) {
    (void)state;
    seed = 4;
    for (unsigned round = 0; round < 300; round++) {
        unsigned n = 1 + draw(PAGES_MOST);
        uint64_t usable = round % 50 == 0 ? 0 : some_case(n);
        struct search_fit best = search_best(pages, n, bins, usable, ~(uint64_t)0);
        unsigned most = 0, fullest = 0;
        for (unsigned at = 0; at < SEARCH_PLACES; at++) {
            unsigned length = expected_length(n, usable, at);
            unsigned full = search_count_granules(bins[at].mask);
            fullest = length > most || (length == most && full > fullest) ? full : fullest;
            most = length > most ? length : most;
        }
        assert_int_equal(best.pages, most);
        assert_true(most == 0 || expected_length(n, usable, best.place) == most);
        assert_true(most == 0 || search_count_granules(bins[best.place].mask) == fullest);
    }
}

// Every second slot of equal pages, the pattern that a mesher of whole, unshuffled spans cannot merge: odd
// ones go with even ones. A full bin takes nothing, an empty one all.
static void extremes(void **state) {
    (void)state;
    const uint64_t odd = UINT64_C(0xaaaaaaaaaaaaaaaa);
    for (unsigned i = 0; i < PAGES_MOST; i++) {
        pages[i] = (struct search_page){{odd, odd, odd, odd}};
    }
    for (unsigned i = 0; i < SEARCH_PLACES; i++) {
        bins[i] = (struct search_page){{~odd, ~odd, ~odd, ~odd}};
    }
    assert_int_equal(search_best(pages, PAGES_MOST, bins, ~(uint64_t)0, ~(uint64_t)0).pages,
                     PAGES_MOST);
    assert_int_equal(search_best(pages, PAGES_MOST, bins, ~(uint64_t)0, 0).pages, 0);
    assert_int_equal(search_best(pages, PAGES_MOST, bins, ~(uint64_t)0, 1u << 9).place, 9);
    assert_int_equal(search_best(pages, PAGES_MOST, bins, 0, ~(uint64_t)0).pages, 0);
    assert_int_equal(search_length(pages, PAGES_MOST, bins, ~(uint64_t)0, 60), 4);
    bins[8] = pages[0];
    assert_int_equal(search_length(pages, PAGES_MOST, bins, ~(uint64_t)0, 0), 8);
    bins[8] = (struct search_page){{0}};
    assert_int_equal(search_length(pages, PAGES_MOST, bins, ~(uint64_t)0, 0), PAGES_MOST);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sets_granules),     cmocka_unit_test(masks_pages),
        cmocka_unit_test(counts_granules),   cmocka_unit_test(lengths_are_right),
        cmocka_unit_test(the_best_is_found), cmocka_unit_test(extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
