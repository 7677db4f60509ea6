// Threads that allocate, resize and free blocks of random sizes, each byte checked, with a table
// through which they free and resize each other's blocks.
//
// Sequences that matter: resize of a block another thread made; a remote free into a span whose
// owner is refilling from it; aligned blocks freed like any other; calloc over recycled memory.
//
// firn-test: levels=0,1,2,3 timeout=300 sanitize=address,thread

#include "tests/stress/stress.h"

#include <stdatomic.h>

#define THREADS 8u
#define OWN_BLOCKS 256u
#define SHARED_BLOCKS 64u

struct worker {
    pthread_t thread;
    struct rng rng;
    uint64_t operations;
    void *own[OWN_BLOCKS];
};

static _Atomic(void *) shared[SHARED_BLOCKS];
static struct worker workers[THREADS];

static void *make_zeroed(struct rng *rng) {
    size_t size = rng_size(rng) + BLOCK_MIN;
    unsigned char *p = mem_alloc_zeroed(size);
    STRESS_CHECK(p != NULL, "calloc of %zu bytes failed", size);
    for (size_t i = 0; i < size; i++) {
        STRESS_CHECK(p[i] == 0, "calloc: byte %zu of %zu at %p is not zero", i, size, (void *)p);
    }
    block_stamp(p, size, rng_next(rng));
    return p;
}

static void *make_aligned(struct rng *rng) {
    size_t align = (size_t)8 << rng_below(rng, 11); // 8 to 8192
    size_t size = rng_size(rng) + BLOCK_MIN;
    void *p = mem_alloc_aligned(align, size);
    STRESS_CHECK(p != NULL, "memalign of %zu, %zu failed", align, size);
    STRESS_CHECK((uintptr_t)p % align == 0, "memalign: %p is not aligned to %zu", p, align);
    block_stamp(p, size, rng_next(rng));
    return p;
}

static void *make(struct rng *rng) {
    uint64_t roll = rng_below(rng, 10);
    if (roll == 0) {
        return make_aligned(rng);
    }
    if (roll <= 2) {
        return make_zeroed(rng);
    }
    return block_new(rng, rng_size(rng));
}

static void *resize(struct rng *rng, void *p) {
    block_verify(p, "before realloc");
    struct block *b = p;
    size_t old_size = b->size;
    uint64_t tag = b->tag;
    size_t size = rng_size(rng) + BLOCK_MIN;
    size_t kept = size < old_size ? size : old_size;
    b = mem_resize(p, size);
    STRESS_CHECK(b != NULL, "realloc from %zu to %zu bytes failed", old_size, size);
    STRESS_CHECK((uintptr_t)b % 16 == 0, "realloc: %p is not aligned to 16", (void *)b);
    STRESS_CHECK(b->size == old_size && b->tag == tag, "realloc lost the header of %p", (void *)b);
    size_t bad = pattern_check(b, BLOCK_MIN, kept, tag);
    STRESS_CHECK(bad == kept, "realloc from %zu to %zu: byte %zu is wrong", old_size, size, bad);
    block_stamp(b, size, rng_next(rng));
    return b;
}

static void check_usable(void *p) {
    const struct block *b = p;
    size_t usable = mem_usable(p);
    STRESS_CHECK(usable >= b->size, "malloc_usable_size(%p) is %zu, less than %zu", p, usable,
                 (size_t)b->size);
}

static void step(struct worker *w) {
    void **own = &w->own[rng_below(&w->rng, OWN_BLOCKS)];
    uint64_t roll = rng_below(&w->rng, 16);
    if (*own == NULL) {
        *own = make(&w->rng);
    } else if (roll < 6) {
        block_free(*own, "free");
        *own = NULL;
    } else if (roll < 10) {
        *own = resize(&w->rng, *own);
    } else if (roll < 11) {
        check_usable(*own);
    } else {
        // acq_rel: the block's bytes travel with the pointer, in both directions.
        _Atomic(void *) *place = &shared[rng_below(&w->rng, SHARED_BLOCKS)];
        *own = atomic_exchange_explicit(place, *own, memory_order_acq_rel);
    }
    w->operations++;
}

static void *run(void *arg) {
    struct worker *w = arg;
    do {
        for (unsigned i = 0; i < 64; i++) {
            step(w);
        }
    } while (!stress_time_is_up());
    for (unsigned i = 0; i < OWN_BLOCKS; i++) {
        if (w->own[i] != NULL) {
            block_free(w->own[i], "at the end");
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    stress_start("stress_threads", argc, argv);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].rng = rng_for(i + 1);
        workers[i].thread = stress_thread(run, &workers[i]);
    }
    uint64_t operations = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        stress_join(workers[i].thread);
        operations += workers[i].operations;
    }
    for (unsigned i = 0; i < SHARED_BLOCKS; i++) {
        void *p = atomic_load_explicit(&shared[i], memory_order_relaxed);
        if (p != NULL) {
            block_free(p, "shared, at the end");
        }
    }
    printf("ok %s operations=%" PRIu64 " seed=%" PRIu64 "\n", stress_name, operations, stress_seed);
    return 0;
}
