// P-SAMPLE. Guarded samples: where they lie, what is around them, how often they come, and that the
// heap treats them as any other block.
//
// firn-test: timeout=240 sanitize=address
#include "hardening/sample.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/heap/extent.h"
#include "src/heap/fast.h"
#include "src/heap/find.h"
#include "src/heap/life.h"
#include "src/os/caps.h"
#include "tests/support/memory.h"
#include "tests/support/small_case.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static const uintptr_t site = 0x40a000;
static struct random_stream stream;

static void start(void) {
    life_start();
    NEED(life_has_started());
    sample_watch();
}

static void *sample(size_t size, size_t align) {
    struct sample_call call = {site, (uintptr_t)__builtin_frame_address(0), 1};
    return sample_alloc(size, align, &stream, &call);
}

static enum large_kind release(const void *p) {
    struct sample_call call = {site, (uintptr_t)__builtin_frame_address(0), 1};
    return sample_free((uintptr_t)p, "free", &call);
}

static bool can_sample(void) {
    return !small_is_rationed();
}

// ---- one sample -------------------------------------------------------------------------------

static void check_place(const unsigned char *p, size_t size, size_t align, unsigned *low) {
    uintptr_t at = (uintptr_t)p;
    NEED(at % (align < 16 ? 16 : align) == 0);
    NEED(memory_is_zero(p, size));
    uintptr_t first = align_down(at, FIRN_PAGE);
    uintptr_t last = align_down(at + size - 1, FIRN_PAGE);
    NEED(!memory_can_read(first - 1) && !memory_can_read(last + FIRN_PAGE));
    NEED(!memory_can_read(first - FIRN_PAGE) && !memory_can_read(last + FIRN_PAGE + 4095));
    // Against one of them.
    bool is_low = at == first;
    bool is_high = last + FIRN_PAGE - (at + size) < (align < 16 ? 16 : align);
    NEED(is_low || is_high);
    *low += is_low && !is_high;
}

static void place_all(void *context) {
    (void)context;
    static const size_t sizes[] = {1, 15, 16, 17, 40, 1000, 4000, 4096, 4097, 10000, 32768};
    static const size_t aligns[] = {1, 16, 64, 1024, 4096};
    unsigned low = 0, total = 0;
    firn_sample_share = 0;
    start();
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            for (unsigned a = 0; a < sizeof aligns / sizeof *aligns; a++) {
                unsigned char *p = sample(sizes[i], aligns[a]);
                NEED(p != NULL && sample_contains((uintptr_t)p));
                check_place(p, sizes[i], aligns[a], &low);
                memset(p, 0xff, sizes[i]);
                NEED(release(p) == LARGE_LIVE);
                NEED(!memory_can_read((uintptr_t)p) &&
                     !memory_can_read((uintptr_t)p + sizes[i] - 1));
                total++;
            }
        }
    }
    // Where size and alignment leave a choice it is made both ways: 8 of 11 sizes, most alignments.
    NEED(low > total / 8 && low < total * 3 / 4);
    NEED(sample(0, 16) != NULL);
    NEED(sample(32769, 16) == NULL && sample(10, 8192) == NULL);
}

static void a_sample_lies_against_a_guard(void **state) {
    (void)state;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(place_all, NULL));
}

static void place_without_markers(void *context) {
    setenv("FIRN_TEST_CAPS", "7e", 1); // all but CAP_GUARD_MARKER
    place_all(context);
    NEED(map_guard_vmas() <= 3 * SAMPLE_SLOTS * 2);
}

static void without_guard_markers(void **state) {
    (void)state;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(place_without_markers, NULL));
}

