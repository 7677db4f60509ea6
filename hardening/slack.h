// The requested size of a block, and the check of what lies between it and the end of its slot or page.
// P-SLACK, P-LARGE-SLACK.
//
// A slot keeps the number of bytes left over inside its canary: in 15 of the 56 bits that are the key's,
// so that it costs no memory, no other slot has to be looked at, and no byte of the canary becomes 0.
// What is left over is filled with bytes that follow from address and key, none of them 0: a string's
// terminator written one too far is noticed.
//
// While a slot is on its way in or out, its canary says that nothing is left over: so a thread that
// sees a filling damaged, and after that still a number in the canary, knows that the block was live.
#ifndef FIRN_HARDENING_SLACK_H
#define FIRN_HARDENING_SLACK_H

#include "hardening/canary.h"
#include "src/base/compiler.h"
#include "src/base/config.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Fills [from, to), or tells whether it still is as it was filled. `to` is a multiple of 8. Any thread.
void slack_fill(uintptr_t from, uintptr_t to);
bool slack_is_filled(uintptr_t from, uintptr_t to) FIRN_CHECKED;
// Takes the filling of [from, to) out of a copy of these bytes, or puts it there: exclusive or.
void slack_flip(uintptr_t from, uintptr_t to, unsigned char *copy);

// The canary of the slot at `address` with `left` bytes between block and canary.
FIRN_INLINE uint64_t slack_canary(uintptr_t address, size_t left) {
    uint64_t low = left & 0x7f;
    uint64_t middle = left >> 7 & 0x7f;
    uint64_t high = left >> 14 & 1;
    return canary_of(address) ^ (low << 17 | middle << 25 | high << 33);
}

// The number in a canary: `code` is what its word has beside that of nothing left over.
FIRN_INLINE size_t slack_left(uint64_t code) {
    return (code >> 17 & 0x7f) | (code >> 25 & 0x7f) << 7 | (code >> 33 & 1) << 14;
}

// What may be used of the slot when all of it was asked for.
FIRN_INLINE size_t slack_most(size_t slot_bytes) {
    return slot_bytes - (FIRN_CANARY ? CANARY_BYTES : 0);
}

// The bytes asked for; all that could have been while that is not recorded, or not to be trusted.
FIRN_INLINE size_t slack_size(uintptr_t address, size_t slot_bytes) {
    size_t most = slack_most(slot_bytes);
    if (!FIRN_SLACK) {
        return most;
    }
    uint64_t code = canary_load(address, slot_bytes) ^ canary_of(address);
    size_t left = slack_left(code);
    return (code & ~CANARY_SIZE_BITS) == 0 && left <= most ? most - left : most;
}

// The slot, which has its canary, becomes a block of `size` bytes. Its owner.
FIRN_INLINE void slack_note(uintptr_t address, size_t slot_bytes, size_t size) {
    if (!FIRN_SLACK) {
        return;
    }
    size_t most = slack_most(slot_bytes);
    if (size < most) {
        slack_fill(address + size, address + most);
        // release: who sees the number sees the filling.
        atomic_store_explicit(canary_place(address, slot_bytes), slack_canary(address, most - size),
                              memory_order_release);
    }
}

// The number goes, before the filling does.
FIRN_INLINE void slack_forget(uintptr_t address, size_t slot_bytes) {
    if (FIRN_SLACK && canary_change(address, slot_bytes) == 0) {
        canary_store(address, slot_bytes, canary_of(address));
        atomic_thread_fence(memory_order_release);
    }
}

// A live block. Any thread, as long as nobody resizes it.
FIRN_INLINE bool slack_is_whole(uintptr_t address, size_t slot_bytes) {
    return !FIRN_SLACK || slack_is_filled(address + slack_size(address, slot_bytes),
                                          address + slack_most(slot_bytes));
}

// The block at `address` comes back. The process ends if it was written to past the size asked for.
void slack_check(uintptr_t address, size_t slot_bytes, const char *api, uintptr_t site);
FIRN_INLINE void slack_retire(uintptr_t address, size_t slot_bytes, const char *api,
                              uintptr_t site) {
    if (FIRN_SLACK) {
        slack_check(address, slot_bytes, api, site);
        slack_forget(address, slot_bytes);
    }
}

// A live block gets another size within its slot. What it loses is filled, what it gains reads as
// zeros. Its owner.
void slack_resize(uintptr_t address, size_t slot_bytes, size_t size);

#define SLACK_FOUND "byte past the size asked for was overwritten"

#endif
