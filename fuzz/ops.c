// Sequences of allocation calls, by several threads, against the model.
//
// Input: a number of threads' worth of operations, each one byte (its number modulo the number of
// operations below) followed by what it reads. Blocks are named by their place in the model's table.
// Planned misuse is among the operations; see misuse.h.
#include "fuzz/actors.h"
#include "fuzz/fuzz.h"
#include "fuzz/misuse.h"
#include "fuzz/model.h"
#include "fuzz/world.h"
#include "src/cache/inspect.h"
#include "src/front/front.h"
#include "src/span/large_heap.h"

#include <errno.h>
#include <string.h>

enum { KEPT_ERRNO = 4321, MOST_OPERATIONS = 4096 };

// Few sites, so that partitions are both shared and apart. Read from the input where a block is made.
static uintptr_t read_site(struct input *in) {
    return 0x400000 + (uintptr_t)(input_u8(in) % 8) * 0x1234;
}

// Small ones in detail, around the limits of classes and of small objects, and some megabytes.
static size_t read_size(struct input *in) {
    uint8_t kind = input_u8(in);
    uint32_t v = input_u16(in);
    size_t size = v;
    switch (kind % 4) {
    case 0:
        size = v % 272;
        break;
    case 1:
        size = v % 1100;
        break;
    case 2:
        break;
    default:
        size = (size_t)v * 64 + kind;
        break;
    }
    return firn_fuzz_model.bytes < MODEL_MOST_BYTES ? size : size % 512;
}

static size_t read_impossible(struct input *in) {
    uint8_t kind = input_u8(in);
    uint32_t v = input_u16(in);
    return kind % 2 ? SIZE_MAX - v : (size_t)PTRDIFF_MAX + 1 + v;
}

// ---- making blocks ----------------------------------------------------------------------------

// Usable size is bounded, too: a heap that answered with twice the size would pass all else.
static void add(struct block *b, void *p, size_t size, size_t align) {
    FUZZ_ENSURE(p != NULL && errno == KEPT_ERRNO);
    size_t usable = front_usable(p, 0);
    FUZZ_ENSURE(usable <= size + size / 3 + 64 + (align > FIRN_PAGE ? FIRN_PAGE : align) +
                              (size > SMALL_MAX / 2 ? FIRN_PAGE : 0));
    model_add(b, p, size, usable, align);
}

static void op_malloc(struct input *in) {
    struct block *b = model_find_empty(input_u8(in));
    size_t size = read_size(in);
    uintptr_t site = read_site(in);
    if (b != NULL) {
        add(b, front_alloc(size, site), size, 0);
    }
}

static void op_calloc(struct input *in) {
    struct block *b = model_find_empty(input_u8(in));
    size_t size = read_size(in);
    size_t count = 1 + input_u8(in) % 5;
    uintptr_t site = read_site(in);
    if (b != NULL) {
        void *p = front_alloc_zeroed(count, size / count, site);
        size = size / count * count;
        FUZZ_ENSURE(p != NULL);
        model_check_zeros(p, size);
        add(b, p, size, 0);
    }
}

static void op_memalign(struct input *in) {
    struct block *b = model_find_empty(input_u8(in));
    uint8_t how = input_u8(in);
    size_t align = (size_t)1 << how % 18;
    size_t size = read_size(in);
    uintptr_t site = read_site(in);
    void *p = NULL;
    if (b == NULL) {
        return;
    }
    switch (how / 18 % 5) {
    case 0:
        p = front_aligned_alloc(align, size, site);
        break;
    case 1:
        align = align < 8 ? 8 : align;
        FUZZ_ENSURE(front_posix_memalign(&p, align, size, site) == 0);
        break;
    case 2:
        // Rounded up to a power of two.
        p = front_memalign(align - (align > 4 ? align / 4 : 0), size, site);
        break;
    case 3:
        align = FIRN_PAGE;
        p = front_valloc(size, site);
        break;
    default:
        align = FIRN_PAGE;
        p = front_pvalloc(size, site);
        size = size == 0 ? FIRN_PAGE : (size + FIRN_PAGE - 1) / FIRN_PAGE * FIRN_PAGE;
        break;
    }
    add(b, p, size, align);
}

// Many of one size: vectors run empty and spans fill.
static void op_burst(struct input *in) {
    uint8_t count = input_u8(in) % 128;
    size_t size = read_size(in) % 2048;
    uintptr_t site = read_site(in);
    for (uint8_t i = 0; i < count; i++) {
        struct block *b = model_find_empty(i);
        if (b != NULL) {
            add(b, front_alloc(size, site), size, 0);
        }
    }
}

static void op_impossible(struct input *in) {
    size_t size = read_impossible(in);
    uintptr_t site = read_site(in);
    struct block *b = model_find(input_u8(in));
    void *out = &out;
    errno = 0;
    FUZZ_ENSURE(front_alloc(size, site) == NULL && errno == ENOMEM);
    FUZZ_ENSURE(front_alloc_zeroed(1, size, site) == NULL);
    FUZZ_ENSURE(front_alloc_zeroed(size, 2 + size % 7, site) == NULL);
    FUZZ_ENSURE(front_aligned_alloc(64, size, site) == NULL);
    FUZZ_ENSURE(front_pvalloc(size, site) == NULL);
    FUZZ_ENSURE(front_posix_memalign(&out, 4096, size, site) == ENOMEM && out == &out);
    if (b != NULL) {
        errno = 0;
        FUZZ_ENSURE(front_resize(b->p, size, site) == NULL && errno == ENOMEM);
        FUZZ_ENSURE(front_resize_array(b->p, size, 3, site) == NULL);
        model_check(b);
    }
}

