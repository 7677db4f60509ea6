// Who can tell that memory is short: pipes, sockets, files of the kernel's, and nobody.
// firn-test: levels=2
#include "src/os/strain.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64] = "/tmp/firn-strain-XXXXXX", place[128];

static int start(void **state) {
    (void)state;
    snprintf(place, sizeof place, "%s/watch", mkdtemp(folder));
    return 0;
}

static int end(void **state) {
    (void)state;
    strain_close();
    unlink(place);
    return rmdir(folder);
}

// Whether it says so now.
static bool is_short(void) {
    struct strain_poll p = strain_poll();
    struct pollfd polled = {.fd = p.descriptor, .events = p.events};
    return poll(&polled, 1, 0) > 0 && strain_is_short(polled.revents);
}

static void test_a_pipe(void **state) {
    (void)state;
    assert_int_equal(mkfifo(place, 0600), 0);
    strain_choose(place, NULL);
    strain_open();
    assert_true(strain_poll().descriptor >= 0);
    assert_false(is_short());
    for (unsigned i = 0; i < 3; i++) { // writers come and go
        int fd = open(place, O_WRONLY);
        assert_int_equal(write(fd, "xyz", 3), 3);
        close(fd);
        assert_true(is_short());
        assert_false(is_short());
    }
    strain_close();
    unlink(place);
}

// What is to be written is; the other side ends, and nothing is heard any more.
static void test_a_socket(void **state) {
    (void)state;
    char got[32];
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, place, strlen(place) + 1);
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(server, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(server, 1), 0);
    strain_choose(place, "c29tZSAyMDAwMDAgMjAwMDAwMAA="); // with a zero at its end
    strain_open();
    int peer = accept(server, NULL, NULL);
    assert_int_equal(read(peer, got, sizeof got), 20);
    assert_memory_equal(got, "some 200000 2000000", 20);
    assert_false(is_short());
    assert_int_equal(write(peer, "x", 1), 1);
    assert_true(is_short());
    assert_int_equal(write(peer, "x", 1), 1);
    close(peer);
    assert_true(is_short());
    assert_false(is_short());
    assert_int_equal(strain_poll().descriptor, -1);
    close(server);
    unlink(place);
}

static void test_nobody(void **state) {
    (void)state;
    static const char *const names[] = {"/dev/null", "", "relative", "/there/is/no/such/file"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        strain_choose(names[i], NULL);
        strain_open();
        assert_int_equal(strain_poll().descriptor, -1);
    }
    assert_int_equal(mkfifo(place, 0600), 0);
    strain_choose(place, "no base64!");
    strain_open();
    assert_int_equal(strain_poll().descriptor, -1);
    unlink(place);
    char longer[300];
    memset(longer, 'A', sizeof longer - 1);
    longer[0] = '/';
    longer[sizeof longer - 1] = '\0';
    strain_choose(longer, NULL);
    strain_open();
    assert_int_equal(strain_poll().descriptor, -1);
    strain_choose("/proc/pressure/memory", longer + 1); // more than fits
    strain_open();
    assert_int_equal(strain_poll().descriptor, -1);
}

// Where the kernel has triggers, and lets us: one of the two files.
static void test_the_kernel(void **state) {
    (void)state;
    int fd = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK);
    bool has_triggers = fd >= 0 && write(fd, "some 200000 2000000", 20) == 20;
    close(fd);
    strain_choose(NULL, NULL);
    strain_open();
    struct strain_poll p = strain_poll();
    assert_true(p.descriptor >= 0 || !has_triggers);
    assert_true(p.descriptor < 0 || p.events == POLLPRI);
    strain_close();
    assert_int_equal(strain_poll().descriptor, -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pipe),
        cmocka_unit_test(test_a_socket),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_the_kernel),
    };
    return cmocka_run_group_tests(tests, start, end);
}
