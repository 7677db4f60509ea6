// Capabilities: what the probe says is what the kernel does, and the mask takes away.
// firn-test: share=2
#include "src/os/caps.h"

#include "src/base/compiler.h"
#include "src/os/kernel.h"
#include "tests/support/child.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static void *page;

static int map_page(void **state) {
    (void)state;
    page = mmap(NULL, FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    caps_probe(CAP_ALL);
    return page == MAP_FAILED;
}

static int unmap_page(void **state) {
    (void)state;
    return munmap(page, FIRN_PAGE);
}

static void says_what_the_kernel_does(void **state) {
    (void)state;
    bool installs = madvise(page, FIRN_PAGE, MADV_GUARD_INSTALL) == 0;
    assert_int_equal(caps_has(CAP_GUARD_MARKER), installs && !memory_can_read((uintptr_t)page));
    (void)madvise(page, FIRN_PAGE, MADV_GUARD_REMOVE);
    assert_int_equal(caps_has(CAP_WIPE_ON_FORK), madvise(page, FIRN_PAGE, MADV_WIPEONFORK) == 0);
    void *p =
        mmap(page, FIRN_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    assert_int_equal(caps_has(CAP_NOREPLACE), p == MAP_FAILED);
    assert_int_equal(caps_has(CAP_WIDE_ADDRESS), (uintptr_t)&p >> 39 != 0);
    assert_true(caps_has(CAP_GETRANDOM));
    assert_int_equal(caps_bits() & ~(uint32_t)CAP_ALL, 0);
}

static void mask_takes_away(void **state) {
    (void)state;
    uint32_t all = caps_bits();
    for (uint32_t cap = 1; cap < CAP_ALL; cap <<= 1) {
        caps_probe(~cap);
        assert_int_equal(caps_bits(), all & ~cap);
        assert_false(caps_has((enum cap)cap));
    }
    caps_probe(0);
    assert_int_equal(caps_bits(), 0);
    caps_probe(~0u);
    assert_int_equal(caps_bits(), all);
}

static void leaves_nothing_behind(void **state) {
    (void)state;
    size_t vmas = memory_count_vmas(0, UINTPTR_MAX);
    errno = 77;
    caps_probe(CAP_ALL);
    assert_int_equal(errno, 77);
    assert_int_equal(memory_count_vmas(0, UINTPTR_MAX), vmas);
}

static uint64_t number_in(const char *path) {
    unsigned long v = 0;
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu", &v), 1);
    fclose(f);
    return v;
}

static void limits_are_read(void **state) {
    (void)state;
    const struct limits *l = caps_limits();
    assert_int_equal(l->max_map_count, number_in("/proc/sys/vm/max_map_count"));
    assert_int_equal(l->is_strict_overcommit, number_in("/proc/sys/vm/overcommit_memory") == 2);
}

static void probe_limited(void *context) {
    struct rlimit limit = {(rlim_t)4 << 30, (rlim_t)4 << 30};
    bool is_data = context != NULL;
    setrlimit(is_data ? RLIMIT_DATA : RLIMIT_AS, &limit);
    caps_probe(CAP_ALL);
    uint64_t seen = is_data ? caps_limits()->data_bytes : caps_limits()->address_space_bytes;
    uint64_t other = is_data ? caps_limits()->address_space_bytes : caps_limits()->data_bytes;
    bool can_reserve = caps_has(CAP_RESERVE);
    _exit(seen == limit.rlim_cur && other == UINT64_MAX && can_reserve == is_data ? 0 : 1);
}

static void limits_are_respected(void **state) {
    (void)state;
    struct child c;
    int data;
    if (caps_limits()->address_space_bytes != UINT64_MAX) {
        skip();
    }
    child_run(&c, probe_limited, NULL);
    assert_true(child_exited(&c, 0));
    child_run(&c, probe_limited, &data);
    assert_true(child_exited(&c, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(says_what_the_kernel_does, map_page, unmap_page),
        cmocka_unit_test_setup_teardown(mask_takes_away, map_page, unmap_page),
        cmocka_unit_test_setup_teardown(leaves_nothing_behind, map_page, unmap_page),
        cmocka_unit_test_setup_teardown(limits_are_read, map_page, unmap_page),
        cmocka_unit_test_setup_teardown(limits_are_respected, map_page, unmap_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
