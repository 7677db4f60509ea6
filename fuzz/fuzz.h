// Fuzz targets: what each one promises, and how they read their input.
//
// A target takes any bytes at all, turns them into work, compares what Firn does with a model, and
// ends the process (fuzz_fail) when the two differ. It returns 0. It may be called again and again in
// one process: it leaves no block behind. It does not care who calls it: afl-fuzz (driver.c), the
// unit test of the corpus (replay.c), or a debugger. Everything it depends on is in the bytes: time
// and randomness are world.h's. Not thread-safe; linked with the --wrap of replay.c's directive.
#ifndef FIRN_FUZZ_FUZZ_H
#define FIRN_FUZZ_FUZZ_H

#include "src/base/compiler.h"

#include <stddef.h>
#include <stdint.h>

#define FUZZ_TARGETS(X) X(ops) X(large) X(link) X(options) X(search) X(size_class) X(pack) X(seal)

#define FUZZ_DECLARE(name) int firn_fuzz_##name(const uint8_t *data, size_t size);
FUZZ_TARGETS(FUZZ_DECLARE)
#undef FUZZ_DECLARE
// Not one of them: fails on the five bytes "crash", to show that a failure is noticed.
int firn_fuzz_planted(const uint8_t *data, size_t size);

// Says what did not hold, and aborts.
FIRN_NORETURN void fuzz_fail(const char *what, const char *file, int line);
#define FUZZ_ENSURE(cond) ((cond) ? (void)0 : fuzz_fail(#cond, __FILE__, __LINE__))

// The bytes not yet read. Past their end it reads zeros.
struct input {
    const uint8_t *at;
    size_t left;
};

FIRN_INLINE uint8_t input_u8(struct input *in) {
    if (in->left == 0) {
        return 0;
    }
    in->left--;
    return *in->at++;
}

// Little endian.
FIRN_INLINE uint64_t input_bytes(struct input *in, unsigned n) {
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++) {
        v |= (uint64_t)input_u8(in) << 8 * i;
    }
    return v;
}

FIRN_INLINE uint32_t input_u16(struct input *in) {
    return (uint32_t)input_bytes(in, 2);
}

FIRN_INLINE uint64_t input_u64(struct input *in) {
    return input_bytes(in, 8);
}

#endif
