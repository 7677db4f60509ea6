// The calls by which the program and the kernel hand each other small records: of time, masks, limits, identity.
#include "src/os/signals.h"
#include "src/os/veil.h"
#include "src/preload/call.h"

#include <dirent.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/timex.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

// libcap's; libc has them without a header.
struct __user_cap_header_struct;
struct __user_cap_data_struct;
int capget(struct __user_cap_header_struct *header, struct __user_cap_data_struct *data);
int capset(struct __user_cap_header_struct *header, const struct __user_cap_data_struct *data);
int __getgroups_chk(int n, gid_t *groups, size_t room);
int __ttyname_r_chk(int fd, char *p, size_t n, size_t room);

#pragma GCC diagnostic push // readdir_r
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

// clang-format off
#define NAMES(X)                                                                                  \
    X(clock_gettime) X(clock_getres) X(clock_settime) X(clock_adjtime) X(adjtimex)                \
    X(gettimeofday) X(settimeofday) X(clock_nanosleep) X(getitimer) X(setitimer) X(timer_create) X(timer_gettime)    \
    X(timer_settime) X(timerfd_gettime) X(timerfd_settime) X(times) X(getrusage) X(getrlimit)     \
    X(getrlimit64) X(uname) X(sysinfo) X(getgroups) X(__getgroups_chk) X(getresuid)               \
    X(getresgid) X(capget) X(capset) X(ttyname_r) X(__ttyname_r_chk) X(pthread_setaffinity_np) X(pthread_getaffinity_np) X(sched_setaffinity) X(sched_getaffinity)                    \
    X(sched_setparam) X(sched_getparam) X(sched_setscheduler) X(sched_rr_get_interval)            \
    X(sigpending) X(sigwait) X(sigaltstack) X(pthread_attr_setstack) X(setcontext) X(swapcontext) X(wait3) X(readdir) X(readdir64)    \
    X(readdir_r) X(readdir64_r) X(getdents64) X(epoll_pwait2)
// clang-format on
CALL_DEFINITIONS(call_find_records, call_fails);

// ---- time --------------------------------------------------------------------------------------

CALL_GUARDED(int, clock_gettime, (clockid_t clock, struct timespec *out), (clock, out),
             add(&c, out, sizeof *out));
int call_next_clock_gettime(clockid_t clock, struct timespec *out) {
    return next.clock_gettime(clock, out);
}

CALL_GUARDED(int, clock_getres, (clockid_t clock, struct timespec *out), (clock, out),
             add(&c, out, sizeof *out));
CALL_GUARDED(int, clock_settime, (clockid_t clock, const struct timespec *time), (clock, time),
             add(&c, time, sizeof *time));
CALL_GUARDED(int, clock_adjtime, (clockid_t clock, struct timex *p), (clock, p),
             add(&c, p, sizeof *p));
CALL_GUARDED(int, adjtimex, (struct timex * p), (p), add(&c, p, sizeof *p));
CALL_GUARDED(int, gettimeofday, (struct timeval *restrict out, void *restrict zone), (out, zone),
             add(&c, out, sizeof *out), add(&c, zone, sizeof(struct timezone)));
CALL_GUARDED(int, settimeofday, (const struct timeval *time, const struct timezone *zone),
             (time, zone), add(&c, time, sizeof *time), add(&c, zone, sizeof *zone));
// Returns the error.
CALL_GUARDED(int, clock_nanosleep,
             (clockid_t clock, int flags, const struct timespec *time, struct timespec *rest),
             (clock, flags, time, rest), add(&c, time, sizeof *time), add(&c, rest, sizeof *rest));

CALL_GUARDED(int, getitimer, (__itimer_which_t which, struct itimerval *out), (which, out),
             add(&c, out, sizeof *out));
CALL_GUARDED(int, setitimer,
             (__itimer_which_t which, const struct itimerval *restrict set,
              struct itimerval *restrict old),
             (which, set, old), add(&c, set, sizeof *set), add(&c, old, sizeof *old));
