// The calls by which a program lets the kernel write into its memory; those by which it only reads are in
// reads.c and its like. What few programs call is apart from the rest in the library (FIRN_COLD, firn.ld).
#include "src/os/signals.h"
#include "src/preload/call.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
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

CALL_DEFINITIONS(call_find_written, call_fails);

// ---- files -------------------------------------------------------------------------------------

FIRN_EXPORT ssize_t read(int fd, void *p, size_t n) {
    CALL(ssize_t, add(&c, p, n), read, fd, p, n);
}

FIRN_EXPORT ssize_t __read_chk(int fd, void *p, size_t n, size_t room) {
    CALL(ssize_t, add(&c, p, n), __read_chk, fd, p, n, room);
}

FIRN_EXPORT ssize_t pread(int fd, void *p, size_t n, off_t offset) {
    CALL(ssize_t, add(&c, p, n), pread, fd, p, n, offset);
}

FIRN_EXPORT ssize_t pread64(int fd, void *p, size_t n, off64_t offset) {
    CALL(ssize_t, add(&c, p, n), pread64, fd, p, n, offset);
}

FIRN_EXPORT ssize_t __pread_chk(int fd, void *p, size_t n, off_t offset, size_t room) {
    CALL(ssize_t, add(&c, p, n), __pread_chk, fd, p, n, offset, room);
}

FIRN_EXPORT ssize_t __pread64_chk(int fd, void *p, size_t n, off_t offset, size_t room) {
    CALL(ssize_t, add(&c, p, n), __pread64_chk, fd, p, n, offset, room);
}

FIRN_EXPORT ssize_t readv(int fd, const struct iovec *v, int n) {
    CALL(ssize_t, call_add_vector(&c, v, call_count(n)), readv, fd, v, n);
}

FIRN_COLD FIRN_EXPORT ssize_t preadv(int fd, const struct iovec *v, int n, off_t offset) {
    CALL(ssize_t, call_add_vector(&c, v, call_count(n)), preadv, fd, v, n, offset);
}

FIRN_COLD FIRN_EXPORT ssize_t preadv64(int fd, const struct iovec *v, int n, off64_t offset) {
    CALL(ssize_t, call_add_vector(&c, v, call_count(n)), preadv64, fd, v, n, offset);
}

FIRN_COLD FIRN_EXPORT ssize_t preadv2(int fd, const struct iovec *v, int n, off_t offset,
                                      int flags) {
    CALL(ssize_t, call_add_vector(&c, v, call_count(n)), preadv2, fd, v, n, offset, flags);
}

FIRN_COLD FIRN_EXPORT ssize_t preadv64v2(int fd, const struct iovec *v, int n, off64_t offset,
                                         int flags) {
    CALL(ssize_t, call_add_vector(&c, v, call_count(n)), preadv64v2, fd, v, n, offset, flags);
}

FIRN_EXPORT ssize_t readlink(const char *restrict path, char *restrict p, size_t n) {
    CALL(ssize_t, (add(&c, p, n), add_path(&c, path)), readlink, path, p, n);
}

FIRN_EXPORT ssize_t __readlink_chk(const char *path, char *p, size_t n, size_t room) {
    CALL(ssize_t, (add(&c, p, n), add_path(&c, path)), __readlink_chk, path, p, n, room);
}

FIRN_EXPORT ssize_t readlinkat(int fd, const char *restrict path, char *restrict p, size_t n) {
    CALL(ssize_t, (add(&c, p, n), add_path(&c, path)), readlinkat, fd, path, p, n);
}

FIRN_EXPORT ssize_t __readlinkat_chk(int fd, const char *path, char *p, size_t n, size_t room) {
    CALL(ssize_t, (add(&c, p, n), add_path(&c, path)), __readlinkat_chk, fd, path, p, n, room);
}

FIRN_EXPORT char *getcwd(char *p, size_t n) {
    CALL(char *, add(&c, p, n), getcwd, p, n);
}

