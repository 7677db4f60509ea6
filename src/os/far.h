// A function run on another stack than the caller's, which may have little left.
#ifndef FIRN_OS_FAR_H
#define FIRN_OS_FAR_H

#include <stdint.h>

// `top` is the end of the stack, a multiple of 16. Nobody else is on it, the function returns, and no handler of
// the program's comes meanwhile.
void far_call(void (*function)(void *), void *argument, uintptr_t top);

#endif
