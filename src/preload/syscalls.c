// The calls by which a program lets the kernel write into its memory. Where the kernel cannot wait for
// a page that is being merged (os/pin.h), the memory is pinned for the time of the call. Memory outside
// of the small cells is never merged, and passes with two comparisons.
//
// Each goes on to the next definition in load order, libc's or that of another preloaded library. Not
// in the archive, where there is no next one: there the engines that need pins are not used.
#include "src/base/compiler.h"
#include "src/heap/storm.h"
#include "src/meta/root.h"
#include "src/os/map.h"
#include "src/os/pin.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Fortified forms, which headers declare to fortified programs only.
ssize_t __read_chk(int fd, void *p, size_t n, size_t room);
ssize_t __pread_chk(int fd, void *p, size_t n, off_t offset, size_t room);
ssize_t __pread64_chk(int fd, void *p, size_t n, off_t offset, size_t room);
ssize_t __recv_chk(int fd, void *p, size_t n, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *p, size_t n, size_t room, int flags, struct sockaddr *from,
                       socklen_t *from_bytes);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
                size_t room);
ssize_t __readlink_chk(const char *path, char *p, size_t n, size_t room);
ssize_t __readlinkat_chk(int fd, const char *path, char *p, size_t n, size_t room);
char *__getcwd_chk(char *p, size_t n, size_t room);

// clang-format off
#define NAMES(X)                                                                                  \
    X(read) X(__read_chk) X(pread) X(pread64) X(__pread_chk) X(__pread64_chk) X(readv) X(preadv)  \
    X(preadv64) X(preadv2) X(preadv64v2) X(readlink) X(__readlink_chk) X(readlinkat)              \
    X(__readlinkat_chk) X(getcwd) X(__getcwd_chk) X(fstat) X(stat) X(lstat) X(fstatat)            \
    X(fstatfs) X(statfs) X(fstat64) X(stat64) X(lstat64) X(fstatat64) X(fstatfs64) X(statfs64)    \
    X(statx) X(getrandom) X(getentropy) X(pipe) X(pipe2) X(recv) X(__recv_chk) X(recvfrom)        \
    X(__recvfrom_chk) X(recvmsg) X(recvmmsg) X(accept) X(accept4) X(getsockname) X(getpeername)   \
    X(getsockopt) X(socketpair) X(msgrcv) X(poll) X(__poll_chk) X(ppoll) X(__ppoll_chk)           \
    X(epoll_wait) X(epoll_pwait) X(select) X(pselect) X(waitpid) X(wait) X(wait4) X(waitid)       \
    X(nanosleep) X(sigtimedwait) X(sigwaitinfo) X(ioctl)
// clang-format on

// NOLINTNEXTLINE(bugprone-macro-parentheses): a name cannot stand in them
#define MEMBER(name) __typeof__(&(name)) name;
struct definitions {
    NAMES(MEMBER)
};

// Alone on a page that is read-only after start: pointers to functions are what an attacker wants.
static _Alignas(FIRN_PAGE) union {
    struct definitions of;
    char page[FIRN_PAGE];
} next;