FIRN_EXPORT char *__getcwd_chk(char *p, size_t n, size_t room) {
    CALL(char *, add(&c, p, n), __getcwd_chk, p, n, room);
}

FIRN_EXPORT int fstat(int fd, struct stat *out) {
    CALL(int, add(&c, out, sizeof *out), fstat, fd, out);
}

FIRN_EXPORT int stat(const char *restrict path, struct stat *restrict out) {
    CALL(int, (add(&c, out, sizeof *out), add_path(&c, path)), stat, path, out);
}

FIRN_EXPORT int lstat(const char *restrict path, struct stat *restrict out) {
    CALL(int, (add(&c, out, sizeof *out), add_path(&c, path)), lstat, path, out);
}

FIRN_EXPORT int fstatat(int fd, const char *restrict path, struct stat *restrict out, int flags) {
    CALL(int, (add(&c, out, sizeof *out), add_path(&c, path)), fstatat, fd, path, out, flags);
}

FIRN_EXPORT int fstatfs(int fd, struct statfs *out) {
    CALL(int, add(&c, out, sizeof *out), fstatfs, fd, out);
}

FIRN_EXPORT int statfs(const char *path, struct statfs *out) {
    CALL(int, (add(&c, out, sizeof *out), add_path(&c, path)), statfs, path, out);
}

FIRN_EXPORT int fstat64(int fd, struct stat64 *out) {
    CALL(int, add(&c, out, sizeof *out), fstat64, fd, out);
}

FIRN_EXPORT int stat64(const char *restrict path, struct stat64 *restrict out) {
    CALL(int, (add(&c, out, sizeof *out), add_path(&c, path)), stat64, path, out);
}

FIRN_EXPORT int lstat64(const char *restrict path, struct stat64 *restrict out) {
    CALL(int, (add(&c, out, sizeof *out), add_path(&c, path)), lstat64, path, out);
}

FIRN_EXPORT int fstatat64(int fd, const char *restrict path, struct stat64 *restrict out,
                          int flags) {
    CALL(int, (add(&c, out, sizeof *out), add_path(&c, path)), fstatat64, fd, path, out, flags);
}

FIRN_EXPORT int fstatfs64(int fd, struct statfs64 *out) {
    CALL(int, add(&c, out, sizeof *out), fstatfs64, fd, out);
}

FIRN_EXPORT int statfs64(const char *path, struct statfs64 *out) {
    CALL(int, (add(&c, out, sizeof *out), add_path(&c, path)), statfs64, path, out);
}

FIRN_EXPORT int statx(int fd, const char *restrict path, int flags, unsigned mask,
                      struct statx *restrict out) {
    CALL(int, (add(&c, out, sizeof *out), add_path(&c, path)), statx, fd, path, flags, mask, out);
}

FIRN_EXPORT ssize_t getrandom(void *p, size_t n, unsigned flags) {
    CALL(ssize_t, add(&c, p, n), getrandom, p, n, flags);
}

FIRN_COLD FIRN_EXPORT int getentropy(void *p, size_t n) {
    CALL(int, add(&c, p, n), getentropy, p, n);
}

FIRN_EXPORT int pipe(int ends[2]) {
    CALL(int, add(&c, ends, 2 * sizeof *ends), pipe, ends);
}

FIRN_EXPORT int pipe2(int ends[2], int flags) {
    CALL(int, add(&c, ends, 2 * sizeof *ends), pipe2, ends, flags);
}

// ---- sockets -----------------------------------------------------------------------------------

static void add_messages(struct call *c, struct mmsghdr *m, unsigned n) {
    for (unsigned i = 0; m != NULL && i < n && i < IOV_MAX; i++) {
        add(c, &m[i], sizeof m[i]);
        call_add_message(c, &m[i].msg_hdr);
    }
}

// __SOCKADDR_ARG: that is how libc declares the address.

FIRN_EXPORT ssize_t recv(int fd, void *p, size_t n, int flags) {
    CALL(ssize_t, add(&c, p, n), recv, fd, p, n, flags);
}

