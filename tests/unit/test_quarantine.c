// firn-test: levels=2,3
// The queue of freed slots: its order and its bound, who joins it, and what ends the wait. P-QUARANTINE.
#include "src/cache/quarantine.h"

#include "src/heap/heap.h"
#include "src/heap/report.h"
#include "src/slab/owner.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const uintptr_t site = 0x402000;

static int start(void **state) {
    return small_start(state) == 0 && small_attach() != NULL ? 0 : -1;
}

static void *get(size_t size) {
    void *p = heap_alloc(size, site);
    assert_non_null(p);
    return p;
}

static size_t slot_bytes(const void *p) {
    return span_class(small_span(p))->bytes;
}

static bool is_held(const void *p) {
    return quarantine_has(firn_cache, (uintptr_t)p);
}

// Bytes freed after the block until it is handed out again; one block at a time is live.
static size_t wait_for(const void *gone, size_t size, size_t most) {
    size_t freed = 0;
    while (freed < most) {
        void *p = get(size);
        if (p == gone) {
            heap_free(p, site);
            return freed;
        }
        freed += slot_bytes(p);
        heap_free(p, site);
    }
    return most;
}

static void a_freed_slot_waits_for_its_turn(void **state) {
    (void)state;
    static const size_t sizes[] = {8, 56, 200, 1000, 4000, 20000};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned returned = 0;
        for (unsigned round = 0; round < 20; round++) {
            void *gone = get(sizes[i]);
            heap_free(gone, site);
            bool is_small = slot_bytes(gone) <= QUARANTINE_KEPT_BYTES;
            assert_int_equal(is_held(gone), is_small);
            if (!is_small) {
                assert_ptr_not_equal(get(sizes[i]), gone);
                returned++;
                continue;
            }
            size_t waited = wait_for(gone, sizes[i], (size_t)20 * FIRN_QUARANTINE);
            assert_true(waited >= QUARANTINE_KEPT_BYTES);
            returned += waited < (size_t)20 * FIRN_QUARANTINE;
        }
        assert_true(returned >= 10);
        small_check();
    }
}

static void all_sizes_together_are_bounded(void **state) {
    (void)state;
    enum { BLOCKS = 400, ROUNDS = 40000 };
    static void *have[BLOCKS];
    uint64_t seed = 7;
    size_t most = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned at = (unsigned)small_draw(&seed, BLOCKS);
        heap_free(have[at], site);
        size_t held = quarantine_bytes(firn_cache);
        assert_true(held <= QUARANTINE_MOST_BYTES);
        most = held > most ? held : most;
        // Sizes of all magnitudes.
        have[at] = get(small_draw(&seed, (uint64_t)16 << small_draw(&seed, 11)));
    }
    assert_true(most > FIRN_QUARANTINE / 2);
    small_check();
    struct heap_stats stats;
    heap_stats(&stats);
    assert_int_equal(stats.quarantined, quarantine_bytes(firn_cache));
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(have[i], site);
    }
    small_check();
}

static void trim_and_exit_end_the_wait(void **state) {
    (void)state;
    struct cache *mine = firn_cache;
    void *p = get(100);
    heap_free(p, site);
    assert_true(is_held(p));
    (void)heap_trim();
    assert_int_equal(quarantine_bytes(firn_cache), 0);
    assert_false(is_held(p));
    struct cache *other = small_attach();
    heap_free(get(100), site);
    assert_true(quarantine_bytes(other) > 0);
    cache_detach(other);
    assert_int_equal(quarantine_bytes(other), 0);
    small_act_as(mine);
    small_check();
}

static void other_threads_frees_join(void **state) {
    (void)state;
    enum { BLOCKS = 40 };
    struct cache *mine = firn_cache;
    void *have[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++) {
        have[i] = get(100);
    }
    struct cache *other = small_attach();
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(have[i], site);
        assert_false(quarantine_has(other, (uintptr_t)have[i]));
    }
    small_act_as(mine);
    // A free beside them notices that they wait, and takes them back.
    void *near;
    do {
        near = get(100);
    } while (small_span(near) != small_span(have[0]) && atomic_load(&mine->pending) != NULL);
    heap_free(near, site);
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_false(span_is_live(small_span(have[i]), small_slot(have[i])));
        assert_true(is_held(have[i]));
    }
    small_check();
    small_act_as(other);
    cache_detach(other);
    small_act_as(mine);
}

static void free_twice(void *p) {
    heap_free(p, site);
    for (unsigned i = 0; i < 100; i++) {
        (void)get(100);
    }
    heap_free(p, site);
}

static void a_second_free_is_still_found(void **state) {
    (void)state;
    assert_true(small_run_aborts(free_twice, get(100), "firn: double-free"));
}

static void use_in_child(void *p) {
    // So many may be freed, and it still waits.
    const size_t frees = QUARANTINE_KEPT_BYTES / slot_bytes(p);
    NEED(is_held(p));
    for (unsigned i = 0; i < 1000; i++) {
        void *q = get(100);
        NEED(q != p);
        if (i < frees) {
            heap_free(q, site);
        }
    }
    small_check();
}

static void a_child_inherits_it(void **state) {
    (void)state;
    void *p = get(100);
    heap_free(p, site);
    assert_true(small_run(use_in_child, p));
}

static void reports_tell(void **state) {
    (void)state;
    static char said[2048];
    void *p = get(100);
    heap_free(p, site);
    const struct fatal_info info = {.api = "free", .address = (uintptr_t)p, .found = ""};
    (void)report_describe(FATAL_DOUBLE_FREE, &info, said, sizeof said);
    assert_non_null(strstr(said, "firn:   state: free, in quarantine;"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_freed_slot_waits_for_its_turn),
        cmocka_unit_test(all_sizes_together_are_bounded),
        cmocka_unit_test(trim_and_exit_end_the_wait),
        cmocka_unit_test(other_threads_frees_join),
        cmocka_unit_test(a_second_free_is_still_found),
        cmocka_unit_test(a_child_inherits_it),
        cmocka_unit_test(reports_tell),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
