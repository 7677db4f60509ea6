// A cell's growth: windows, their order, what happens when memory or addresses run out, and when
// somebody else's mapping is in the way. Each case in a process of its own.
#include "src/span/region.h"

#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/os/caps.h"
#include "tests/support/memory.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cmocka.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static struct random_stream stream;

static void start(void) {
    life_start();
    NEED(life_has_started());
}

// Address space is only chosen, not reserved.
static void start_sparse(void) {
    setenv("FIRN_TEST_CAPS", "2f", 1); // all but CAP_RESERVE and CAP_GETRANDOM
    start();
    NEED(FIRN_ROOT.is_sparse);
}

static uint32_t index_of(const struct span *s) {
    return (uint32_t)((span_base(s) - root_cell_base(s->cell)) >> span_class(s)->span_shift);
}

static uint32_t take_index(unsigned cell) {
    struct span *s = region_take(cell, &stream);
    NEED(s != NULL);
    NEED(s->cell == cell);
    NEED(span_state(s) == SPAN_UNUSED);
    NEED(region_is_described(span_offset(s)));
    // Taken is not used: it is region_take's caller who sets it up.
    atomic_store(&s->state, SPAN_ACTIVE);
    return index_of(s);
}

// How many of the indexes [from, until) are there to be taken.
static uint32_t count_usable(unsigned cell, uint32_t from, uint32_t until) {
    uint32_t n = 0;
    for (uint32_t i = from; i < until; i++) {
        n += !region_is_fence(cell, i);
    }
    return n;
}

// ---- windows ----------------------------------------------------------------------------------

// Each window is used up before the next begins, and begins where the last one ended.
static void take_windows(void *context) {
    (void)context;
    start();
    for (unsigned class_index = 0; class_index < SIZE_CLASSES; class_index += 5) {
        unsigned cell = root_cell(class_index, 0);
        size_t span_bytes = (size_t)1 << FIRN_ROOT.classes[class_index].span_shift;
        size_t last_bytes = 0;
        for (uint32_t from = 0, windows = 0; windows < 20; windows++) {
            uint64_t seen[REGION_WINDOW / 64] = {0};
            uint32_t first = take_index(cell);
            uint32_t usable = firn_regions[cell].window_left + 1;
            uint32_t spans = firn_regions[cell].committed - from;
            NEED(usable == count_usable(cell, from, from + spans));
            for (uint32_t i = 0; i < usable; i++) {
                uint32_t at = (i == 0 ? first : take_index(cell)) - from;
                NEED(at < spans && !region_is_fence(cell, from + at));
                NEED((seen[at / 64] >> at % 64 & 1) == 0);
                seen[at / 64] |= (uint64_t)1 << at % 64;
            }
            NEED(firn_regions[cell].window_left == 0);
            size_t least = small_is_rationed() ? 16 * KIB : 128 * KIB;
            least = least > span_bytes ? least : span_bytes;
            NEED(windows > 0 || spans * span_bytes >= least);
            if (least >= 4 * span_bytes) { // else a window may be longer for fences
                NEED(windows > 0 || spans * span_bytes == least);
                NEED(spans * span_bytes >= last_bytes);
            }
            last_bytes = spans * span_bytes;
            from += spans;
        }
        NEED(last_bytes == 2 * MIB);
        uint32_t until = firn_regions[cell].committed;
        NEED(firn_regions[cell].committed_bytes ==
             (uint64_t)count_usable(cell, 0, until) * span_bytes);
    }
}

static void windows_follow_each_other_and_grow(void **state) {
    (void)state;
    assert_true(small_run(take_windows, NULL));
}

static void take_and_write(void *context) {
    (void)context;
    start();
    for (unsigned class_index = 0; class_index < SIZE_CLASSES; class_index++) {
        for (unsigned p = 0; p < FIRN_PARTITIONS; p++) {
            struct span *s = region_take(root_cell(class_index, p), &stream);
            NEED(s != NULL);
            size_t bytes = (size_t)span_class(s)->span_mask + 1;
            NEED(memory_is_zero((void *)span_base(s), bytes));
            struct span empty;
            memset(&empty, 0, sizeof empty);
            empty.cell = (uint16_t)root_cell(class_index, p);
            NEED(memcmp(s, &empty, sizeof empty) == 0);
            memset((void *)span_base(s), 0xff, bytes);
            memset(s, 0xff, sizeof *s);
        }
    }
}

