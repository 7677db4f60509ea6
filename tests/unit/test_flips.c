// One bit is changed in what is stored, or in what says where it lies, and everything is then read, dropped
// and tidied: with a seal each such change is noticed, and no wrong byte is ever handed out. A share of
// the trials; all 10,000 of each seal with FIRN_THOROUGH=1. P-COLD-SEAL
// firn-test: levels=2 timeout=1800 sanitize=none
#include "src/cold/seal.h"
#include "src/cold/shelf.h"
#include "src/cold/store.h"
#include "src/os/caps.h"
#include "tests/support/child.h"
#include "tests/support/pages.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGES = 160, CHURN = 60, TRIALS = 250, TRIALS_THOROUGH = 10000 };
enum { WRONG_BYTE = 3 };

static struct cold_blob blobs[PAGES];
static uint32_t generations[PAGES];
static uint64_t draw_state = 1;

static uint64_t below(uint64_t n) {
    draw_state = draw_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (draw_state >> 20) % n;
}

// In four chunks of 2 MiB: on four shelves.
static uintptr_t address_of(unsigned i) {
    return (uintptr_t)0x200000000000 + (uintptr_t)(i % 4) * (2 << 20) + (uintptr_t)i * FIRN_PAGE;
}

static void fill(unsigned i, void *page) {
    if (i % 16 == 0) {
        memset(page, (int)(i + generations[i]), FIRN_PAGE);
    } else {
        pages_fill(page, i % PAGES_RANDOM, i + generations[i]);
    }
}

static void put(unsigned i) {
    unsigned char page[FIRN_PAGE];
    fill(i, page);
    assert_int_equal(cold_store_put(address_of(i), generations[i], page, &blobs[i]), COLD_STORED);
}

// Some were dropped and others put instead: gaps, and blocks in bins.
static void build(void) {
    for (unsigned i = 0; i < PAGES; i++) {
        put(i);
    }
    for (unsigned n = 0; n < CHURN; n++) {
        unsigned i = (unsigned)below(PAGES);
        cold_store_drop(blobs[i]);
        generations[i]++;
        put(i);
    }
}

// ---- where ------------------------------------------------------------------------------------

enum area {
    BLOBS,   // those that live: heads, nonces, bytes, tags, padding
    PLACES,  // where each lies
    RECORDS, // which of them there are
    BLOCKS,  // descriptors
    NAMES,   // what the owner of a blob keeps of it: its name, and the page's generation
    AREAS,
    REST = AREAS // of the blocks, any byte: what was dropped, and what is not used yet
};

static struct shelf *any_shelf(void) {
    for (;;) {
        struct shelf *s = cold_store_shelf((unsigned)below(COLD_STORE_SHELVES));
        if (s->count > 0) {
            return s;
        }
    }
}

static uint64_t *any_place(const struct shelf *s) {
    for (;;) {
        uint64_t *place = &s->places[below((uint64_t)s->described_records * 512)];
        if (*place != 0) {
            return place;
        }
    }
}

static void flip(void *bytes, size_t n) {
    uint64_t bit = below(8 * (uint64_t)n);
    ((unsigned char *)bytes)[bit / 8] ^= (unsigned char)(1u << bit % 8);
}

static void flip_name(void) {
    unsigned i = (unsigned)below(PAGES);
    if (below(2) == 0) {
        flip(&blobs[i], sizeof blobs[i]);
    } else {
        flip(&generations[i], sizeof generations[i]);
    }
}

static void flip_in(enum area area) {
    const struct shelf *s = any_shelf();
    if (area == BLOBS) {
        uint64_t place = *any_place(s);
        uintptr_t at = s->blocks_at + ((place & ~((uint64_t)1 << 63)) >> 16 << SHELF_BLOCK_SHIFT) +
                       (place & 0xffff) * SHELF_GRANULE;
        struct shelf_head *h = (struct shelf_head *)at;
        flip(h, (size_t)h->granules * SHELF_GRANULE);
    } else if (area == PLACES) {
        flip(any_place(s), sizeof(uint64_t));
    } else if (area == RECORDS) {
        flip(&s->records[below(s->described_records)], sizeof s->records[0]);
    } else if (area == BLOCKS) {
        flip(&s->blocks[below(s->block_count)], sizeof s->blocks[0]);
    } else if (area == REST) {
        flip((void *)s->blocks_at, (size_t)s->block_count * SHELF_BLOCK);
    } else {
        flip_name();
    }
}

