// What a pointer is: each kind of pointer a program can hand in.
#include "src/heap/find.h"

#include "src/heap/life.h"
#include "src/span/region.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static const uintptr_t site = 0x405000;
static const size_t small_sizes[] = {1, 16, 48, 64, 100, 1024, 1272, 5000, 32760};
static const size_t large_sizes[] = {32769, 65536, 100000, 3 << 20};
enum { SMALL = sizeof small_sizes / sizeof *small_sizes };
enum { LARGE = sizeof large_sizes / sizeof *large_sizes };

static struct found find(const void *p) {
    struct found f;
    find_pointer(p, &f);
    return f;
}

static void *at(const void *p, ptrdiff_t offset) {
    return (void *)((uintptr_t)p + (uintptr_t)offset);
}

static void assert_bad(const void *p, enum fatal_id id) {
    struct found f = find(p);
    if (f.kind != FOUND_BAD || f.id != id || f.what == NULL) {
        fail_msg("%p: kind %d, %s", p, (int)f.kind, f.kind == FOUND_BAD ? fatal_slug(f.id) : "");
    }
}

static void live_slots_are_found(void **state) {
    (void)state;
    for (unsigned i = 0; i < SMALL; i++) {
        for (unsigned k = 0; k < 100; k++) {
            void *p = heap_alloc(small_sizes[i], site);
            struct found f = find(p);
            assert_int_equal(f.kind, FOUND_SLOT);
            assert_ptr_equal(f.span, small_span(p));
            assert_int_equal(f.slot, small_slot(p));
            assert_int_equal(f.class_bytes, size_class_bytes(small_class(small_sizes[i])));
        }
    }
}

static void live_runs_are_found(void **state) {
    (void)state;
    for (unsigned i = 0; i < LARGE; i++) {
        void *p = heap_alloc(large_sizes[i], site);
        struct found f = find(p);
        assert_int_equal(f.kind, FOUND_LARGE);
        assert_int_equal(f.block.base, (uintptr_t)p);
        assert_int_equal(f.block.size, large_sizes[i]);
        assert_true(f.block.capacity >= large_sizes[i]);
    }
}

static void interior_pointers(void **state) {
    (void)state;
    for (unsigned i = 0; i < SMALL; i++) {
        void *p = heap_alloc(small_sizes[i], site);
        size_t bytes = find(p).class_bytes;
        for (size_t offset = 16; offset < bytes; offset += 16) {
            assert_bad(at(p, (ptrdiff_t)offset), FATAL_INTERIOR_POINTER);
        }
        // Whether the slot is live does not matter: no slot begins there.
        heap_free(p, site);
        if (bytes > 16) {
            assert_bad(at(p, 16), FATAL_INTERIOR_POINTER);
        }
    }
    for (unsigned i = 0; i < LARGE; i++) {
        void *p = heap_alloc(large_sizes[i], site);
        assert_bad(at(p, 16), FATAL_INTERIOR_POINTER);
        assert_bad(at(p, FIRN_PAGE), FATAL_INTERIOR_POINTER);
        assert_bad(at(p, (ptrdiff_t)((large_sizes[i] - 1) & ~(size_t)15)), FATAL_INTERIOR_POINTER);
    }
}

static void misaligned_pointers(void **state) {
    (void)state;
    char *small = heap_alloc(48, site), *large = heap_alloc(100000, site);
    for (ptrdiff_t offset = 1; offset < 64; offset++) {
        if (offset % 16 != 0) {
            assert_bad(small + offset, FATAL_MISALIGNED_POINTER);
            assert_bad(large + offset, FATAL_MISALIGNED_POINTER);
        }
    }
    // Far from anything allocated, but ours.
    assert_bad(at((void *)FIRN_ROOT.small_base, 8), FATAL_MISALIGNED_POINTER);
}

static void freed_blocks(void **state) {
    (void)state;
    for (unsigned i = 0; i < SMALL; i++) {
        void *p = heap_alloc(small_sizes[i], site);
        heap_free(p, site);
        assert_bad(p, FATAL_DOUBLE_FREE);
    }
    for (unsigned i = 0; i < LARGE; i++) {
        void *p = heap_alloc(large_sizes[i], site);
        heap_free(p, site);
        assert_bad(p, FATAL_DOUBLE_FREE);
    }
}

// The answer does not depend on where the slot waits: mixer, vector, span, empty or purged span.
static void freed_slots_wherever_they_wait(void **state) {
    (void)state;
    enum { BLOCKS = 1000, OTHER_SITE = 0x406000 };
    static void *p[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++) {
        p[i] = heap_alloc(80, OTHER_SITE);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(p[i], OTHER_SITE);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_bad(p[i], FATAL_DOUBLE_FREE);
    }
    cache_flush_all(firn_cache);
    assert_int_equal(span_state(small_span(p[0])), SPAN_DIRTY);
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_bad(p[i], FATAL_DOUBLE_FREE);
    }
    assert_true(heap_trim());
    assert_int_equal(span_state(small_span(p[0])), SPAN_CLEAN);
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_bad(p[i], FATAL_DOUBLE_FREE);
    }
}

