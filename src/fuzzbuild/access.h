// Reading what may not be there, and what an instruction wanted when it faulted (x86-64).
#ifndef FIRN_FUZZBUILD_ACCESS_H
#define FIRN_FUZZBUILD_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Reads the word at `address` into *out; false if that faults. Works in any context once the crash
// handler is installed: the handler sends a fault at access_peek_load on to access_peek_failed.
bool access_peek(uintptr_t address, uintptr_t *out);
extern const char access_peek_load[] __attribute__((visibility("hidden")));
extern const char access_peek_failed[] __attribute__((visibility("hidden")));

// Bytes that the instruction at `pc` reads or writes in memory; 0 when the instruction is not known.
// A string instruction counts one element.
size_t access_size(uintptr_t pc);

#endif
