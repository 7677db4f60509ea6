// The calls by which the kernel reads buffers of the program, or lists of them.
#include "src/preload/call.h"

#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <linux/filter.h>

// clang-format off
#define NAMES(X)                                                                                  \
    X(write) X(pwrite) X(pwrite64) X(writev) X(pwritev) X(pwritev64) X(pwritev2) X(pwritev64v2)   \
    X(send) X(sendto) X(sendmsg) X(sendmmsg) X(bind) X(connect) X(setsockopt) X(sendfile)         \
    X(sendfile64) X(splice) X(copy_file_range) X(vmsplice) X(epoll_ctl) X(signalfd)               \
    X(eventfd_read) X(eventfd_write) X(msgsnd) X(msgctl) X(semop) X(semtimedop) X(semctl)         \
    X(shmctl) X(mq_open) X(mq_unlink) X(mq_notify) X(mq_send) X(mq_timedsend) X(mq_receive)       \
    X(mq_timedreceive) X(fcntl) X(fcntl64) X(process_vm_readv) X(process_vm_writev) X(memfd_create) \
    X(fsetxattr) X(fgetxattr) X(flistxattr) X(fremovexattr) X(sethostname) X(setdomainname)       \
    X(mincore)
// clang-format on
CALL_DEFINITIONS(call_find_read, call_fails);

// ---- files -------------------------------------------------------------------------------------

CALL_GUARDED(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n), add(&c, p, n));
CALL_GUARDED(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at),
             add(&c, p, n));
CALL_GUARDED(ssize_t, pwrite64, (int fd, const void *p, size_t n, off64_t at), (fd, p, n, at),
             add(&c, p, n));
CALL_GUARDED(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n),
             call_add_vector(&c, v, call_count(n)));
CALL_GUARDED(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at),
             call_add_vector(&c, v, call_count(n)));
CALL_GUARDED(ssize_t, pwritev64, (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at),
             call_add_vector(&c, v, call_count(n)));
CALL_GUARDED(ssize_t, pwritev2, (int fd, const struct iovec *v, int n, off_t at, int flags),
             (fd, v, n, at, flags), call_add_vector(&c, v, call_count(n)));
CALL_GUARDED(ssize_t, pwritev64v2, (int fd, const struct iovec *v, int n, off64_t at, int flags),
             (fd, v, n, at, flags), call_add_vector(&c, v, call_count(n)));
CALL_GUARDED(ssize_t, vmsplice, (int fd, const struct iovec *v, size_t n, unsigned flags),
             (fd, v, n, flags), call_add_vector(&c, v, n));
CALL_GUARDED(ssize_t, sendfile, (int to, int from, off_t *at, size_t n), (to, from, at, n),
             add(&c, at, sizeof *at));
CALL_GUARDED(ssize_t, sendfile64, (int to, int from, off64_t *at, size_t n), (to, from, at, n),
             add(&c, at, sizeof *at));
CALL_GUARDED(ssize_t, splice,
             (int from, off64_t *from_at, int to, off64_t *to_at, size_t n, unsigned flags),
             (from, from_at, to, to_at, n, flags), add(&c, from_at, sizeof *from_at),
             add(&c, to_at, sizeof *to_at));
CALL_GUARDED(ssize_t, copy_file_range,
             (int from, off64_t *from_at, int to, off64_t *to_at, size_t n, unsigned flags),
             (from, from_at, to, to_at, n, flags), add(&c, from_at, sizeof *from_at),
             add(&c, to_at, sizeof *to_at));
CALL_GUARDED(int, memfd_create, (const char *name, unsigned flags), (name, flags),
             add_path(&c, name));

// The argument is a number, or one of several small structures.
FIRN_COLD static int wary_fcntl(int fd, int command, void *p) {
    CALL(int, add(&c, p, sizeof(struct flock64)), fcntl, fd, command, p);
}

FIRN_EXPORT int fcntl(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *p = va_arg(arguments, void *);
    va_end(arguments);
    return call_is_plain() ? next.fcntl(fd, command, p) : wary_fcntl(fd, command, p);
}

