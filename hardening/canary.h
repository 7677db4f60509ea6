// P-CANARY: a keyed word at the end of each slot.
//
// It is written when the slot is handed out, and stays when the slot is freed: so a thread that checks the
// slot beside the one it frees never meets a half changed one. Before that, and where its page was given
// back since, the place holds 0, or from when the slot after it is handed out a word on loan, so that a
// zero written in front of that one changes something. Who has its own has seen to the slot before it; who
// has it on loan has not. No byte of either is 0: a string's terminator written one too far is always
// noticed. Odds of a lucky overwrite of all of it: 2^-56. Not a MAC: who can read many canaries could
// solve for the two secrets; who can read the one in the way need not.
#ifndef FIRN_HARDENING_CANARY_H
#define FIRN_HARDENING_CANARY_H

#include "src/base/config.h"
#include "src/meta/root.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#define CANARY_ONES UINT64_C(0x0101010101010101)
enum { CANARY_BYTES = 8 };
// Where slack.h keeps how much of the slot is left over. Not compared.
#define CANARY_SIZE_BITS (FIRN_SLACK ? UINT64_C(0x00000002fefe0000) : 0)
// What a word on loan has beside the right one: in five bytes of it, so that no stray byte makes one of
// the other.
#define CANARY_LOAN UINT64_C(0x0202020000000202)

// What the slot at `address` must end with.
FIRN_INLINE uint64_t canary_of(uintptr_t address) {
    uint64_t h = (address ^ FIRN_ROOT.slot_key) * FIRN_ROOT.slot_factor;
    return __builtin_bswap64(h) | CANARY_ONES;
}

FIRN_INLINE _Atomic uint64_t *canary_place(uintptr_t address, size_t slot_bytes) {
    return (_Atomic uint64_t *)(address + slot_bytes - CANARY_BYTES);
}

// Relaxed: one word, which only ever changes from 0 to that on loan to the right one while anybody may look.
FIRN_INLINE uint64_t canary_load(uintptr_t address, size_t slot_bytes) {
    return atomic_load_explicit(canary_place(address, slot_bytes), memory_order_relaxed);
}

// The same of a slot whose page may not be there yet, and which is about to be written to: a read would have
// the kernel map its page of zeros first, and the write take a second fault. (A comparison, since compilers
// make a load of an `or` of nothing.)
FIRN_INLINE uint64_t canary_load_fresh(uintptr_t address, size_t slot_bytes) {
    uint64_t word = 0;
    (void)atomic_compare_exchange_strong_explicit(canary_place(address, slot_bytes), &word, 0,
                                                  memory_order_relaxed, memory_order_relaxed);
    return word;
}

FIRN_INLINE void canary_store(uintptr_t address, size_t slot_bytes, uint64_t word) {
    atomic_store_explicit(canary_place(address, slot_bytes), word, memory_order_relaxed);
}

// After whatever this thread stored before.
FIRN_INLINE void canary_store_last(uintptr_t address, size_t slot_bytes, uint64_t word) {
    atomic_store_explicit(canary_place(address, slot_bytes), word, memory_order_release);
}

// 0 if `word`, read from the slot's canary, is what it should be. Who looks while another thread may be
// storing it judges one word: of two that were read one may be that before, the other the canary after.
FIRN_INLINE uint64_t canary_word_change(uintptr_t address, uint64_t word) {
    return (word ^ canary_of(address)) & ~CANARY_SIZE_BITS;
}

FIRN_INLINE uint64_t canary_change(uintptr_t address, size_t slot_bytes) {
    return canary_word_change(address, canary_load(address, slot_bytes));
}

// Not its own: the slot has not been handed out since its page was fresh, or is just being.
FIRN_INLINE bool canary_is_unset(uintptr_t address, uint64_t word) {
    return word == 0 || canary_word_change(address, word) == CANARY_LOAN;
}

#endif