// ---- what becomes of it -------------------------------------------------------------------------

struct trial {
    enum area area;
    bool has_flip;
};

// The generation that was sealed, whatever the owner believes.
static uint32_t true_generations[PAGES];

static void use_all(void *context) {
    const struct trial *t = context;
    memcpy(true_generations, generations, sizeof generations);
    if (t->has_flip) {
        flip_in(t->area);
    }
    for (unsigned i = 0; i < PAGES; i++) {
        unsigned char page[FIRN_PAGE], want[FIRN_PAGE];
        cold_store_get(address_of(i), generations[i], blobs[i], page);
        generations[i] = true_generations[i];
        fill(i, want);
        if (memcmp(page, want, FIRN_PAGE) != 0) {
            _exit(WRONG_BYTE);
        }
    }
    for (unsigned i = 0; i < PAGES; i++) {
        cold_store_drop(blobs[i]);
        if (i % 8 == 0) {
            (void)cold_store_tidy();
        }
    }
    while (cold_store_tidy()) {
    }
}

static bool is_caught(const struct child *c) {
    static const char seal[] = "firn: cold-seal: ", store[] = "firn: cold-store: ";
    return child_died_of(c, SIGABRT) && (strncmp(c->said, seal, sizeof seal - 1) == 0 ||
                                         strncmp(c->said, store, sizeof store - 1) == 0);
}

static const char *const names[] = {"blobs", "places", "records", "blocks", "names", "the rest"};

static void try_one(enum area area, unsigned number) {
    struct trial t = {area, true};
    struct child c;
    (void)below(3 + number % 5); // the child goes on from here
    child_run(&c, use_all, &t);
    // What nothing depends on may change; what comes back is right.
    if (!is_caught(&c) && (area != REST || !child_exited(&c, 0))) {
        print_error("trial %u, %s: status %#x: %s\n", number, names[area], (unsigned)c.status,
                    c.said);
        fail();
    }
}

static void attack(void *context) {
    unsigned trials = test_is_thorough() ? TRIALS_THOROUGH : TRIALS;
    unsigned tried[AREAS] = {0};
    struct child c;
    caps_probe(CAP_ALL);
    cold_store_choose(*(unsigned *)context, 0);
    assert_true(cold_store_start());
    build();
    struct trial t = {BLOBS, false}; // the harness: what nobody changed is right
    child_run(&c, use_all, &t);
    assert_string_equal(c.said, "");
    assert_true(child_exited(&c, 0));
    for (unsigned i = 0; i < trials; i++) {
        // Half of them in the blobs, which are most of it.
        enum area area = below(2) == 0 ? BLOBS : (enum area)below(AREAS);
        try_one(area, i);
        tried[area]++;
    }
    for (unsigned i = 0; i < trials / 10; i++) {
        try_one(REST, i);
    }
    for (unsigned area = 0; area < AREAS; area++) {
        printf("# seal %s, %s: %u changed, all caught\n",
               *(unsigned *)context == SEAL_MAC ? "mac" : "aead", names[area], tried[area]);
        assert_true(tried[area] >= trials / 50);
    }
    fflush(stdout);
}

static void every_flipped_bit_is_caught(void **state) {
    (void)state;
    for (unsigned seal = SEAL_MAC; seal <= SEAL_AEAD; seal++) {
        struct child c;
        child_run(&c, attack, &seal);
        assert_string_equal(c.said, "");
        assert_true(child_exited(&c, 0));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_flipped_bit_is_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