CALL_GUARDED(int, timer_create,
             (clockid_t clock, struct sigevent *restrict event, timer_t *restrict out),
             (clock, event, out), call_starts_notifier(event), add(&c, event, sizeof *event),
             add(&c, out, sizeof *out));
CALL_GUARDED(int, timer_gettime, (timer_t timer, struct itimerspec *out), (timer, out),
             add(&c, out, sizeof *out));
CALL_GUARDED(int, timer_settime,
             (timer_t timer, int flags, const struct itimerspec *restrict set,
              struct itimerspec *restrict old),
             (timer, flags, set, old), add(&c, set, sizeof *set), add(&c, old, sizeof *old));
CALL_GUARDED(int, timerfd_gettime, (int fd, struct itimerspec *out), (fd, out),
             add(&c, out, sizeof *out));
CALL_GUARDED(int, timerfd_settime,
             (int fd, int flags, const struct itimerspec *set, struct itimerspec *old),
             (fd, flags, set, old), add(&c, set, sizeof *set), add(&c, old, sizeof *old));
CALL_GUARDED(clock_t, times, (struct tms * out), (out), add(&c, out, sizeof *out));
FIRN_EXPORT int epoll_pwait2(int fd, struct epoll_event *events, int n,
                             const struct timespec *timeout, const sigset_t *mask) {
    sigset_t real;
    CALL(int,
         (add(&c, events, call_count(n) * sizeof *events), add(&c, timeout, sizeof *timeout),
          add(&c, mask, sizeof *mask)),
         epoll_pwait2, fd, events, n, timeout, signals_while_asleep(mask, &real));
}

// ---- what a process is and has ------------------------------------------------------------------

CALL_GUARDED(int, getrusage, (__rusage_who_t who, struct rusage *out), (who, out),
             add(&c, out, sizeof *out));
CALL_GUARDED(int, getrlimit, (__rlimit_resource_t resource, struct rlimit *out), (resource, out),
             add(&c, out, sizeof *out));
CALL_GUARDED(int, getrlimit64, (__rlimit_resource_t resource, struct rlimit64 *out),
             (resource, out), add(&c, out, sizeof *out));
CALL_GUARDED(pid_t, wait3, (int *status, int options, struct rusage *usage),
             (status, options, usage), add(&c, status, sizeof *status),
             add(&c, usage, sizeof *usage));
CALL_GUARDED(int, uname, (struct utsname * out), (out), add(&c, out, sizeof *out));
CALL_GUARDED(int, sysinfo, (struct sysinfo * out), (out), add(&c, out, sizeof *out));
CALL_GUARDED(int, getgroups, (int n, gid_t *groups), (n, groups),
             add(&c, groups, call_count(n) * sizeof *groups));
CALL_GUARDED(int, __getgroups_chk, (int n, gid_t *groups, size_t room), (n, groups, room),
             add(&c, groups, call_count(n) * sizeof *groups));
CALL_GUARDED(int, getresuid, (uid_t * real, uid_t *effective, uid_t *saved),
             (real, effective, saved), add(&c, real, sizeof *real),
             add(&c, effective, sizeof *effective), add(&c, saved, sizeof *saved));
CALL_GUARDED(int, getresgid, (gid_t * real, gid_t *effective, gid_t *saved),
             (real, effective, saved), add(&c, real, sizeof *real),
             add(&c, effective, sizeof *effective), add(&c, saved, sizeof *saved));
CALL_GUARDED(int, capget,
             (struct __user_cap_header_struct * header, struct __user_cap_data_struct *data),
             (header, data), call_add_object(&c, header), call_add_object(&c, data));
CALL_GUARDED(int, capset,
             (struct __user_cap_header_struct * header, const struct __user_cap_data_struct *data),
             (header, data), call_add_object(&c, header), call_add_object(&c, data));
CALL_GUARDED(int, ttyname_r, (int fd, char *p, size_t n), (fd, p, n), add(&c, p, n));
CALL_GUARDED(int, __ttyname_r_chk, (int fd, char *p, size_t n, size_t room), (fd, p, n, room),
             add(&c, p, n));

CALL_GUARDED(int, sched_setaffinity, (pid_t thread, size_t n, const cpu_set_t *set),
             (thread, n, set), add(&c, set, n));
