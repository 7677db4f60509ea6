// Binned runs: what is found fits, what fits is found, and the choice among equals is random.
#include "src/span/bins.h"

#include "src/base/align.h"
#include "src/os/caps.h"
#include "src/span/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

enum { RUNS = 400 };

static struct bins bins;
static struct run runs[RUNS];
static struct random_stream stream;

static int start(void **state) {
    (void)state;
    caps_probe(CAP_ALL);
    memset(&bins, 0, sizeof(bins));
    memset(runs, 0, sizeof(runs));
    return 0;
}

static void make(struct run *run, uintptr_t body, size_t pages) {
    run->body = body;
    run->end = body + pages * FIRN_PAGE;
    bins_insert(&bins, run);
}

static bool fits(const struct run *run, size_t bytes, size_t align, size_t most) {
    return run_body_bytes(run) <= most && align_up(run->body, align) + bytes <= run->end;
}

static void finds_what_fits(void **state) {
    (void)state;
    uint64_t seed = 7;
    size_t total = 0;
    for (unsigned i = 0; i < RUNS; i++) {
        // Few enough a bin for none to be searched in part only.
        make(&runs[i], (uintptr_t)(i + 1) << 32 | (uintptr_t)(i % 8) << 12, 1 + i * i);
        total += run_body_bytes(&runs[i]);
    }
    assert_int_equal(bins.runs, RUNS);
    assert_int_equal(bins.bytes, total);
    for (unsigned i = 0; i < 20000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t bytes = (1 + (seed >> 33) % (RUNS * RUNS)) * FIRN_PAGE;
        size_t align = (size_t)FIRN_PAGE << (seed >> 20) % 4;
        size_t most = (seed >> 25) % 2 == 0 ? SIZE_MAX : bytes + bytes / 4;
        const struct run *found = bins_fit(&bins, bytes, align, most, &stream);
        bool any = false;
        size_t least = SIZE_MAX;
        for (unsigned k = 0; k < RUNS; k++) {
            if (fits(&runs[k], bytes, align, most)) {
                any = true;
                least = run_body_bytes(&runs[k]) < least ? run_body_bytes(&runs[k]) : least;
            }
        }
        assert_int_equal(found != NULL, any);
        if (any) {
            assert_true(fits(found, bytes, align, most));
            // One bin's width from the best.
            assert_true(run_body_bytes(found) <= least + least / 8);
        }
    }
    for (unsigned i = 0; i < RUNS; i++) {
        bins_remove(&bins, &runs[(i * 7) % RUNS]);
    }
    assert_int_equal(bins.runs, 0);
    assert_int_equal(bins.bytes, 0);
    assert_null(bins_fit(&bins, FIRN_PAGE, FIRN_PAGE, SIZE_MAX, &stream));
}

static void chooses_at_random(void **state) {
    (void)state;
    unsigned chosen[8] = {0};
    for (unsigned i = 0; i < 8; i++) {
        make(&runs[i], (uintptr_t)(i + 1) << 32, 100);
    }
    for (unsigned i = 0; i < 4000; i++) {
        chosen[bins_fit(&bins, (size_t)100 * FIRN_PAGE, FIRN_PAGE, SIZE_MAX, &stream) - runs]++;
    }
    // 500 each expected; 350 is seven deviations away.
    for (unsigned i = 0; i < 8; i++) {
        assert_in_range(chosen[i], 350, 650);
    }
}

static void the_largest_sizes(void **state) {
    (void)state;
    make(&runs[0], (uintptr_t)1 << 46, (size_t)1 << 34);
    make(&runs[1], (uintptr_t)1 << 45, ((size_t)1 << 33) + 1);
    size_t bytes = ((size_t)1 << 34) * FIRN_PAGE;
    assert_ptr_equal(bins_fit(&bins, bytes, FIRN_PAGE, SIZE_MAX, &stream), &runs[0]);
    assert_null(bins_fit(&bins, bytes + FIRN_PAGE, FIRN_PAGE, SIZE_MAX, &stream));
    assert_null(bins_fit(&bins, SIZE_MAX - FIRN_PAGE + 1, FIRN_PAGE, SIZE_MAX, &stream));
    assert_null(bins_fit(&bins, bytes, (size_t)1 << 62, SIZE_MAX, &stream));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(finds_what_fits, start),
        cmocka_unit_test_setup(chooses_at_random, start),
        cmocka_unit_test_setup(the_largest_sizes, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
