// The root object and the map of the heap: where things lie relative to each other, and that the
// root cannot be written after start.
#include "src/heap/life.h"
#include "src/meta/root.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int start(void **state) {
    (void)state;
    life_start();
    return life_has_started() ? 0 : -1;
}

static bool is_apart(const struct reservation *a, const struct reservation *b) {
    return a->base + a->bytes <= b->base || b->base + b->bytes <= a->base;
}

// P-META
static void descriptors_lie_apart(void **state) {
    (void)state;
    const struct root *r = &FIRN_ROOT;
    assert_true(is_apart(&r->data, &r->meta));
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        const struct class_info *c = &r->classes[i];
        uintptr_t last = c->spans + ((uintptr_t)(c->max_spans - 1) << c->step_shift);
        assert_in_range(c->spans, r->meta.base, r->meta.base + r->meta.bytes - 1);
        assert_in_range(last, c->spans, r->meta.base + r->meta.bytes - (1 << c->step_shift));
        assert_int_equal(c->spans % FIRN_CACHE_LINE, 0);
    }
}

// Where classes share pages each has places of its own, and a span's share is small.
static void descriptors_of_a_group_alternate(void **state) {
    (void)state;
    enum { BYTES = FIRN_PARTITIONS << ROOT_SPAN_SHIFT };
    const struct class_info *c = FIRN_ROOT.classes;
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        size_t step = (size_t)1 << c[i].step_shift;
        assert_true(step == BYTES || step << ROOT_SPANS_SHARE <= (size_t)c[i].span_mask + 1);
        for (unsigned k = 0; k < i; k++) {
            if (c[k].group != c[i].group) {
                // All of one group's lie before all of another's.
                assert_true(c[k].group < c[i].group);
                assert_true(c[k].spans + ((uintptr_t)c[k].max_spans << c[k].step_shift) <=
                            c[i].spans);
            } else {
                assert_int_equal(c[k].step_shift, c[i].step_shift);
                assert_int_equal(c[i].spans - c[k].spans, (i - k) * BYTES);
                assert_true((i - k + 1) * BYTES <= step);
            }
        }
    }
    // Otherwise the smallest programs would touch a page for each class.
    assert_true(FIRN_PARTITION_BITS > 1 || c[SIZE_CLASSES - 1].group <= SIZE_CLASSES / 2);
}

static void cells_fill_the_lower_half(void **state) {
    (void)state;
    const struct root *r = &FIRN_ROOT;
    assert_int_equal(r->small_base, r->data.base);
    assert_in_range(r->small_bytes, 1, r->data.bytes / 2);
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        for (unsigned p = 0; p < FIRN_PARTITIONS; p++) {
            unsigned cell = root_cell(i, p);
            uintptr_t base = root_cell_base(cell);
            assert_int_equal(root_cell_class(cell), i);
            assert_int_equal(root_cell_partition(cell), p);
            assert_in_range(base - r->small_base, 0, r->small_bytes - 1);
            assert_int_equal((base - r->small_base) >> r->cell_shift, cell);
        }
    }
}

static void geometry_is_exact(void **state) {
    (void)state;
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        const struct class_info *c = &FIRN_ROOT.classes[i];
        assert_int_equal(c->bytes % 16, 0);
        assert_int_equal(c->span_mask, (1u << c->span_shift) - 1);
        assert_in_range(c->slots, 1, 256);
        assert_true(c->slots * (size_t)c->bytes <= (size_t)c->span_mask + 1);
        // Every byte of a span belongs to the slot that division says.
        for (uint64_t offset = 0; offset <= c->span_mask; offset++) {
            assert_true((offset * c->reciprocal) >> 32 == offset / c->bytes);
        }
    }
}

// P-ROOT
static void root_is_read_only(void **state) {
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); // cmocka's handler would go on with the test in the child
        *(volatile uintptr_t *)&FIRN_ROOT.small_base = 0;
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptors_lie_apart),
        cmocka_unit_test(descriptors_of_a_group_alternate),
        cmocka_unit_test(cells_fill_the_lower_half),
        cmocka_unit_test(geometry_is_exact),
        cmocka_unit_test(root_is_read_only),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
