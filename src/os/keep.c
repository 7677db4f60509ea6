// Daemons close descriptors in loops ("3 to 1023") and coreutils closes its stderr before the last
// destructor runs. A copy with a high number survives both, most of the time; identity is checked
// for the rest.
#include "src/os/keep.h"

#include "src/os/caps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open // Linux 5.3
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd // Linux 5.6
#define SYS_pidfd_getfd 438
#endif

// Not libc's: that one is exported by us too (preload/syscalls.c), for programs.
static int stat_of(int fd, struct stat *st) {
    return (int)syscall(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH);
}

void keep_copy(struct keep *k, int fd) {
    static const int lowest[] = {65536, 4096, 1024, 256, 10, 3};
    const int saved = errno;
    struct stat st;
    if (stat_of(fd, &st) == 0) {
        // The process's limit decides how high is possible; asking is cheaper than reading it.
        for (size_t i = 0; i < sizeof(lowest) / sizeof(lowest[0]) && k->fd < 0; i++) {
            k->fd = fcntl(fd, F_DUPFD_CLOEXEC, lowest[i]);
        }
        k->device = (uint64_t)st.st_dev;
        k->inode = (uint64_t)st.st_ino;
    }
    errno = saved;
}

int keep_descriptor(const struct keep *k) {
    const int saved = errno;
    struct stat st;
    const int is_same = k->fd >= 0 && stat_of(k->fd, &st) == 0 &&
                        (uint64_t)st.st_dev == k->device && (uint64_t)st.st_ino == k->inode;
    errno = saved;
    return is_same ? k->fd : -1;
}

int keep_borrow(const struct keep *k) {
    const int saved = errno;
    const bool may = k->fd >= 0 && caps_has(CAP_BORROW);
    long process = may ? syscall(SYS_pidfd_open, (int)syscall(SYS_getpid), 0) : -1;
    long fd = process >= 0 ? syscall(SYS_pidfd_getfd, (int)process, k->fd, 0) : -1;
    if (process >= 0) {
        syscall(SYS_close, (int)process);
    }
    if (fd >= 0) {
        const struct keep copy = {(int)fd, k->device, k->inode};
        if (keep_descriptor(&copy) < 0) {
            syscall(SYS_close, (int)fd);
            fd = -1;
        }
    }
    errno = saved;
    return (int)fd;
}
