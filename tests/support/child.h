// Runs a piece of a test in a forked child, for what ends a process or changes it for good.
#ifndef FIRN_TESTS_CHILD_H
#define FIRN_TESTS_CHILD_H

#include <stdbool.h>
#include <stddef.h>

struct child {
    int status;      // as from waitpid
    char said[4096]; // its stderr, NUL-terminated
};

// The child ends with status 0 when `body` returns. It dumps no core.
void child_run(struct child *c, void (*body)(void *), void *context);
bool child_exited(const struct child *c, int code);
bool child_died_of(const struct child *c, int signal_number);

// FIRN_THOROUGH is set, as in CI: everything that a test can try, and not a share of it.
bool test_is_thorough(void);

#endif
