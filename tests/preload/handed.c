// Buffers, records and objects that the kernel reads or writes, in pages that may be away (handed.h).
#include "tests/preload/handed.h"

#include <dirent.h>
#include <grp.h>
#include <limits.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <threads.h>
#include <time.h>
#include <ucontext.h>

#include <linux/filter.h>

static int tube[2], wire[2], file = -1, zero, epoll, bell, timer, queue, set, segment;

// Whether the other end has it.
static long has_come(int fd, const char *text) {
    char got[200] = "";
    ssize_t n = syscall(SYS_read, fd, got, sizeof got - 1);
    return n == (ssize_t)strlen(text) && memcmp(got, text, (size_t)n) == 0 ? n : -2;
}

static struct iovec *put_pieces(const char *first, const char *second) {
    struct iovec v[2] = {{put_text(first), strlen(first)}, {put_text(second), strlen(second)}};
    return put(v, sizeof v);
}

static struct msghdr *put_message(const char *first, const char *second) {
    struct msghdr m = {.msg_iov = put_pieces(first, second), .msg_iovlen = 2};
    return put(&m, sizeof m);
}

// ---- files -------------------------------------------------------------------------------------

static __attribute__((constructor(101))) void set_up(void) {
    struct epoll_event e = {.events = EPOLLIN};
    file = memfd_create("handed", 0);
    zero = open("/dev/zero", O_RDWR);
    epoll = epoll_create1(0);
    bell = eventfd(0, EFD_NONBLOCK);
    timer = timerfd_create(CLOCK_MONOTONIC, 0);
    queue = msgget(IPC_PRIVATE, 0600);
    set = semget(IPC_PRIVATE, 2, 0600);
    segment = shmget(IPC_PRIVATE, 4096, 0600);
    if (pipe(tube) != 0 || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, wire) != 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, zero, &e) == 0) {
        exit(3);
    }
}

CASE(write, a[0] = put_text("a piece"),
     write(tube[1], a[0], 7) == 7 ? has_come(tube[0], "a piece") : -1)
CASE(pwrite, a[0] = put_text("a piece"), pwrite(file, a[0], 7, 0))
CASE(pwrite64, a[0] = put_text("a piece"), pwrite64(file, a[0], 7, 3))
CASE(writev, a[0] = put_pieces("one ", "two"),
     writev(tube[1], a[0], 2) == 7 ? has_come(tube[0], "one two") : -1)
CASE(pwritev, a[0] = put_pieces("one ", "two"), pwritev(file, a[0], 2, 0))
CASE(pwritev64, a[0] = put_pieces("one ", "two"), pwritev64(file, a[0], 2, 0))
CASE(pwritev2, a[0] = put_pieces("one ", "two"), pwritev2(file, a[0], 2, 0, 0))
CASE(pwritev64v2, a[0] = put_pieces("one ", "two"), pwritev64v2(file, a[0], 2, 0, 0))
CASE(read, a[0] = put_room(20), pread(file, a[0], 7, 0) == 7 && memcmp(a[0], "one two", 7) == 0)
CASE(vmsplice, a[0] = put_pieces("one ", "two"), vmsplice(tube[1], a[0], 2, 0))
CASE(read_back, , has_come(tube[0], "one two"))
CASE(sendfile, a[0] = put_room(8), sendfile(tube[1], file, a[0], 3))
CASE(read_back_2, , has_come(tube[0], "one"))
CASE(splice, a[0] = put_room(8), splice(file, a[0], tube[1], NULL, 3, 0))
CASE(read_back_3, , has_come(tube[0], "one"))
CASE(copy_file_range, (a[0] = put_room(8), a[1] = put(&(off64_t){5}, 8)),
     copy_file_range(file, a[0], file, a[1], 3, 0))
CASE(memfd_create, a[0] = put_text("a name"), memfd_create(a[0], 0) >= 0)
CASE(fcntl, a[0] = put(&(struct flock){.l_type = F_WRLCK, .l_len = 5}, sizeof(struct flock)),
     fcntl(file, F_SETLK, a[0]))
CASE(fcntl_number, , fcntl(file, F_GETFD))
CASE(fsetxattr, (a[0] = put_text("user.x"), a[1] = put_text("value")),
     fsetxattr(tube[0], a[0], a[1], 5, 0))
CASE(fgetxattr, (a[0] = put_text("user.x"), a[1] = put_room(20)),
     fgetxattr(tube[0], a[0], a[1], 20))