// ISO C has no cast from object to function.
#define LOOK_UP(name)                                                                              \
    found = dlsym(RTLD_NEXT, #name);                                                               \
    memcpy(&next.of.name, &found, sizeof found);

// At start, before there are threads: dlsym takes the loader's lock, which calls in signal handlers and
// forked children had better not. Constructors that run earlier come here by themselves.
__attribute__((constructor)) static void look_up(void) {
    void *found;
    if (next.of.read == NULL) {
        NAMES(LOOK_UP)
        map_make_readonly((uintptr_t)&next, sizeof next);
        pin_announce();
        storm_start_if_asked();
    }
}

static long missing(void) {
    errno = ENOSYS;
    return -1;
}

// ---- a call -----------------------------------------------------------------------------------

// Blocks of the heap that the kernel may write lie between; high 0: there are none.
struct writes {
    uintptr_t low, high;
};

static void add(struct writes *w, const void *p, size_t n) {
    uintptr_t low = (uintptr_t)p;
    uintptr_t offset = low - FIRN_ROOT.small_base;
    if (FIRN_LIKELY(offset >= FIRN_ROOT.small_bytes) || n == 0) {
        return;
    }
    size_t room = FIRN_ROOT.small_bytes - offset;
    uintptr_t high = low + (n < room ? n : room);
    w->low = w->high == 0 || low < w->low ? low : w->low;
    w->high = high > w->high ? high : w->high;
}

static void add_vector(struct writes *w, const struct iovec *v, size_t n) {
    for (size_t i = 0; v != NULL && i < n && i < IOV_MAX; i++) {
        add(w, v[i].iov_base, v[i].iov_len);
    }
}

static void add_address(struct writes *w, const void *address, const socklen_t *bytes) {
    if (address != NULL && bytes != NULL) {
        add(w, address, *bytes);
        add(w, bytes, sizeof *bytes);
    }
}

static void add_message(struct writes *w, const struct msghdr *m) {
    if (m != NULL) {
        add(w, m, sizeof *m);
        add(w, m->msg_name, m->msg_namelen);
        add(w, m->msg_control, m->msg_controllen);
        add_vector(w, m->msg_iov, m->msg_iovlen);
    }
}

static size_t count(int n) {
    return n > 0 ? (size_t)n : 0;
}

static unsigned begin(const struct writes *w) {
    return FIRN_UNLIKELY(w->high != 0) ? pin_enter(w->low, w->high - w->low) : 0;
}

static void end(const struct writes *w, unsigned pin) {
    if (FIRN_UNLIKELY(w->high != 0)) {
        pin_leave(pin);
    }
}

// The body of a call: `pins` adds to `w`, then the next definition of `name` runs. A thread cancelled in
// it leaves its pin, which ends with the thread.
#define CALL(type, pins, name, ...)                                                                \
    do {                                                                                           \
        struct writes w = {0, 0};                                                                  \
        pins;                                                                                      \
        unsigned pin = begin(&w);                                                                  \
        if (FIRN_UNLIKELY(next.of.name == NULL)) {                                                 \
            look_up();                                                                             \
        }                                                                                          \
        type result = next.of.name != NULL ? next.of.name(__VA_ARGS__) : (type)missing();          \
        end(&w, pin);                                                                              \
        return result;                                                                             \
    } while (0)

// ---- files -------------------------------------------------------------------------------------

FIRN_EXPORT ssize_t read(int fd, void *p, size_t n) {
    CALL(ssize_t, add(&w, p, n), read, fd, p, n);
}

FIRN_EXPORT ssize_t __read_chk(int fd, void *p, size_t n, size_t room) {
    CALL(ssize_t, add(&w, p, n), __read_chk, fd, p, n, room);
}

FIRN_EXPORT ssize_t pread(int fd, void *p, size_t n, off_t offset) {
    CALL(ssize_t, add(&w, p, n), pread, fd, p, n, offset);
}

FIRN_EXPORT ssize_t pread64(int fd, void *p, size_t n, off64_t offset) {
    CALL(ssize_t, add(&w, p, n), pread64, fd, p, n, offset);
}

FIRN_EXPORT ssize_t __pread_chk(int fd, void *p, size_t n, off_t offset, size_t room) {
    CALL(ssize_t, add(&w, p, n), __pread_chk, fd, p, n, offset, room);
}

FIRN_EXPORT ssize_t __pread64_chk(int fd, void *p, size_t n, off_t offset, size_t room) {
    CALL(ssize_t, add(&w, p, n), __pread64_chk, fd, p, n, offset, room);
}

FIRN_EXPORT ssize_t readv(int fd, const struct iovec *v, int n) {
    CALL(ssize_t, add_vector(&w, v, count(n)), readv, fd, v, n);
}

FIRN_EXPORT ssize_t preadv(int fd, const struct iovec *v, int n, off_t offset) {
    CALL(ssize_t, add_vector(&w, v, count(n)), preadv, fd, v, n, offset);
}

FIRN_EXPORT ssize_t preadv64(int fd, const struct iovec *v, int n, off64_t offset) {
    CALL(ssize_t, add_vector(&w, v, count(n)), preadv64, fd, v, n, offset);
}

FIRN_EXPORT ssize_t preadv2(int fd, const struct iovec *v, int n, off_t offset, int flags) {
    CALL(ssize_t, add_vector(&w, v, count(n)), preadv2, fd, v, n, offset, flags);
}

FIRN_EXPORT ssize_t preadv64v2(int fd, const struct iovec *v, int n, off64_t offset, int flags) {
    CALL(ssize_t, add_vector(&w, v, count(n)), preadv64v2, fd, v, n, offset, flags);
}

FIRN_EXPORT ssize_t readlink(const char *restrict path, char *restrict p, size_t n) {
    CALL(ssize_t, add(&w, p, n), readlink, path, p, n);
}

FIRN_EXPORT ssize_t __readlink_chk(const char *path, char *p, size_t n, size_t room) {
    CALL(ssize_t, add(&w, p, n), __readlink_chk, path, p, n, room);
}

FIRN_EXPORT ssize_t readlinkat(int fd, const char *restrict path, char *restrict p, size_t n) {
    CALL(ssize_t, add(&w, p, n), readlinkat, fd, path, p, n);
}

FIRN_EXPORT ssize_t __readlinkat_chk(int fd, const char *path, char *p, size_t n, size_t room) {
    CALL(ssize_t, add(&w, p, n), __readlinkat_chk, fd, path, p, n, room);
}

FIRN_EXPORT char *getcwd(char *p, size_t n) {
    CALL(char *, add(&w, p, n), getcwd, p, n);
}

FIRN_EXPORT char *__getcwd_chk(char *p, size_t n, size_t room) {
    CALL(char *, add(&w, p, n), __getcwd_chk, p, n, room);
}

FIRN_EXPORT int fstat(int fd, struct stat *out) {
    CALL(int, add(&w, out, sizeof *out), fstat, fd, out);
}

FIRN_EXPORT int stat(const char *restrict path, struct stat *restrict out) {
    CALL(int, add(&w, out, sizeof *out), stat, path, out);
}

FIRN_EXPORT int lstat(const char *restrict path, struct stat *restrict out) {
    CALL(int, add(&w, out, sizeof *out), lstat, path, out);
}

FIRN_EXPORT int fstatat(int fd, const char *restrict path, struct stat *restrict out, int flags) {
    CALL(int, add(&w, out, sizeof *out), fstatat, fd, path, out, flags);
}

FIRN_EXPORT int fstatfs(int fd, struct statfs *out) {
    CALL(int, add(&w, out, sizeof *out), fstatfs, fd, out);
}

FIRN_EXPORT int statfs(const char *path, struct statfs *out) {
    CALL(int, add(&w, out, sizeof *out), statfs, path, out);
}

FIRN_EXPORT int fstat64(int fd, struct stat64 *out) {
    CALL(int, add(&w, out, sizeof *out), fstat64, fd, out);
}

FIRN_EXPORT int stat64(const char *restrict path, struct stat64 *restrict out) {
    CALL(int, add(&w, out, sizeof *out), stat64, path, out);
}

FIRN_EXPORT int lstat64(const char *restrict path, struct stat64 *restrict out) {
    CALL(int, add(&w, out, sizeof *out), lstat64, path, out);
}

FIRN_EXPORT int fstatat64(int fd, const char *restrict path, struct stat64 *restrict out,
                          int flags) {
    CALL(int, add(&w, out, sizeof *out), fstatat64, fd, path, out, flags);
}

FIRN_EXPORT int fstatfs64(int fd, struct statfs64 *out) {
    CALL(int, add(&w, out, sizeof *out), fstatfs64, fd, out);
}

FIRN_EXPORT int statfs64(const char *path, struct statfs64 *out) {
    CALL(int, add(&w, out, sizeof *out), statfs64, path, out);
}

FIRN_EXPORT int statx(int fd, const char *restrict path, int flags, unsigned mask,
                      struct statx *restrict out) {
    CALL(int, add(&w, out, sizeof *out), statx, fd, path, flags, mask, out);
}

FIRN_EXPORT ssize_t getrandom(void *p, size_t n, unsigned flags) {
    CALL(ssize_t, add(&w, p, n), getrandom, p, n, flags);
}

FIRN_EXPORT int getentropy(void *p, size_t n) {
    CALL(int, add(&w, p, n), getentropy, p, n);
}

FIRN_EXPORT int pipe(int ends[2]) {
    CALL(int, add(&w, ends, 2 * sizeof *ends), pipe, ends);
}

FIRN_EXPORT int pipe2(int ends[2], int flags) {
    CALL(int, add(&w, ends, 2 * sizeof *ends), pipe2, ends, flags);
}

// ---- sockets -----------------------------------------------------------------------------------

static void add_messages(struct writes *w, struct mmsghdr *m, unsigned n) {
    for (unsigned i = 0; m != NULL && i < n && i < IOV_MAX; i++) {
        add(w, &m[i], sizeof m[i]);
        add_message(w, &m[i].msg_hdr);
    }
}

// __SOCKADDR_ARG: that is how libc declares the address.

FIRN_EXPORT ssize_t recv(int fd, void *p, size_t n, int flags) {
    CALL(ssize_t, add(&w, p, n), recv, fd, p, n, flags);
}

FIRN_EXPORT ssize_t __recv_chk(int fd, void *p, size_t n, size_t room, int flags) {
    CALL(ssize_t, add(&w, p, n), __recv_chk, fd, p, n, room, flags);
}

FIRN_EXPORT ssize_t recvfrom(int fd, void *restrict p, size_t n, int flags, __SOCKADDR_ARG from,
                             socklen_t *restrict from_bytes) {
    CALL(ssize_t, (add(&w, p, n), add_address(&w, from.__sockaddr__, from_bytes)), recvfrom, fd, p,
         n, flags, from, from_bytes);
}

FIRN_EXPORT ssize_t __recvfrom_chk(int fd, void *p, size_t n, size_t room, int flags,
                                   struct sockaddr *from, socklen_t *from_bytes) {
    CALL(ssize_t, (add(&w, p, n), add_address(&w, from, from_bytes)), __recvfrom_chk, fd, p, n,
         room, flags, from, from_bytes);
}

FIRN_EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags) {
    CALL(ssize_t, add_message(&w, m), recvmsg, fd, m, flags);
}

