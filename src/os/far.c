#include "src/os/far.h"

#if !defined(__x86_64__)
#error "far_call is written for x86-64"
#endif

// The frame pointer leads back, for debuggers and for whoever walks the stack.
__asm__(".text\n"
        ".globl far_call\n"
        ".hidden far_call\n"
        ".type far_call, @function\n"
        ".p2align 4\n"
        "far_call:\n"
        "    .cfi_startproc\n"
        "    pushq %rbp\n"
        "    .cfi_def_cfa_offset 16\n"
        "    .cfi_offset %rbp, -16\n"
        "    movq %rsp, %rbp\n"
        "    .cfi_def_cfa_register %rbp\n"
        "    movq %rdx, %rsp\n"
        "    movq %rdi, %rax\n"
        "    movq %rsi, %rdi\n"
        "    call *%rax\n"
        "    movq %rbp, %rsp\n"
        "    popq %rbp\n"
        "    .cfi_def_cfa %rsp, 8\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size far_call, . - far_call\n");
