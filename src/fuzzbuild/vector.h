// Aligned vector moves on blocks that are not aligned.
//
// With exact placement (align=1) a block of 40 bytes lies at a multiple of 8. Compilers may assume 16
// for what malloc returns and copy with movaps or movdqa, which then raise a general-protection fault
// although the program is right. Such a move is done here, in the signal handler, and the program goes
// on. Other instructions that insist on alignment (arithmetic with a vector in memory) are not
// covered; programs that use them on small blocks, or count on alignment themselves, want align=16.
#ifndef FIRN_FUZZBUILD_VECTOR_H
#define FIRN_FUZZBUILD_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

// The move that the interrupted instruction asks for.
struct vector_move {
    uintptr_t address; // in memory
    unsigned reg;      // 0 to 15
    bool is_store;
    bool clears_upper; // VEX: a load zeroes the register's upper half
    size_t length;     // of the instruction
};

enum { VECTOR_BYTES = 16 };

// False: the instruction is something else. Moves of 32 bytes are: nothing promises such an alignment.
bool vector_decode(const ucontext_t *context, struct vector_move *out);
// Does the move and steps over the instruction. The memory is accessible. False: the kernel saved no
// extended state, and nothing was done.
bool vector_emulate(ucontext_t *context, const struct vector_move *move);

#endif
