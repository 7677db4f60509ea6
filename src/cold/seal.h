// Seals (P-COLD-SEAL): what was frozen comes back as it was, at its own place, or the process ends. The only user of
// libsodium.
//
// `mac`: XChaCha20-Poly1305 over an empty message, the blob and what is bound to it as associated data:
// a Poly1305 tag under a key that is used once. `aead`: the blob is encrypted, too.
//
// Nonces never repeat under the key, which is drawn once and inherited by forked children, so that they
// can open what their parents froze. A nonce is an *epoch*, 16 random bytes that each process draws
// before its first seal, and a counter. What a seal stores is the epoch's number and the counter; the
// numbers a child knows are its parent's up to the fork, and its own.
//
// Nothing here allocates, but for two pages at start. Locks: LOCK_SEAL, when an epoch begins.
#ifndef FIRN_COLD_SEAL_H
#define FIRN_COLD_SEAL_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum seal_mode { SEAL_OFF, SEAL_MAC, SEAL_AEAD };
enum { SEAL_TAG = 16 };

// What a seal binds a blob to.
struct seal_bound {
    uint64_t address;
    uint32_t generation;
    uint16_t bytes; // of the blob
    uint8_t codec;
    uint8_t mode;
    uint64_t nonce; // epoch's number in the upper 16 bits, counter below
};

// A blob in the memory of whoever seals or opens it: what is bound stands directly before the bytes, for
// the tag is made over both; the tag stands behind the last of them. What is stored begins with the nonce.
struct seal_blob {
    struct seal_bound bound;
    uint8_t bytes[FIRN_PAGE + SEAL_TAG]; // with room behind the blob, for pack_open
};

// Draws the key. Once, before the calls below; one thread. False when there is no memory for it. Preserves
// errno.
bool seal_start(void) FIRN_CHECKED;
// Whether the key lies in memory that only this process and its children can see.
bool seal_is_hidden(void);

// A nonce that no other process or call gets. False when there are none left: after 65,535 generations
// of forks, or 2^48 seals.
bool seal_draw(uint64_t *nonce) FIRN_CHECKED;
// Seals in place; bound.bytes and all that is bound is set, and bound.mode is not SEAL_OFF.
void seal_close(struct seal_blob *blob);
// False, with no unsealed byte in `blob`, if any bit differs from what was sealed.
bool seal_open(struct seal_blob *blob) FIRN_CHECKED;

// A keyed number of 48 bits that depends on all of the above; for what is too small to have a tag.
// Without a key (seal_start not called) it still tells mistakes.
uint64_t seal_digest(uint64_t address, uint32_t generation, uint32_t value);

void seal_before_fork(void);
void seal_after_fork(bool in_child);

#endif
