// P-FATAL: the report handler and FIRN_OPTIONS=report=... in a real process: the library preloaded, the
// process started anew for each case.
#include "tests/api/api.h"

#include "include/firn/firn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#pragma weak firn_set_report_handler

struct outcome {
    int status;
    char said[8192]; // its stderr
};

static char self[PATH_MAX];
static char *blocks[2];

static void say(const char *text) {
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
        _exit(93);
    }
}

static void misuse(void) {
    free(blocks[0]);
    free(blocks[0]);
}

// ---- the cases, each in a process of its own ----

static void on_report(const struct firn_report *report) {
    say("handler ");
    say(report->word);
    say(report->address == (uintptr_t)blocks[0] ? " right\n" : " wrong\n");
}

static void case_handler(void) {
    firn_set_report_handler(on_report);
    misuse();
}

static void misuse_more(const struct firn_report *report) {
    on_report(report);
    free(blocks[1]);
    free(blocks[1]);
}

static void case_handler_misuses(void) {
    firn_set_report_handler(misuse_more);
    misuse();
}

static void crash(const struct firn_report *report) {
    on_report(report);
    raise(SIGSEGV);
}

static void case_handler_crashes(void) {
    firn_set_report_handler(crash);
    misuse();
}

static void on_signal(int number) {
    (void)number;
    misuse();
}

static void case_in_signal_handler(void) {
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
}

static void *run_misuse(void *unused) {
    (void)unused;
    for (;;) {
        misuse();
    }
    return NULL;
}

static void case_two_threads(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, run_misuse, NULL);
    run_misuse(NULL);
}

static void case_plain(void) {
    misuse();
}

static void case_closed_descriptors(void) {
    for (int fd = 3; fd < 100000; fd++) {
        close(fd);
    }
    misuse();
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"handler", case_handler},
    {"handler_misuses", case_handler_misuses},
    {"handler_crashes", case_handler_crashes},
    {"in_signal_handler", case_in_signal_handler},
    {"two_threads", case_two_threads},
    {"plain", case_plain},
    {"closed_descriptors", case_closed_descriptors},
};
enum { CASES = sizeof(cases) / sizeof(cases[0]) };

static int run_case(const char *name) {
    for (int i = 0; i < CASES; i++) {
        if (strcmp(cases[i].name, name) == 0) {
            blocks[0] = malloc(100);
            blocks[1] = malloc(100);
            cases[i].run();
        }
    }
    return 3;
}

// ---- the harness ----

static struct outcome start(const char *name, const char *options) {
    struct outcome o;
    int err[2];
    size_t n = 0;
    ssize_t got;
    memset(&o, 0, sizeof(o));
    if (pipe2(err, O_CLOEXEC) != 0) {
        return o;
    }
    const pid_t child = fork();
    if (child == 0) {
        dup2(err[1], STDERR_FILENO);
        if (options != NULL) {
            setenv("FIRN_OPTIONS", options, 1);
        }
        alarm(60);
        execl(self, self, name, (char *)NULL);
        _exit(98);
    }
    close(err[1]);
    while (n + 1 < sizeof(o.said) && (got = read(err[0], o.said + n, sizeof(o.said) - 1 - n)) > 0) {
        n += (size_t)got;
    }
    close(err[0]);
    waitpid(child, &o.status, 0);
    return o;
}

static int failures;

static void verdict(const char *name, int is_right, const char *said) {
    if (is_right) {
        printf("ok %s\n", name);
    } else {
        printf("not ok %s: %.600s\n", name, said);
        failures++;
    }
}

static int aborted(const struct outcome *o) {
    return WIFSIGNALED(o->status) && WTERMSIG(o->status) == SIGABRT;
}

static int count(const char *text, const char *word) {
    int n = 0;
    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word)) {
        n++;
    }
    return n;
}

static int has_lines(const char *said) {
    static const char *const lines[] = {
        "firn: double-free: free(0x", "\nfirn:   block: slot ",       "\nfirn:   state: free",
        "\nfirn:   thread: ",         "\nfirn:   look at: addr2line", "\nfirn:   hint: ",
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (count(said, lines[i]) != 1) {
            return 0;
        }
    }
    return 1;
}

static void check_handlers(void) {
    static const char *const names[] = {"handler", "handler_misuses", "handler_crashes"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct outcome o = start(names[i], NULL);
        const char *heard = strstr(o.said, "handler double-free right\n");
        verdict(names[i],
                aborted(&o) && has_lines(o.said) && heard != NULL && strlen(heard) == 26 &&
                    count(o.said, "handler") == 1 + (strstr(o.said, "handler_") != NULL),
                o.said);
    }
}

static void check_places(void) {
    static const char *const names[] = {"plain", "in_signal_handler", "two_threads"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct outcome o = start(names[i], NULL);
        verdict(names[i], aborted(&o) && has_lines(o.said), o.said);
    }
}

static void check_file(const char *name, const char *path) {
    char options[PATH_MAX], text[4096] = "";
    struct stat st;
    snprintf(options, sizeof(options), "report=%s", path);
    unlink(path);
    const struct outcome o = start(name, options);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    char label[64];
    snprintf(label, sizeof(label), "file_%s", name);
    verdict(label,
            aborted(&o) && o.said[0] == '\0' && has_lines(text) && fstat(fd, &st) == 0 &&
                (st.st_mode & 0777) == 0600,
            n > 0 ? text : o.said);
    close(fd);
    unlink(path);
}

static void check_targets(void) {
    char path[PATH_MAX];
    const char *folder = getenv("TMPDIR");
    snprintf(path, sizeof(path), "%s/report", folder != NULL ? folder : "/tmp");
    check_file("plain", path);
    check_file("closed_descriptors", path);
    const struct outcome fd = start("plain", "report=fd:2");
    verdict("descriptor", aborted(&fd) && has_lines(fd.said), fd.said);
    static const char refusal[] =
        "firn: FIRN_OPTIONS: report: cannot use '/no/such/folder/x': its folder does not exist; "
        "reports go to standard error\n";
    const struct outcome bad = start("plain", "report=/no/such/folder/x");
    verdict("unusable_file",
            aborted(&bad) && has_lines(bad.said) &&
                strncmp(bad.said, refusal, strlen(refusal)) == 0 &&
                strstr(bad.said, "\nfirn:   note: not written to /no/such/folder/x: its folder "
                                 "does not exist\n") != NULL,
            bad.said);
}

int main(int argc, char **argv) {
    const ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    if (argc > 1) {
        return run_case(argv[1]);
    }
    api_require_firn("test_report");
    check_handlers();
    check_places();
    check_targets();
    printf("1..10\n");
    return failures != 0;
}
