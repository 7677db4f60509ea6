// P-CANARY, P-WIPE, P-VERIFY: canaries, wiping and the check of both: what a slot looks like at each turn of its life.
#include "hardening/slot.h"

#include "hardening/wipe.h"
#include "src/cache/remote.h"
#include "src/heap/heap.h"
#include "src/slab/central.h"
#include "tests/support/remote_case.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const uintptr_t site = 0x40c000;
static const size_t sizes[] = {1, 8, 24, 64, 200, 256, 257, 1000, 4000, SMALL_FIT(32768)};
enum { SIZES = sizeof sizes / sizeof *sizes };

static int start(void **state) {
    return small_start(state) == 0 && small_attach() != NULL ? 0 : -1;
}

static size_t slot_bytes(const void *p) {
    return span_class(small_span(p))->bytes;
}

static bool has_canary(const void *p) {
    return !FIRN_CANARY || canary_change((uintptr_t)p, slot_bytes(p)) == 0;
}

static void canaries_have_no_zero_byte_and_differ(void **state) {
    (void)state;
    uint64_t last = 0;
    for (uintptr_t address = FIRN_ROOT.small_base, i = 0; i < 100000; i++, address += 16) {
        uint64_t word = canary_of(address);
        assert_true(word != last);
        for (unsigned b = 0; b < 8; b++) {
            assert_true((word >> 8 * b & 0xff) != 0);
        }
        last = word;
    }
}

static void a_block_has_its_canary_as_long_as_it_lives(void **state) {
    (void)state;
    for (unsigned i = 0; i < SIZES; i++) {
        for (unsigned k = 0; k < 300; k++) {
            unsigned char *p = heap_alloc(sizes[i], site);
            assert_non_null(p);
            assert_true(has_canary(p));
            memset(p, 0x5a, heap_usable(p, site));
            assert_true(has_canary(p));
            if (sizes[i] < SMALL_MOST) {
                p = heap_resize(p, sizes[i] + 1, site);
                memset(p, 0x5a, heap_usable(p, site));
                assert_true(has_canary(p));
            }
            heap_free(p, site);
        }
    }
    small_check();
}

static void what_is_freed_reads_as_zeros(void **state) {
    (void)state;
    if (!FIRN_WIPE) {
        skip();
    }
    for (unsigned i = 0; i < SIZES; i++) {
        for (unsigned k = 0; k < 100; k++) {
            unsigned char *p = heap_alloc(sizes[i], site);
            size_t usable = heap_usable(p, site);
            memset(p, 0x5a, usable);
            heap_free(p, site);
            assert_int_equal(wipe_first_changed(p, usable), usable);
        }
    }
}

// But for the tag in the first 8 bytes; nothing is left of that when the owner has it back.
static void also_by_another_thread(void **state) {
    (void)state;
    if (!FIRN_WIPE) {
        skip();
    }
    struct cache *mine = firn_cache;
    for (unsigned i = 0; i < SIZES; i++) {
        unsigned char *p = heap_alloc(sizes[i], site);
        size_t usable = slot_bytes(p) - FIRN_SLOT_EXTRA;
        memset(p, 0x5a, heap_usable(p, site));
        struct cache *other = small_attach();
        heap_free(p, site);
        size_t tag = FIRN_SAFE_LINK ? 8 : 0;
        assert_int_equal(wipe_first_changed(p + tag, usable - tag), usable - tag);
        cache_detach(other);
        small_act_as(mine);
        remote_drain(mine);
        assert_int_equal(wipe_first_changed(p, usable), usable);
    }
    small_check();
}

static void what_is_handed_out_reads_as_zeros(void **state) {
    (void)state;
    if (!FIRN_VERIFY) {
        skip();
    }
    for (unsigned i = 0; i < SIZES; i++) {
        for (unsigned k = 0; k < 600; k++) {
            unsigned char *p =
                k % 2 ? heap_alloc(sizes[i], site) : heap_alloc_zeroed(sizes[i], site);
            size_t usable = heap_usable(p, site);
            assert_int_equal(wipe_first_changed(p, usable), usable);
            memset(p, 0x5a, usable);
            heap_free(p, site);
            if (k % 100 == 0) {
                (void)heap_trim(); // purged slots have lost their canaries
            }
        }
    }
    small_check();
}

// A virgin slot is not touched before it is handed out, but for its canary when the slot after it is.
static void virgin_slots_are_left_alone(void **state) {
    (void)state;
    enum { FRESH_SITE = 0x40d000, SIZE = 3000 };
    unsigned char *p = heap_alloc(SIZE, FRESH_SITE);
    const struct span *s = small_span(p);
    size_t bytes = slot_bytes(p);
    for (unsigned slot = 0; slot < span_class(s)->slots; slot++) {
        uintptr_t other = span_base(s) + slot * bytes;
        if (FIRN_CANARY && other != (uintptr_t)p && other + bytes != (uintptr_t)p) {
            assert_int_equal(canary_load(other, bytes), 0);
        }
    }
}

// ---- neighbours -------------------------------------------------------------------------------

// Two live blocks side by side; the canary of `low` is between them.
struct pair {
    unsigned char *low, *high;
    bool is_underflow; // of `high`, else an overflow of `low`
    bool is_high_freed;
};

