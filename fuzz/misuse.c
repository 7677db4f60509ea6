#include "fuzz/misuse.h"

#include "fuzz/actors.h"
#include "fuzz/model.h"
#include "fuzz/world.h"
#include "src/base/config.h"
#include "src/front/front.h"
#include "src/heap/find.h"
#include "src/meta/size_class.h"

#include <unistd.h>

// ---- calls that must die ----------------------------------------------------------------------

struct call {
    uintptr_t address;
    unsigned how;
    size_t size;
};

enum { CALL_FREE, CALL_RESIZE, CALL_USABLE, CALL_SIZED, CALL_DELETE, CALLS };

static void make_call(void *context) {
    const struct call *c = context;
    void *p = (void *)c->address;
    switch (c->how % CALLS) {
    case CALL_FREE:
        front_free(p, FIRN_CALLER());
        return;
    case CALL_RESIZE:
        (void)front_resize(p, c->size + 1, FIRN_CALLER());
        return;
    case CALL_USABLE:
        (void)front_usable(p, FIRN_CALLER());
        return;
    case CALL_SIZED:
        front_free_sized(p, c->size, "free_sized", FIRN_CALLER());
        return;
    default:
        front_free_as(p, "operator delete", FIRN_CALLER());
        return;
    }
}

#define ID(name) (1u << FATAL_##name)
enum {
    // A pointer that is no block's start. Which of them depends on what became of the memory.
    ANY_STALE = ID(DOUBLE_FREE) | ID(INTERIOR_POINTER) | ID(NEVER_ALLOCATED),
    ANY_WILD = ANY_STALE | ID(FOREIGN_POINTER)
};

// `ids`: bits of the conditions it may be reported as.
static void must_die(uintptr_t address, struct input *in, unsigned ids) {
    struct world_death death;
    struct call c = {address, input_u8(in), input_u16(in)};
    FUZZ_ENSURE(world_dies(make_call, &c, &death));
    FUZZ_ENSURE(!death.is_abort);
    FUZZ_ENSURE((ids >> death.id & 1) != 0);
    FUZZ_ENSURE(death.address == address);
}

// ---- wrong pointers ---------------------------------------------------------------------------

void misuse_free_again(struct input *in) {
    const struct model *m = &firn_fuzz_model;
    unsigned back = input_u8(in) % MODEL_STALE;
    uintptr_t address = m->stale[(m->freed - 1 - back) % MODEL_STALE];
    if (!FIRN_CHECK_FREE || address == 0) {
        return;
    }
    const struct block *now = model_containing(address);
    if (now != NULL && (uintptr_t)now->p == address) {
        return; // handed out again: a right free
    }
    unsigned ids = now != NULL ? ID(INTERIOR_POINTER) : (unsigned)ANY_STALE;
    if (back == 0 && now == NULL && m->made == m->made_at_last_free) {
        ids = ID(DOUBLE_FREE); // nothing was handed out since: it is the freed block, still
    }
    must_die(address, in, ids);
}

void misuse_interior(struct input *in) {
    const struct block *b = model_find(input_u8(in));
    size_t steps = b != NULL && b->usable > 0 ? (b->usable - 1) / 16 : 0;
    size_t step = input_u16(in);
    if (!FIRN_CHECK_FREE || steps == 0) {
        return;
    }
    must_die((uintptr_t)b->p + 16 * (1 + step % steps), in, ID(INTERIOR_POINTER));
    model_check(b);
}

void misuse_misaligned(struct input *in) {
    const struct block *b = model_find(input_u8(in));
    size_t offset = input_u16(in);
    size_t at = b != NULL && b->usable > 0 ? offset % b->usable : 0;
    if (!FIRN_CHECK_FREE || at == 0) { // the start of the block is right
        return;
    }
    must_die((uintptr_t)b->p + at, in,
             at % 16 == 0 ? ID(INTERIOR_POINTER) : ID(MISALIGNED_POINTER));
    model_check(b);
}

void misuse_foreign(struct input *in) {
    static _Alignas(16) char elsewhere[256];
    _Alignas(16) char here[256];
    uint8_t which = input_u8(in);
    uintptr_t base = which % 2 ? (uintptr_t)elsewhere : (uintptr_t)here;
    if (FIRN_CHECK_FREE) {
        must_die(base + which / 2, in, ID(FOREIGN_POINTER));
    }
}

