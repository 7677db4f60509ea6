// P-REPORT. Raw system calls, as in sys.c; a report is written while anything may be broken.
#include "src/os/sink.h"

#include "src/base/text.h"
#include "src/os/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum sink_kind { SINK_NONE, SINK_FILE, SINK_DESCRIPTOR, SINK_SYSLOG };

// "user" and "critical", as syslog(3) numbers them.
enum { SYSLOG_PRIORITY = 1 << 3 | 2, SYSLOG_LINE_BYTES = 1000 };

static enum sink_kind kind;
static char target[SINK_TARGET_BYTES];
static struct keep kept = KEEP_NONE;

// A FIFO would block, a device may do anything; a file of some other user would show them addresses.
static const char *check_file(int fd) {
    struct stat st;
    if (syscall(SYS_fstat, fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return "it is not a regular file";
    }
    if (st.st_uid != (uid_t)syscall(SYS_geteuid) && st.st_uid != 0) {
        return "it belongs to another user";
    }
    return NULL;
}

static const char *why_not_open(void) {
    switch (errno) {
    case ELOOP:
        return "it is a symbolic link";
    case ENOENT:
        return "its folder does not exist";
    case EACCES:
    case EPERM:
        return "permission denied";
    case EROFS:
        return "the file system is read-only";
    case EMFILE:
    case ENFILE:
        return "there are too many open descriptors";
    default:
        return "it cannot be opened";
    }
}

static const char *open_file(int *fd) {
    const int flags =
        O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    *fd = (int)syscall(SYS_openat, AT_FDCWD, target, flags, 0600);
    if (*fd < 0) {
        return why_not_open();
    }
    const char *wrong = check_file(*fd);
    if (wrong != NULL) {
        syscall(SYS_close, *fd);
        *fd = -1;
    }
    return wrong;
}

static const char *open_syslog(int *fd) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    const struct timeval patience = {.tv_sec = 1};
    *fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (*fd < 0) {
        return "no socket can be had";
    }
    setsockopt(*fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (syscall(SYS_connect, *fd, &address, sizeof(address)) != 0) {
        syscall(SYS_close, *fd);
        *fd = -1;
        return "nothing listens at /dev/log";
    }
    return NULL;
}

static const char *open_target(int *fd) {
    *fd = -1;
    return kind == SINK_FILE     ? open_file(fd)
           : kind == SINK_SYSLOG ? open_syslog(fd)
                                 : "it is closed, or another file by now";
}

static const char *keep_opened(int fd) {
    keep_copy(&kept, fd);
    if (fd >= 0 && kind != SINK_DESCRIPTOR) {
        syscall(SYS_close, fd);
    }
    return kept.fd >= 0 ? NULL : "no descriptor is free for it";
}

const char *sink_set(const char *text) {
    const int saved = errno;
    uint64_t number = 0;
    const char *wrong = NULL;
    int fd;
    struct text copy = text_on(target, sizeof(target));
    text_str(&copy, text);
    kept = (struct keep)KEEP_NONE;
    if (strncmp(text, "fd:", 3) == 0) {
        kind = SINK_DESCRIPTOR;
        wrong = text_parse_size(text + 3, strlen(text + 3), &number) && number <= 0x7fffffff
                    ? NULL
                    : "it is not a number";
        fd = wrong == NULL ? (int)number : -1;
        if (wrong == NULL && syscall(SYS_fcntl, fd, F_GETFD) < 0) {
            wrong = "it is not open";
        }
    } else {
        kind = strcmp(text, "syslog") == 0 ? SINK_SYSLOG : SINK_FILE;
        wrong = open_target(&fd);
    }
    if (wrong == NULL) {
        wrong = keep_opened(fd);
    }
    errno = saved;
    return wrong;
}

static bool write_all(int fd, const char *text, size_t n) {
    long put;
    do {
        put = syscall(SYS_write, fd, text, n);
    } while (put < 0 && errno == EINTR);
    return put == (long)n;
}

// "<10>firn[PID]: line", without a time: the daemon adds its own.
static bool send_line(int fd, const char *line, size_t n) {
    char buffer[SYSLOG_LINE_BYTES];
    struct text t = text_on(buffer, sizeof(buffer));
    text_char(&t, '<');
    text_dec(&t, SYSLOG_PRIORITY);
    text_str(&t, ">firn[");
    text_dec(&t, (uint64_t)syscall(SYS_getpid));
    text_str(&t, "]: ");
    text_bytes(&t, line, n);
    return syscall(SYS_sendto, fd, t.data, t.length, MSG_NOSIGNAL, NULL, 0) == (long)t.length;
}

static bool send_lines(int fd, const char *text, size_t n) {
    for (size_t at = 0; at < n;) {
        const char *end = memchr(text + at, '\n', n - at);
        const size_t length = end != NULL ? (size_t)(end - text) - at : n - at;
        if (!send_line(fd, text + at, length)) {
            return false;
        }
        at += length + 1;
    }
    return true;
}

static bool put_out(int fd, const char *text, size_t n) {
    return fd >= 0 && (kind == SINK_SYSLOG ? send_lines(fd, text, n) : write_all(fd, text, n));
}

static const char *complain(const char *wrong) {
    static char note[SINK_TARGET_BYTES + 128];
    struct text t = text_on(note, sizeof(note));
    text_str(&t, "firn:   note: not written to ");
    for (const char *c = target; *c != '\0'; c++) {
        text_char(&t, *c >= ' ' && *c <= '~' ? *c : '?');
    }
    text_str(&t, ": ");
    text_str(&t, wrong);
    text_char(&t, '\n');
    return note;
}

const char *sink_write(const char *text, size_t n) {
    int fd = -1;
    const char *wrong = NULL;
    if (kind == SINK_NONE) {
        return "";
    }
    if (!put_out(keep_descriptor(&kept), text, n)) {
        // The program closed it, or the listener was started anew.
        wrong = open_target(&fd);
        if (wrong == NULL && !put_out(fd, text, n)) {
            wrong = "it takes no more";
        }
    }
    return wrong != NULL ? complain(wrong) : kind == SINK_SYSLOG ? "" : NULL;
}
