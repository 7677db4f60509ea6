// Upkeep: what is empty long enough goes back, without a thread of its own and not too often.
#include "src/heap/upkeep.h"

#include "src/cold/cold.h"
#include "src/heap/heap.h"
#include "src/os/thread.h"
#include "src/slab/central.h"
#include "src/span/large.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { SIZE = 512, LARGE_SIZE = 200000 };

static const uintptr_t site = 0x40c000;

static void sleep_ms(unsigned ms) {
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (nanosleep(&t, &t) != 0) {
    }
}

// A span without a live slot, just emptied.
static struct span *empty_span(size_t size) {
    void *p = heap_alloc(size, site);
    NEED(p != NULL);
    struct span *s = small_span(p);
    heap_free(p, site);
    cache_flush_all(firn_cache);
    NEED(span_state(s) == SPAN_DIRTY);
    return s;
}

static void purge_in_time(void *context) {
    struct large_stats stats;
    (void)context;
    upkeep_set_delay(300);
    upkeep_run();
    struct span *s = empty_span(SIZE);
    void *p = heap_alloc(LARGE_SIZE, site);
    NEED(p != NULL);
    memset(p, 1, LARGE_SIZE);
    heap_free(p, site);
    sleep_ms(110); // a period later, but too early for these
    upkeep_run();
    NEED(span_state(s) == SPAN_DIRTY);
    large_stats(&stats);
    NEED(FIRN_LARGE_CLOSE || stats.dirty_bytes > 0);
    sleep_ms(320);
    upkeep_run();
    NEED(span_state(s) == SPAN_CLEAN);
    large_stats(&stats);
    NEED(stats.dirty_bytes == 0);
    small_check();
}

static void what_is_empty_long_enough_is_purged(void **state) {
    (void)state;
    assert_true(small_run(purge_in_time, NULL));
}

static void purge_once(void *context) {
    (void)context;
    upkeep_set_delay(1000);
    sleep_ms(110);
    struct span *first = empty_span(SIZE);
    first->emptied_ms -= 2000;
    upkeep_run();
    NEED(span_state(first) == SPAN_CLEAN);
    struct span *second = empty_span(2 * SIZE);
    second->emptied_ms -= 2000;
    upkeep_run();
    NEED(span_state(second) == SPAN_DIRTY);
    sleep_ms(110);
    upkeep_run();
    NEED(span_state(second) == SPAN_CLEAN);
}

static void it_runs_once_in_a_period(void **state) {
    (void)state;
    assert_true(small_run(purge_once, NULL));
}

static void tick_away(void *context) {
    (void)context;
    upkeep_set_delay(1000);
    struct span *s = empty_span(SIZE);
    s->emptied_ms -= 2000;
    sleep_ms(110);
    unsigned ticks = 0;
    while (span_state(s) == SPAN_DIRTY) {
        upkeep_tick(firn_cache, site);
        NEED(++ticks <= UPKEEP_TICKS);
    }
    NEED(firn_cache->ticks % UPKEEP_TICKS == 0);
}

static void ticks_run_it(void **state) {
    (void)state;
    assert_true(small_run(tick_away, NULL));
}

// No call but malloc and free of other sizes: the slow paths tick.
static void allocate_away(void *context) {
    (void)context;
    upkeep_set_delay(1000);
    struct span *s = empty_span(SIZE);
    s->emptied_ms -= 2000;
    sleep_ms(110);
    for (unsigned i = 0; i < 200000 && span_state(s) == SPAN_DIRTY; i++) {
        NEED(heap_alloc(32, site) != NULL);
    }
    NEED(span_state(s) == SPAN_CLEAN);
}

static void allocation_alone_makes_time_pass(void **state) {
    (void)state;
    assert_true(small_run(allocate_away, NULL));
}

static void free_large_away(void *context) {
    (void)context;
    upkeep_set_delay(1000);
    struct span *s = empty_span(SIZE);
    s->emptied_ms -= 2000;
    sleep_ms(110);
    for (unsigned i = 0; i < UPKEEP_TICKS; i++) {
        void *p = heap_alloc(LARGE_SIZE, site);
        NEED(p != NULL);
        heap_free(p, site);
    }
    NEED(span_state(s) == SPAN_CLEAN);
}

static void so_do_large_blocks(void **state) {
    (void)state;
    assert_true(small_run(free_large_away, NULL));
}

// A program that frees each block before the next: ticks of the two take turns, whichever came first. That the
// start of a thread was tried is seen by its failure.
static void take_turns(void *context) {
    struct cold_stats stats;
    thread_forbid();
    cold_choose(true, 100000, 0, 0);
    firn_has_cold_upkeep = true;
    firn_cache->ticks = *(const uint32_t *)context;
    cold_stats(&stats);
    NEED(stats.reason == NULL);
    for (unsigned i = 0; i < UPKEEP_TICKS; i++) {
        upkeep_tick_alloc(firn_cache);
        upkeep_tick(firn_cache, site);
    }
    cold_stats(&stats);
    NEED(stats.reason != NULL);
}

static void what_only_an_allocation_may_start_is_started(void **state) {
    (void)state;
    for (uint32_t first = 0; first < 2; first++) {
        assert_true(small_run(take_turns, &first));
    }
}

static void no_delay(void *context) {
    (void)context;
    upkeep_set_delay(0);
    struct span *s = empty_span(SIZE);
    upkeep_run();
    NEED(span_state(s) == SPAN_CLEAN);
}

static void without_delay_it_purges_at_once(void **state) {
    (void)state;
    assert_true(small_run(no_delay, NULL));
}

static void purge_everything(void *context) {
    struct large_stats stats;
    (void)context;
    upkeep_set_delay(100000);
    struct span *s[] = {empty_span(16), empty_span(SIZE), empty_span(32760)};
    heap_free(heap_alloc(LARGE_SIZE, site), site);
    NEED(upkeep_purge_all());
    for (unsigned i = 0; i < 3; i++) {
        NEED(span_state(s[i]) == SPAN_CLEAN);
    }
    large_stats(&stats);
    NEED(stats.dirty_bytes == 0);
    NEED(!upkeep_purge_all());
    small_check();
}

static void all_can_be_purged_at_any_time(void **state) {
    (void)state;
    assert_true(small_run(purge_everything, NULL));
}

static int start(void **state) {
    return small_start(state) == 0 && small_attach() != NULL ? 0 : -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_empty_long_enough_is_purged),
        cmocka_unit_test(it_runs_once_in_a_period),
        cmocka_unit_test(ticks_run_it),
        cmocka_unit_test(allocation_alone_makes_time_pass),
        cmocka_unit_test(so_do_large_blocks),
        cmocka_unit_test(what_only_an_allocation_may_start_is_started),
        cmocka_unit_test(without_delay_it_purges_at_once),
        cmocka_unit_test(all_can_be_purged_at_any_time),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
