// FIRN_OPTIONS seen from outside: what a process prints at its start and end, and that it never
// prints into a file of the program.
#include "tests/api/api.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct run {
    int status;
    pid_t pid;
    char said[4096]; // on standard error
};

// Runs this program as `mode` under FIRN_OPTIONS=`options` (NULL: unset).
static struct run run(const char *mode, const char *options) {
    struct run r;
    int ends[2];
    memset(&r, 0, sizeof(r));
    assert_int_equal(pipe(ends), 0);
    r.pid = fork();
    if (r.pid == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        if (options != NULL) {
            setenv("FIRN_OPTIONS", options, 1);
        } else {
            unsetenv("FIRN_OPTIONS");
        }
        execl("/proc/self/exe", "test_environment", mode, (char *)NULL);
        _exit(98);
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t got;
    while (n + 1 < sizeof(r.said) &&
           (got = read(ends[0], r.said + n, sizeof(r.said) - 1 - n)) > 0) {
        n += (size_t)got;
    }
    close(ends[0]);
    assert_int_equal(waitpid(r.pid, &r.status, 0), r.pid);
    return r;
}

static void expect_said(const char *options, const char *want) {
    const struct run r = run("plain", options);
    assert_int_equal(r.status, 0);
    assert_string_equal(r.said, want);
}

static void test_silence_is_the_default(void **state) {
    (void)state;
    expect_said(NULL, "");
    expect_said("", "");
    expect_said("purge_delay=0", "");
    expect_said("purge_delay=600000:verbose=0", "");
}

static void test_verbose_says_one_line(void **state) {
    (void)state;
    char want[128];
    const struct run r = run("plain", "verbose=1");
    snprintf(want, sizeof(want), "firn: %s pid=%d\n", api_version(), (int)r.pid);
    assert_string_equal(r.said, want);
    assert_int_equal(r.status, 0);
}

static void test_misspelt_options_are_reported(void **state) {
    (void)state;
    expect_said("verbsoe=1",
                "firn: FIRN_OPTIONS: unknown option 'verbsoe' ignored; closest is 'verbose'\n");
    expect_said("purge_delay=soon",
                "firn: FIRN_OPTIONS: purge_delay: value 'soon' ignored; expected 0 to 600000\n");
}

static void test_abort_conf(void **state) {
    (void)state;
    const struct run r = run("plain", "abort_conf=1:verbsoe=1");
    assert_true(WIFSIGNALED(r.status));
    assert_int_equal(WTERMSIG(r.status), SIGABRT);
    assert_string_equal(
        r.said, "firn: FIRN_OPTIONS: unknown option 'verbsoe' ignored; closest is 'verbose'\n"
                "firn: FIRN_OPTIONS: abort_conf=1 ends the process\n");
}

static void expect_summary(const char *mode) {
    char start[128];
    const struct run r = run(mode, "stats=exit");
    snprintf(start, sizeof(start), "firn: %s pid=%d\nfirn:   allocated ", api_version(),
             (int)r.pid);
    assert_memory_equal(r.said, start, strlen(start));
    assert_int_equal(r.status, 0);
    const char *last = strstr(r.said, "\nfirn:   mesh: engine ");
    assert_non_null(last);
    // One summary, and nothing after it.
    assert_ptr_equal(strchr(last + 1, '\n'), r.said + strlen(r.said) - 1);
    assert_null(strstr(r.said + 1, start));
}

static void test_stats_at_exit(void **state) {
    (void)state;
    expect_summary("plain");
}

// As coreutils do: the stream is closed, and the descriptor with it, before destructors run.
static void test_stats_after_stderr_is_closed(void **state) {
    (void)state;
    expect_summary("close-stderr");
}

static void test_stats_survive_closing_everything_low(void **state) {
    (void)state;
    expect_summary("close-1023");
}

// The program's file has number 2, and every other number Firn could have kept.
static void test_stats_never_go_to_the_programs_files(void **state) {
    (void)state;
    const struct run r = run("steal-descriptors", "stats=exit");
    assert_int_equal(r.status, 0);
    assert_string_equal(r.said, "");
}

static void test_stats_when_stderr_was_never_open(void **state) {
    (void)state;
    const struct run r = run("without-stderr", "stats=exit");
    assert_int_equal(r.status, 0);
    assert_string_equal(r.said, "");
}

static void test_a_line_on_the_signal(void **state) {
    (void)state;
    char start[64];
    const struct run r = run("raise", "stats_signal=on");
    assert_int_equal(r.status, 0);
    snprintf(start, sizeof(start), "firn: pid=%d cold=none frozen_kib=0 ", (int)r.pid);
    assert_memory_equal(r.said, start, strlen(start));
    assert_ptr_equal(strchr(r.said, '\n'), r.said + strlen(r.said) - 1);
}

// Without the option, and where the program has something else in mind.
static void test_the_signal_is_the_programs(void **state) {
    (void)state;
    struct run r = run("raise", NULL);
    assert_true(WIFSIGNALED(r.status) && WTERMSIG(r.status) == SIGUSR2);
    assert_string_equal(r.said, "");
    r = run("raise-own", "stats_signal=on");
    assert_int_equal(r.status, 0);
    assert_string_equal(r.said, "own");
    r = run("raise-ignored", "stats_signal=on");
    assert_int_equal(r.status, 0);
    assert_string_equal(r.said, "");
}

// ---- modes ----

static int mode_raise(void) {
    free(malloc(1000));
    errno = 77;
    raise(SIGUSR2);
    return errno == 77 ? 0 : 1;
}

static void say_own(int number) {
    (void)number;
    (void)!write(2, "own", 3);
}

static int mode_raise_own(void) {
    signal(SIGUSR2, say_own);
    return mode_raise();
}

// Ignored when the program starts.
static int mode_raise_ignored(void) {
    signal(SIGUSR2, SIG_IGN);
    execl("/proc/self/exe", "test_environment", "raise", (char *)NULL);
    return 98;
}

static int mode_close_stderr(void) {
    fclose(stderr);
    return 0;
}

static int mode_close_1023(void) {
    for (int fd = 2; fd < 1024; fd++) {
        close(fd);
    }
    return 0;
}

// Every open descriptor but 0 and 1 becomes the program's file; a wrapper checks that it is empty.
static int mode_steal_descriptors(void) {
    char path[] = "/tmp/firn-environment-XXXXXX";
    const int file = mkstemp(path);
    const pid_t child = fork();
    if (child == 0) {
        for (int fd = 2; fd < 70000; fd++) {
            if (fd != file && fcntl(fd, F_GETFD) >= 0) {
                dup2(file, fd);
            }
        }
        exit(0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    const off_t written = lseek(file, 0, SEEK_END);
    unlink(path);
    _exit(status == 0 && written == 0 ? 0 : 1);
}

static int mode_without_stderr(void) {
    close(2);
    execl("/proc/self/exe", "test_environment", "plain", (char *)NULL);
    return 98;
}

int main(int argc, char **argv) {
    api_require_firn("test_environment");
    static const struct {
        const char *name;
        int (*run)(void);
    } modes[] = {{"close-stderr", mode_close_stderr},
                 {"close-1023", mode_close_1023},
                 {"raise", mode_raise},
                 {"raise-own", mode_raise_own},
                 {"raise-ignored", mode_raise_ignored},
                 {"steal-descriptors", mode_steal_descriptors},
                 {"without-stderr", mode_without_stderr}};
    for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(argv[1], modes[i].name) == 0) {
            return modes[i].run();
        }
    }
    if (argc > 1) {
        free(malloc(1000));
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silence_is_the_default),
        cmocka_unit_test(test_verbose_says_one_line),
        cmocka_unit_test(test_misspelt_options_are_reported),
        cmocka_unit_test(test_abort_conf),
        cmocka_unit_test(test_stats_at_exit),
        cmocka_unit_test(test_a_line_on_the_signal),
        cmocka_unit_test(test_the_signal_is_the_programs),
        cmocka_unit_test(test_stats_after_stderr_is_closed),
        cmocka_unit_test(test_stats_survive_closing_everything_low),
        cmocka_unit_test(test_stats_never_go_to_the_programs_files),
        cmocka_unit_test(test_stats_when_stderr_was_never_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
