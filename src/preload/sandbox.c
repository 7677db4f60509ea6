// A program that is about to let a filter of system calls (seccomp) judge its calls: from then on Firn makes
// only those that README lists for it. sshd's child, for one, dies of any other.
//
// Programs install filters by prctl, or by syscall, for which libc has no function. Both do what libc's do.
// A program that does it in assembly of its own is not noticed.
//
// By syscall programs fork, too (clone, clone3, fork): what libc's handlers would do of Firn's is done for them, where
// the child goes on with the stack of its parent. Where it has another one, the child is one that no handler saw.
//
// Not in the archive, where libc's own definitions may be linked in, too.
#include "src/base/compiler.h"
#include "src/base/fatal.h"
#include "src/heap/keeper.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/os/caps.h"
#include "src/os/random.h"
#include "src/os/sys.h"
#include "src/os/thread.h"
#include "src/preload/call.h"

#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// Used by the assembly below.
bool firn_notice_call(long number, long first, long second);

// Before the call: with SECCOMP_FILTER_FLAG_TSYNC the filter holds for other threads, too, at once. True if it
// asks for the strict mode, which may be refused.
bool firn_notice_call(long number, long first, long second) {
    bool is_strict = number == SYS_seccomp
                         ? first == SECCOMP_SET_MODE_STRICT
                         : first == PR_SET_SECCOMP && second == SECCOMP_MODE_STRICT;
    if (number == SYS_seccomp ? is_strict || first == SECCOMP_SET_MODE_FILTER
                              : first == PR_SET_SECCOMP) {
        caps_forget(CAPS_RARE);
        if (firn_has_cold_upkeep) {
            cold_note_filter();
        }
        caps_forget(CAP_FOLLOW);
        if (firn_has_keeper) {
            keeper_forbid("a filter of system calls came");
        }
        fatal_note_filter(sys_locate_quietly);
        pin_prepare();
        thread_forbid();
    }
    if (is_strict) {
        (void)life_thread_cache(); // what it takes to make one is not to be had any more
        random_lay_in();
    }
    return is_strict;
}

enum clone_kind { CLONE_OTHER, CLONE_FORK, CLONE_ELSEWHERE };
int firn_before_clone(long number, uint64_t first, uint64_t second);
void firn_after_clone(long result, int kind);

static int kind_of(uint64_t flags, uint64_t stack) {
    bool is_like_us = stack == 0 && (flags & CLONE_SETTLS) == 0;
    return (flags & CLONE_VM) != 0 ? CLONE_OTHER : is_like_us ? CLONE_FORK : CLONE_ELSEWHERE;
}

int firn_before_clone(long number, uint64_t first, uint64_t second) {
    int kind;
    if (number == SYS_clone3) {
        // The kernel refuses what is shorter.
        const struct clone_args *a =
            (const struct clone_args *)first; // NOLINT(performance-no-int-to-ptr)
        bool is_one = a != NULL && second >= CLONE_ARGS_SIZE_VER0;
        kind = is_one ? kind_of(a->flags, a->stack) : CLONE_OTHER;
    } else {
        kind = number == SYS_fork ? CLONE_FORK : kind_of(first, second);
    }
    if (kind == CLONE_FORK) {
        life_begin_fork();
    } else if (kind == CLONE_ELSEWHERE && firn_has_cold_upkeep) {
        cold_before_fork();
    }
    return kind;
}

// In the child, too, but not on a stack, or with thread-local storage, that only it has.
void firn_after_clone(long result, int kind) {
    if (kind == CLONE_FORK) {
        life_end_fork(result == 0);
    } else if (result != 0 && firn_has_cold_upkeep) {
        cold_after_fork(false);
    }
}

#if !defined(__x86_64__)
#error "syscall is written for x86-64"
#endif
_Static_assert(SYS_seccomp == 317 && SYS_prctl == 157, "the assembly has the numbers");
_Static_assert(SYS_vfork == 58 && CALL_WARY == 2, "likewise");
_Static_assert(SYS_clone == 56 && SYS_fork == 57 && SYS_clone3 == 435 && CLONE_ELSEWHERE == 2,
               "likewise");
#define SAVE_ARGUMENTS                                                                             \
    "    pushq %rdi\n"                                                                             \
    "    pushq %rsi\n"                                                                             \
    "    pushq %rdx\n"                                                                             \
    "    pushq %rcx\n"                                                                             \
    "    pushq %r8\n"                                                                              \
    "    pushq %r9\n"                                                                              \
    "    subq $8, %rsp\n"                                                                          \
    "    .cfi_adjust_cfa_offset 56\n"
#define RESTORE_ARGUMENTS                                                                          \
    "    addq $8, %rsp\n"                                                                          \
    "    popq %r9\n"                                                                               \
    "    popq %r8\n"                                                                               \
    "    popq %rcx\n"                                                                              \
    "    popq %rdx\n"                                                                              \
    "    popq %rsi\n"                                                                              \
    "    popq %rdi\n"                                                                              \
    "    .cfi_adjust_cfa_offset -56\n"
