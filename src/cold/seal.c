#include "src/cold/seal.h"

#include "src/base/fatal.h"
#include "src/meta/arena.h"
#include "src/os/lock.h"
#include "src/os/map.h"
#include "src/os/random.h"
#include "src/os/secret.h"

#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <string.h>

enum { COUNTER_BITS = 48, EPOCHS = 1 << 16, EPOCH_BYTES = 16 };
enum { NONCE_BYTES = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES };
_Static_assert(NONCE_BYTES == EPOCH_BYTES + 8, "an epoch and a counter");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == SEAL_TAG, "the tag as stored");
_Static_assert(offsetof(struct seal_blob, bytes) == sizeof(struct seal_bound), "no gap to bind");
_Static_assert(sizeof(struct seal_bound) == 24, "no padding in what is bound");

// Two keys, so that a digest says nothing about a seal. Read-only once drawn: the page may be one that
// forked children share.
struct keys {
    uint8_t seal[crypto_aead_xchacha20poly1305_ietf_KEYBYTES];
    uint8_t digest[crypto_core_hchacha20_KEYBYTES];
};
static const struct keys *keys;
static bool is_hidden;

static struct lock epoch_lock = LOCK_INIT(LOCK_SEAL);
// Written under the lock, each entry once, before `epoch_count` is raised (release); read by whoever holds
// a nonce of it (acquire). 1 MiB of zeros, of which each generation of forks touches 16 bytes.
static uint8_t epochs[EPOCHS][EPOCH_BYTES];
static _Atomic uint32_t epoch_count;

// This process's epoch, on a page that reads as zeros in every forked child, whichever call forked: what
// a child seals must never share a nonce with what its parent does from now on.
struct own {
    _Atomic uint32_t epoch;   // its number plus 1; 0: none yet
    _Atomic uint64_t counter; // relaxed: only its being unique matters
};
static struct own *own;

// ---- randomness for libsodium, which would open /dev/urandom by itself where it lacks getrandom ----

static const char *random_name(void) {
    return "firn";
}
static uint32_t random_word(void) {
    uint32_t v;
    random_seed_bytes(&v, sizeof v);
    return v;
}
static void random_fill(void *const out, const size_t n) {
    random_seed_bytes(out, n);
}
static struct randombytes_implementation randomness = {
    .implementation_name = random_name,
    .random = random_word,
    .buf = random_fill,
};

// ---- start and fork ----

// libsodium then knows what this processor can do. It neither allocates nor calls the kernel, but for
// a mutex of its own and the size of a page.
bool seal_start(void) {
    int saved = errno;
    struct keys *page = secret_page(&is_hidden);
    own = arena_alloc(FIRN_PAGE, FIRN_PAGE);
    if (page == NULL || own == NULL) {
        return false;
    }
    // Where the kernel cannot wipe it, seal_after_fork does, in children that libc made.
    bool is_wiped = map_wipe_on_fork((uintptr_t)own, FIRN_PAGE);
    (void)is_wiped;
    FIRN_ENSURE(randombytes_set_implementation(&randomness) == 0 && sodium_init() >= 0);
    random_seed_bytes(page, sizeof *page);
    secret_seal_page(page);
    keys = page;
    errno = saved;
    return true;
}

bool seal_is_hidden(void) {
    return is_hidden;
}

void seal_before_fork(void) {
    lock_acquire(&epoch_lock);
}

void seal_after_fork(bool in_child) {
    if (in_child) {
        lock_reset(&epoch_lock);
        if (own != NULL) {
            atomic_store_explicit(&own->epoch, 0, memory_order_relaxed);
        }
    } else {
        lock_release(&epoch_lock);
    }
}

// ---- nonces ----

static uint32_t begin_epoch(void) {
    lock_acquire(&epoch_lock);
    uint32_t mine = atomic_load_explicit(&own->epoch, memory_order_relaxed);
    uint32_t n = atomic_load_explicit(&epoch_count, memory_order_relaxed);
    if (mine == 0 && n < EPOCHS) {
        mine = n + 1;
        random_seed_bytes(epochs[n], EPOCH_BYTES);
        atomic_store_explicit(&own->counter, 0, memory_order_relaxed);
        atomic_store_explicit(&epoch_count, mine, memory_order_release);
        atomic_store_explicit(&own->epoch, mine, memory_order_release);
    }
    lock_release(&epoch_lock);
    return mine;
}

bool seal_draw(uint64_t *nonce) {
    // Acquire: with the number comes the counter's zero.
    uint32_t mine = atomic_load_explicit(&own->epoch, memory_order_acquire);
    if (FIRN_UNLIKELY(mine == 0)) {
        mine = begin_epoch();
    }
    uint64_t n = atomic_fetch_add_explicit(&own->counter, 1, memory_order_relaxed);
    *nonce = (uint64_t)(mine - 1) << COUNTER_BITS | n;
    return mine != 0 && n < (uint64_t)1 << COUNTER_BITS;
}

// False for an epoch that never was.
static bool expand(uint64_t nonce, uint8_t out[NONCE_BYTES]) {
    uint64_t number = nonce >> COUNTER_BITS;
    if (number >= atomic_load_explicit(&epoch_count, memory_order_acquire)) {
        return false;
    }
    memcpy(out, epochs[number], EPOCH_BYTES);
    memcpy(out + EPOCH_BYTES, &nonce, sizeof nonce);
    return true;
}

// ---- seals ----

// What is bound, and in `mac` the blob behind it.
static size_t bound_bytes(const struct seal_blob *b) {
    return sizeof b->bound + (b->bound.mode == SEAL_MAC ? b->bound.bytes : 0u);
}

static size_t secret_bytes(const struct seal_blob *b) {
    return b->bound.mode == SEAL_MAC ? 0 : b->bound.bytes;
}

void seal_close(struct seal_blob *b) {
    uint8_t nonce[NONCE_BYTES];
    FIRN_ENSURE(keys != NULL && b->bound.bytes <= FIRN_PAGE && expand(b->bound.nonce, nonce));
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
        b->bytes, b->bytes + b->bound.bytes, NULL, b->bytes, secret_bytes(b),
        (const uint8_t *)&b->bound, bound_bytes(b), NULL, nonce, keys->seal);
}

bool seal_open(struct seal_blob *b) {
    uint8_t nonce[NONCE_BYTES];
    if (keys == NULL || b->bound.bytes > FIRN_PAGE || !expand(b->bound.nonce, nonce)) {
        return false;
    }
    return crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
               b->bytes, NULL, b->bytes, secret_bytes(b), b->bytes + b->bound.bytes,
               (const uint8_t *)&b->bound, bound_bytes(b), nonce, keys->seal) == 0;
}

// HChaCha20 as a keyed function of 16 bytes: one block, no state.
uint64_t seal_digest(uint64_t address, uint32_t generation, uint32_t value) {
    static const uint8_t no_key[crypto_core_hchacha20_KEYBYTES];
    uint8_t in[16];
    uint64_t out[4];
    memcpy(in, &address, 8);
    memcpy(in + 8, &generation, 4);
    memcpy(in + 12, &value, 4);
    (void)crypto_core_hchacha20((uint8_t *)out, in, keys != NULL ? keys->digest : no_key, NULL);
    uint64_t digest = out[0] & (((uint64_t)1 << 48) - 1);
    secret_wipe(out, sizeof out);
    return digest;
}