void misuse_wild(struct input *in) {
    uintptr_t where = input_u64(in) % FIRN_ROOT.data.bytes;
    uintptr_t address = FIRN_ROOT.data.base + (where & ~(uintptr_t)15);
    const struct block *b = model_containing(address);
    if (FIRN_CHECK_FREE && (b == NULL || (uintptr_t)b->p != address)) {
        must_die(address, in, ANY_WILD);
    }
}

// The largest block that would lie where this one does: the sizes asked for above the one that this one was
// asked for, and up to here, cannot be told from it.
static size_t most_of_class(const struct block *b) {
    size_t wanted = b->usable + FIRN_SLOT_EXTRA;
    unsigned class_index = wanted <= SMALL_MAX
                               ? size_class_aligned(wanted, b->align > 16 ? b->align : 16)
                               : SIZE_CLASSES;
    if (!FIRN_SLACK) {
        return b->usable;
    }
    return class_index < SIZE_CLASSES ? size_class_bytes(class_index) - FIRN_SLOT_EXTRA
                                      : (b->usable + FIRN_PAGE - 1) & ~(size_t)(FIRN_PAGE - 1);
}

void misuse_beside(struct input *in) {
    const struct block *b = model_find(input_u8(in));
    intptr_t steps = (int8_t)input_u8(in);
    if (!FIRN_CHECK_FREE || b == NULL) {
        return;
    }
    size_t stride = (most_of_class(b) + 15) & ~(size_t)15; // a canary's bytes are not usable
    uintptr_t address = (uintptr_t)b->p + (uintptr_t)(steps * (intptr_t)stride);
    const struct block *there = model_containing(address);
    if (there == NULL || (uintptr_t)there->p != address) {
        must_die(address, in, there != NULL ? ID(INTERIOR_POINTER) : (unsigned)ANY_WILD);
    }
}

// ---- wrong sizes ------------------------------------------------------------------------------

static void free_with_size(void *context) {
    const struct call *c = context;
    if (c->how % 2 != 0) {
        front_free_sized((void *)c->address, c->size, "free_sized", FIRN_CALLER());
    } else {
        front_free_checked((void *)c->address,
                           &(struct heap_call){"free_aligned_sized", FIRN_CALLER(), c->size, 16});
    }
}

void misuse_size(struct input *in) {
    const struct block *b = model_find(input_u8(in));
    uint8_t how = input_u8(in);
    uint32_t more = input_u16(in);
    struct world_death death;
    if (!FIRN_CHECK_FREE || b == NULL) {
        return;
    }
    // Too much by a byte or more; a quarter is another class whichever the block's is.
    size_t size = most_of_class(b) + 1 + more;
    if (how % 4 >= 2 && b->usable >= 64) {
        size = b->usable / 4;
    }
    struct call c = {(uintptr_t)b->p, how, size};
    FUZZ_ENSURE(world_dies(free_with_size, &c, &death));
    FUZZ_ENSURE(!death.is_abort && death.id == FATAL_SIZE_MISMATCH);
    FUZZ_ENSURE(death.address == c.address);
    model_check(b);
}

// ---- a write after a free by another thread ---------------------------------------------------

static void flush(void *context) {
    cache_flush_all(context);
}

void misuse_link(struct input *in) {
    struct block *b = model_find(input_u8(in));
    uint8_t at = input_u8(in) % 8;
    uint8_t change = input_u8(in);
    struct world_death death;
    struct found f;
    if (!FIRN_SAFE_LINK || b == NULL || change == 0) {
        return;
    }
    find_pointer(b->p, &f);
    FUZZ_ENSURE(f.kind != FOUND_BAD);
    if (f.kind != FOUND_SLOT) {
        return;
    }
    struct cache *owner = atomic_load_explicit(&f.span->owner, memory_order_relaxed);
    if (owner == NULL || owner == firn_cache) {
        return;
    }
    uint8_t *p = model_remove(b);
    front_free(p, FIRN_CALLER());
    FUZZ_ENSURE(span_is_remote(f.span, f.slot));
    p[at] ^= change;
    FUZZ_ENSURE(actors_become(owner));
    FUZZ_ENSURE(world_dies(flush, owner, &death));
    FUZZ_ENSURE(!death.is_abort && death.id == FATAL_CORRUPT_LINK);
    FUZZ_ENSURE(death.address == (uintptr_t)p);
    _exit(0);
}
