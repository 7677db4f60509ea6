// What a report tells about blocks: positions, states, neighbours, of small and large ones.
#include "src/heap/report.h"

#include "src/heap/heap.h"
#include "src/span/large.h"
#include "tests/support/small_case.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { SITE = 0x1000, SIZE = 200 };

static char said[2048];

static const char *describe(enum fatal_id id, uintptr_t address) {
    const struct fatal_info info = {.api = "free", .address = address, .found = ""};
    size_t n = report_describe(id, &info, said, sizeof(said));
    assert_int_equal(n, strlen(said));
    return said;
}

static const char *describe_block(const void *p) {
    return describe(FATAL_DOUBLE_FREE, (uintptr_t)p);
}

static uintptr_t slot_bytes(const void *p) {
    return span_class(small_span(p))->bytes;
}

static void small_block_is_placed(void **state) {
    (void)state;
    char want[256];
    char *p = heap_alloc(SIZE, SITE);
    const struct span *s = small_span(p);
    snprintf(want, sizeof(want),
             "firn:   block: slot %u of %u of %u bytes, in the span at 0x%lx, partition %u\n"
             "firn:   state: live; span of this thread with %u live\n",
             small_slot(p), span_class(s)->slots, span_class(s)->bytes, (unsigned long)span_base(s),
             root_cell_partition(s->cell), span_count_live(s));
    assert_memory_equal(describe_block(p), want, strlen(want));
    snprintf(want, sizeof(want), "firn:   block: 17 bytes into the slot at 0x%lx, slot %u of ",
             (unsigned long)(uintptr_t)p, small_slot(p));
    assert_memory_equal(describe_block(p + 17), want, strlen(want));
    heap_free(p, SITE);
    assert_null(strstr(describe_block(p), "state: live"));
    assert_non_null(strstr(describe_block(p), "firn:   state: free"));
}

static void neighbours_have_states(void **state) {
    (void)state;
    char *block[600];
    char want[128];
    unsigned seen = 0;
    for (unsigned i = 0; i < 600; i++) {
        block[i] = heap_alloc(SIZE, SITE);
    }
    for (unsigned i = 0; i < 600; i++) {
        for (unsigned j = 0; j < 600; j++) {
            if (block[j] == block[i] + slot_bytes(block[i]) &&
                small_span(block[i]) == small_span(block[j])) {
                snprintf(want, sizeof(want), "firn:   after: 0x%lx, live\n",
                         (unsigned long)(uintptr_t)block[j]);
                assert_non_null(strstr(describe_block(block[i]), want));
                snprintf(want, sizeof(want), "firn:   before: 0x%lx, live\n",
                         (unsigned long)(uintptr_t)block[i]);
                assert_non_null(strstr(describe_block(block[j]), want));
                seen++;
            }
        }
    }
    assert_true(seen > 100);
    for (unsigned i = 0; i < 600; i++) {
        heap_free(block[i], SITE);
    }
}

static void *free_it(void *p) {
    heap_free(p, SITE);
    return NULL;
}

static void block_freed_by_another_thread(void **state) {
    (void)state;
    pthread_t thread;
    char *p = heap_alloc(SIZE, SITE);
    assert_int_equal(pthread_create(&thread, NULL, free_it, p), 0);
    pthread_join(thread, NULL);
    assert_non_null(strstr(describe_block(p),
                           "firn:   state: freed by another thread, not yet taken back; span of "));
    assert_non_null(strstr(describe(FATAL_CORRUPT_LINK, (uintptr_t)p),
                           "firn:   state: freed by another thread, being taken back; span of "));
}

static void unused_places(void **state) {
    (void)state;
    char *p = heap_alloc(9000, SITE);
    uintptr_t cell = (uintptr_t)1 << FIRN_ROOT.cell_shift;
    assert_string_equal(describe(FATAL_NEVER_ALLOCATED, (uintptr_t)p + cell / 2),
                        "firn:   block: none: this part of the heap was never used\n");
    // Some slot of a span that was just set up was never handed out.
    bool seen = false;
    for (unsigned i = 0; i < span_class(small_span(p))->slots; i++) {
        uintptr_t at = span_base(small_span(p)) + i * slot_bytes(p);
        seen |= strstr(describe_block((void *)at), "state: never handed out") != NULL;
    }
    assert_true(seen);
    heap_free(p, SITE);
}

static void foreign_addresses_say_nothing(void **state) {
    (void)state;
    assert_string_equal(describe(FATAL_FOREIGN_POINTER, (uintptr_t)said), "");
    assert_string_equal(describe(FATAL_FOREIGN_POINTER, 0), "");
    assert_string_equal(describe(FATAL_FOREIGN_POINTER, UINTPTR_MAX), "");
}

static void large_block_is_placed(void **state) {
    (void)state;
    char want[256];
    char *p = heap_alloc(100000, SITE);
    snprintf(want, sizeof(want),
             "firn:   block: the live block at 0x%lx, 102400 bytes of whole pages\n"
             "firn:   requested: 100000 bytes\n",
             (unsigned long)(uintptr_t)p);
    assert_memory_equal(describe_block(p), want, strlen(want));
    snprintf(want, sizeof(want), "firn:   block: 4097 bytes into the live block at 0x%lx, ",
             (unsigned long)(uintptr_t)p);
    assert_memory_equal(describe_block(p + 4097), want, strlen(want));
    // The guard pages before it belong to it.
    snprintf(want, sizeof(want), "firn:   block: 1 bytes before the live block at 0x%lx, ",
             (unsigned long)(uintptr_t)p);
    assert_memory_equal(describe_block(p - 1), want, strlen(want));
    heap_free(p, SITE);
    assert_null(strstr(describe_block(p), "live block at"));
}

static void large_neighbours_have_states(void **state) {
    (void)state;
    char *block[40];
    unsigned seen = 0;
    for (unsigned i = 0; i < 40; i++) {
        block[i] = heap_alloc(50000 + i * 5000, SITE);
    }
    for (unsigned i = 0; i < 40; i++) {
        const char *text = describe_block(block[i]);
        for (unsigned j = 0; j < 40; j++) {
            char want[64];
            snprintf(want, sizeof(want), "firn:   after: 0x%lx, live, ",
                     (unsigned long)(uintptr_t)block[j]);
            seen += strstr(text, want) != NULL;
        }
    }
    assert_true(seen > 10);
    for (unsigned i = 0; i < 40; i++) {
        heap_free(block[i], SITE);
    }
}

static void little_room_is_enough(void **state) {
    (void)state;
    char text[64];
    void *p = heap_alloc(SIZE, SITE);
    const struct fatal_info info = {.api = "free", .address = (uintptr_t)p, .found = ""};
    for (size_t room = 1; room <= sizeof(text); room++) {
        memset(text, 'x', sizeof(text));
        assert_int_equal(report_describe(FATAL_DOUBLE_FREE, &info, text, room), room - 1);
        assert_int_equal(text[room - 1], '\0');
        assert_true(room == sizeof(text) || text[room] == 'x');
    }
    heap_free(p, SITE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_block_is_placed),         cmocka_unit_test(neighbours_have_states),
        cmocka_unit_test(block_freed_by_another_thread), cmocka_unit_test(unused_places),
        cmocka_unit_test(foreign_addresses_say_nothing), cmocka_unit_test(large_block_is_placed),
        cmocka_unit_test(large_neighbours_have_states),  cmocka_unit_test(little_room_is_enough),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
