// A trigger of the kernel's tells, by POLLPRI, once in two seconds at most, that some thread had to wait for
// memory for so many of the microseconds of a window; a pipe or a socket tells by bytes that mean nothing.
#include "src/os/strain.h"

#include "src/base/text.h"
#include "src/os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { NAME_BYTES = 256, TEXT_BYTES = 128 };

// systemd's own default.
static const char trigger[] = "some 200000 2000000";

static char path[NAME_BYTES], told[TEXT_BYTES];
static size_t told_bytes;
static bool is_told;
static struct strain_poll polled = {-1, 0};

// ---- from the environment -------------------------------------------------------------------------

static int value_of(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

// False unless it is base64 of no more than fits.
static bool decode(const char *in) {
    uint32_t bits = 0;
    unsigned have = 0;
    told_bytes = 0;
    for (; *in != '\0' && *in != '='; in++) {
        int value = value_of(*in);
        if (value < 0 || told_bytes == TEXT_BYTES) {
            return false;
        }
        bits = bits << 6 | (uint32_t)value;
        have += 6;
        if (have >= 8) {
            have -= 8;
            told[told_bytes++] = (char)(bits >> have & 0xff);
        }
    }
    return strspn(in, "=") == strlen(in);
}

void strain_choose(const char *watch, const char *write) {
    is_told = watch != NULL;
    path[0] = '\0';
    told_bytes = 0;
    if (is_told && watch[0] == '/' && strlen(watch) < NAME_BYTES &&
        strcmp(watch, "/dev/null") != 0 && (write == NULL || decode(write))) {
        memcpy(path, watch, strlen(watch) + 1);
    }
}

// ---- opening --------------------------------------------------------------------------------------

static int connect_to(const char *name) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(name) >= sizeof to.sun_path) {
        return -1;
    }
    memcpy(to.sun_path, name, strlen(name) + 1);
    int fd = (int)syscall(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && syscall(SYS_connect, fd, &to, sizeof to) != 0) {
        syscall(SYS_close, fd);
        fd = -1;
    }
    return fd;
}

// A pipe for writing, too: so it does not end when whoever wrote to it closes it.
static struct strain_poll open_path(const char *name, const char *what, size_t bytes) {
    struct strain_poll none = {-1, 0};
    struct stat s;
    if (stat(name, &s) != 0) {
        return none;
    }
    struct strain_poll p = {-1, S_ISREG(s.st_mode) ? POLLPRI : POLLIN};
    if (S_ISSOCK(s.st_mode)) {
        p.descriptor = connect_to(name);
    } else if (S_ISREG(s.st_mode) || S_ISFIFO(s.st_mode)) {
        p.descriptor =
            (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    }
    if (p.descriptor >= 0 && bytes > 0 &&
        syscall(SYS_write, p.descriptor, what, bytes) != (long)bytes) {
        syscall(SYS_close, p.descriptor);
        return none;
    }
    return p;
}

// The line of the one hierarchy that has memory.pressure: "0::/path".
static bool find_cgroup(char *out, size_t capacity) {
    static const char root[] = "/sys/fs/cgroup", file[] = "/memory.pressure";
    char lines[1024];
    size_t n = sys_read_file("/proc/self/cgroup", lines, sizeof lines - 1);
    lines[n] = '\0';
    const char *at = strncmp(lines, "0::", 3) == 0 ? lines : strstr(lines, "\n0::");
    if (at == NULL) {
        return false;
    }
    at = strchr(at, '/');
    size_t bytes = at != NULL ? strcspn(at, "\n") : 0;
    if (bytes == 0 || sizeof root + bytes + sizeof file > capacity) {
        return false;
    }
    struct text t = text_on(out, capacity);
    text_str(&t, root);
    for (size_t i = 0; i < bytes; i++) {
        text_char(&t, at[i]);
    }
    text_str(&t, file);
    out[t.length] = '\0';
    return true;
}

void strain_open(void) {
    char own[512];
    strain_close();
    if (is_told) {
        polled = path[0] != '\0' ? open_path(path, told, told_bytes) : polled;
        return;
    }
    if (find_cgroup(own, sizeof own)) {
        polled = open_path(own, trigger, sizeof trigger);
    }
    if (polled.descriptor < 0) {
        polled = open_path("/proc/pressure/memory", trigger, sizeof trigger);
    }
}

void strain_close(void) {
    if (polled.descriptor >= 0) {
        syscall(SYS_close, polled.descriptor);
    }
    polled = (struct strain_poll){-1, 0};
}

// ---- listening ------------------------------------------------------------------------------------

struct strain_poll strain_poll(void) {
    return polled;
}

bool strain_is_short(short events) {
    char any[256];
    long n = 1;
    bool is_gone = (events & (POLLERR | POLLHUP | POLLNVAL)) != 0;
    bool is_short = !is_gone && (events & POLLPRI) != 0;
    while ((events & POLLIN) != 0 &&
           (n = syscall(SYS_read, polled.descriptor, any, sizeof any)) > 0) {
        is_short = true;
    }
    if (n == 0 || is_gone) { // a trigger that is gone says POLLPRI for ever
        strain_close();
    }
    return is_short;
}