CALL_GUARDED(int, sched_getaffinity, (pid_t thread, size_t n, cpu_set_t *set), (thread, n, set),
             add(&c, set, n));
CALL_GUARDED(int, pthread_setaffinity_np, (pthread_t thread, size_t n, const cpu_set_t *set),
             (thread, n, set), add(&c, set, n));
CALL_GUARDED(int, pthread_getaffinity_np, (pthread_t thread, size_t n, cpu_set_t *set),
             (thread, n, set), add(&c, set, n));
CALL_GUARDED(int, sched_setparam, (pid_t thread, const struct sched_param *p), (thread, p),
             add(&c, p, sizeof *p));
CALL_GUARDED(int, sched_getparam, (pid_t thread, struct sched_param *p), (thread, p),
             add(&c, p, sizeof *p));
CALL_GUARDED(int, sched_setscheduler, (pid_t thread, int policy, const struct sched_param *p),
             (thread, policy, p), add(&c, p, sizeof *p));
CALL_GUARDED(int, sched_rr_get_interval, (pid_t thread, struct timespec *out), (thread, out),
             add(&c, out, sizeof *out));

// ---- signals and contexts -----------------------------------------------------------------------

CALL_GUARDED(int, sigpending, (sigset_t * out), (out), add(&c, out, sizeof *out));
CALL_GUARDED(int, sigwait, (const sigset_t *restrict set, int *restrict number), (set, number),
             add(&c, set, sizeof *set), add(&c, number, sizeof *number));

// The kernel cannot begin a handler on a stack that is away.
static void keep_stack(const stack_t *stack) {
    if (stack != NULL && (stack->ss_flags & SS_DISABLE) == 0) {
        call_keep(stack->ss_sp, stack->ss_size);
    }
}

FIRN_COLD static int wary_sigaltstack(const stack_t *set, stack_t *old) {
    CALL(int, (keep_stack(set), add(&c, set, sizeof *set), add(&c, old, sizeof *old)), sigaltstack,
         set, old);
}

FIRN_EXPORT int sigaltstack(const stack_t *restrict set, stack_t *restrict old) {
    if (call_is_plain()) {
        return next.sigaltstack(set, old);
    }
    int result = wary_sigaltstack(set, old);
    if (result == 0) {
        veil_hide_stack(set, old);
    }
    return result;
}
// The kernel writes to a thread's stack by itself, whenever the thread goes on (rseq), and for a signal.
CALL_GUARDED(int, pthread_attr_setstack, (pthread_attr_t * attributes, void *stack, size_t bytes),
             (attributes, stack, bytes), call_keep(stack, bytes));
// The mask is in the context. What getcontext fills in by itself is on both sides of it.
CALL_TOUCHED(int, setcontext, (const ucontext_t *to), (to), add(&c, to, sizeof *to),
             call_keep(to->uc_stack.ss_sp, to->uc_stack.ss_size));
CALL_TOUCHED(int, swapcontext, (ucontext_t *restrict from, const ucontext_t *restrict to),
             (from, to), add(&c, from, sizeof *from), add(&c, to, sizeof *to),
             call_keep(to->uc_stack.ss_sp, to->uc_stack.ss_size));

// ---- folders ------------------------------------------------------------------------------------

// The kernel writes entries behind libc's own fields, in one block.
CALL_GUARDED(struct dirent *, readdir, (DIR * folder), (folder), call_add_object(&c, folder));
CALL_GUARDED(struct dirent64 *, readdir64, (DIR * folder), (folder), call_add_object(&c, folder));
CALL_GUARDED(int, readdir_r, (DIR * folder, struct dirent *entry, struct dirent **out),
             (folder, entry, out), call_add_object(&c, folder));
CALL_GUARDED(int, readdir64_r, (DIR * folder, struct dirent64 *entry, struct dirent64 **out),
             (folder, entry, out), call_add_object(&c, folder));
CALL_GUARDED(ssize_t, getdents64, (int fd, void *p, size_t n), (fd, p, n), add(&c, p, n));

#pragma GCC diagnostic pop
