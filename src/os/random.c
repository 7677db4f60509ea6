// Streams with fast key erasure: every refill computes 512 bytes of keystream, of which the first
// 32 replace the key at once and 448 are given out. Who reads a stream's memory learns what is
// still to come from the buffer, and nothing of what was drawn before.
#include "src/os/random.h"

#include "src/base/chacha.h"
#include "src/base/fatal.h"
#include "src/os/caps.h"
#include "src/os/clock.h"
#include "src/os/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 8, REFILLS_PER_KEY = 1 << 20 };
enum { NONBLOCK = 1 }; // GRND_NONBLOCK

// Set once a seed had to be made from the clock and the auxiliary vector. Relaxed: a statistic.
static _Atomic bool is_weak;

// Without GRND_NONBLOCK a program started early in the boot would hang on its first allocation.
static bool seed_from_getrandom(uint8_t *out, size_t n) {
    while (n > 0 && caps_has(CAP_GETRANDOM)) {
        long got = syscall(SYS_getrandom, out, n, NONBLOCK);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        out += got;
        n -= (size_t)got;
    }
    return n == 0;
}

static bool read_all(int fd, uint8_t *out, size_t n) {
    while (n > 0) {
        long got = syscall(SYS_read, fd, out, n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return false;
        }
        out += got;
        n -= (size_t)got;
    }
    return true;
}

static bool seed_from_device(uint8_t *out, size_t n) {
    long fd = syscall(SYS_openat, AT_FDCWD, "/dev/urandom", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return false;
    }
    bool done = read_all((int)fd, out, n);
    syscall(SYS_close, (int)fd);
    return done;
}

// The last resort, in a sandbox without either source: 128 bits that the kernel chose at exec, the
// time, and who and where we are. Distinct from call to call, hard to guess from outside, and not
// a secret from code that runs inside the process: random_is_strong tells.
static void seed_from_surroundings(uint8_t *out, size_t n) {
    static _Atomic uint32_t calls;
    const uint8_t *kernel_bytes = (const uint8_t *)getauxval(AT_RANDOM);
    uint32_t key[8] = {0};
    uint32_t nonce[3] = {0};
    uint8_t quad[CHACHA_QUAD];
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (kernel_bytes != NULL) {
        memcpy(key, kernel_bytes, 16);
    }
    key[4] = (uint32_t)now.tv_nsec;
    key[5] = (uint32_t)now.tv_sec;
    key[6] = (uint32_t)syscall(SYS_getpid);
    key[7] = (uint32_t)syscall(SYS_gettid);
    // Relaxed: only distinctness is wanted.
    nonce[0] = atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    nonce[1] = (uint32_t)((uintptr_t)&now >> 4);
    nonce[2] = (uint32_t)clock_coarse_ns();
    for (uint32_t block = 0; n > 0; block += 4) {
        size_t piece = n < sizeof(quad) ? n : sizeof(quad);
        chacha_keystream(key, nonce, block, 20, quad, 1);
        memcpy(out, quad, piece);
        out += piece;
        n -= piece;
    }
    explicit_bzero(key, sizeof(key));
    explicit_bzero(quad, sizeof(quad));
}

// Of the thread alone, which can neither fork nor start another one by then.
static FIRN_TLS uint32_t laid_in[8];

void random_lay_in(void) {
    random_seed_bytes(laid_in, sizeof laid_in);
}

static void seed_from_laid_in(uint8_t *out, size_t n) {
    static const uint32_t nonce[3]; // zero: no key is ever used twice
    uint8_t quad[CHACHA_QUAD];
    while (n > 0) {
        size_t piece = n < sizeof quad - sizeof laid_in ? n : sizeof quad - sizeof laid_in;
        chacha_keystream(laid_in, nonce, 0, 20, quad, 1);
        memcpy(laid_in, quad, sizeof laid_in);
        memcpy(out, quad + sizeof laid_in, piece);
        out += piece;
        n -= piece;
    }
    explicit_bzero(quad, sizeof quad);
}

