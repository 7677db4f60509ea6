// Seals: what was sealed opens, as it was, and nothing else does.
//
// Input: mode, codec, address, generation, length of the blob, its bytes; then changes of three bytes each:
// where (2, within all that is bound, the blob and its tag), and by which XOR. After each change the whole
// opens if nothing differs from what was sealed, and only then. A change may undo another. Last, two blobs
// of the same content are sealed: they exchange each of their parts in turn, and none of that opens.
#include "src/cold/seal.h"
#include "fuzz/fuzz.h"
#include "src/os/caps.h"

#include <stdbool.h>
#include <string.h>

static void start(void) {
    static bool is_started;
    if (!is_started) {
        caps_probe(CAP_ALL);
        FUZZ_ENSURE(seal_start());
        is_started = true;
    }
}

static size_t all_bytes(const struct seal_blob *b) {
    return sizeof b->bound + b->bound.bytes + SEAL_TAG;
}

static void make(struct seal_blob *b, const struct seal_blob *plain) {
    *b = *plain;
    FUZZ_ENSURE(seal_draw(&b->bound.nonce));
    seal_close(b);
}

// `n` bytes of `b` are compared with what was sealed.
static void check(const struct seal_blob *b, const struct seal_blob *sealed,
                  const struct seal_blob *plain) {
    static struct seal_blob copy;
    copy = *b;
    bool is_same = memcmp(b, sealed, all_bytes(sealed)) == 0;
    bool is_open = seal_open(&copy);
    FUZZ_ENSURE(is_open == is_same);
    if (is_open) {
        FUZZ_ENSURE(memcmp(copy.bytes, plain->bytes, plain->bound.bytes) == 0);
    }
}

static void exchange(void *a, void *b, size_t n) {
    uint8_t *x = a, *y = b;
    for (size_t i = 0; i < n; i++) {
        uint8_t v = x[i];
        x[i] = y[i];
        y[i] = v;
    }
}

// Two of the same: what differs are nonce, tag, and the bytes where they are encrypted.
static void check_exchanges(const struct seal_blob *plain) {
    static struct seal_blob a, b, x, y;
    make(&a, plain);
    make(&b, plain);
    size_t n = plain->bound.bytes;
    for (unsigned part = 0; part < 3; part++) {
        x = a;
        y = b;
        if (part == 0) {
            exchange(&x.bound.nonce, &y.bound.nonce, sizeof x.bound.nonce);
        } else if (part == 1) {
            exchange(x.bytes + n, y.bytes + n, SEAL_TAG);
        } else {
            exchange(x.bytes, y.bytes, n);
        }
        check(&x, &a, plain);
        check(&y, &b, plain);
    }
    FUZZ_ENSURE(a.bound.nonce != b.bound.nonce);
    FUZZ_ENSURE(memcmp(a.bytes + n, b.bytes + n, SEAL_TAG) != 0);
    if (plain->bound.mode == SEAL_AEAD && n >= 16) {
        FUZZ_ENSURE(memcmp(a.bytes, b.bytes, n) != 0);
    }
}

int firn_fuzz_seal(const uint8_t *data, size_t size) {
    static struct seal_blob plain, sealed, changed;
    struct input in = {data, size};
    start();
    memset(&plain, 0, sizeof plain);
    plain.bound.mode = input_u8(&in) % 2 == 0 ? SEAL_MAC : SEAL_AEAD;
    plain.bound.codec = input_u8(&in);
    plain.bound.address = input_u64(&in);
    plain.bound.generation = (uint32_t)input_bytes(&in, 4);
    plain.bound.bytes = (uint16_t)(input_u16(&in) % (FIRN_PAGE + 1));
    for (unsigned i = 0; i < plain.bound.bytes; i++) {
        plain.bytes[i] = input_u8(&in);
    }
    make(&sealed, &plain);
    check(&sealed, &sealed, &plain);
    changed = sealed;
    while (in.left > 0) {
        size_t where = input_u16(&in) % all_bytes(&sealed);
        ((uint8_t *)&changed)[where] ^= input_u8(&in);
        check(&changed, &sealed, &plain);
    }
    check_exchanges(&plain);
    return 0;
}