CASE(flistxattr, a[0] = put_room(20), flistxattr(zero, a[0], 20))
CASE(fremovexattr, a[0] = put_text("user.x"), fremovexattr(tube[0], a[0]))
CASE(mincore, a[0] = put_room(8), mincore((void *)((uintptr_t)&file & ~4095ul), 4096, a[0]))

// ---- sockets -----------------------------------------------------------------------------------

static struct sockaddr_un *put_address(void) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path + 1, sizeof to.sun_path - 1, "handed %d", (int)getpid());
    return put(&to, sizeof to);
}

static int a_socket(int kind) {
    static int sockets[2] = {-1, -1};
    int *s = &sockets[kind == SOCK_DGRAM];
    *s = *s < 0 ? socket(AF_UNIX, kind, 0) : *s;
    return *s;
}

static struct sock_filter all[] = {{BPF_RET | BPF_K, 0, 0, 0xffff}};

static struct sock_fprog *put_filter(void) {
    return put(&(struct sock_fprog){1, put(all, sizeof all)}, sizeof(struct sock_fprog));
}

CASE(send, a[0] = put_text("over"), send(wire[0], a[0], 4, 0) == 4 ? has_come(wire[1], "over") : -1)
CASE(sendmsg, a[0] = put_message("one ", "two"),
     sendmsg(wire[0], a[0], 0) == 7 ? has_come(wire[1], "one two") : -1)
CASE(sendmmsg,
     a[0] = put(&(struct mmsghdr){.msg_hdr = *put_message("one ", "two")}, sizeof(struct mmsghdr)),
     sendmmsg(wire[0], a[0], 1, 0) == 1 ? has_come(wire[1], "one two") : -1)
CASE(bind, a[0] = put_address(), bind(a_socket(SOCK_DGRAM), a[0], sizeof(struct sockaddr_un)))
CASE(sendto, (a[0] = put_address(), a[1] = put_text("to")),
     sendto(a_socket(SOCK_DGRAM), a[1], 2, 0, a[0], sizeof(struct sockaddr_un)))
CASE(connect, a[0] = put_address(), connect(a_socket(SOCK_DGRAM), a[0], sizeof(struct sockaddr_un)))
CASE(setsockopt, a[0] = put(&(int){4096}, sizeof(int)),
     setsockopt(wire[0], SOL_SOCKET, SO_SNDBUF, a[0], sizeof(int)))
CASE(setsockopt_filter, a[0] = put_filter(),
     setsockopt(wire[0], SOL_SOCKET, SO_ATTACH_FILTER, a[0], sizeof(struct sock_fprog)))
CASE(epoll_ctl, a[0] = put(&(struct epoll_event){.events = EPOLLOUT}, sizeof(struct epoll_event)),
     epoll_ctl(epoll, EPOLL_CTL_ADD, tube[1], a[0]))
CASE(epoll_pwait2, (a[0] = put_room(24), a[1] = put(&(struct timespec){1, 0}, 16)),
     epoll_pwait2(epoll, a[0], 2, a[1], NULL))
CASE(signalfd, a[0] = put_room(sizeof(sigset_t)), signalfd(-1, a[0], 0) >= 0)
CASE(eventfd, a[0] = put_room(8),
     eventfd_write(bell, 5) == 0 && eventfd_read(bell, a[0]) == 0 && *(eventfd_t *)a[0] == 5)

// ---- between processes --------------------------------------------------------------------------

CASE(msgsnd, a[0] = put("\1\0\0\0\0\0\0\0text", 12), msgsnd(queue, a[0], 4, 0))
CASE(msgctl, a[0] = put_room(sizeof(struct msqid_ds)), msgctl(queue, IPC_STAT, a[0]))
CASE(msgrcv, a[0] = put_room(20), msgrcv(queue, a[0], 4, 0, 0))
CASE(msgctl_remove, , msgctl(queue, IPC_RMID, NULL))
CASE(semctl, a[0] = put(&(unsigned short[]){3, 4}, 4), semctl(set, 0, SETALL, a[0]))
CASE(semop, a[0] = put(&(struct sembuf){0, -1, 0}, sizeof(struct sembuf)), semop(set, a[0], 1))
CASE(semtimedop,
     (a[0] = put(&(struct sembuf){1, -1, 0}, sizeof(struct sembuf)),
      a[1] = put(&(struct timespec){1, 0}, 16)),
     semtimedop(set, a[0], 1, a[1]))
