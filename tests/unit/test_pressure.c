// What the kernel says of memory pressure, or nothing: both are an answer.
// firn-test: share=2 wrap=sys_read_file
#include "src/os/pressure.h"

#include "src/os/sys.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

size_t __wrap_sys_read_file(const char *path, char *buffer, size_t capacity);

static const char *content;

size_t __wrap_sys_read_file(const char *path, char *buffer, size_t capacity) {
    assert_string_equal(path, "/proc/pressure/memory");
    size_t n = strlen(content);
    assert_true(n < capacity);
    memcpy(buffer, content, n);
    return n;
}

static bool is_high(const char *text) {
    content = text;
    errno = 7;
    bool answer = pressure_is_high();
    assert_int_equal(errno, 7);
    return answer;
}

static void reads_the_ten_seconds(void **state) {
    (void)state;
    assert_false(is_high(""));
    assert_false(is_high("some"));
    assert_false(is_high("some avg10=0.00 avg60=99.00 avg300=99.00 total=1\n"));
    assert_false(is_high("some avg10=4.99 avg60=0.00 avg300=0.00 total=1\n"));
    assert_true(is_high("some avg10=5.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n"));
    assert_true(is_high("some avg10=100.00 avg60=0.00 avg300=0.00 total=1\n"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_the_ten_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