void random_seed_bytes(void *out, size_t n) {
    int saved = errno;
    if (!sys_may_call()) {
        seed_from_laid_in(out, n);
    } else if (!seed_from_getrandom(out, n) && !seed_from_device(out, n)) {
        seed_from_surroundings(out, n);
        atomic_store_explicit(&is_weak, true, memory_order_relaxed);
    }
    errno = saved;
}

int random_is_strong(void) {
    return !atomic_load_explicit(&is_weak, memory_order_relaxed);
}

void random_refill(struct random_stream *r) {
    static const uint32_t nonce[3]; // zero: no key is ever used twice
    uint8_t fresh[2 * CHACHA_QUAD];
    _Static_assert(sizeof(fresh) >= sizeof(r->key) + RANDOM_BUFFER, "key and buffer in one go");
    if (r->blocks == 0) {
        random_seed_bytes(r->key, sizeof(r->key));
        // A kernel that cannot wipe a child's streams leaves the child its parent's key: there,
        // every refill asks the seed source, and the two part after one buffer at the latest.
        r->blocks = caps_has(CAP_WIPE_ON_FORK) ? REFILLS_PER_KEY : 1;
    }
    chacha_keystream(r->key, nonce, 0, ROUNDS, fresh, 2);
    memcpy(r->key, fresh, sizeof(r->key));
    memcpy(r->buffer, fresh + sizeof(r->key), RANDOM_BUFFER);
    explicit_bzero(fresh, sizeof(fresh));
    r->blocks--;
    r->left = RANDOM_BUFFER;
}

// `n` bytes that are in the buffer or, if too few are left, the first of a fresh one.
FIRN_INLINE void draw(struct random_stream *r, void *out, uint32_t n) {
    if (FIRN_UNLIKELY(r->left < n)) {
        random_refill(r);
    }
    uint8_t *from = r->buffer + (RANDOM_BUFFER - r->left);
    memcpy(out, from, n);
    memset(from, 0, n);
    r->left -= n;
}

void random_bytes(struct random_stream *r, void *out, size_t n) {
    for (uint8_t *to = out; n > 0;) {
        if (r->left == 0) {
            random_refill(r);
        }
        uint32_t piece = n < r->left ? (uint32_t)n : r->left;
        draw(r, to, piece);
        to += piece;
        n -= piece;
    }
}

uint32_t random_u32(struct random_stream *r) {
    uint32_t v;
    draw(r, &v, sizeof(v));
    return v;
}

uint64_t random_u64(struct random_stream *r) {
    uint64_t v;
    draw(r, &v, sizeof(v));
    return v;
}

// Lemire's multiplication method (ACM TOMACS 2019): the high half of draw * bound is the result, and
// the few low halves that would favour some results are drawn again. Small bounds, the common case,
// take 16 bits instead of 32.
static uint32_t below_16(struct random_stream *r, uint32_t bound) {
    uint16_t v;
    uint32_t product;
    draw(r, &v, sizeof(v));
    product = v * bound;
    if (FIRN_UNLIKELY((product & 0xffff) < bound)) {
        uint32_t unfair = (0x10000u - bound) % bound;
        while ((product & 0xffff) < unfair) {
            draw(r, &v, sizeof(v));
            product = v * bound;
        }
    }
    return product >> 16;
}

static uint32_t below_32(struct random_stream *r, uint32_t bound) {
    uint64_t product = (uint64_t)random_u32(r) * bound;
    if (FIRN_UNLIKELY((uint32_t)product < bound)) {
        uint32_t unfair = (0u - bound) % bound;
        while ((uint32_t)product < unfair) {
            product = (uint64_t)random_u32(r) * bound;
        }
    }
    return (uint32_t)(product >> 32);
}

uint32_t random_below(struct random_stream *r, uint32_t bound) {
    FIRN_ENSURE(bound > 0);
    return bound <= 4096 ? below_16(r, bound) : below_32(r, bound);
}