static void fresh_spans_are_writable_and_zero(void **state) {
    (void)state;
    assert_true(small_run(take_and_write, NULL));
}

// Windows of up to 512 spans in random order: of 16 x 511 steps, one in 256 goes to a neighbour.
static void take_in_order(void *context) {
    (void)context;
    start();
    unsigned neighbours = 0, steps = 0, ascents = 0;
    unsigned cell = root_cell(0, 0);
    for (unsigned i = 0; i < 1024; i++) {
        (void)take_index(cell); // small windows
    }
    while (firn_regions[cell].window_left > 0) {
        (void)take_index(cell);
    }
    for (unsigned window = 0; window < 16; window++) {
        uint32_t last = take_index(cell);
        uint32_t until = firn_regions[cell].committed;
        NEED(firn_regions[cell].window_left + 1 ==
             count_usable(cell, until - REGION_WINDOW, until));
        while (firn_regions[cell].window_left > 0) {
            uint32_t next = take_index(cell);
            neighbours += next == last + 1 || last == next + 1;
            ascents += next > last;
            steps++;
            last = next;
        }
    }
    NEED(neighbours * 50 < steps);
    NEED(ascents > steps * 45 / 100 && ascents < steps * 55 / 100);
}

static void the_order_within_a_window_is_random(void **state) {
    (void)state;
    assert_true(small_run(take_in_order, NULL));
}

// Every place of a window comes first about as often as any other.
static void take_firsts(void *context) {
    (void)context;
    start();
    unsigned cell = root_cell(0, 0), hits[4] = {0};
    for (unsigned window = 0; window < 400; window++) {
        uint32_t from = firn_regions[cell].committed;
        uint32_t first = take_index(cell);
        uint32_t spans = firn_regions[cell].committed - from;
        hits[(first - from) * 4 / spans]++;
        while (firn_regions[cell].window_left > 0) {
            (void)take_index(cell);
        }
    }
    for (unsigned i = 0; i < 4; i++) {
        NEED(hits[i] > 60 && hits[i] < 140); // 100 each; nine in two: 4.6 standard deviations
    }
}

static void the_first_of_a_window_is_anywhere(void **state) {
    (void)state;
    assert_true(small_run(take_firsts, NULL));
}

// ---- out of memory ----------------------------------------------------------------------------

