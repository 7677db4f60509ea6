// Large objects below the heap: runs, gaps, the reuse cache and moving pages, against the model,
// with the validator.
//
// Input: operations, each one byte and what it reads; sizes are in bytes, up to 16 MiB, and now and
// then up to 2 GiB, of which only the ends are touched.
#include "src/span/large.h"
#include "fuzz/actors.h"
#include "fuzz/fuzz.h"
#include "fuzz/model.h"
#include "fuzz/world.h"
#include "src/os/clock.h"
#include "src/span/large_heap.h"

#include <errno.h>
#include <string.h>

enum { KEPT_ERRNO = 4321, MOST_OPERATIONS = 2048 };

static size_t read_size(struct input *in) {
    uint8_t kind = input_u8(in);
    size_t v = input_bytes(in, 3);
    switch (kind % 8) {
    case 0:
        return 1 + v % (2 * FIRN_PAGE);
    case 1:
        return FIRN_PAGE * (1 + v % 64) - kind / 8;
    case 2:
        return 1 + (v << 7); // to 2 GiB
    case 3:
        return 1 + v;
    default:
        return 1 + v % (1 << 20);
    }
}

static bool is_reasonable(size_t size) {
    return size <= 64 << 20;
}

static void op_alloc(struct input *in) {
    struct block *b = model_find_empty(input_u8(in));
    size_t align = (size_t)1 << input_u8(in) % 31;
    size_t size = read_size(in);
    bool is_zero = false;
    if (b == NULL || firn_fuzz_model.bytes > (size_t)64 << 30) {
        return;
    }
    unsigned char *p = large_alloc(size, align, &is_zero);
    if (p == NULL) {
        FUZZ_ENSURE(errno == ENOMEM && !is_reasonable(size + align));
        return;
    }
    FUZZ_ENSURE(errno == KEPT_ERRNO);
    if (is_zero) {
        model_check_zeros(p, size);
    }
    struct large_block found;
    FUZZ_ENSURE(large_find((uintptr_t)p, &found) == LARGE_LIVE);
    FUZZ_ENSURE(found.base == (uintptr_t)p && found.size == size);
    FUZZ_ENSURE(found.capacity >= size && found.capacity - size < FIRN_PAGE);
    model_add(b, p, size, found.capacity, align);
}

static void op_free(struct input *in) {
    struct block *b = model_find(input_u8(in));
    struct large_block block;
    if (b != NULL) {
        size_t size = b->size;
        uintptr_t address = (uintptr_t)model_remove(b);
        FUZZ_ENSURE(large_free(address, &block) == LARGE_LIVE && block.base == address);
        FUZZ_ENSURE(block.size == size && errno == KEPT_ERRNO);
        enum large_kind kind = large_find(address, &block);
        FUZZ_ENSURE(kind == LARGE_FREED || kind == LARGE_NEVER);
        FUZZ_ENSURE(large_free(address, &block) == kind);
    }
}

static void op_resize(struct input *in) {
    struct block *b = model_find(input_u8(in));
    size_t size = read_size(in);
    enum large_kind kind;
    struct large_block found;
    if (b == NULL || firn_fuzz_model.bytes > (size_t)64 << 30) {
        return;
    }
    model_check(b);
    void *p = large_resize((uintptr_t)b->p, size, &kind);
    FUZZ_ENSURE(kind == LARGE_LIVE);
    if (p == NULL) {
        FUZZ_ENSURE(errno == ENOMEM && !is_reasonable(size));
        model_check(b);
        return;
    }
    FUZZ_ENSURE(errno == KEPT_ERRNO);
    FUZZ_ENSURE(large_find((uintptr_t)p, &found) == LARGE_LIVE && found.size == size);
    model_resized(b, p, size, found.capacity);
}

// Any address at all: large_find, large_free and large_resize agree, and change nothing.
static void check_wrong(uintptr_t address) {
    struct large_block block = {0};
    enum large_kind kind = large_find(address, &block);
    const struct block *b = model_containing(address);
    if (b != NULL) {
        FUZZ_ENSURE(kind == ((uintptr_t)b->p == address ? LARGE_LIVE : LARGE_INTERIOR));
        FUZZ_ENSURE(block.base == (uintptr_t)b->p && block.size == b->size);
    } else {
        FUZZ_ENSURE(kind != LARGE_LIVE);
    }
    if (kind != LARGE_LIVE) {
        enum large_kind again = LARGE_LIVE;
        FUZZ_ENSURE(large_free(address, &block) == kind);
        FUZZ_ENSURE(large_resize(address, 5 * FIRN_PAGE, &again) == NULL && again == kind);
        FUZZ_ENSURE(errno == KEPT_ERRNO);
    }
}

static void op_near(struct input *in) {
    const struct block *b = model_find(input_u8(in));
    uint32_t distance = (uint32_t)input_bytes(in, 3);
    if (b != NULL) {
        check_wrong((uintptr_t)b->p + distance % (b->usable + 8 * FIRN_PAGE));
        check_wrong((uintptr_t)b->p - distance % (16 * FIRN_PAGE));
    }
}

static void op_anywhere(struct input *in) {
    check_wrong(input_u64(in));
}

static void op_stale(struct input *in) {
    check_wrong(firn_fuzz_model.stale[input_u8(in) % MODEL_STALE]);
}

static void op_trim(struct input *in) {
    struct large_stats stats;
    (void)in;
    (void)large_trim();
    large_stats(&stats);
    FUZZ_ENSURE(stats.dirty_bytes == 0);
    FUZZ_ENSURE(!large_trim());
}

static void op_wait(struct input *in) {
    world_wait((uint64_t)input_u16(in) * 100000);
    large_upkeep(clock_coarse_ns());
}

static void op_delay(struct input *in) {
    large_set_purge_delay((uint64_t)input_u16(in) * 1000000);
}

static void op_check(struct input *in) {
    struct large_stats stats;
    (void)in;
    large_check();
    model_check_all();
    large_stats(&stats);
    FUZZ_ENSURE(stats.live == firn_fuzz_model.count);
    FUZZ_ENSURE(stats.allocated_bytes == firn_fuzz_model.bytes);
    FUZZ_ENSURE(stats.mapped_bytes >= stats.allocated_bytes + stats.dirty_bytes);
}

// The order is the encoding: append only.
#define OPERATIONS(X)                                                                              \
    X(alloc) X(free) X(resize) X(near) X(anywhere) X(stale) X(trim) X(wait) X(delay) X(check)

static void (*const operations[])(struct input *in) = {
#define OPERATION(name) op_##name,
    OPERATIONS(OPERATION)
#undef OPERATION
};

int firn_fuzz_large(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    world_reset();
    actors_start();
    memset(&firn_fuzz_model, 0, sizeof(firn_fuzz_model));
    large_set_purge_delay(1000000000);
    for (unsigned i = 0; in.left > 0 && i < MOST_OPERATIONS; i++) {
        unsigned which = input_u8(&in) % (sizeof(operations) / sizeof(operations[0]));
        errno = KEPT_ERRNO;
        operations[which](&in);
    }
    op_check(&in);
    errno = KEPT_ERRNO;
    while (firn_fuzz_model.count > 0) {
        op_free(&in);
    }
    op_trim(&in);
    op_check(&in);
    return 0;
}