static void find_pair(struct pair *pair) {
    enum { MANY = 600, SIZE = 100 };
    static unsigned char *have[MANY];
    for (unsigned i = 0; i < MANY; i++) {
        have[i] = heap_alloc(SIZE, site);
        assert_non_null(have[i]);
        for (unsigned k = 0; k < i; k++) {
            if (small_span(have[k]) == small_span(have[i]) &&
                have[k] + slot_bytes(have[k]) == have[i]) {
                pair->low = have[k];
                pair->high = have[i];
                return;
            }
        }
    }
    fail();
}

static void damage_and_free(void *context) {
    const struct pair *pair = context;
    if (pair->is_underflow) {
        pair->high[-1] ^= 0x20;
    } else {
        pair->low[slot_bytes(pair->low) - CANARY_BYTES] ^= 0x20;
    }
    heap_free(pair->is_high_freed ? pair->high : pair->low, site);
}

// One byte too far in either direction is found by whichever of the two is freed first.
static void either_side_finds_either_mistake(void **state) {
    (void)state;
    struct pair pair;
    if (!FIRN_CANARY) {
        skip();
    }
    find_pair(&pair);
    for (unsigned i = 0; i < 4; i++) {
        pair.is_underflow = i % 2 != 0;
        pair.is_high_freed = i / 2 != 0;
        assert_true(small_run_aborts(damage_and_free, &pair,
                                     pair.is_high_freed ? "firn: underflow: free("
                                                        : "firn: overflow: free("));
    }
    heap_free(pair.low, site);
    heap_free(pair.high, site);
}

static void write_zero_before(void *block) {
    ((unsigned char *)block)[-1] = 0;
    heap_free(block, site);
}

// A zero, too, in whatever order slots are handed out, and whether the slot before ever is.
static void a_zero_in_front_of_any_block_is_found(void **state) {
    (void)state;
    enum { FRESH_SITE = 0x40e000, SIZE = 1000, MANY = 60 };
    unsigned char *have[MANY];
    unsigned tried = 0;
    if (!FIRN_CANARY) {
        skip();
    }
    for (unsigned i = 0; i < MANY; i++) {
        have[i] = heap_alloc(SIZE, FRESH_SITE);
        assert_non_null(have[i]);
    }
    for (unsigned i = 0; i < MANY; i++) {
        if ((uintptr_t)have[i] != span_base(small_span(have[i]))) {
            assert_true(small_run_aborts(write_zero_before, have[i], "firn: underflow: free("));
            tried++;
        }
    }
    assert_true(tried > MANY / 2);
}

// ---- what the other threads of a forked process were about to do -------------------------------

static void check_recovered(void) {
    struct remote_case *r = &remote_case;
    small_act_as(r->freer);
    for (unsigned i = 0; i < 20000; i++) {
        unsigned char *p = heap_alloc(REMOTE_SIZE, r->site);
        NEED(p != NULL && has_canary(p));
        NEED(!FIRN_VERIFY || wipe_first_changed(p, REMOTE_SIZE) == REMOTE_SIZE);
        memset(p, 0x77, REMOTE_SIZE);
        NEED(p != r->block[0]); // still live, for ever
    }
    heap_free(r->block[5], r->site);
    NEED(atomic_load(&r->span->owner) == r->freer);
    small_check();
}

// The owner was stopped after it marked a block free and before it wiped it; while it wiped another;
// and before a block that it had marked live got its canary.
static void half_done(void *context) {
    (void)context;
    struct remote_case *r = &remote_case;
    remote_set_up();
    for (unsigned i = 0; i < REMOTE_BLOCKS; i++) {
        memset(r->block[i], 0x66, REMOTE_SIZE);
    }
    span_clear_live(r->span, small_slot(r->block[1]));
    span_clear_live(r->span, small_slot(r->block[2]));
    memset(r->block[2], 0, REMOTE_SIZE / 2);
    if (FIRN_CANARY) {
        canary_store((uintptr_t)r->block[0], slot_bytes(r->block[0]), 0);
    }
    // The freer's thread forks.
    cache_before_fork();
    central_before_fork();
    pid_t child = fork();
    if (child == 0) {
        bool any_dead = cache_after_fork(true);
        central_after_fork(true, any_dead);
        NEED(any_dead);
        check_recovered();
        _exit(0);
    }
    int status = -1;
    NEED(waitpid(child, &status, 0) == child && status == 0);
}

static void a_child_recovers_slots_in_any_state(void **state) {
    (void)state;
    assert_true(small_run(half_done, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(virgin_slots_are_left_alone),
        cmocka_unit_test(canaries_have_no_zero_byte_and_differ),
        cmocka_unit_test(a_block_has_its_canary_as_long_as_it_lives),
        cmocka_unit_test(what_is_freed_reads_as_zeros),
        cmocka_unit_test(also_by_another_thread),
        cmocka_unit_test(what_is_handed_out_reads_as_zeros),
        cmocka_unit_test(a_zero_in_front_of_any_block_is_found),
        cmocka_unit_test(either_side_finds_either_mistake),
        cmocka_unit_test(a_child_recovers_slots_in_any_state),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