FIRN_COLD static int wary_fcntl64(int fd, int command, void *p) {
    CALL(int, add(&c, p, sizeof(struct flock64)), fcntl64, fd, command, p);
}

FIRN_EXPORT int fcntl64(int fd, int command, ...) {
    va_list arguments;
    va_start(arguments, command);
    void *p = va_arg(arguments, void *);
    va_end(arguments);
    return call_is_plain() ? next.fcntl64(fd, command, p) : wary_fcntl64(fd, command, p);
}

// Extended attributes by descriptor; those by path are in paths.c.

CALL_GUARDED(int, fsetxattr, (int fd, const char *name, const void *p, size_t n, int flags),
             (fd, name, p, n, flags), add_path(&c, name), add(&c, p, n));
CALL_GUARDED(ssize_t, fgetxattr, (int fd, const char *name, void *p, size_t n), (fd, name, p, n),
             add_path(&c, name), add(&c, p, n));
CALL_GUARDED(ssize_t, flistxattr, (int fd, char *p, size_t n), (fd, p, n), add(&c, p, n));
CALL_GUARDED(int, fremovexattr, (int fd, const char *name), (fd, name), add_path(&c, name));

// ---- sockets -----------------------------------------------------------------------------------

static void add_messages(struct call *c, const struct mmsghdr *m, unsigned n) {
    for (unsigned i = 0; m != NULL && i < n && i < IOV_MAX; i++) {
        add(c, &m[i], sizeof m[i]);
        call_add_message(c, &m[i].msg_hdr);
    }
}

// A filter of packets comes by another pointer.
static void add_option(struct call *c, int level, int name, const void *p, socklen_t n) {
    add(c, p, n);
    bool is_filter = name == SO_ATTACH_FILTER || name == SO_ATTACH_REUSEPORT_CBPF;
    if (level == SOL_SOCKET && is_filter && p != NULL && n >= sizeof(struct sock_fprog)) {
        const struct sock_fprog *program = p;
        add(c, program->filter, program->len * sizeof(struct sock_filter));
    }
}

CALL_GUARDED(ssize_t, send, (int fd, const void *p, size_t n, int flags), (fd, p, n, flags),
             add(&c, p, n));
// __CONST_SOCKADDR_ARG: that is how libc declares the address.
CALL_GUARDED(ssize_t, sendto,
             (int fd, const void *p, size_t n, int flags, __CONST_SOCKADDR_ARG to,
              socklen_t to_bytes),
             (fd, p, n, flags, to, to_bytes), add(&c, p, n), add(&c, to.__sockaddr__, to_bytes));
CALL_GUARDED(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags),
             call_add_message(&c, m));
CALL_GUARDED(int, sendmmsg, (int fd, struct mmsghdr *m, unsigned n, int flags), (fd, m, n, flags),
             add_messages(&c, m, n));
CALL_GUARDED(int, bind, (int fd, __CONST_SOCKADDR_ARG to, socklen_t n), (fd, to, n),
             add(&c, to.__sockaddr__, n));
CALL_GUARDED(int, connect, (int fd, __CONST_SOCKADDR_ARG to, socklen_t n), (fd, to, n),
             add(&c, to.__sockaddr__, n));
CALL_GUARDED(int, setsockopt, (int fd, int level, int name, const void *p, socklen_t n),
             (fd, level, name, p, n), add_option(&c, level, name, p, n));
CALL_GUARDED(int, epoll_ctl, (int epoll, int what, int fd, struct epoll_event *event),
             (epoll, what, fd, event), add(&c, event, sizeof *event));
CALL_GUARDED(int, signalfd, (int fd, const sigset_t *mask, int flags), (fd, mask, flags),
             add(&c, mask, sizeof *mask));
CALL_GUARDED(int, eventfd_read, (int fd, eventfd_t *value), (fd, value),
             add(&c, value, sizeof *value));
