// The same figures in every form, and nothing written past a caller's struct.
#include "src/front/figures.h"

#include "src/front/front.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void test_fill_checks_the_size(void **state) {
    (void)state;
    struct firn_stats s;
    memset(&s, 0x55, sizeof(s));
    s.struct_bytes = 7;
    errno = 0;
    assert_int_equal(figures_fill(&s), -1);
    assert_int_equal(errno, EINVAL);
    errno = 0;
    assert_int_equal(figures_fill(NULL), -1);
    assert_int_equal(errno, EINVAL);
    s.struct_bytes = sizeof(s.struct_bytes);
    assert_int_equal(figures_fill(&s), 0);
    assert_int_equal(s.allocated, 0x5555555555555555);
    s.struct_bytes = sizeof(s);
    assert_int_equal(figures_fill(&s), 0);
    assert_int_not_equal(s.reserved, 0x5555555555555555);
}

static void test_forms_agree(void **state) {
    (void)state;
    void *small = front_alloc(1000, FIRN_CALLER());
    void *large = front_alloc(1000000, FIRN_CALLER());
    struct firn_stats s = {.struct_bytes = sizeof(s)};
    assert_int_equal(figures_fill(&s), 0);
    struct mallinfo2 wide = figures_mallinfo2();
    struct mallinfo narrow = figures_mallinfo();
    assert_int_equal(wide.hblks, s.large_blocks);
    assert_int_equal(wide.uordblks + wide.hblkhd, s.allocated);
    assert_int_equal(wide.keepcost, s.dirty);
    assert_true(wide.arena >= wide.uordblks);
    assert_int_equal((size_t)narrow.uordblks, wide.uordblks);
    assert_int_equal((size_t)narrow.hblkhd, wide.hblkhd);
    assert_true(s.small_blocks >= 1 && s.large_blocks >= 1);
    front_free(small, FIRN_CALLER());
    front_free(large, FIRN_CALLER());
}

static void test_print_is_one_write(void **state) {
    (void)state;
    char text[4096];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    errno = 4321;
    figures_print(ends[1]);
    figures_print(-1);
    assert_int_equal(errno, 4321);
    close(ends[1]);
    ssize_t n = read(ends[0], text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = '\0';
    close(ends[0]);
    assert_memory_equal(text,
                        "firn: " FIGURES_VERSION " pid=", strlen("firn: " FIGURES_VERSION " pid="));
    // Complete: the last figure and its newline fit the buffer.
    assert_non_null(strstr(text, "\nfirn:   reserved "));
    assert_int_equal(text[n - 1], '\n');
}

static void test_xml_reports_a_full_stream(void **state) {
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    setvbuf(full, NULL, _IONBF, 0);
    assert_int_equal(figures_write_xml(0, full), EIO);
    fclose(full);
    assert_int_equal(figures_write_xml(1, stderr), EINVAL);
    assert_int_equal(figures_write_xml(0, NULL), EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill_checks_the_size),
        cmocka_unit_test(test_forms_agree),
        cmocka_unit_test(test_print_is_one_write),
        cmocka_unit_test(test_xml_reports_a_full_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
