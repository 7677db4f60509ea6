// The ChaCha keystream (D. J. Bernstein, 2008; block layout of RFC 8439), eight blocks at a time.
// Firn draws randomness with 8 rounds (published attacks reach 7 and stay far out of reach there),
// and runs the same code with 20 against the RFC's vectors.
#ifndef FIRN_BASE_CHACHA_H
#define FIRN_BASE_CHACHA_H

#include <stddef.h>
#include <stdint.h>

// What is used at most of what the processor has: 2 AVX-512, with its rotations; 1 AVX2; 0 neither. Tests
// lower it.
extern unsigned firn_chacha_most;

enum { CHACHA_QUAD = 256 }; // bytes in four blocks

// Writes `quads` * CHACHA_QUAD bytes of keystream, starting at block `counter`, which wraps at 2^32.
// `rounds` is even. `out` may be unaligned and must not overlap `key`.
void chacha_keystream(const uint32_t key[8], const uint32_t nonce[3], uint32_t counter,
                      unsigned rounds, uint8_t *out, size_t quads);

#endif