CASE(semctl_value, , semctl(set, 0, GETVAL) * 10 + semctl(set, 1, GETVAL))
CASE(semctl_remove, , semctl(set, 0, IPC_RMID))
CASE(shmctl, a[0] = put_room(sizeof(struct shmid_ds)), shmctl(segment, IPC_STAT, a[0]))
CASE(shmctl_remove, , shmctl(segment, IPC_RMID, NULL))

static mqd_t letters = -1;
static char letters_name[40];

static char *put_letters_name(void) {
    snprintf(letters_name, sizeof letters_name, "/handed%d", (int)getpid());
    return put_text(letters_name);
}

CASE(mq_open,
     (a[0] = put_letters_name(),
      a[1] = put(&(struct mq_attr){.mq_maxmsg = 2, .mq_msgsize = 64}, sizeof(struct mq_attr))),
     (letters = mq_open(a[0], O_CREAT | O_RDWR, 0600, a[1])) != -1)
CASE(mq_send, a[0] = put_text("letter"), mq_send(letters, a[0], 6, 1))
CASE(mq_receive, (a[0] = put_room(64), a[1] = put_room(4)),
     mq_receive(letters, a[0], 64, a[1]) + *(unsigned *)a[1] * 100)
CASE(mq_timedsend, (a[0] = put_text("letter"), a[1] = put(&(struct timespec){1, 0}, 16)),
     mq_timedsend(letters, a[0], 6, 1, a[1]))
CASE(mq_timedreceive, (a[0] = put_room(64), a[1] = put(&(struct timespec){1, 0}, 16)),
     mq_timedreceive(letters, a[0], 64, NULL, a[1]))
CASE(mq_unlink, a[0] = put_text(letters_name), mq_unlink(a[0]))
CASE(process_vm_readv,
     (a[0] = put(&(struct iovec){put_room(16), 16}, 16), a[1] = put(&(struct iovec){all, 8}, 16)),
     process_vm_readv(getpid(), a[0], 1, a[1], 1, 0))
CASE(process_vm_writev,
     (a[0] = put(&(struct iovec){put(all, 8), 8}, 16), a[1] = put(&(struct iovec){all, 8}, 16)),
     process_vm_writev(getpid(), a[0], 1, a[1], 1, 0))

// ---- records -----------------------------------------------------------------------------------

static timer_t clock_timer;
#define A_SECOND put(&(struct timespec){0, 1000}, 16)

CASE(clock_gettime, a[0] = put_room(16), clock_gettime(CLOCK_PROCESS_CPUTIME_ID, a[0]))
CASE(clock_getres, a[0] = put_room(16), clock_getres(CLOCK_THREAD_CPUTIME_ID, a[0]))
CASE(clock_bad, a[0] = put_room(16), clock_gettime(1000, a[0]))
CASE(gettimeofday, (a[0] = put_room(16), a[1] = put_room(8)), gettimeofday(a[0], a[1]))
CASE(nanosleep, a[0] = A_SECOND, nanosleep(a[0], NULL))
CASE(clock_nanosleep, (a[0] = A_SECOND, a[1] = put_room(16)),
     clock_nanosleep(CLOCK_MONOTONIC, 0, a[0], a[1]))
CASE(clock_nanosleep_bad, a[0] = A_SECOND, clock_nanosleep(1000, 0, a[0], NULL))
CASE(setitimer, (a[0] = put_room(32), a[1] = put_room(32)), setitimer(ITIMER_VIRTUAL, a[0], a[1]))
CASE(getitimer, a[0] = put_room(32), getitimer(ITIMER_VIRTUAL, a[0]))
CASE(timer_create,
     (a[0] = put(&(struct sigevent){.sigev_notify = SIGEV_NONE}, sizeof(struct sigevent)),
      a[1] = put_room(8)),
     timer_create(CLOCK_MONOTONIC, a[0], a[1]) == 0 && (clock_timer = *(timer_t *)a[1], 1))
CASE(timer_settime, (a[0] = put(&(struct itimerspec){{0, 0}, {50, 0}}, 32), a[1] = put_room(32)),
     timer_settime(clock_timer, 0, a[0], a[1]))
CASE(timer_gettime, a[0] = put_room(32),
     timer_gettime(clock_timer, a[0]) == 0 && ((struct itimerspec *)a[0])->it_value.tv_sec > 0)