static void find_all(void *context) {
    (void)context;
    struct large_block block;
    start();
    char *p = sample(100, 16);
    uintptr_t at = (uintptr_t)p;
    NEED(sample_find(at, &block) == LARGE_LIVE);
    NEED(block.base == at && block.size == 100 && block.capacity == 100);
    NEED(sample_find(at + 16, &block) == LARGE_INTERIOR && block.base == at);
    NEED(sample_find(at + SAMPLE_STRIDE, &block) == LARGE_NEVER);
    NEED(sample_find(align_down(at, FIRN_PAGE) - 1, &block) == LARGE_NEVER);
    NEED(sample_extent(at) == 100 && sample_extent(at + 99) == 1 && sample_extent(at + 100) == 0);
    NEED(heap_extent(p + 1) == 99);
    NEED(release(p + 16) == LARGE_INTERIOR);
    NEED(release(p) == LARGE_LIVE && release(p) == LARGE_FREED);
    NEED(sample_find(at, &block) == LARGE_FREED && sample_extent(at) == 0);
    size_t live, bytes, reserved;
    sample_stats(&live, &bytes, &reserved);
    NEED(live == 0 && bytes == 0 && reserved > 0);
}

static void addresses_are_told_apart(void **state) {
    (void)state;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(find_all, NULL));
}

// ---- the pool ---------------------------------------------------------------------------------

static void use_up(void *context) {
    (void)context;
    void *p[SAMPLE_SLOTS];
    firn_sample_share = 0;
    start();
    for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
        p[i] = sample(50, 16);
        NEED(p[i] != NULL);
    }
    NEED(sample(50, 16) == NULL);
    // First freed, first used: what was freed stays inaccessible for as long as it can.
    for (unsigned i = 0; i < SAMPLE_SLOTS; i += 2) {
        NEED(release(p[i]) == LARGE_LIVE);
    }
    for (unsigned i = 0; i < SAMPLE_SLOTS; i += 2) {
        uintptr_t q = (uintptr_t)sample(50, 16);
        NEED(q / FIRN_PAGE == (uintptr_t)p[i] / FIRN_PAGE);
        for (unsigned k = i + 2; k < SAMPLE_SLOTS; k += 2) {
            NEED(!memory_can_read((uintptr_t)p[k]));
        }
    }
}

static void the_pool_is_a_queue(void **state) {
    (void)state;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(use_up, NULL));
}

// ---- freed in a hurry -------------------------------------------------------------------------

enum { HURRY = 10000000 }; // whatever the first closing takes, the next may come in hours

static uintptr_t slot_of(const void *p) {
    return ((uintptr_t)p - firn_sample_base) / SAMPLE_STRIDE;
}

static bool is_filled(const unsigned char *p, size_t n) {
    for (size_t i = 1; i < n; i++) {
        if (p[i] != p[0]) {
            return false;
        }
    }
    return p[0] != 0;
}

static void hurry(void *context) {
    enum { BLOCKS = 2 * SAMPLE_OPEN };
    unsigned char *p[BLOCKS];
    size_t size = *(size_t *)context;
    unsigned low = 0;
    firn_sample_share = HURRY;
    start();
    for (unsigned i = 0; i < BLOCKS; i++) {
        p[i] = sample(size, 16);
        NEED(p[i] != NULL);
        memset(p[i], 0xee, size);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        NEED(release(p[i]) == LARGE_LIVE && release(p[i]) == LARGE_FREED);
        NEED(sample_extent((uintptr_t)p[i]) == 0);
    }
    NEED(!memory_can_read((uintptr_t)p[0]));
    for (unsigned i = 1; i < BLOCKS; i++) {
        NEED(is_filled(p[i], size));
    }
    // The one that has waited longest comes first, and shows nothing of what was in it.
    for (unsigned i = 1; i < BLOCKS - SAMPLE_OPEN + 1; i++) {
        unsigned char *q = sample(size, 16);
        NEED(slot_of(q) == slot_of(p[i]));
        check_place(q, size, 16, &low);
    }
    // One call later what was freed before the last one is inaccessible.
    sample_close(false);
    NEED(is_filled(p[BLOCKS - 1], size));
    sample_close(false);
    for (unsigned i = BLOCKS - SAMPLE_OPEN + 1; i < BLOCKS; i++) {
        NEED(!memory_can_read((uintptr_t)p[i]) && release(p[i]) == LARGE_FREED);
    }
    unsigned char *q = sample(size, 16);
    check_place(q, size, 16, &low);
    NEED(release(q) == LARGE_LIVE && is_filled(q, size));
    sample_close(true);
    NEED(!memory_can_read((uintptr_t)q));
}