// As the kernel has them; the fourth and the rest follow.
#define SHIFT_ARGUMENTS                                                                            \
    "    movq %rdi, %rax\n"                                                                        \
    "    movq %rsi, %rdi\n"                                                                        \
    "    movq %rdx, %rsi\n"                                                                        \
    "    movq %rcx, %rdx\n"

// Firn's own calls in other files are not the program's: the linker renames them (-Wl,--wrap), to the part below that
// makes the call and nothing else.
//
// Nothing stands on the stack while the kernel has the call: a new thread or process may return from it, too.
__asm__(
    ".text\n"
    ".globl syscall\n"
    ".type syscall, @function\n"
    ".p2align 4\n"
    "syscall:\n"
    "    .cfi_startproc\n"
    "    endbr64\n"
    "    cmpq $317, %rdi\n"
    "    je 1f\n"
    "    cmpq $157, %rdi\n"
    "    je 1f\n"
    "    cmpq $56, %rdi\n"
    "    je 5f\n"
    "    cmpq $57, %rdi\n"
    "    je 5f\n"
    "    cmpq $435, %rdi\n"
    "    je 5f\n"
    "    jmp 2f\n"
    "1:\n" SAVE_ARGUMENTS "    call firn_notice_call\n" RESTORE_ARGUMENTS "    testb %al, %al\n"
    "    jnz 4f\n"
    // The same arguments in the same places. Not for what returns twice: vfork.
    "2:  cmpb $2, firn_call_state(%rip)\n"
    "    jne 8f\n"
    "    cmpq $58, %rdi\n"
    "    jne firn_syscall_warily\n"
    "8:\n"
    ".globl __wrap_syscall\n"
    ".hidden __wrap_syscall\n"
    ".type __wrap_syscall, @function\n"
    "__wrap_syscall:\n" SHIFT_ARGUMENTS "    movq %r8, %r10\n"
    "    movq %r9, %r8\n"
    "    movq 8(%rsp), %r9\n"
    "    syscall\n"
    "    cmpq $-4095, %rax\n"
    "    jae 3f\n"
    "    ret\n"
    "3:  negl %eax\n"
    "    pushq %rax\n"
    "    .cfi_adjust_cfa_offset 8\n"
    "    call *__errno_location@GOTPCREL(%rip)\n"
    "    popq %rcx\n"
    "    .cfi_adjust_cfa_offset -8\n"
    "    movl %ecx, (%rax)\n"
    "    movq $-1, %rax\n"
    "    ret\n"
    // Three arguments at most; and no process or thread more that returns from it.
    "4:  movq %rdi, %rax\n"
    "    movq %rsi, %rdi\n"
    "    movq %rdx, %rsi\n"
    "    movq %rcx, %rdx\n"
    "    syscall\n"
    "    testq %rax, %rax\n"
    "    jnz 3b\n"
    "    subq $8, %rsp\n"
    "    .cfi_adjust_cfa_offset 8\n"
    "    call sys_go_mute\n"
    "    addq $8, %rsp\n"
    "    .cfi_adjust_cfa_offset -8\n"
    "    xorl %eax, %eax\n"
    "    ret\n"
    // Five arguments at most: the kind is kept in the register of the sixth, which the kernel keeps. The child
    // that has another stack makes no use of it.
    "5:\n" SAVE_ARGUMENTS "    call firn_before_clone\n" RESTORE_ARGUMENTS
    "    movl %eax, %r11d\n" SHIFT_ARGUMENTS "    movq %r8, %r10\n"
    "    movq %r9, %r8\n"
    "    movq %r11, %r9\n"
    "    syscall\n"
    "    testq %r9, %r9\n"
    "    jz 7f\n"
    "    cmpq $2, %r9\n"
    "    jne 6f\n"
    "    testq %rax, %rax\n"
    "    jz 7f\n"
    "6:  pushq %rax\n"
    "    .cfi_adjust_cfa_offset 8\n"
    "    movq %rax, %rdi\n"
    "    movl %r9d, %esi\n"
    "    call firn_after_clone\n"
    "    popq %rax\n"
    "    .cfi_adjust_cfa_offset -8\n"
    "7:  cmpq $-4095, %rax\n"
    "    jae 3b\n"
    "    ret\n"
    "    .cfi_endproc\n"
    ".size syscall, . - syscall\n");

// A name, a program of a filter, a number to be filled in: what lies in the heap is brought back, and not pinned,
// lest something stand on the stack under strict mode.
static void add_arguments(struct call *c, int option, const unsigned long a[4]) {
    for (int i = 0; i < 4; i++) {
        call_add_object(c, (const void *)a[i]);
    }
    if (option == PR_SET_SECCOMP && a[0] == SECCOMP_MODE_FILTER && a[1] != 0) {
        const struct sock_fprog *program = (const void *)a[1];
        add(c, program->filter, program->len * sizeof *program->filter);
    }
}

FIRN_EXPORT int prctl(int option, ...) {
    unsigned long a[4];
    va_list rest;
    va_start(rest, option);
    for (int i = 0; i < 4; i++) {
        a[i] = va_arg(rest, unsigned long);
    }
    va_end(rest);
    if (!call_is_plain()) {
        struct call c = {.is_touching = true};
        add_arguments(&c, option, a);
    }
    return (int)syscall(SYS_prctl, (long)option, a[0], a[1], a[2], a[3]);
}