CASE(timerfd_settime, (a[0] = put(&(struct itimerspec){{0, 0}, {50, 0}}, 32), a[1] = put_room(32)),
     timerfd_settime(timer, 0, a[0], a[1]))
CASE(timerfd_gettime, a[0] = put_room(32), timerfd_gettime(timer, a[0]))
CASE(times, a[0] = put_room(sizeof(struct tms)), times(a[0]) != -1)
CASE(getrusage, a[0] = put_room(sizeof(struct rusage)), getrusage(RUSAGE_SELF, a[0]))
CASE(getrlimit, a[0] = put_room(16), getrlimit(RLIMIT_CORE, a[0]))
CASE(getrlimit64, a[0] = put_room(16), getrlimit64(RLIMIT_CORE, a[0]))
CASE(setrlimit, a[0] = put_room(16), setrlimit(RLIMIT_CORE, a[0]))
CASE(prlimit, (a[0] = put_room(16), a[1] = put_room(16)), prlimit(0, RLIMIT_CORE, a[0], a[1]))
CASE(prctl, a[0] = put_text("handed"), prctl(PR_SET_NAME, a[0]))
CASE(prctl_get, a[0] = put_room(16), prctl(PR_GET_NAME, a[0]) == 0 && strcmp(a[0], "handed") == 0)
CASE(wait3, (a[0] = put_room(4), a[1] = put_room(sizeof(struct rusage))),
     wait3(a[0], WNOHANG, a[1]))
CASE(uname, a[0] = put_room(sizeof(struct utsname)),
     uname(a[0]) == 0 && strcmp(((struct utsname *)a[0])->sysname, "Linux") == 0)
CASE(sysinfo, a[0] = put_room(sizeof(struct sysinfo)), sysinfo(a[0]))
CASE(getgroups, a[0] = put_room(800 * sizeof(gid_t)), getgroups(800, a[0]))
CASE(getresuid, (a[0] = put_room(4), a[1] = put_room(4), a[2] = put_room(4)),
     getresuid(a[0], a[1], a[2]))
CASE(getresgid, (a[0] = put_room(4), a[1] = put_room(4), a[2] = put_room(4)),
     getresgid(a[0], a[1], a[2]))
CASE(ttyname_r, a[0] = put_room(100), ttyname_r(zero, a[0], 100))
CASE(sched_getaffinity, a[0] = put_room(128), sched_getaffinity(0, 128, a[0]))
CASE(sched_setaffinity, (a[0] = put_room(128), sched_getaffinity(0, 128, a[0])),
     sched_setaffinity(0, 128, a[0]))
CASE(pthread_getaffinity_np, a[0] = put_room(128),
     pthread_getaffinity_np(pthread_self(), 128, a[0]))
CASE(sched_getparam, a[0] = put_room(4), sched_getparam(0, a[0]))
CASE(sched_setparam, a[0] = put_room(4), sched_setparam(0, a[0]))
CASE(sched_setscheduler, a[0] = put_room(4), sched_setscheduler(0, SCHED_OTHER, a[0]))
CASE(sched_rr_get_interval, a[0] = put_room(16), sched_rr_get_interval(0, a[0]))

// ---- signals -----------------------------------------------------------------------------------

static void handler(int number) {
    (void)number;
}

static sigset_t *put_signals(int number) {
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, number);
    return put(&s, sizeof s);
}

static struct sigaction *put_action(void) {
    struct sigaction s = {.sa_handler = handler};
    sigemptyset(&s.sa_mask);
    return put(&s, sizeof s);
}

CASE(sigaction, (a[0] = put_action(), a[1] = put_room(sizeof(struct sigaction))),
     sigaction(SIGUSR1, a[0], a[1]))
CASE(sigprocmask, (a[0] = put_signals(SIGUSR1), a[1] = put_room(128)),
     sigprocmask(SIG_BLOCK, a[0], a[1]))
CASE(sigpending, a[0] = put_room(128),
     raise(SIGUSR1) == 0 && sigpending(a[0]) == 0 && sigismember(a[0], SIGUSR1))
CASE(sigwait, (a[0] = put_signals(SIGUSR1), a[1] = put_room(4)),
     sigwait(a[0], a[1]) == 0 && *(int *)a[1] == SIGUSR1)
CASE(sigsuspend, a[0] = put_signals(SIGUSR2),
     raise(SIGUSR1) == 0 && sigsuspend(a[0]) == -1 && errno == EINTR)