// libc's passes the address of its parameter: only so that a stack that lies in the heap is there.
CALL_GUARDED(int, eventfd_write, (int fd, eventfd_t value), (fd, value), add(&c, &value, 1));
CALL_GUARDED(int, sethostname, (const char *p, size_t n), (p, n), add(&c, p, n));
CALL_GUARDED(int, setdomainname, (const char *p, size_t n), (p, n), add(&c, p, n));

// ---- between processes --------------------------------------------------------------------------

CALL_GUARDED(int, msgsnd, (int queue, const void *p, size_t n, int flags), (queue, p, n, flags),
             add(&c, p, sizeof(long) + n));
CALL_GUARDED(int, msgctl, (int queue, int what, struct msqid_ds *p), (queue, what, p),
             call_add_object(&c, p));
CALL_GUARDED(int, shmctl, (int segment, int what, struct shmid_ds *p), (segment, what, p),
             call_add_object(&c, p));
CALL_GUARDED(int, semop, (int set, struct sembuf *p, size_t n), (set, p, n),
             add(&c, p, n * sizeof *p));
CALL_GUARDED(int, semtimedop, (int set, struct sembuf *p, size_t n, const struct timespec *timeout),
             (set, p, n, timeout), add(&c, p, n * sizeof *p), add(&c, timeout, sizeof *timeout));

// A number, a structure, or an array as long as the set.
FIRN_COLD FIRN_EXPORT int semctl(int set, int index, int what, ...) {
    va_list arguments;
    va_start(arguments, what);
    void *p = va_arg(arguments, void *);
    va_end(arguments);
    CALL(int, call_add_object(&c, p), semctl, set, index, what, p);
}

FIRN_COLD FIRN_EXPORT mqd_t mq_open(const char *name, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
    struct mq_attr *attributes = (flags & O_CREAT) != 0 ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    CALL(mqd_t, (add_path(&c, name), add(&c, attributes, sizeof *attributes)), mq_open, name, flags,
         mode, attributes);
}

CALL_GUARDED(int, mq_unlink, (const char *name), (name), add_path(&c, name));
CALL_GUARDED(int, mq_notify, (mqd_t queue, const struct sigevent *event), (queue, event),
             call_starts_notifier(event), add(&c, event, sizeof *event));
CALL_GUARDED(int, mq_send, (mqd_t queue, const char *p, size_t n, unsigned priority),
             (queue, p, n, priority), add(&c, p, n));
CALL_GUARDED(int, mq_timedsend,
             (mqd_t queue, const char *p, size_t n, unsigned priority,
              const struct timespec *timeout),
             (queue, p, n, priority, timeout), add(&c, p, n), add(&c, timeout, sizeof *timeout));
CALL_GUARDED(ssize_t, mq_receive, (mqd_t queue, char *p, size_t n, unsigned *priority),
             (queue, p, n, priority), add(&c, p, n), add(&c, priority, sizeof *priority));
CALL_GUARDED(ssize_t, mq_timedreceive,
             (mqd_t queue, char *restrict p, size_t n, unsigned *restrict priority,
              const struct timespec *restrict timeout),
             (queue, p, n, priority, timeout), add(&c, p, n), add(&c, priority, sizeof *priority),
             add(&c, timeout, sizeof *timeout));

// The other side's memory is the other side's affair.
CALL_GUARDED(ssize_t, process_vm_readv,
             (pid_t process, const struct iovec *v, unsigned long n, const struct iovec *there,
              unsigned long there_n, unsigned long flags),
             (process, v, n, there, there_n, flags), call_add_vector(&c, v, n),
             add(&c, there, there_n * sizeof *there));
CALL_GUARDED(ssize_t, process_vm_writev,
             (pid_t process, const struct iovec *v, unsigned long n, const struct iovec *there,
              unsigned long there_n, unsigned long flags),
             (process, v, n, there, there_n, flags), call_add_vector(&c, v, n),
             add(&c, there, there_n * sizeof *there));
CALL_GUARDED(int, mincore, (void *p, size_t n, unsigned char *out), (p, n, out),
             add(&c, out, n / FIRN_PAGE + 1));
