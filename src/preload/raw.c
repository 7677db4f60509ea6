// syscall, where pages may be away that the kernel cannot fetch (call.h): what an argument that is an address of
// the heap points to is pinned, to the end of its block. (Some futexes, among others, are waited for like that.) What
// that memory points to in turn is not, but for the strings of an exec.
//
// Not in the archive, where libc's own definitions may be linked in, too.
#include "src/preload/call.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// Used by the assembly in sandbox.c.
long firn_syscall_warily(long number, long a, long b, long c, long d, long e, long f);

// Addresses that stand for themselves, and not for what is there.
static bool is_about_mappings(long number) {
    switch (number) {
    case SYS_mmap:
    case SYS_mprotect:
    case SYS_munmap:
    case SYS_mremap:
    case SYS_madvise:
    case SYS_mincore:
    case SYS_mlock:
    case SYS_mlock2:
    case SYS_munlock:
    case SYS_msync:
    case SYS_pkey_mprotect:
        return true;
    default:
        return false;
    }
}

static void add_argument(struct call *call, long argument, size_t bytes) {
    add(call, (const void *)argument, bytes); // NOLINT(performance-no-int-to-ptr)
}

// It may be waited for for hours: nothing is to be pinned for as long that only happens to be in a register.
static void add_futex(struct call *call, const long arguments[6]) {
    long operation = arguments[1] & FUTEX_CMD_MASK;
    bool is_wait = operation == FUTEX_WAIT || operation == FUTEX_WAIT_BITSET ||
                   operation == FUTEX_LOCK_PI || operation == FUTEX_WAIT_REQUEUE_PI;
    bool is_move = operation == FUTEX_REQUEUE || operation == FUTEX_CMP_REQUEUE ||
                   operation == FUTEX_WAKE_OP || operation == FUTEX_CMP_REQUEUE_PI ||
                   operation == FUTEX_WAIT_REQUEUE_PI;
    add_argument(call, arguments[0], sizeof(uint32_t));
    if (is_wait) {
        add_argument(call, arguments[3], sizeof(struct timespec));
    }
    if (is_move) {
        add_argument(call, arguments[4], sizeof(uint32_t));
    }
}

// An argument that the call does not have is whatever the register held: no harm is done.
static void add_arguments(struct call *call, long number, const long arguments[6]) {
    if (number == SYS_futex) {
        add_futex(call, arguments);
        return;
    }
    for (unsigned i = 0; i < 6; i++) {
        call_add_object(call, (const void *)arguments[i]); // NOLINT(performance-no-int-to-ptr)
    }
}

// Not pinned: see programs.c.
static void touch_exec(const long arguments[3]) {
    struct call call = {.is_touching = true};
    add_path(&call, (const char *)arguments[0]);          // NOLINT(performance-no-int-to-ptr)
    call_add_strings(&call, (char *const *)arguments[1]); // NOLINT(performance-no-int-to-ptr)
    call_add_strings(&call, (char *const *)arguments[2]); // NOLINT(performance-no-int-to-ptr)
}

long firn_syscall_warily(long number, long a, long b, long c, long d, long e, long f) {
    const long arguments[6] = {a, b, c, d, e, f};
    struct call call = {0};
    if (number == SYS_execve || number == SYS_execveat) {
        touch_exec(&arguments[number == SYS_execveat]);
    } else if (!is_about_mappings(number)) {
        add_arguments(&call, number, arguments);
        if (call_begin(&call)) {
            add_arguments(&call, number, arguments);
        }
    }
    long result = syscall(number, a, b, c, d, e, f); // past what the program calls: see there
    call_end(&call);
    return result;
}