static void what_is_freed_in_a_hurry_stays_open_for_a_while(void **state) {
    (void)state;
    size_t sizes[] = {1, 100, 4096, 9000};
    if (!can_sample()) {
        skip();
    }
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_true(small_run(hurry, &sizes[i]));
    }
}

// Blocks of one number of pages where only slots of another are left.
static void hurry_otherwise(void *context) {
    (void)context;
    unsigned char *p[SAMPLE_SLOTS];
    unsigned low = 0;
    firn_sample_share = HURRY;
    start();
    for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
        p[i] = sample(100, 16);
    }
    for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
        NEED(release(p[i]) == LARGE_LIVE);
    }
    for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
        p[i] = sample(6000, 16);
        NEED(p[i] != NULL);
        check_place(p[i], 6000, 16, &low);
        memset(p[i], 0xee, 6000);
    }
    NEED(sample(100, 16) == NULL);
    for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
        NEED(release(p[i]) == LARGE_LIVE);
    }
    sample_close(true);
    for (unsigned i = 0; i < SAMPLE_SLOTS; i++) {
        NEED(!memory_can_read((uintptr_t)p[i]) && !memory_can_read((uintptr_t)p[i] + 5999));
    }
}

static void open_slots_are_cut_anew(void **state) {
    (void)state;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(hurry_otherwise, NULL));
}

static void hurry_without_markers(void *context) {
    setenv("FIRN_TEST_CAPS", "7e", 1); // all but CAP_GUARD_MARKER
    if (context != NULL) {
        hurry(context);
    } else {
        hurry_otherwise(NULL);
    }
    NEED(map_guard_vmas() <= 3 * SAMPLE_SLOTS * 2);
}

static void in_a_hurry_without_guard_markers(void **state) {
    (void)state;
    size_t size = 100;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(hurry_without_markers, &size));
    assert_true(small_run(hurry_without_markers, NULL));
}

static void use_rationed(void *context) {
    (void)context;
    struct rlimit limit = {(rlim_t)1 << 40, (rlim_t)1 << 40};
    NEED(setrlimit(RLIMIT_DATA, &limit) == 0);
    start();
    NEED(sample(50, 16) == NULL);
    NEED(!sample_contains(0) && firn_sample_base == 0);
}

static void none_while_memory_is_rationed(void **state) {
    (void)state;
    if (memory_is_sanitized()) {
        skip(); // needs more than the limit leaves
    }
    assert_true(small_run(use_rationed, NULL));
}

// ---- how often --------------------------------------------------------------------------------

static unsigned count_pairs(unsigned n) {
    unsigned samples = 0;
    for (unsigned i = 0; i < n; i++) {
        void *p = heap_alloc(40, site);
        samples += sample_contains((uintptr_t)p);
        heap_free(p, site);
    }
    return samples;
}

// Grows, then shrinks: blocks that come from refills, and frees that flush.
static unsigned count_waves(unsigned n) {
    enum { WAVE = 20000 };
    static void *p[WAVE];
    unsigned samples = 0;
    for (unsigned i = 0; i < n / WAVE; i++) {
        for (unsigned k = 0; k < WAVE; k++) {
            p[k] = heap_alloc(100, site);
            samples += sample_contains((uintptr_t)p[k]);
        }
        for (unsigned k = 0; k < WAVE; k++) {
            heap_free(p[k], site);
        }
    }
    return samples;
}