FIRN_EXPORT ssize_t __recv_chk(int fd, void *p, size_t n, size_t room, int flags) {
    CALL(ssize_t, add(&c, p, n), __recv_chk, fd, p, n, room, flags);
}

FIRN_EXPORT ssize_t recvfrom(int fd, void *restrict p, size_t n, int flags, __SOCKADDR_ARG from,
                             socklen_t *restrict from_bytes) {
    CALL(ssize_t, (add(&c, p, n), call_add_address(&c, from.__sockaddr__, from_bytes)), recvfrom,
         fd, p, n, flags, from, from_bytes);
}

FIRN_COLD FIRN_EXPORT ssize_t __recvfrom_chk(int fd, void *p, size_t n, size_t room, int flags,
                                             struct sockaddr *from, socklen_t *from_bytes) {
    CALL(ssize_t, (add(&c, p, n), call_add_address(&c, from, from_bytes)), __recvfrom_chk, fd, p, n,
         room, flags, from, from_bytes);
}

FIRN_EXPORT ssize_t recvmsg(int fd, struct msghdr *m, int flags) {
    CALL(ssize_t, call_add_message(&c, m), recvmsg, fd, m, flags);
}

FIRN_COLD FIRN_EXPORT int recvmmsg(int fd, struct mmsghdr *m, unsigned n, int flags,
                                   struct timespec *timeout) {
    CALL(int, (add_messages(&c, m, n), add(&c, timeout, sizeof *timeout)), recvmmsg, fd, m, n,
         flags, timeout);
}

FIRN_EXPORT int accept(int fd, __SOCKADDR_ARG from, socklen_t *restrict from_bytes) {
    CALL(int, call_add_address(&c, from.__sockaddr__, from_bytes), accept, fd, from, from_bytes);
}

FIRN_EXPORT int accept4(int fd, __SOCKADDR_ARG from, socklen_t *restrict from_bytes, int flags) {
    CALL(int, call_add_address(&c, from.__sockaddr__, from_bytes), accept4, fd, from, from_bytes,
         flags);
}

FIRN_EXPORT int getsockname(int fd, __SOCKADDR_ARG from, socklen_t *restrict from_bytes) {
    CALL(int, call_add_address(&c, from.__sockaddr__, from_bytes), getsockname, fd, from,
         from_bytes);
}

FIRN_EXPORT int getpeername(int fd, __SOCKADDR_ARG from, socklen_t *restrict from_bytes) {
    CALL(int, call_add_address(&c, from.__sockaddr__, from_bytes), getpeername, fd, from,
         from_bytes);
}

FIRN_EXPORT int getsockopt(int fd, int level, int name, void *restrict p, socklen_t *restrict n) {
    CALL(int, call_add_address(&c, p, n), getsockopt, fd, level, name, p, n);
}

FIRN_EXPORT int socketpair(int domain, int type, int protocol, int ends[2]) {
    CALL(int, add(&c, ends, 2 * sizeof *ends), socketpair, domain, type, protocol, ends);
}

FIRN_COLD FIRN_EXPORT ssize_t msgrcv(int queue, void *p, size_t n, long type, int flags) {
    CALL(ssize_t, add(&c, p, sizeof(long) + n), msgrcv, queue, p, n, type, flags);
}

// ---- waiting -----------------------------------------------------------------------------------

static void add_sets(struct call *c, int n, const fd_set *in, const fd_set *out,
                     const fd_set *other) {
    size_t bytes = (call_count(n) + NFDBITS - 1) / NFDBITS * sizeof(fd_mask);
    add(c, in, bytes);
    add(c, out, bytes);
    add(c, other, bytes);
}

FIRN_EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout) {
    CALL(int, add(&c, fds, n * sizeof *fds), poll, fds, n, timeout);
}

FIRN_EXPORT int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room) {
    CALL(int, add(&c, fds, n * sizeof *fds), __poll_chk, fds, n, timeout, room);
}

