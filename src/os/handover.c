#include "src/os/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

static void close_both(struct handover *h) {
    if (h->from >= 0) {
        syscall(SYS_close, h->from);
    }
    if (h->to >= 0) {
        syscall(SYS_close, h->to);
    }
    h->from = h->to = -1;
}

void handover_prepare(struct handover *h) {
    const int saved = errno;
    int ends[2] = {-1, -1};
    (void)syscall(SYS_pipe2, ends, O_CLOEXEC);
    h->from = ends[0];
    h->to = ends[1];
    errno = saved;
}

// A byte, not only the end of the file: another child, made by another thread just now, may hold a copy
// of our end.
void handover_done(struct handover *h) {
    const int saved = errno;
    if (h->to >= 0) {
        while (syscall(SYS_write, h->to, "", 1) < 0 && errno == EINTR) {
        }
    }
    close_both(h);
    errno = saved;
}

void handover_wait(struct handover *h) {
    const int saved = errno;
    char byte;
    if (h->to >= 0) {
        syscall(SYS_close, h->to);
        h->to = -1;
        while (syscall(SYS_read, h->from, &byte, 1) < 0 && errno == EINTR) {
        }
    }
    close_both(h);
    errno = saved;
}
