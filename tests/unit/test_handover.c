// A parent hears when its child is done, or dead; and never hears it too early.
// firn-test: share=2
#include "src/os/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int lowest_free(void) {
    int fd = open("/dev/null", O_RDONLY);
    assert_true(fd >= 0);
    close(fd);
    return fd;
}

// A child that goes on when something is written to *go: says that it is done, or does not; and then sleeps
// until it is killed, or ends.
static pid_t make_child(struct handover *h, int *go, int is_done, int sleeps) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    handover_prepare(h);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char byte;
        close(ends[1]);
        if (read(ends[0], &byte, 1) != 1) {
            _exit(1);
        }
        if (is_done) {
            handover_done(h);
        }
        while (sleeps) {
            pause();
        }
        _exit(0);
    }
    close(ends[0]);
    *go = ends[1];
    handover_begin(h);
    return child;
}

static void end_child(pid_t child, int go) {
    close(go);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

static void wait_until_over(struct handover *h) {
    for (unsigned i = 0; i < 2000 && !handover_is_over(h); i++) {
        usleep(10000);
    }
}

static void test_done_is_heard(void **state) {
    (void)state;
    struct handover h = HANDOVER_NONE;
    int before = lowest_free(), go;
    pid_t child = make_child(&h, &go, 1, 1);
    errno = 4321;
    assert_false(handover_is_over(&h));
    assert_int_equal(errno, 4321);
    assert_int_equal(write(go, "", 1), 1);
    wait_until_over(&h);
    assert_int_equal(h.from.fd, -1); // closed once it was over
    end_child(child, go);
    assert_int_equal(lowest_free(), before);
}

static void test_death_is_heard(void **state) {
    (void)state;
    struct handover h = HANDOVER_NONE;
    int go;
    pid_t child = make_child(&h, &go, 0, 0);
    assert_false(handover_is_over(&h));
    assert_int_equal(write(go, "", 1), 1);
    handover_wait(&h);
    assert_int_equal(h.from.fd, -1);
    end_child(child, go);
}

static void test_no_child_is_no_wait(void **state) {
    (void)state;
    struct handover h = HANDOVER_NONE;
    assert_false(handover_can_tell(&h));
    handover_prepare(&h);
    assert_true(handover_can_tell(&h));
    handover_begin(&h); // fork failed
    assert_true(handover_is_over(&h));
}

static void test_what_is_lost_is_not_over(void **state) {
    (void)state;
    struct handover h = HANDOVER_NONE;
    handover_prepare(&h);
    assert_int_equal(close(h.from.fd), 0);
    handover_begin(&h);
    assert_false(handover_is_over(&h));
    handover_wait(&h); // returns
}

static void test_forgotten(void **state) {
    (void)state;
    struct handover h = HANDOVER_NONE;
    int before = lowest_free();
    handover_prepare(&h);
    handover_forget(&h);
    assert_int_equal(lowest_free(), before);
    assert_int_equal(h.to, -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_done_is_heard),       cmocka_unit_test(test_death_is_heard),
        cmocka_unit_test(test_no_child_is_no_wait), cmocka_unit_test(test_what_is_lost_is_not_over),
        cmocka_unit_test(test_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