FIRN_EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                      const sigset_t *mask) {
    sigset_t real;
    CALL(int, (add(&c, fds, n * sizeof *fds), add(&c, mask, sizeof *mask)), ppoll, fds, n, timeout,
         signals_while_asleep(mask, &real));
}

FIRN_COLD FIRN_EXPORT int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                                      const sigset_t *mask, size_t room) {
    sigset_t real;
    CALL(int, (add(&c, fds, n * sizeof *fds), add(&c, mask, sizeof *mask)), __ppoll_chk, fds, n,
         timeout, signals_while_asleep(mask, &real), room);
}

FIRN_EXPORT int epoll_wait(int fd, struct epoll_event *events, int n, int timeout) {
    CALL(int, add(&c, events, call_count(n) * sizeof *events), epoll_wait, fd, events, n, timeout);
}

FIRN_EXPORT int epoll_pwait(int fd, struct epoll_event *events, int n, int timeout,
                            const sigset_t *mask) {
    sigset_t real;
    CALL(int, (add(&c, events, call_count(n) * sizeof *events), add(&c, mask, sizeof *mask)),
         epoll_pwait, fd, events, n, timeout, signals_while_asleep(mask, &real));
}

FIRN_EXPORT int select(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict other,
                       struct timeval *restrict timeout) {
    CALL(int, (add_sets(&c, n, in, out, other), add(&c, timeout, sizeof *timeout)), select, n, in,
         out, other, timeout);
}

FIRN_EXPORT int pselect(int n, fd_set *restrict in, fd_set *restrict out, fd_set *restrict other,
                        const struct timespec *restrict timeout, const sigset_t *restrict mask) {
    sigset_t real;
    CALL(int, (add_sets(&c, n, in, out, other), add(&c, mask, sizeof *mask)), pselect, n, in, out,
         other, timeout, signals_while_asleep(mask, &real));
}

FIRN_EXPORT pid_t waitpid(pid_t process, int *status, int options) {
    CALL(pid_t, add(&c, status, sizeof *status), waitpid, process, status, options);
}

FIRN_EXPORT pid_t wait(int *status) {
    CALL(pid_t, add(&c, status, sizeof *status), wait, status);
}

FIRN_EXPORT pid_t wait4(pid_t process, int *status, int options, struct rusage *usage) {
    CALL(pid_t, (add(&c, status, sizeof *status), add(&c, usage, sizeof *usage)), wait4, process,
         status, options, usage);
}

FIRN_EXPORT int waitid(idtype_t kind, id_t id, siginfo_t *info, int options) {
    CALL(int, add(&c, info, sizeof *info), waitid, kind, id, info, options);
}

FIRN_EXPORT int nanosleep(const struct timespec *time, struct timespec *rest) {
    CALL(int, (add(&c, rest, sizeof *rest), add(&c, time, sizeof *time)), nanosleep, time, rest);
}

FIRN_COLD FIRN_EXPORT int sigtimedwait(const sigset_t *restrict set, siginfo_t *restrict info,
                                       const struct timespec *restrict timeout) {
    CALL(
        int,
        (add(&c, info, sizeof *info), add(&c, set, sizeof *set), add(&c, timeout, sizeof *timeout)),
        sigtimedwait, set, info, timeout);
}

FIRN_COLD FIRN_EXPORT int sigwaitinfo(const sigset_t *restrict set, siginfo_t *restrict info) {
    CALL(int, (add(&c, info, sizeof *info), add(&c, set, sizeof *set)), sigwaitinfo, set, info);
}

// ---- ioctl ------------------------------------------------------------------------------------

// The argument may be a number, or memory of a size that only the driver knows: its block is
// pinned, from there to the end. What that memory points to is not.
FIRN_EXPORT int ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *p = va_arg(arguments, void *);
    va_end(arguments);
    CALL(int, call_add_object(&c, p), ioctl, fd, request, p);
}
