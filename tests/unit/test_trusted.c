// P-POLICY: whose files count, and in which order a folder's come.
// firn-test: share=2
#include "src/os/trusted.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[512];

static const char *place(const char *name) {
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put(const char *name, size_t bytes, mode_t mode) {
    int fd = open(place(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

// NULL: it is opened; "": it is not there.
static const char *why(const char *path, bool is_folder, unsigned owner) {
    const char *wrong = "unset";
    errno = 77;
    int fd = trusted_open(TRUSTED_HERE, path, is_folder, owner, &wrong);
    assert_int_equal(errno, 77);
    if (fd >= 0) {
        assert_null(wrong);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        trusted_close(fd);
        assert_int_equal(fcntl(fd, F_GETFD), -1);
        return NULL;
    }
    return wrong != NULL ? wrong : "";
}

static void whose(void **state) {
    (void)state;
    const unsigned self = geteuid();
    put("good", 10, 0644);
    assert_null(why(place("good"), false, self));
    assert_string_equal(why(place("good"), false, self + 1), "it does not belong to root");
    put("good", 10, 0664);
    assert_string_equal(why(place("good"), false, self), "others than its owner may write to it");
    put("good", 10, 0646);
    assert_string_equal(why(place("good"), false, self), "others than its owner may write to it");
    put("good", TRUSTED_BYTES, 0400);
    assert_null(why(place("good"), false, self));
    put("good", TRUSTED_BYTES + 1, 0600);
    assert_string_equal(why(place("good"), false, self), "it is longer than 64 KiB");
}

static void what(void **state) {
    (void)state;
    const unsigned self = geteuid();
    char target[1024];
    put("good", 10, 0644);
    snprintf(target, sizeof target, "%s", place("good"));
    assert_string_equal(why(place("none"), false, self), "");
    assert_string_equal(why(place("good/none"), false, self), "");
    assert_int_equal(symlink(target, place("link")), 0);
    assert_string_equal(why(place("link"), false, self), "it is a symbolic link");
    assert_int_equal(mkfifo(place("fifo"), 0600), 0);
    assert_string_equal(why(place("fifo"), false, self), "it is not a regular file");
    assert_string_equal(why(folder, false, self), "it is not a regular file");
    assert_string_equal(why(place("good"), true, self), "it is not a folder");
    assert_null(why(folder, true, self));
    assert_int_equal(chmod(folder, 0777), 0);
    assert_string_equal(why(folder, true, self), "others than its owner may write to it");
    assert_int_equal(chmod(folder, 0700), 0);
    unlink(place("link"));
    unlink(place("fifo"));
}

// More names than one piece of the folder holds, in no order.
static void order(void **state) {
    (void)state;
    char name[64], next[64], want[64];
    const char *wrong;
    put("good", 1, 0600);
    for (unsigned i = 0; i < 100; i++) {
        snprintf(want, sizeof want, "f%02u-with-a-long-name", i * 37 % 100);
        put(want, 1, 0600);
    }
    put(".hidden", 1, 0600);
    int fd = trusted_open(TRUSTED_HERE, folder, true, geteuid(), &wrong);
    assert_true(fd >= 0);
    name[0] = '\0';
    for (unsigned i = 0; i < 100; i++) {
        snprintf(want, sizeof want, "f%02u-with-a-long-name", i);
        assert_true(trusted_next(fd, name, next, sizeof next));
        assert_string_equal(next, want);
        memcpy(name, next, sizeof name);
        unlink(place(want));
    }
    assert_true(trusted_next(fd, name, next, sizeof next));
    assert_string_equal(next, "good");
    assert_false(trusted_next(fd, "good", next, sizeof next));
    assert_false(trusted_next(fd, "", next, 4)); // does not fit
    trusted_close(fd);
    unlink(place(".hidden"));
}

static void program(void **state) {
    (void)state;
    char path[4096], want[4096];
    assert_true(trusted_program(path, sizeof path));
    assert_non_null(realpath("/proc/self/exe", want));
    assert_string_equal(path, want);
    assert_false(trusted_program(path, 4));
    assert_string_equal(path, "");
}

static int set_up(void **state) {
    (void)state;
    const char *above = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/firn-trusted.XXXXXX", above != NULL ? above : "/tmp");
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state) {
    (void)state;
    unlink(place("good"));
    return rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whose),
        cmocka_unit_test(what),
        cmocka_unit_test(order),
        cmocka_unit_test(program),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
