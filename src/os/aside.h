// Memory that is made ready elsewhere and then put in its place in one step: who reads there sees the old
// pages or the new ones.
#ifndef FIRN_OS_ASIDE_H
#define FIRN_OS_ASIDE_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Private zeros, readable and writable. 0: no memory. Preserves errno.
uintptr_t aside_make(size_t bytes);
void aside_drop(uintptr_t aside, size_t bytes);
// Puts it over [address, +bytes), which is Firn's, whatever was mapped there. Preserves errno. A kernel that
// takes the old pages away and then has no memory for the new ones ends the process, unless others fit.
void aside_place(uintptr_t aside, uintptr_t address, size_t bytes);

#endif
