// Safe links: the keyed tag in a slot that another thread freed. P-LINK.
//
// DESIGN draws the remote frees of a span as a linked list through the slots. Firn keeps the set
// itself out of line, one bit a slot in the span's descriptor: there is no link to forge or follow,
// a double free between any threads is one atomic test-and-set, and the owner takes back 64 slots
// with one exchange instead of one cache miss a link. What stays in the slot is the tag of a safe
// link (slot index, keyed over index, slot address and span secret). The owner checks it before it
// uses the slot again: whoever wrote to the freed block destroyed it. Odds of a lucky overwrite:
// 56 bits.
#ifndef FIRN_HARDENING_LINK_H
#define FIRN_HARDENING_LINK_H

#include "src/base/compiler.h"

#include <stdint.h>
#include <string.h>

FIRN_INLINE uint64_t link_tag(unsigned slot, uintptr_t address, uint64_t secret) {
    // Two rounds of multiply and fold, by fixed dense odd constants (the fractional digits of pi and
    // of the golden ratio): every bit of secret, address and slot reaches every bit of the tag,
    // whatever the secret. Not a MAC; an attacker who can read tags of many slots of one span could
    // solve for the secret.
    __uint128_t m = (__uint128_t)(secret ^ address) * 0x243f6a8885a308d3u;
    uint64_t h = (uint64_t)m ^ (uint64_t)(m >> 64) ^ secret;
    m = (__uint128_t)(h + slot) * 0x9e3779b97f4a7c15u;
    return (uint64_t)m ^ (uint64_t)(m >> 64) ^ (secret << 32 | secret >> 32);
}

FIRN_INLINE uint64_t link_encode(unsigned slot, uintptr_t address, uint64_t secret) {
    return (link_tag(slot, address, secret) & ~(uint64_t)0xff) | (slot & 0xff);
}

// The slot index, or -1 when the word is not what link_encode made for this address.
FIRN_INLINE int link_decode(uint64_t word, uintptr_t address, uint64_t secret) {
    unsigned slot = (unsigned)(word & 0xff);
    return word == link_encode(slot, address, secret) ? (int)slot : -1;
}

FIRN_INLINE void link_store(uintptr_t address, uint64_t word) {
    memcpy((void *)address, &word, sizeof word);
}

FIRN_INLINE uint64_t link_load(uintptr_t address) {
    uint64_t word;
    memcpy(&word, (const void *)address, sizeof word);
    return word;
}

#endif