// ---- changing and freeing them ----------------------------------------------------------------

static void op_realloc(struct input *in) {
    struct block *b = model_find(input_u8(in));
    size_t size = read_size(in);
    uint8_t count = input_u8(in) % 4;
    uintptr_t site = read_site(in);
    if (b == NULL) {
        return;
    }
    if (size == 0) {
        void *p = model_remove(b);
        FUZZ_ENSURE(front_resize(p, 0, site) == NULL && errno == KEPT_ERRNO);
        return;
    }
    model_check(b);
    void *p = count == 0 ? front_resize(b->p, size, site)
                         : front_resize_array(b->p, count, (size = size / count + 1), site);
    size *= count == 0 ? 1 : count;
    FUZZ_ENSURE(p != NULL && errno == KEPT_ERRNO);
    model_resized(b, p, size, front_usable(p, site));
}

static void op_free(struct input *in) {
    struct block *b = model_find(input_u8(in));
    if (b != NULL) {
        front_free(model_remove(b), FIRN_CALLER());
    }
}

// The name a block was made by decides the name it may be freed by.
static void op_free_sized(struct input *in) {
    struct block *b = model_find(input_u8(in));
    if (b == NULL) {
        return;
    }
    size_t size = b->size;
    size_t align = b->align;
    void *p = model_remove(b);
    if (align == 0) {
        front_free_sized(p, size, "free_sized", FIRN_CALLER());
    } else {
        front_free_checked(p,
                           &(struct heap_call){"free_aligned_sized", FIRN_CALLER(), size, align});
    }
}

static void op_free_many(struct input *in) {
    uint8_t first = input_u8(in);
    uint8_t count = input_u8(in);
    for (unsigned i = 0; i < count; i++) {
        struct block *b = &firn_fuzz_model.blocks[(first + i) % MODEL_BLOCKS];
        if (b->p != NULL) {
            front_free(model_remove(b), FIRN_CALLER());
        }
    }
}

// ---- the rest ---------------------------------------------------------------------------------

static void op_usable(struct input *in) {
    const struct block *b = model_find(input_u8(in));
    FUZZ_ENSURE(b == NULL || front_usable(b->p, 0) == b->usable);
}

static void op_trim(struct input *in) {
    (void)in;
    (void)heap_trim();
}

static void op_switch(struct input *in) {
    actors_switch(input_u8(in));
}

static void op_exit(struct input *in) {
    (void)in;
    actors_exit();
}

static void op_wait(struct input *in) {
    world_wait((uint64_t)input_u16(in) * 1000000);
}

static void op_check(struct input *in) {
    (void)in;
    model_check_all();
    inspect_ensure(NULL);
    large_check();
}

// What the heap says of itself agrees with the model, at any time: nothing else runs.
static void op_stats(struct input *in) {
    struct heap_stats s;
    (void)in;
    heap_stats(&s);
    FUZZ_ENSURE(s.small_live + s.large_live == firn_fuzz_model.count);
    FUZZ_ENSURE(s.allocated >= firn_fuzz_model.bytes);
    FUZZ_ENSURE(s.active >= s.allocated && s.resident >= s.active + s.dirty);
}

// The order is the encoding: append only, or the corpus means something else.
#define OPERATIONS(X)                                                                              \
    X(malloc, op_malloc)                                                                           \
    X(free, op_free)                                                                               \
    X(calloc, op_calloc)                                                                           \
    X(realloc, op_realloc)                                                                         \
    X(memalign, op_memalign)                                                                       \
    X(free_sized, op_free_sized)                                                                   \
    X(usable, op_usable)                                                                           \
    X(burst, op_burst)                                                                             \
    X(free_many, op_free_many)                                                                     \
    X(switch, op_switch)                                                                           \
    X(exit, op_exit)                                                                               \
    X(wait, op_wait)                                                                               \
    X(trim, op_trim)                                                                               \
    X(check, op_check)                                                                             \
    X(stats, op_stats)                                                                             \
    X(impossible, op_impossible)                                                                   \
    X(free_again, misuse_free_again)                                                               \
    X(interior, misuse_interior)                                                                   \
    X(misaligned, misuse_misaligned)                                                               \
    X(foreign, misuse_foreign)                                                                     \
    X(wild, misuse_wild)                                                                           \
    X(wrong_size, misuse_size)                                                                     \
    X(corrupt_link, misuse_link)                                                                   \
    X(beside, misuse_beside)

static void (*const operations[])(struct input *in) = {
#define OPERATION(name, function) function,
    OPERATIONS(OPERATION)
#undef OPERATION
};

int firn_fuzz_ops(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    world_reset();
    actors_start();
    memset(&firn_fuzz_model, 0, sizeof(firn_fuzz_model));
    for (unsigned i = 0; in.left > 0 && i < MOST_OPERATIONS; i++) {
        unsigned which = input_u8(&in) % (sizeof(operations) / sizeof(operations[0]));
        errno = KEPT_ERRNO;
        operations[which](&in);
    }
    op_stats(&in);
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        if (firn_fuzz_model.blocks[i].p != NULL) {
            actors_switch(i / 8);
            errno = KEPT_ERRNO;
            front_free(model_remove(&firn_fuzz_model.blocks[i]), FIRN_CALLER());
            FUZZ_ENSURE(errno == KEPT_ERRNO);
        }
    }
    op_stats(&in);
    actors_exit_all();
    op_stats(&in);
    op_check(&in);
    return 0;
}