// Freed by another thread, not yet taken back.
static void slots_freed_remotely(void **state) {
    (void)state;
    struct cache *mine = firn_cache;
    void *p = heap_alloc(64, site);
    struct cache *other = small_attach();
    assert_non_null(other);
    assert_int_equal(find(p).kind, FOUND_SLOT);
    heap_free(p, site);
    assert_true(span_is_live(small_span(p), small_slot(p)));
    assert_bad(p, FATAL_DOUBLE_FREE);
    cache_detach(other);
    small_act_as(mine);
    assert_bad(p, FATAL_DOUBLE_FREE);
}

static void slots_never_handed_out(void **state) {
    (void)state;
    enum { SIZE = 208, FRESH_SITE = 0x407000 }; // no other case uses this size
    void *p = heap_alloc(SMALL_FIT(SIZE), FRESH_SITE);
    const struct span *s = small_span(p);
    for (unsigned where = 0; where < 3; where++) {
        for (unsigned slot = 0; slot < span_class(s)->slots; slot++) {
            void *q = (void *)(span_base(s) + slot * (uintptr_t)SIZE);
            if (q != p) {
                assert_bad(q, FATAL_NEVER_ALLOCATED);
            }
        }
        if (where == 0) { // in the vector, then in the span, then in the empty span
            cache_flush_all(firn_cache);
        } else if (where == 1) {
            heap_free(p, FRESH_SITE);
            cache_flush_all(firn_cache);
            assert_int_equal(span_state(s), SPAN_DIRTY);
        }
    }
}

static void places_where_no_block_ever_was(void **state) {
    (void)state;
    // A cell that was never used, and the part of one that was not.
    unsigned used = small_cell(64, site);
    (void)heap_alloc(64, site);
    assert_bad((void *)atomic_load(&firn_cell_limits[used]), FATAL_NEVER_ALLOCATED);
    assert_bad((void *)(root_cell_base(used + 1) - 4096), FATAL_NEVER_ALLOCATED);
    unsigned unused = small_cell(20480, site);
    assert_int_equal(atomic_load(&firn_cell_limits[unused]), 0);
    assert_bad((void *)root_cell_base(unused), FATAL_NEVER_ALLOCATED);
    // The rest of a span behind its last slot: 131,072 is not a multiple of 1,280.
    void *p = heap_alloc(SMALL_FIT(1280), site);
    const struct span *s = small_span(p);
    uintptr_t end = span_base(s) + span_class(s)->slots * (uintptr_t)1280;
    assert_true(end < span_base(s) + span_class(s)->span_mask);
    assert_bad((void *)end, FATAL_NEVER_ALLOCATED);
    // The large half.
    uintptr_t far = FIRN_ROOT.data.base + FIRN_ROOT.data.bytes - FIRN_PAGE;
    assert_bad((void *)far, FATAL_NEVER_ALLOCATED);
}

static void pointers_that_are_not_ours(void **state) {
    (void)state;
    static char global[64];
    char local[64];
    void *mapped = mmap(NULL, FIRN_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(mapped != MAP_FAILED);
    assert_bad(global, FATAL_FOREIGN_POINTER);
    assert_bad(local, FATAL_FOREIGN_POINTER);
    assert_bad(mapped, FATAL_FOREIGN_POINTER);
    assert_bad((void *)(uintptr_t)find_pointer, FATAL_FOREIGN_POINTER);
    assert_bad(at(NULL, 16), FATAL_FOREIGN_POINTER);
    assert_bad(at(NULL, -16), FATAL_FOREIGN_POINTER);
    assert_bad((void *)(FIRN_ROOT.data.base - 16), FATAL_FOREIGN_POINTER);
    assert_bad((void *)(FIRN_ROOT.data.base + FIRN_ROOT.data.bytes), FATAL_FOREIGN_POINTER);
    assert_bad((void *)FIRN_ROOT.meta.base, FATAL_FOREIGN_POINTER);
    // Foreign first, misaligned second.
    assert_bad(at(mapped, 1), FATAL_FOREIGN_POINTER);
    munmap(mapped, FIRN_PAGE);
}

static void report(void *context) {
    void *p = context;
    struct found f;
    find_pointer(p, &f);
    find_report(p, &f, &(struct heap_call){"some call", 0, 77, 0});
}

static void a_report_names_call_address_class_and_size(void **state) {
    (void)state;
    char line[200];
    void *p = heap_alloc(SMALL_FIT(64), site);
    snprintf(line, sizeof line,
             "firn: interior-pointer: some call(%p): class=64 size=77 found: pointer into the "
             "middle of a slot; expected: the start of a block; caller=",
             at(p, 16));
    assert_true(small_run_aborts(report, at(p, 16), line));
    char local[32];
    snprintf(line, sizeof line,
             "firn: foreign-pointer: some call(%p): class=none size=77 found: ", (void *)local);
    assert_true(small_run_aborts(report, local, line));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_slots_are_found),
        cmocka_unit_test(live_runs_are_found),
        cmocka_unit_test(interior_pointers),
        cmocka_unit_test(misaligned_pointers),
        cmocka_unit_test(freed_blocks),
        cmocka_unit_test(freed_slots_wherever_they_wait),
        cmocka_unit_test(slots_freed_remotely),
        cmocka_unit_test(slots_never_handed_out),
        cmocka_unit_test(places_where_no_block_ever_was),
        cmocka_unit_test(pointers_that_are_not_ours),
        cmocka_unit_test(a_report_names_call_address_class_and_size),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