FIRN_EXPORT int recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags,
                         struct timespec *timeout) {
    CALL(int, (add_messages(&w, m, n), add(&w, timeout, sizeof *timeout)), recvmmsg, fd, m, n,
         flags, timeout);
}

FIRN_EXPORT int accept(int fd, __SOCKADDR_ARG from, socklen_t *restrict from_bytes) {
    CALL(int, add_address(&w, from.__sockaddr__, from_bytes), accept, fd, from, from_bytes);
}

FIRN_EXPORT int accept4(int fd, __SOCKADDR_ARG from, socklen_t *restrict from_bytes, int flags) {
    CALL(int, add_address(&w, from.__sockaddr__, from_bytes), accept4, fd, from, from_bytes, flags);
}

FIRN_EXPORT int getsockname(int fd, __SOCKADDR_ARG from, socklen_t *restrict from_bytes) {
    CALL(int, add_address(&w, from.__sockaddr__, from_bytes), getsockname, fd, from, from_bytes);
}

FIRN_EXPORT int getpeername(int fd, __SOCKADDR_ARG from, socklen_t *restrict from_bytes) {
    CALL(int, add_address(&w, from.__sockaddr__, from_bytes), getpeername, fd, from, from_bytes);
}

FIRN_EXPORT int getsockopt(int fd, int level, int name, void *restrict p, socklen_t *restrict n) {
    CALL(int, add_address(&w, p, n), getsockopt, fd, level, name, p, n);
}

