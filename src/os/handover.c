#include "src/os/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

static void close_writer(struct handover *h) {
    if (h->to >= 0) {
        syscall(SYS_close, h->to);
    }
    h->to = -1;
}

static void close_reader(struct handover *h) {
    int fd = keep_descriptor(&h->from);
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    h->from = (struct keep)KEEP_NONE;
}

void handover_prepare(struct handover *h) {
    const int saved = errno;
    int ends[2] = {-1, -1};
    *h = (struct handover)HANDOVER_NONE;
    if (syscall(SYS_pipe2, ends, O_CLOEXEC) == 0) {
        keep_copy(&h->from, ends[0]);
        syscall(SYS_close, ends[0]);
        h->to = ends[1];
    }
    errno = saved;
}

bool handover_can_tell(const struct handover *h) {
    return h->from.fd >= 0 && h->to >= 0;
}

// A byte, not only the end of the file: another child, made by another thread just now, may hold a copy
// of our end.
void handover_done(struct handover *h) {
    const int saved = errno;
    if (h->to >= 0) {
        while (syscall(SYS_write, h->to, "", 1) < 0 && errno == EINTR) {
        }
    }
    close_writer(h);
    close_reader(h);
    errno = saved;
}

void handover_begin(struct handover *h) {
    const int saved = errno;
    close_writer(h);
    errno = saved;
}

// Readable, or at its end.
static bool is_ready(const struct handover *h, int timeout_ms) {
    struct pollfd p = {.fd = keep_descriptor(&h->from), .events = POLLIN};
    long n = 0;
    while (p.fd >= 0 && (n = syscall(SYS_poll, &p, 1, timeout_ms)) < 0 && errno == EINTR) {
    }
    return n > 0;
}

bool handover_is_over(struct handover *h) {
    const int saved = errno;
    bool is_over = is_ready(h, 0);
    if (is_over) {
        close_reader(h);
    }
    errno = saved;
    return is_over;
}

void handover_wait(struct handover *h) {
    const int saved = errno;
    close_writer(h);
    (void)is_ready(h, -1);
    close_reader(h);
    errno = saved;
}

void handover_forget(struct handover *h) {
    const int saved = errno;
    close_writer(h);
    close_reader(h);
    errno = saved;
}
