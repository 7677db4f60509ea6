// Randomness: one seed source (getrandom, else /dev/urandom, else auxv and clock, said in the
// statistics), expanded by ChaCha8 per stream. A stream's buffer lies in memory that the kernel
// wipes in forked children; an all-zero stream is an empty one and reseeds on its next use, so a
// child never repeats its parent's choices, whichever call forked. P-FORK.
#ifndef FIRN_OS_RANDOM_H
#define FIRN_OS_RANDOM_H

#include "src/base/compiler.h"

#include <stddef.h>
#include <stdint.h>

enum { RANDOM_BUFFER = 448 };

// Valid when zero-filled. 512 bytes, aligned to a cache line. One user at a time.
struct random_stream {
    uint32_t left;   // unread bytes at the end of buffer; 0: refill
    uint32_t blocks; // refills until a new key is taken from the seed source; 0: rekey
    uint32_t key[8];
    uint8_t unused[24];
    uint8_t buffer[RANDOM_BUFFER];
};
_Static_assert(sizeof(struct random_stream) == 512, "streams pack into pages");

// Cold part of the draws below: refills the buffer; rekeys from the seed source when due (every
// 2^20 refills) or when the stream is zero. Draws but those of single bytes wipe what they read. Thread-safe for
// distinct streams. Preserves errno.
void random_refill(struct random_stream *r);

// The stream is not empty.
FIRN_INLINE uint8_t random_u8_ready(struct random_stream *r) {
    return r->buffer[RANDOM_BUFFER - r->left--];
}

FIRN_INLINE uint8_t random_u8(struct random_stream *r) {
    if (FIRN_UNLIKELY(r->left == 0)) {
        random_refill(r);
    }
    return random_u8_ready(r);
}
uint32_t random_u32(struct random_stream *r);
uint64_t random_u64(struct random_stream *r);
// `n` bytes.
void random_bytes(struct random_stream *r, void *out, size_t n);
// Uniform in [0, bound) without bias; bound > 0.
uint32_t random_below(struct random_stream *r, uint32_t bound);
// Straight from the seed source, for secrets made once. Preserves errno. Never fails.
void random_seed_bytes(void *out, size_t n);
// Before the calling thread must make no call any more (sys_go_mute): what random_seed_bytes gives it then comes
// from a seed taken now.
void random_lay_in(void);
// False when neither getrandom nor /dev/urandom answered.
int random_is_strong(void);

#endif