FIRN_EXPORT int socketpair(int domain, int type, int protocol, int ends[2]) {
    CALL(int, add(&w, ends, 2 * sizeof *ends), socketpair, domain, type, protocol, ends);
}

FIRN_EXPORT ssize_t msgrcv(int queue, void *p, size_t n, long type, int flags) {
    CALL(ssize_t, add(&w, p, sizeof(long) + n), msgrcv, queue, p, n, type, flags);
}

// ---- waiting -----------------------------------------------------------------------------------

static void add_sets(struct writes *w, int n, const fd_set *in, const fd_set *out,
                     const fd_set *other) {
    size_t bytes = (count(n) + NFDBITS - 1) / NFDBITS * sizeof(fd_mask);
    add(w, in, bytes);
    add(w, out, bytes);
    add(w, other, bytes);
}

FIRN_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout) {
    CALL(int, add(&w, fds, n * sizeof *fds), poll, fds, n, timeout);
}

FIRN_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room) {
    CALL(int, add(&w, fds, n * sizeof *fds), __poll_chk, fds, n, timeout, room);
}

FIRN_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                      const sigset_t *mask) {
    CALL(int, add(&w, fds, n * sizeof *fds), ppoll, fds, n, timeout, mask);
}

FIRN_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                            const sigset_t *mask, size_t room) {
    CALL(int, add(&w, fds, n * sizeof *fds), __ppoll_chk, fds, n, timeout, mask, room);
}