CASE(pthread_sigmask, a[0] = put_signals(SIGUSR1), pthread_sigmask(SIG_UNBLOCK, a[0], NULL))
CASE(sigaltstack, (a[1] = put_room(3000), a[0] = put(&(stack_t){a[1], 0, 3000}, sizeof(stack_t))),
     sigaltstack(a[0], NULL) + must_be_kept(a[1]))

static int contexts;
static ucontext_t *other;
static char other_stack[65536];

static void on_other(void) {
    contexts++;
}

static ucontext_t *put_contexts(ucontext_t **back) {
    ucontext_t *u = put_room(sizeof *u);
    *back = put_room(sizeof **back);
    getcontext(u);
    u->uc_stack = (stack_t){other_stack, 0, sizeof other_stack};
    u->uc_link = *back;
    makecontext(u, on_other, 0);
    return other = u;
}

CASE(swapcontext, a[0] = put_contexts((ucontext_t **)&a[1]),
     swapcontext(a[1], a[0]) == 0 && contexts == 1)

// ---- folders and streams -------------------------------------------------------------------------

// They are opened before they are cold, libc's own blocks.
static long write_stream(FILE *f) {
    return fflush(f) == 0 ? has_come(tube[0], "in a buffer") : -1;
}

static FILE *stream_to_tube(void) {
    FILE *f = fdopen(dup(tube[1]), "w");
    fputs("in a buffer", f);
    return f;
}

static long sum(FILE *f, char *p) {
    return fread(p, 1, 3000, f) == 3000 && p[0] == 0 && p[2999] == 0;
}

static long print_to_tube(const char *s, int how) {
    FILE *f = fdopen(dup(tube[1]), "w");
    setvbuf(f, NULL, _IONBF, 0);
    long n = how == 0 ? (long)fwrite(s, 1, 9, f) : fputs(s, f) >= 0 ? 9 : -1;
    fclose(f);
    return n == 9 ? has_come(tube[0], s) : -1;
}

CASE(readdir, a[0] = opendir("/proc/self"), readdir(a[0]) != NULL && readdir64(a[0]) != NULL)
CASE(getdents64, a[0] = put_room(2000), getdents64(open("/proc", O_RDONLY), a[0], 2000) > 0)
CASE(fflush, a[0] = stream_to_tube(), write_stream(a[0]))
CASE(fread, a[0] = put_room(3000), sum(fdopen(zero, "r"), a[0]))
CASE(fread_unbuffered, (a[1] = put_room(3000), a[0] = fopen("/dev/zero", "r")),
     setvbuf(a[0], NULL, _IONBF, 0) + sum(a[0], a[1]))
CASE(fwrite, a[0] = put_text("some text"), print_to_tube(a[0], 0))
CASE(fputs, a[0] = put_text("some text"), print_to_tube(a[0], 1))
CASE(popen, (a[0] = put_text("exit 3"), a[1] = put_text("r")),
     WEXITSTATUS(pclose(popen(a[0], a[1]))))

CASE(setvbuf, (a[0] = fopen("/dev/zero", "r"), a[1] = put_room(4000)),
     setvbuf(a[0], a[1], _IOFBF, 4000) + must_be_kept(a[1]) + fgetc(a[0]))

// ---- objects to wait for -------------------------------------------------------------------------

