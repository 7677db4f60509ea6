// libc's own copy and fill functions, for a library that exports memcpy, memmove and memset itself.
//
// They are reached by names that are exported by libc and by nobody else: no dlsym, which allocates
// and takes the loader's lock, and no function pointer that could be overwritten (the linkage table is
// read-only). Compiled with -fno-builtin: a builtin would become a call of what is implemented here.
#ifndef FIRN_PRELOAD_PLAIN_H
#define FIRN_PRELOAD_PLAIN_H

#include "src/base/compiler.h"

#include <stddef.h>
#include <string.h>

FIRN_INLINE void plain_copy(void *to, const void *from, size_t n) {
    __mempcpy(to, from, n);
}

// The ranges may overlap.
void plain_move(void *to, const void *from, size_t n);
void plain_fill(void *p, int byte, size_t n);

#endif
