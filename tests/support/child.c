#include "tests/support/child.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(99);
}

static void run_body(int output, void (*body)(void *), void *context) {
    struct rlimit none = {0, 0};
    // The test framework's handlers would turn a crash into a failed test, and go on in the child.
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE};
    for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++) {
        signal(crashes[i], SIG_DFL);
    }
    setrlimit(RLIMIT_CORE, &none);
    dup2(output, STDERR_FILENO);
    body(context);
    _exit(0);
}

void child_run(struct child *c, void (*body)(void *), void *context) {
    int ends[2];
    size_t n = 0;
    ssize_t got;
    if (pipe(ends) != 0) {
        fail("pipe");
    }
    pid_t pid = fork();
    if (pid < 0) {
        fail("fork");
    }
    if (pid == 0) {
        close(ends[0]);
        run_body(ends[1], body, context);
    }
    close(ends[1]);
    while (n + 1 < sizeof(c->said) &&
           (got = read(ends[0], c->said + n, sizeof(c->said) - 1 - n)) > 0) {
        n += (size_t)got;
    }
    c->said[n] = '\0';
    close(ends[0]);
    if (waitpid(pid, &c->status, 0) != pid) {
        fail("waitpid");
    }
}

bool child_exited(const struct child *c, int code) {
    return WIFEXITED(c->status) && WEXITSTATUS(c->status) == code;
}

bool test_is_thorough(void) {
    return getenv("FIRN_THOROUGH") != NULL;
}

bool child_died_of(const struct child *c, int signal_number) {
    return WIFSIGNALED(c->status) && WTERMSIG(c->status) == signal_number;
}
