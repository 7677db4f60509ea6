// A kept descriptor: high, closed on exec, and refused once it is another file.
// firn-test: share=2
#include "src/os/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int open_file(void) {
    char path[] = "/tmp/firn-keep-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    return fd;
}

static void test_copy_is_the_same_file(void **state) {
    (void)state;
    struct keep k = KEEP_NONE;
    int fd = open_file();
    errno = 4321;
    keep_copy(&k, fd);
    int copy = keep_descriptor(&k);
    assert_int_equal(errno, 4321);
    assert_true(copy > fd);
    assert_true((fcntl(copy, F_GETFD) & FD_CLOEXEC) != 0);
    close(fd); // the copy lives on
    assert_int_equal(keep_descriptor(&k), copy);
    assert_int_equal(write(copy, "x", 1), 1);
    close(copy);
    errno = 4321;
    assert_int_equal(keep_descriptor(&k), -1);
    assert_int_equal(errno, 4321);
}

static void test_another_file_under_the_number_is_refused(void **state) {
    (void)state;
    struct keep k = KEEP_NONE;
    int fd = open_file();
    int other = open_file();
    keep_copy(&k, fd);
    int copy = keep_descriptor(&k);
    assert_true(copy >= 0);
    assert_int_equal(dup2(other, copy), copy);
    assert_int_equal(keep_descriptor(&k), -1);
    assert_int_equal(dup2(fd, copy), copy);
    assert_int_equal(keep_descriptor(&k), copy);
    close(fd);
    close(other);
    close(copy);
}

static void test_nothing_to_keep(void **state) {
    (void)state;
    struct keep k = KEEP_NONE;
    assert_int_equal(keep_descriptor(&k), -1);
    errno = 4321;
    keep_copy(&k, -1);
    keep_copy(&k, 99999999);
    assert_int_equal(errno, 4321);
    assert_int_equal(keep_descriptor(&k), -1);
}

// 0: with few descriptors allowed a lower number is taken; with none left, none.
static int child_with_limit(void) {
    struct rlimit few = {20, 20};
    if (setrlimit(RLIMIT_NOFILE, &few) != 0) {
        return 1;
    }
    struct keep k = KEEP_NONE;
    keep_copy(&k, 0);
    if (keep_descriptor(&k) < 3 || keep_descriptor(&k) >= 20) {
        return 2;
    }
    while (dup(0) >= 0) {
    }
    struct keep none = KEEP_NONE;
    keep_copy(&none, 0);
    return keep_descriptor(&none) == -1 ? 0 : 3;
}

static void test_few_descriptors(void **state) {
    (void)state;
    int status = -1;
    pid_t child = fork();
    if (child == 0) {
        _exit(child_with_limit());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copy_is_the_same_file),
        cmocka_unit_test(test_another_file_under_the_number_is_refused),
        cmocka_unit_test(test_nothing_to_keep),
        cmocka_unit_test(test_few_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
