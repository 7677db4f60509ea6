// A program that is about to let a filter of system calls (seccomp) judge its calls: from then on Firn makes
// only those that README lists for it. sshd's child, for one, dies of any other.
//
// Programs install filters by prctl, or by syscall, for which libc has no function. Both do what libc's do.
// A program that does it in assembly of its own is not noticed.
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
        if (firn_has_keeper) {
            keeper_forbid("a filter of system calls came");
        }
        fatal_note_filter(sys_locate_quietly);
        thread_forbid();
    }
    if (is_strict) {
        (void)life_thread_cache(); // what it takes to make one is not to be had any more
        random_lay_in();
    }
    return is_strict;
}

#if !defined(__x86_64__)
#error "syscall is written for x86-64"
#endif
_Static_assert(SYS_seccomp == 317 && SYS_prctl == 157, "the assembly has the numbers");
// Nothing stands on the stack while the kernel has the call: a new thread or process may return from it, too.
__asm__(".text\n"
        ".globl syscall\n"
        ".type syscall, @function\n"
        ".p2align 4\n"
        "syscall:\n"
        "    .cfi_startproc\n"
        "    endbr64\n"
        "    cmpq $317, %rdi\n"
        "    je 1f\n"
        "    cmpq $157, %rdi\n"
        "    jne 2f\n"
        "1:  pushq %rdi\n"
        "    pushq %rsi\n"
        "    pushq %rdx\n"
        "    pushq %rcx\n"
        "    pushq %r8\n"
        "    pushq %r9\n"
        "    subq $8, %rsp\n"
        "    .cfi_adjust_cfa_offset 56\n"
        "    call firn_notice_call\n"
        "    addq $8, %rsp\n"
        "    popq %r9\n"
        "    popq %r8\n"
        "    popq %rcx\n"
        "    popq %rdx\n"
        "    popq %rsi\n"
        "    popq %rdi\n"
        "    .cfi_adjust_cfa_offset -56\n"
        "    testb %al, %al\n"
        "    jnz 4f\n"
        "2:  movq %rdi, %rax\n"
        "    movq %rsi, %rdi\n"
        "    movq %rdx, %rsi\n"
        "    movq %rcx, %rdx\n"
        "    movq %r8, %r10\n"
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
        "    .cfi_endproc\n"
        ".size syscall, . - syscall\n");

FIRN_EXPORT int prctl(int option, ...) {
    unsigned long a[4];
    va_list rest;
    va_start(rest, option);
    for (int i = 0; i < 4; i++) {
        a[i] = va_arg(rest, unsigned long);
    }
    va_end(rest);
    return (int)syscall(SYS_prctl, (long)option, a[0], a[1], a[2], a[3]);
}
