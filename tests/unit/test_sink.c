// P-REPORT: where reports go, and that no target can make them vanish, block, or land in a file they should
// not.
// firn-test: share=2
#include "src/os/sink.h"

#include "tests/support/child.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static const char report[] = "firn: first\nfirn:   second\n";

static const char *scratch(const char *name) {
    static char path[200];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof(path), "%s/%s.%d", folder != NULL ? folder : "/tmp", name, (int)getpid());
    return path;
}

static void expect_file(const char *path, const char *text) {
    char got[256];
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    ssize_t n = read(fd, got, sizeof(got) - 1);
    assert_true(n >= 0);
    got[n] = '\0';
    assert_string_equal(got, text);
    close(fd);
}

static void file_is_private_and_appended_to(void **state) {
    (void)state;
    struct stat st;
    const char *path = scratch("file");
    unlink(path);
    umask(0);
    assert_null(sink_set(path));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_null(sink_write(report, sizeof(report) - 1));
    assert_null(sink_set(path));
    assert_null(sink_write("x\n", 2));
    expect_file(path, "firn: first\nfirn:   second\nx\n");
    unlink(path);
}

// Daemons do that: every descriptor closed, and their own files under the same numbers.
static void closed_file_is_opened_again(void **state) {
    (void)state;
    const char *path = scratch("again");
    unlink(path);
    assert_null(sink_set(path));
    for (int fd = 3; fd < 70000; fd++) {
        close(fd);
    }
    assert_null(sink_write("y\n", 2));
    expect_file(path, "y\n");
    unlink(path);
}

static void kept_file_survives_its_name(void **state) {
    (void)state;
    char path[200], moved[210];
    snprintf(path, sizeof(path), "%s", scratch("name"));
    snprintf(moved, sizeof(moved), "%s.1", path);
    unlink(path);
    assert_null(sink_set(path));
    assert_int_equal(rename(path, moved), 0);
    assert_null(sink_write("z\n", 2));
    expect_file(moved, "z\n");
    assert_int_not_equal(access(path, F_OK), 0);
    unlink(moved);
}

static void expect_refused(const char *target, const char *why) {
    char note[300];
    assert_string_equal(sink_set(target), why);
    snprintf(note, sizeof(note), "firn:   note: not written to %s: %s\n", target, why);
    assert_string_equal(sink_write(report, sizeof(report) - 1), note);
}

static void unsafe_files_are_refused(void **state) {
    (void)state;
    const char *path = scratch("unsafe");
    unlink(path);
    assert_int_equal(symlink("/tmp/firn-never-made", path), 0);
    expect_refused(path, "it is a symbolic link");
    assert_int_not_equal(access("/tmp/firn-never-made", F_OK), 0);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_refused(path, "it cannot be opened"); // and does not wait for a reader
    unlink(path);
    expect_refused("/dev/null", "it is not a regular file");
    expect_refused("/", "it cannot be opened");
    expect_refused("/no/such/folder/file", "its folder does not exist");
}

static void another_users_file_is_refused(void **state) {
    (void)state;
    const char *path = scratch("owner");
    if (getuid() != 0) {
        skip();
    }
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
    assert_true(fd >= 0);
    assert_int_equal(fchown(fd, 65534, 65534), 0);
    close(fd);
    expect_refused(path, "it belongs to another user");
    unlink(path);
}

static void descriptor_is_remembered(void **state) {
    (void)state;
    char target[32], got[64];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    snprintf(target, sizeof(target), "fd:%d", ends[1]);
    assert_null(sink_set(target));
    close(ends[1]);
    // The number belongs to another file by now; the pipe gets the report.
    int other = open("/dev/null", O_WRONLY);
    assert_null(sink_write(report, sizeof(report) - 1));
    assert_int_equal(read(ends[0], got, sizeof(got)), sizeof(report) - 1);
    assert_memory_equal(got, report, sizeof(report) - 1);
    close(other);
    close(ends[0]);
}

static void bad_descriptors_are_refused(void **state) {
    (void)state;
    assert_string_equal(sink_set("fd:"), "it is not a number");
    assert_string_equal(sink_set("fd:x"), "it is not a number");
    assert_string_equal(sink_set("fd:99999999999"), "it is not a number");
    assert_string_equal(sink_set("fd:876"), "it is not open");
    assert_string_equal(sink_write(report, 3), "firn:   note: not written to fd:876: it is closed, "
                                               "or another file by now\n");
}