FIRN_EXPORT int epoll_wait(int fd, struct epoll_event *events, int n, int timeout) {
    CALL(int, add(&w, events, count(n) * sizeof *events), epoll_wait, fd, events, n, timeout);
}

FIRN_EXPORT int epoll_pwait(int fd, struct epoll_event *events, int n, int timeout,
                            const sigset_t *mask) {
    CALL(int, add(&w, events, count(n) * sizeof *events), epoll_pwait, fd, events, n, timeout,
         mask);
}

FIRN_EXPORT int select(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict other,
                       struct timeval *restrict timeout) {
    CALL(int, (add_sets(&w, n, in, out, other), add(&w, timeout, sizeof *timeout)), select, n, in,
         out, other, timeout);
}

FIRN_EXPORT int pselect(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict other,
                        const struct timespec *restrict timeout, const sigset_t *restrict mask) {
    CALL(int, add_sets(&w, n, in, out, other), pselect, n, in, out, other, timeout, mask);
}

FIRN_EXPORT pid_t waitpid(pid_t process, int *status, int options) {
    CALL(pid_t, add(&w, status, sizeof *status), waitpid, process, status, options);
}

FIRN_EXPORT pid_t wait(int *status) {
    CALL(pid_t, add(&w, status, sizeof *status), wait, status);
}

FIRN_EXPORT pid_t wait4(pid_t process, int *status, int options, struct rusage *usage) {
    CALL(pid_t, (add(&w, status, sizeof *status), add(&w, usage, sizeof *usage)), wait4, process,
         status, options, usage);
}

FIRN_EXPORT int waitid(idtype_t kind, id_t id, siginfo_t *info, int options) {
    CALL(int, add(&w, info, sizeof *info), waitid, kind, id, info, options);
}

FIRN_EXPORT int nanosleep(const struct timespec *time, struct timespec *rest) {
    CALL(int, add(&w, rest, sizeof *rest), nanosleep, time, rest);
}

FIRN_EXPORT int sigtimedwait(const sigset_t *restrict set, siginfo_t *restrict info,
                             const struct timespec *restrict timeout) {
    CALL(int, add(&w, info, sizeof *info), sigtimedwait, set, info, timeout);
}

FIRN_EXPORT int sigwaitinfo(const sigset_t *restrict set, siginfo_t *restrict info) {
    CALL(int, add(&w, info, sizeof *info), sigwaitinfo, set, info);
}

// ---- ioctl ------------------------------------------------------------------------------------

// The argument may be a number, or memory of a size that only the driver knows: as much is pinned as
// the number of an ioctl can express. What that memory points to is not.
FIRN_EXPORT int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *p = va_arg(arguments, void *);
    va_end(arguments);
    CALL(int, add(&w, p, _IOC_SIZEMASK), ioctl, fd, request, p);
}
