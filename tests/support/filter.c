#include "tests/support/filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// One system call and what becomes of it.
struct rule {
    uint32_t number;
    uint32_t verdict;  // a SECCOMP_RET_ value
    uint32_t argument; // 0: any; else 1 + the argument that may have no bit outside of `mask`
    uint32_t mask;
};

enum { SERVICE_LAST = 450, RULES_MOST = 512, CODE_MOST = 8 * RULES_MOST };

#define ALLOW(name)                                                                                \
    { SYS_##name, SECCOMP_RET_ALLOW, 0, 0 }
#define REFUSE(name, error)                                                                        \
    { SYS_##name, SECCOMP_RET_ERRNO | (error), 0, 0 }

// As of OpenSSH 9.2 on x86-64. Everything else kills there.
static const struct rule openssh[] = {
    REFUSE(lstat, EACCES),
    REFUSE(fstat, EACCES),
    REFUSE(open, EACCES),
    REFUSE(openat, EACCES),
    REFUSE(newfstatat, EACCES),
    REFUSE(stat, EACCES),
    REFUSE(shmget, EACCES),
    REFUSE(shmat, EACCES),
    REFUSE(shmdt, EACCES),
    ALLOW(brk),
    ALLOW(clock_gettime),
    ALLOW(close),
    ALLOW(exit),
    ALLOW(exit_group),
    ALLOW(futex),
    ALLOW(geteuid),
    ALLOW(getpgid),
    ALLOW(getpid),
    ALLOW(getrandom),
    ALLOW(gettimeofday),
    ALLOW(getuid),
    ALLOW(madvise),
    {SYS_mmap, SECCOMP_RET_ALLOW, 1 + 2, PROT_READ | PROT_WRITE},
    {SYS_mprotect, SECCOMP_RET_ALLOW, 1 + 2, PROT_READ | PROT_WRITE},
    ALLOW(mremap),
    ALLOW(munmap),
    ALLOW(nanosleep),
    ALLOW(clock_nanosleep),
    ALLOW(poll),
    ALLOW(pselect6),
    ALLOW(read),
    ALLOW(rt_sigprocmask),
    ALLOW(select),
    ALLOW(shutdown),
    ALLOW(time),
    ALLOW(write),
    // So that the report of a call that is not in the list comes through.
    ALLOW(rt_sigreturn),
};

static const struct rule no_fork[] = {
    REFUSE(fork, EAGAIN),
    REFUSE(vfork, EAGAIN),
    REFUSE(clone, EAGAIN),
    REFUSE(clone3, EAGAIN),
};

// What systemd 252's @system-service leaves out, which is an allow-list: of the calls libc's header knows,
// and all that came later.
// clang-format off
static const uint32_t no_service[] = {
    SYS_mincore, SYS_ptrace, SYS_syslog, SYS_uselib, SYS_ustat, SYS_sysfs, SYS_vhangup,
    SYS_modify_ldt, SYS_pivot_root, SYS__sysctl, SYS_adjtimex, SYS_chroot, SYS_acct,
    SYS_settimeofday, SYS_mount, SYS_umount2, SYS_swapon, SYS_swapoff, SYS_reboot, SYS_sethostname,
    SYS_setdomainname, SYS_iopl, SYS_ioperm, SYS_create_module, SYS_init_module, SYS_delete_module,
    SYS_get_kernel_syms, SYS_query_module, SYS_quotactl, SYS_nfsservctl, SYS_getpmsg, SYS_putpmsg,
    SYS_afs_syscall, SYS_tuxcall, SYS_security, SYS_lookup_dcookie, SYS_clock_settime, SYS_vserver,
    SYS_kexec_load, SYS_perf_event_open, SYS_fanotify_init, SYS_fanotify_mark,
    SYS_open_by_handle_at, SYS_clock_adjtime, SYS_finit_module, SYS_seccomp, SYS_kexec_file_load,
    SYS_bpf, SYS_pkey_mprotect, SYS_pkey_alloc, SYS_pkey_free, SYS_open_tree, SYS_move_mount,
    SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick, SYS_pidfd_getfd, SYS_mount_setattr,
    SYS_quotactl_fd, SYS_landlock_create_ruleset, SYS_landlock_add_rule, SYS_landlock_restrict_self,
    SYS_memfd_secret, SYS_process_mrelease
};
// clang-format on

// What the documentation of Docker's default profile names as blocked, with EPERM. That clone3 gets ENOSYS
// sends libc to clone.
// clang-format off
static const uint32_t no_docker[] = {
    SYS_acct, SYS_add_key, SYS_bpf, SYS_clock_adjtime, SYS_clock_settime, SYS_create_module,
    SYS_delete_module, SYS_finit_module, SYS_get_kernel_syms, SYS_get_mempolicy, SYS_init_module,
    SYS_ioperm, SYS_iopl, SYS_kcmp, SYS_kexec_file_load, SYS_kexec_load, SYS_keyctl,
    SYS_lookup_dcookie, SYS_mbind, SYS_mount, SYS_move_pages, SYS_nfsservctl, SYS_open_by_handle_at,
    SYS_perf_event_open, SYS_personality, SYS_pivot_root, SYS_process_madvise, SYS_ptrace,
    SYS_query_module, SYS_quotactl, SYS_reboot, SYS_request_key, SYS_set_mempolicy, SYS_setns,
    SYS_settimeofday, SYS_swapon, SYS_swapoff, SYS_sysfs, SYS__sysctl, SYS_umount2, SYS_unshare,
    SYS_uselib, SYS_userfaultfd, SYS_ustat, SYS_io_uring_setup, SYS_io_uring_enter,
    SYS_io_uring_register
};
// clang-format on

static struct sock_filter code[CODE_MOST];
static unsigned short length;

static void emit(uint16_t op, uint32_t k, uint8_t if_true, uint8_t if_false) {
    code[length++] = (struct sock_filter){op, if_true, if_false, k};
}

static void load(size_t offset) {
    emit(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void emit_rule(const struct rule *r) {
    const uint32_t low = (uint32_t)offsetof(struct seccomp_data, args);
    if (r->argument == 0) {
        emit(BPF_JMP | BPF_JEQ | BPF_K, r->number, 0, 1);
        emit(BPF_RET | BPF_K, r->verdict, 0, 0);
        return;
    }
    emit(BPF_JMP | BPF_JEQ | BPF_K, r->number, 0, 5);
    load(low + (r->argument - 1) * sizeof(uint64_t));
    emit(BPF_ALU | BPF_AND | BPF_K, ~r->mask, 0, 0);
    emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1);
    emit(BPF_RET | BPF_K, r->verdict, 0, 0);
    load(offsetof(struct seccomp_data, nr));
}

static void put(const char *text, size_t n) {
    if (write(STDERR_FILENO, text, n) != (ssize_t)n) {
        _exit(FILTER_EXIT + 1);
    }
}

static void on_refusal(int number, siginfo_t *info, void *context) {
    char digits[16];
    unsigned at = sizeof digits;
    (void)number, (void)context;
    digits[--at] = '\n';
    for (unsigned v = (unsigned)info->si_syscall; at > 0 && (v > 0 || at == sizeof digits - 1);
         v /= 10) {
        digits[--at] = (char)('0' + v % 10);
    }
    put("filtered: system call ", 22);
    put(digits + at, sizeof digits - at);
    _exit(FILTER_EXIT);
}

static void emit_all(const uint32_t *numbers, size_t n, uint32_t verdict) {
    for (size_t i = 0; i < n; i++) {
        emit_rule(&(struct rule){numbers[i], verdict, 0, 0});
    }
}

static void compose(enum filter_kind kind) {
    length = 0;
    load(offsetof(struct seccomp_data, arch));
    emit(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
    emit(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
    load(offsetof(struct seccomp_data, nr));
    switch (kind) {
    case FILTER_OPENSSH:
        for (size_t i = 0; i < sizeof openssh / sizeof openssh[0]; i++) {
            emit_rule(&openssh[i]);
        }
        break;
    case FILTER_WRITE:
        emit_rule(&(struct rule)ALLOW(write));
        emit_rule(&(struct rule)ALLOW(exit_group));
        emit(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS, 0, 0);
        break;
    case FILTER_NO_FORK:
        for (size_t i = 0; i < sizeof no_fork / sizeof no_fork[0]; i++) {
            emit_rule(&no_fork[i]);
        }
        emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
        break;
    case FILTER_SERVICE:
        emit_all(no_service, sizeof no_service / sizeof no_service[0], SECCOMP_RET_TRAP);
        emit(BPF_JMP | BPF_JGT | BPF_K, SERVICE_LAST, 1, 0);
        emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
        break;
    case FILTER_DOCKER:
        emit_all(no_docker, sizeof no_docker / sizeof no_docker[0], SECCOMP_RET_ERRNO | EPERM);
        emit_rule(&(struct rule)REFUSE(clone3, ENOSYS));
        emit(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
        break;
    case FILTER_STRICT:
        break;
    }
    emit(BPF_RET | BPF_K, SECCOMP_RET_TRAP, 0, 0);
}

bool filter_install(enum filter_kind kind, enum filter_way way) {
    struct sigaction action;
    if (kind == FILTER_STRICT) {
        return way == FILTER_BY_PRCTL ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0
                                      : syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL) == 0;
    }
    compose(kind);
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_refusal;
    action.sa_flags = SA_SIGINFO;
    const struct sock_fprog program = {length, code};
    if (sigaction(SIGSYS, &action, NULL) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return false;
    }
    return way == FILTER_BY_PRCTL ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0
                                  : syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}
