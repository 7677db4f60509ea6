// Lets the kernel write into blocks of the heap in every way there is, for SECONDS, from three threads:
// each call has to succeed and to bring what it should. Past the exported calls (raw) it may fail with
// EFAULT when pages are being staged, and does: the number of those says that something was tested.
//
//   calls SECONDS      prints "fine, raw EFAULT seen" or "fine, no raw EFAULT", or what failed
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 3, BLOCKS = 64 };

static atomic_bool is_over;
static atomic_uint raw_faults;
static _Atomic(const char *) failed;

#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failed = #condition;                                                                   \
            fprintf(stderr, "%s: errno %d\n", #condition, errno);                                  \
            return;                                                                                \
        }                                                                                          \
    } while (0)

struct wires {
    int zero, pair[2], tube[2], bell;
};

static void transfers(const struct wires *w, char **block) {
    struct iovec v[2] = {{block[0], 200}, {block[1], 200}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
    memset(block[2], 'x', 400);
    NEED(read(w->zero, block[2], 400) == 400 && block[2][399] == 0);
    NEED(pread(w->zero, block[3], 300, 0) == 300);
    NEED(readv(w->zero, v, 2) == 400);
    NEED(write(w->tube[1], "abcdefgh", 8) == 8);
    NEED(read(w->tube[0], block[4], 8) == 8 && memcmp(block[4], "abcdefgh", 8) == 0);
    NEED(send(w->pair[0], "12345", 5, 0) == 5);
    NEED(recv(w->pair[1], block[5], 200, 0) == 5 && memcmp(block[5], "12345", 5) == 0);
    NEED(send(w->pair[0], "12345", 5, 0) == 5);
    NEED(recvmsg(w->pair[1], &m, 0) == 5 && memcmp(block[0], "12345", 5) == 0);
    NEED(getrandom(block[6], 100, 0) == 100);
}

static void describes(const struct wires *w, char **block) {
    struct stat *st = (struct stat *)(void *)block[0];
    socklen_t *bytes = (socklen_t *)(void *)block[1];
    int *number = (int *)(void *)block[2];
    NEED(fstat(w->zero, st) == 0 && S_ISCHR(st->st_mode));
    NEED(stat("/", st) == 0 && S_ISDIR(st->st_mode));
    *bytes = 110;
    NEED(getsockname(w->pair[0], (struct sockaddr *)(void *)block[3], bytes) == 0);
    *bytes = sizeof(int);
    NEED(getsockopt(w->pair[0], SOL_SOCKET, SO_TYPE, number, bytes) == 0 && *number == SOCK_STREAM);
    NEED(ioctl(w->tube[0], FIONREAD, number) == 0 && *number == 0);
    NEED(readlink("/proc/self", block[4], 100) > 0);
    NEED(getcwd(block[5], 400) == block[5]);
}

static void waits(const struct wires *w, char **block) {
    struct pollfd *p = (struct pollfd *)(void *)block[0];
    struct epoll_event *e = (struct epoll_event *)(void *)block[1];
    fd_set *set = (fd_set *)(void *)block[2];
    struct timeval *t = (struct timeval *)(void *)block[3];
    p[0] = (struct pollfd){w->tube[1], POLLOUT, 0};
    NEED(poll(p, 1, 1000) == 1 && p[0].revents == POLLOUT);
    NEED(epoll_wait(w->bell, e, 4, 1000) == 1 && e[0].data.u32 == 7);
    FD_ZERO(set);
    FD_SET(w->tube[1], set);
    *t = (struct timeval){1, 0};
    NEED(select(w->tube[1] + 1, NULL, set, NULL, t) == 1 && FD_ISSET(w->tube[1], set));
}

static void *work(void *unused) {
    struct wires w;
    char *block[BLOCKS];
    struct epoll_event e = {.events = EPOLLOUT, .data.u32 = 7};
    w.zero = open("/dev/zero", O_RDONLY);
    w.bell = epoll_create1(0);
    if (w.zero < 0 || w.bell < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, w.pair) != 0 ||
        pipe(w.tube) != 0 || epoll_ctl(w.bell, EPOLL_CTL_ADD, w.tube[1], &e) != 0) {
        failed = "setup";
        return unused;
    }
    for (int i = 0; i < BLOCKS; i++) {
        block[i] = calloc(1, 400 + (size_t)i * 8);
    }
    for (int i = 0; !is_over && failed == NULL; i = (i + 7) % (BLOCKS - 7)) {
        transfers(&w, block + i);
        describes(&w, block + i);
        waits(&w, block + i);
        for (int k = 0; k < 50; k++) {
            if (syscall(SYS_read, w.zero, block[i], 400) != 400) {
                raw_faults++;
            }
        }
    }
    return unused;
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, work, NULL);
    }
    struct timespec t = {argc > 1 ? atoi(argv[1]) : 1, 0};
    nanosleep(&t, NULL);
    is_over = true;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    if (failed != NULL) {
        printf("failed: %s\n", failed);
    } else {
        printf("fine, %s\n", raw_faults > 0 ? "raw EFAULT seen" : "no raw EFAULT");
    }
    return failed != NULL;
}