static unsigned count_mixed(unsigned n) {
    enum { BLOCKS = 500 };
    static void *p[BLOCKS];
    unsigned samples = 0;
    uint64_t seed = 5;
    for (unsigned i = 0; i < n; i++) {
        unsigned k = (unsigned)small_draw(&seed, BLOCKS);
        if (p[k] != NULL) {
            heap_free(p[k], site);
        }
        p[k] = heap_alloc((size_t)small_draw(&seed, 600), site + k % 7);
        samples += sample_contains((uintptr_t)p[k]);
    }
    return samples;
}

static void count_all(void *context) {
    enum { ALLOCATIONS = 1000000 };
    unsigned (*const ways[])(unsigned) = {count_pairs, count_waves, count_mixed};
    unsigned rate = *(unsigned *)context;
    firn_sample_rate = rate;
    start();
    for (unsigned i = 0; i < 3; i++) {
        unsigned samples = ways[i](ALLOCATIONS);
        unsigned expected = rate == 0 ? 0 : ALLOCATIONS / rate;
        if (samples < expected * 3 / 4 || samples > expected * 3 / 2) {
            small_failed("rate", "", (int)(i * 1000000 + samples));
        }
    }
    small_check();
}

static void they_come_as_often_as_asked(void **state) {
    (void)state;
    unsigned rates[] = {0, 200, 1000};
    if (!can_sample()) {
        skip();
    }
    for (unsigned i = 0; i < 3; i++) {
        if (!small_run(count_all, &rates[i])) {
            fail_msg("1 in %u", rates[i]);
        }
    }
}

// ---- as any other block -----------------------------------------------------------------------

static void *next_sample(size_t size) {
    for (unsigned i = 0; i < 1000000; i++) {
        void *p = heap_alloc(size, site);
        if (sample_contains((uintptr_t)p)) {
            return p;
        }
        heap_free(p, site);
    }
    NEED(false);
    return NULL;
}

static void treat(void *context) {
    (void)context;
    firn_sample_rate = 100;
    start();
    char *p = next_sample(40);
    struct found f;
    find_pointer(p, &f);
    NEED(f.kind == FOUND_SAMPLE && f.class_bytes == size_class_bytes(size_class_of(40)));
    find_pointer(p + 1, &f);
    NEED(f.kind == FOUND_BAD && f.id == FATAL_MISALIGNED_POINTER);
    find_pointer(p + 16, &f);
    NEED(f.kind == FOUND_BAD && f.id == FATAL_INTERIOR_POINTER);
    NEED(heap_usable(p, site) == 40);
    memset(p, 'x', 40);
    char *q = heap_resize(p, 40, site);
    NEED(q == p);
    q = heap_resize(p, 4000, site);
    NEED(q != NULL && q != p && q[0] == 'x' && q[39] == 'x');
    find_pointer(p, &f);
    NEED(f.kind == FOUND_BAD && f.id == FATAL_DOUBLE_FREE);
    heap_free(q, site);
    p = next_sample(40);
    memset(p, 'y', 40);
    q = heap_resize(p, 100000, site);
    NEED(q != NULL && q[39] == 'y');
    heap_free(q, site);
    heap_free_sized(next_sample(40), &(struct heap_call){"free_sized", site, 40, 0});
    heap_free_sized(next_sample(0), &(struct heap_call){"free_sized", site, 0, 0});
    struct heap_stats before, after;
    heap_stats(&before);
    p = next_sample(64);
    heap_stats(&after);
    NEED(after.small_live - before.small_live == 1);
    NEED(after.small_allocated - before.small_allocated == 64);
    heap_free(p, site);
    heap_stats(&after);
    NEED(after.small_live == before.small_live);
}

static void the_heap_treats_it_as_a_block(void **state) {
    (void)state;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(treat, NULL));
}

