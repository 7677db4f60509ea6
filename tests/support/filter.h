// Real seccomp filters for tests: a process that makes a system call outside of the list ends with
// FILTER_EXIT, and names it on standard error.
#ifndef FIRN_TESTS_FILTER_H
#define FIRN_TESTS_FILTER_H

#include <stdbool.h>
#include <stddef.h>

enum { FILTER_EXIT = 87 };

enum filter_kind {
    FILTER_OPENSSH, // what sshd's child may do before the user has logged in
    FILTER_STRICT, // read, write and the end of the thread: the kernel's own strict mode, by SIGKILL
    FILTER_WRITE,  // write and exit_group
    FILTER_SERVICE, // systemd's @system-service
    FILTER_DOCKER,  // Docker's default profile
    FILTER_NO_FORK  // everything; a new process or thread is refused with EAGAIN
};

enum filter_way {
    FILTER_BY_PRCTL,   // prctl(PR_SET_SECCOMP)
    FILTER_BY_SECCOMP, // syscall(SYS_seccomp)
};

// For the calling thread and all it creates. False where the kernel has no filters.
bool filter_install(enum filter_kind kind, enum filter_way way);

#endif