#define SOON 20000000
static struct timespec soon(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    t.tv_nsec += SOON;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

static void *release(void *m) {
    struct timespec t = {0, SOON};
    nanosleep(&t, NULL);
    pthread_mutex_unlock(m);
    return NULL;
}

// Held by a thread that lets it go. (A normal mutex does not care which.)
static long lock_contended(pthread_mutex_t *m) {
    pthread_t t;
    if (pthread_create(&t, NULL, release, m) != 0) {
        return -1;
    }
    long error = pthread_mutex_lock(m);
    pthread_join(t, NULL);
    return error;
}

#define A_MUTEX put(&(pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER, sizeof(pthread_mutex_t))
#define A_CONDITION put(&(pthread_cond_t)PTHREAD_COND_INITIALIZER, sizeof(pthread_cond_t))
#define A_RWLOCK put(&(pthread_rwlock_t)PTHREAD_RWLOCK_INITIALIZER, sizeof(pthread_rwlock_t))

static struct timespec until;
#define SOON_BY(clock) (until = soon(clock), &until)

static void *signal_it(void *w) {
    struct timespec t = {0, SOON};
    nanosleep(&t, NULL);
    pthread_cond_broadcast(w);
    return NULL;
}

static long wait_signalled(pthread_cond_t *w, pthread_mutex_t *m) {
    pthread_t t;
    if (pthread_create(&t, NULL, signal_it, w) != 0) {
        return -1;
    }
    long error = pthread_mutex_lock(m);
    error = error != 0 ? error : pthread_cond_wait(w, m);
    pthread_join(t, NULL);
    return error + pthread_mutex_unlock(m);
}

static sem_t *put_semaphore(unsigned value) {
    sem_t s;
    sem_init(&s, 0, value);
    return put(&s, sizeof s);
}

static pthread_rwlock_t *put_written(void) {
    pthread_rwlock_t *l = A_RWLOCK;
    pthread_rwlock_wrlock(l);
    return l;
}

CASE(pthread_mutex_lock, a[0] = A_MUTEX, pthread_mutex_lock(a[0]))
CASE(pthread_mutex_contended, (a[0] = A_MUTEX, pthread_mutex_lock(a[0])), lock_contended(a[0]))
CASE(pthread_mutex_timedlock, (a[0] = A_MUTEX, pthread_mutex_lock(a[0])),
     pthread_mutex_timedlock(a[0], SOON_BY(CLOCK_REALTIME)))
CASE(pthread_mutex_clocklock, (a[0] = A_MUTEX, pthread_mutex_lock(a[0])),
     pthread_mutex_clocklock(a[0], CLOCK_MONOTONIC, SOON_BY(CLOCK_MONOTONIC)))
CASE(pthread_cond_wait, (a[0] = A_CONDITION, a[1] = A_MUTEX), wait_signalled(a[0], a[1]))
CASE(pthread_cond_timedwait, (a[0] = A_CONDITION, a[1] = A_MUTEX, pthread_mutex_lock(a[1])),
     pthread_cond_timedwait(a[0], a[1], SOON_BY(CLOCK_REALTIME)))
CASE(pthread_cond_clockwait, (a[0] = A_CONDITION, a[1] = A_MUTEX, pthread_mutex_lock(a[1])),
     pthread_cond_clockwait(a[0], a[1], CLOCK_MONOTONIC, SOON_BY(CLOCK_MONOTONIC)))
CASE(pthread_rwlock_rdlock, a[0] = A_RWLOCK, pthread_rwlock_rdlock(a[0]))
CASE(pthread_rwlock_wrlock, a[0] = A_RWLOCK, pthread_rwlock_wrlock(a[0]))
CASE(pthread_rwlock_timedrdlock, a[0] = put_written(),
     pthread_rwlock_timedrdlock(a[0], SOON_BY(CLOCK_REALTIME)))
CASE(pthread_rwlock_clockwrlock, (a[0] = A_RWLOCK, pthread_rwlock_rdlock(a[0])),
     pthread_rwlock_clockwrlock(a[0], CLOCK_MONOTONIC, SOON_BY(CLOCK_MONOTONIC)))
CASE(sem_wait, a[0] = put_semaphore(1), sem_wait(a[0]))
CASE(sem_timedwait, a[0] = put_semaphore(0), sem_timedwait(a[0], SOON_BY(CLOCK_REALTIME)))
CASE(sem_clockwait, a[0] = put_semaphore(0),
     sem_clockwait(a[0], CLOCK_MONOTONIC, SOON_BY(CLOCK_MONOTONIC)))
CASE(mtx_lock, (a[0] = put_room(sizeof(mtx_t)), mtx_init(a[0], mtx_plain)), mtx_lock(a[0]))
CASE(cnd_timedwait,
     (a[0] = put_room(sizeof(cnd_t)), a[1] = put_room(sizeof(mtx_t)), cnd_init(a[0]),
      mtx_init(a[1], mtx_timed), mtx_lock(a[1])),
     cnd_timedwait(a[0], a[1], SOON_BY(CLOCK_REALTIME)) == thrd_timedout)
CASE(pthread_barrier_wait,
     (a[0] = put_room(sizeof(pthread_barrier_t)), pthread_barrier_init(a[0], NULL, 1)),
     pthread_barrier_wait(a[0]) == PTHREAD_BARRIER_SERIAL_THREAD)

int main(int argc, char **argv) {
    return handed_main(argc, argv);
}
