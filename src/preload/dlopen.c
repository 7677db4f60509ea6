// dlopen without RTLD_DEEPBIND. A library loaded with that flag, and all it needs, would look for malloc
// and free in libc before it looks here, and hand libc's blocks to a program that frees them here, and the
// other way round: the end of both heaps. PHP's servers load every extension so. Without the flag such a
// library finds a function of its own that the program has, too, in the program, as every library does that
// is loaded without it.
//
// The search for a library depends on who calls: on the return address that dlopen finds. So nothing may
// stand between the program and libc's function: the flag goes, and the call jumps on.
#include "src/heap/life.h"

#include <dlfcn.h>
#include <stddef.h>

// Both are used by the assembly below.
extern void *(*firn_next_dlopen)(const char *, int);
extern int firn_dlopen_flags;
void firn_find_dlopen(void);

void *(*firn_next_dlopen)(const char *, int);
int firn_dlopen_flags = ~RTLD_DEEPBIND; // those that are passed on; all where Firn stands aside

// Anybody's constructor may call before ours has run. Twice is as good as once.
void firn_find_dlopen(void) {
    void *next = dlsym(RTLD_NEXT, "dlopen");
    if (life_is_aside()) {
        firn_dlopen_flags = ~0;
    }
    *(void **)&firn_next_dlopen = next;
}

#if !defined(__x86_64__)
#error "dlopen is written for x86-64"
#endif
__asm__(".text\n"
        ".globl dlopen\n"
        ".type dlopen, @function\n"
        ".p2align 4\n"
        "dlopen:\n"
        "    .cfi_startproc\n"
        "    endbr64\n"
        "    cmpq $0, firn_next_dlopen(%rip)\n"
        "    jne 1f\n"
        "    pushq %rdi\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    pushq %rsi\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    subq $8, %rsp\n"
        "    .cfi_adjust_cfa_offset 8\n"
        "    call firn_find_dlopen\n"
        "    addq $8, %rsp\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    popq %rsi\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "    popq %rdi\n"
        "    .cfi_adjust_cfa_offset -8\n"
        "1:  andl firn_dlopen_flags(%rip), %esi\n"
        "    jmp *firn_next_dlopen(%rip)\n"
        "    .cfi_endproc\n"
        ".size dlopen, . - dlopen\n"
        ".section .note.GNU-stack, \"\", @progbits\n"
        ".text\n");
