// Bytes around and in blocks that nobody may change: their values, and whether they still have them.
#ifndef FIRN_FUZZBUILD_PATTERN_H
#define FIRN_FUZZBUILD_PATTERN_H

#include <stddef.h>
#include <stdint.h>

// Bytes before a block that are watched, as far as its pages reach.
enum { PATTERN_BEFORE = 32 };

void pattern_start(uint64_t seed);
// Fills [address, +bytes) with a pattern that depends on the address and the seed.
void pattern_fill(uintptr_t address, size_t bytes);
// The first byte that differs from what pattern_fill wrote, 0 if none.
uintptr_t pattern_check(uintptr_t address, size_t bytes);
// The first byte in the range that is not `value`, 0 if none.
uintptr_t pattern_check_byte(uintptr_t address, size_t bytes, unsigned char value);

#endif