static void full_disk_is_told(void **state) {
    (void)state;
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        skip();
    }
    char target[32];
    snprintf(target, sizeof(target), "fd:%d", fd);
    assert_null(sink_set(target));
    assert_non_null(sink_write(report, sizeof(report) - 1));
    close(fd);
}

// In a child that lives under `root`, where dev/log is a socket of ours.
static int listen_for_syslog(const char *root) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char folder[220];
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(folder, sizeof(folder), "%s/dev", root);
    mkdir(root, 0700);
    mkdir(folder, 0700);
    if (chroot(root) != 0 || chdir("/") != 0) {
        _exit(11);
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "/dev/log");
    unlink(address.sun_path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        _exit(12);
    }
    return fd;
}

static bool heard(int fd, const char *line) {
    char got[256], want[256];
    ssize_t n = recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT);
    got[n > 0 ? n : 0] = '\0';
    snprintf(want, sizeof(want), "<10>firn[%d]: %s", (int)getpid(), line);
    return strcmp(got, want) == 0;
}

static void report_to_syslog(void *root) {
    int fd = listen_for_syslog(root);
    if (sink_set("syslog") != NULL) {
        _exit(13);
    }
    // Not NULL: stderr gets it, too.
    const char *note = sink_write(report, sizeof(report) - 1);
    if (note == NULL || note[0] != '\0') {
        _exit(14);
    }
    if (!heard(fd, "firn: first") || !heard(fd, "firn:   second")) {
        _exit(15);
    }
    // The daemon is started anew.
    close(fd);
    fd = listen_for_syslog("/");
    note = sink_write(report, sizeof(report) - 1);
    if (note == NULL || note[0] != '\0' || !heard(fd, "firn: first")) {
        _exit(16);
    }
    close(fd);
    note = sink_write(report, sizeof(report) - 1);
    _exit(strcmp(note, "firn:   note: not written to syslog: nothing listens at /dev/log\n") == 0
              ? 7
              : 17);
}

static void syslog_gets_a_datagram_a_line(void **state) {
    (void)state;
    struct child c;
    char root[200], path[220];
    if (getuid() != 0) {
        skip();
    }
    snprintf(root, sizeof(root), "%s", scratch("root"));
    child_run(&c, report_to_syslog, root);
    snprintf(path, sizeof(path), "%s/dev/log", root);
    unlink(path);
    snprintf(path, sizeof(path), "%s/dev", root);
    rmdir(path);
    rmdir(root);
    assert_true(child_exited(&c, 7));
}

static void report_from_a_cage(void *folder) {
    const char *path = scratch("cage");
    unlink(path);
    if (sink_set(path) != NULL || chroot(folder) != 0 || sink_write("c\n", 2) != NULL) {
        _exit(11);
    }
    _exit(7);
}

static void file_is_reached_after_chroot(void **state) {
    (void)state;
    static char cage[] = "/proc";
    struct child c;
    if (getuid() != 0) {
        skip();
    }
    child_run(&c, report_from_a_cage, cage);
    assert_true(child_exited(&c, 7));
}

static void no_target_is_stderr(void *context) {
    (void)context;
    const char *note = sink_write(report, sizeof(report) - 1);
    _exit(note != NULL && note[0] == '\0' ? 5 : 6);
}

static void nothing_set_means_stderr(void **state) {
    (void)state;
    struct child c;
    child_run(&c, no_target_is_stderr, NULL);
    assert_true(child_exited(&c, 5));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_set_means_stderr),
        cmocka_unit_test(file_is_private_and_appended_to),
        cmocka_unit_test(closed_file_is_opened_again),
        cmocka_unit_test(kept_file_survives_its_name),
        cmocka_unit_test(unsafe_files_are_refused),
        cmocka_unit_test(another_users_file_is_refused),
        cmocka_unit_test(descriptor_is_remembered),
        cmocka_unit_test(bad_descriptors_are_refused),
        cmocka_unit_test(full_disk_is_told),
        cmocka_unit_test(syslog_gets_a_datagram_a_line),
        cmocka_unit_test(file_is_reached_after_chroot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