static void set_data_limit(rlim_t bytes) {
    struct rlimit limit;
    NEED(getrlimit(RLIMIT_DATA, &limit) == 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    NEED(setrlimit(RLIMIT_DATA, &limit) == 0);
}

static rlim_t data_bytes(void) {
    // Pages of data and stack; the limit counts a little less, which does not matter here.
    unsigned long size, resident, shared, text, lib, data;
    char line[200] = "";
    FILE *statm = fopen("/proc/self/statm", "r");
    NEED(statm != NULL && fgets(line, sizeof line, statm) != NULL);
    fclose(statm);
    NEED(sscanf(line, "%lu %lu %lu %lu %lu %lu", &size, &resident, &shared, &text, &lib, &data) ==
         6);
    return data * FIRN_PAGE;
}

static void take_until_refused(void *context) {
    bool *is_sparse = context;
    *is_sparse ? start_sparse() : start();
    unsigned cell = root_cell(0, 0);
    static bool seen[1 << 20];
    for (unsigned i = 0; i < 2048; i++) { // windows of 2 MiB from here on
        seen[take_index(cell)] = true;
    }
    while (firn_regions[cell].window_left > 0) {
        seen[take_index(cell)] = true;
    }
    set_data_limit(data_bytes() + MIB);
    unsigned n = 0;
    for (struct span *s; (s = region_take(cell, &stream)) != NULL; n++) {
        NEED(n < 512);
        uint32_t index = index_of(s);
        NEED(!seen[index]);
        seen[index] = true;
        *(char *)span_base(s) = 1;
    }
    // No window any more, but single spans until nothing at all is left.
    NEED(n > 40); // of 256; descriptors and fences count, too
    NEED(!firn_regions[cell].is_exhausted);
    NEED(region_take(cell, &stream) == NULL);
    uint32_t until = firn_regions[cell].committed;
    set_data_limit(RLIM_INFINITY);
    for (unsigned i = 0; i < 1000; i++) {
        uint32_t index = take_index(cell);
        NEED(!seen[index]);
        seen[index] = true;
        *(char *)(root_cell_base(cell) + ((uintptr_t)index << 12)) = 1;
    }
    // Nothing was lost on the way, unless it was stepped over.
    for (uint32_t i = 0; i < until && !*is_sparse; i++) {
        NEED(seen[i] != region_is_fence(cell, i));
    }
}

static void a_refused_commit_is_tried_smaller_and_again(void **state) {
    (void)state;
    if (memory_is_sanitized()) {
        skip();
    }
    for (unsigned i = 0; i < 2; i++) {
        bool is_sparse = i != 0;
        if (!small_run(take_until_refused, &is_sparse)) {
            fail_msg("sparse: %u", i);
        }
    }
}

static void take_last_spans(void *context) {
    (void)context;
    start();
    unsigned cell = root_cell(SIZE_CLASSES - 1, 0);
    const struct class_info *c = &FIRN_ROOT.classes[SIZE_CLASSES - 1];
    (void)take_index(cell);
    // Descriptors up to here would take gigabytes: as if most of the cell were stepped over.
    uint32_t most = firn_regions[cell].committed + 5;
    size_t bytes = c->max_spans;
    map_make_writable((uintptr_t)&firn_root_pages, sizeof firn_root_pages);
    FIRN_ROOT.classes[SIZE_CLASSES - 1].max_spans = most;
    while (firn_regions[cell].window_left > 0) {
        (void)take_index(cell);
    }
    NEED(!firn_regions[cell].is_exhausted);
    for (uint32_t i = count_usable(cell, most - 5, most); i > 0; i--) {
        NEED(take_index(cell) < most);
        NEED(!firn_regions[cell].is_exhausted);
    }
    NEED(region_take(cell, &stream) == NULL);
    NEED(firn_regions[cell].is_exhausted);
    NEED(count_usable(cell, firn_regions[cell].committed, most) == 0);
    NEED(bytes > most);
}

static void a_full_cell_says_so(void **state) {
    (void)state;
    assert_true(small_run(take_last_spans, NULL));
}

// ---- somebody else's mappings -----------------------------------------------------------------

static void take_around_others(void *context) {
    (void)context;
    start_sparse();
    unsigned cell = root_cell(0, 0);
    uintptr_t base = root_cell_base(cell), foreign[8];
    // In the middle of what would be the first windows, and one right at the start.
    for (unsigned i = 0; i < 8; i++) {
        foreign[i] = base + (i == 0 ? 0 : 300 * KIB * i);
        void *p = mmap((void *)foreign[i], FIRN_PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        NEED(p == (void *)foreign[i]);
        memset(p, 0x3c, FIRN_PAGE);
    }
    for (unsigned n = 0; n < 3000; n++) {
        struct span *s = region_take(cell, &stream);
        NEED(s != NULL);
        atomic_store(&s->state, SPAN_ACTIVE);
        memset((void *)span_base(s), 0x5a, FIRN_PAGE);
        for (unsigned i = 0; i < 8; i++) {
            NEED(span_base(s) != foreign[i]);
        }
    }
    for (unsigned i = 0; i < 8; i++) {
        const unsigned char *p = (const unsigned char *)foreign[i];
        NEED(p[0] == 0x3c && memcmp(p, p + 1, FIRN_PAGE - 1) == 0);
        // Stepped over, and known never to have been used.
        uintptr_t offset = foreign[i] - FIRN_ROOT.small_base;
        NEED(region_is_described(offset));
        NEED(span_state(span_at(offset, &FIRN_ROOT.classes[0])) == SPAN_UNUSED);
    }
    NEED(firn_regions[cell].committed_bytes < (uint64_t)firn_regions[cell].committed * FIRN_PAGE);
}

static void foreign_mappings_are_stepped_over(void **state) {
    (void)state;
    assert_true(small_run(take_around_others, NULL));
}

// The descriptors' addresses are taken: blocks of other classes stand in.
static void allocate_without_descriptors(void *context) {
    enum { CLASS = 12 };
    (void)context;
    start_sparse();
    uintptr_t at = FIRN_ROOT.classes[CLASS].spans & ~(uintptr_t)(FIRN_PAGE - 1);
    void *p = mmap((void *)at, FIRN_PAGE, PROT_NONE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    NEED(p == (void *)at);
    size_t size = FIRN_ROOT.classes[CLASS].bytes - FIRN_SLOT_EXTRA;
    for (unsigned i = 0; i < 3000; i++) {
        char *block = heap_alloc(size, 0x40e000);
        NEED(block != NULL && heap_usable(block, 0x40e000) >= size);
        memset(block, 0x5a, size);
        if (i % 3 == 0) {
            heap_free(block, 0x40e000);
        }
    }
    small_check();
}

static void descriptors_in_the_way_of_others_are_done_without(void **state) {
    (void)state;
    if (memory_is_sanitized()) {
        skip();
    }
    assert_true(small_run(allocate_without_descriptors, NULL));
}

// Rationed memory: what is given back is not even committed, and can be had again.
static void use_sparse(void *context) {
    enum { BLOCKS = 3000 };
    static void *p[BLOCKS];
    uint64_t seed = 9;
    (void)context;
    start_sparse();
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            size_t size = small_draw(&seed, 2000);
            p[i] = heap_alloc_zeroed(size, 0x40e000);
            NEED(p[i] != NULL && memory_is_zero(p[i], size));
            memset(p[i], 0x77, size);
        }
        small_check();
        for (unsigned i = 0; i < BLOCKS; i++) {
            heap_free(p[i], 0x40e000);
        }
        small_check();
        NEED(heap_trim());
        small_check();
    }
}

static void a_sparse_heap_is_whole(void **state) {
    (void)state;
    assert_true(small_run(use_sparse, NULL));
}

// ---- what may be looked at --------------------------------------------------------------------

static void look(void *context) {
    (void)context;
    start();
    unsigned cell = root_cell(10, FIRN_PARTITIONS - 1);
    uintptr_t base = root_cell_base(cell) - FIRN_ROOT.small_base;
    NEED(!region_is_described(base));
    (void)take_index(cell);
    uintptr_t end =
        base + ((uintptr_t)firn_regions[cell].committed << FIRN_ROOT.classes[10].span_shift);
    NEED(region_is_described(base) && region_is_described(end - 1));
    NEED(!region_is_described(end));
    for (uintptr_t at = base; at < end; at += (uintptr_t)FIRN_ROOT.classes[10].span_mask + 1) {
        NEED(memory_can_read((uintptr_t)span_at(at, &FIRN_ROOT.classes[10])));
    }
    NEED(!region_is_described(base + ((uintptr_t)1 << FIRN_ROOT.cell_shift)));
}

static void only_committed_descriptors_are_looked_at(void **state) {
    (void)state;
    assert_true(small_run(look, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_follow_each_other_and_grow),
        cmocka_unit_test(fresh_spans_are_writable_and_zero),
        cmocka_unit_test(the_order_within_a_window_is_random),
        cmocka_unit_test(the_first_of_a_window_is_anywhere),
        cmocka_unit_test(a_refused_commit_is_tried_smaller_and_again),
        cmocka_unit_test(a_full_cell_says_so),
        cmocka_unit_test(foreign_mappings_are_stepped_over),
        cmocka_unit_test(descriptors_in_the_way_of_others_are_done_without),
        cmocka_unit_test(a_sparse_heap_is_whole),
        cmocka_unit_test(only_committed_descriptors_are_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