static void zeroed_and_aligned(void *context) {
    (void)context;
    firn_sample_rate = 100;
    unsigned zeroed = 0, aligned = 0;
    start();
    for (unsigned i = 0; i < 200000; i++) {
        unsigned char *p = heap_alloc_zeroed(300, site);
        NEED(memory_is_zero(p, 300));
        memset(p, 0xaa, 300);
        zeroed += sample_contains((uintptr_t)p);
        heap_free(p, site);
        p = heap_alloc_aligned(64, 100, site);
        NEED((uintptr_t)p % 64 == 0);
        memset(p, 0xaa, 100);
        aligned += sample_contains((uintptr_t)p);
        heap_free(p, site);
    }
    NEED(zeroed > 100 && aligned > 100);
}

static void zeroed_and_aligned_ones(void **state) {
    (void)state;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(zeroed_and_aligned, NULL));
}

// What somebody else freed, and what a child inherits.
static void *free_it(void *p) {
    heap_free(p, site);
    return NULL;
}

static void cross(void *context) {
    (void)context;
    firn_sample_rate = 100;
    start();
    for (unsigned i = 0; i < 200; i++) {
        pthread_t thread;
        NEED(pthread_create(&thread, NULL, free_it, next_sample(24)) == 0);
        pthread_join(thread, NULL);
    }
    char *p = next_sample(80);
    strcpy(p, "theirs");
    pid_t child = fork();
    if (child == 0) {
        char *q = next_sample(80);
        bool is_right = q != p && strcmp(p, "theirs") == 0;
        heap_free(p, site);
        heap_free(q, site);
        (void)count_mixed(20000);
        _exit(is_right ? 0 : 1);
    }
    int status = -1;
    NEED(waitpid(child, &status, 0) == child && status == 0);
    NEED(strcmp(p, "theirs") == 0);
    heap_free(p, site);
}

static void threads_and_children(void **state) {
    (void)state;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(cross, NULL));
}

enum { THREADS = 4, SHARED = 64 };
static _Atomic(void *) shared[SHARED];

static void *exchange(void *context) {
    uint64_t seed = (uintptr_t)context;
    for (unsigned i = 0; i < 100000; i++) {
        size_t size = 16 + (size_t)small_draw(&seed, 5000);
        size_t *p = heap_alloc(size, site);
        NEED(p != NULL);
        *p = size;
        ((char *)p)[size - 1] = 1;
        p = atomic_exchange(&shared[small_draw(&seed, SHARED)], p);
        if (p != NULL) {
            NEED(*p >= 16 && *p < 5016);
            heap_free(p, site);
        }
    }
    return NULL;
}

static void exchange_all(void *context) {
    pthread_t threads[THREADS];
    (void)context;
    firn_sample_rate = 100;
    start();
    for (uintptr_t i = 0; i < THREADS; i++) {
        NEED(pthread_create(&threads[i], NULL, exchange, (void *)(i + 1)) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (unsigned i = 0; i < SHARED; i++) {
        void *p = atomic_exchange(&shared[i], NULL);
        if (p != NULL) {
            heap_free(p, site);
        }
    }
    size_t live, bytes, reserved;
    sample_stats(&live, &bytes, &reserved);
    NEED(live == 0 && bytes == 0 && reserved > 0);
    small_check();
}

static void threads_exchange_them(void **state) {
    (void)state;
    if (!can_sample()) {
        skip();
    }
    assert_true(small_run(exchange_all, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_lies_against_a_guard),
        cmocka_unit_test(without_guard_markers),
        cmocka_unit_test(addresses_are_told_apart),
        cmocka_unit_test(the_pool_is_a_queue),
        cmocka_unit_test(what_is_freed_in_a_hurry_stays_open_for_a_while),
        cmocka_unit_test(open_slots_are_cut_anew),
        cmocka_unit_test(in_a_hurry_without_guard_markers),
        cmocka_unit_test(none_while_memory_is_rationed),
        cmocka_unit_test(they_come_as_often_as_asked),
        cmocka_unit_test(the_heap_treats_it_as_a_block),
        cmocka_unit_test(zeroed_and_aligned_ones),
        cmocka_unit_test(threads_and_children),
        cmocka_unit_test(threads_exchange_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
