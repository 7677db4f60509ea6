// Large blocks: growth and shrinking by realloc, big alignments, zeroed blocks over recycled
// memory, sizes no address space has, two threads at once; memory must come back.
//
// Of a large block only the start of each page and the last byte are written and checked: that is
// enough to see a wrong mapping, and it leaves time for more blocks.
//
// firn-test: levels=0,1,2,3 timeout=300 sanitize=address,thread

#include "tests/stress/stress.h"

#define THREADS 2u
#define BLOCKS 12u
#define PAGE 4096u
#define MAX_LIVE_BYTES ((size_t)192 << 20)

struct large {
    unsigned char *bytes;
    size_t size;
    uint64_t tag;
};

struct worker {
    pthread_t thread;
    struct rng rng;
    size_t live_bytes;
    uint64_t operations;
    struct large blocks[BLOCKS];
};

static struct worker workers[THREADS];

// Two bytes at the start of each page, and the last byte of the block.
static void stamp(const struct large *b) {
    for (size_t page = 0; page + 2 < b->size; page += PAGE) {
        memcpy(b->bytes + page, &(uint16_t){(uint16_t)pattern_word(b->tag, page)}, 2);
    }
    b->bytes[b->size - 1] = (unsigned char)b->tag;
}

static void verify(const struct large *b, size_t size, const char *where) {
    for (size_t page = 0; page + 2 < size; page += PAGE) {
        uint16_t want = (uint16_t)pattern_word(b->tag, page);
        STRESS_CHECK(memcmp(b->bytes + page, &want, 2) == 0,
                     "%s: page at %zu of %zu bytes at %p is wrong", where, page, b->size,
                     (void *)b->bytes);
    }
    if (size == b->size) {
        STRESS_CHECK(b->bytes[size - 1] == (unsigned char)b->tag, "%s: last byte of %zu is wrong",
                     where, size);
    }
}

// 32 KiB to 64 MiB, each doubling equally likely.
static size_t large_size(struct rng *rng) {
    size_t base = (size_t)32768 << rng_below(rng, 11);
    return base + 2 + rng_below(rng, base);
}

static void check_zeroed(const struct large *b) {
    for (size_t at = 0; at < b->size; at += 512) {
        STRESS_CHECK(b->bytes[at] == 0, "calloc: byte %zu of %zu is not zero", at, b->size);
    }
    STRESS_CHECK(b->bytes[b->size - 1] == 0, "calloc: last byte of %zu is not zero", b->size);
}

static void make(struct worker *w, struct large *b) {
    size_t size = large_size(&w->rng);
    if (w->live_bytes + size > MAX_LIVE_BYTES) {
        return;
    }
    size_t align = 16;
    *b = (struct large){.size = size, .tag = rng_next(&w->rng) | 1};
    switch (rng_below(&w->rng, 3)) {
    case 0:
        b->bytes = mem_alloc(size);
        break;
    case 1:
        b->bytes = mem_alloc_zeroed(size);
        break;
    default:
        align = (size_t)4096 << rng_below(&w->rng, 11); // to 4 MiB
        b->bytes = mem_alloc_aligned(align, size);
        break;
    }
    STRESS_CHECK(b->bytes != NULL, "out of memory for %zu bytes", size);
    STRESS_CHECK((uintptr_t)b->bytes % align == 0, "%p is not aligned to %zu", (void *)b->bytes,
                 align);
    w->live_bytes += size;
}

static void make_checked(struct worker *w, struct large *b) {
    size_t size = large_size(&w->rng);
    if (w->live_bytes + size <= MAX_LIVE_BYTES && rng_below(&w->rng, 4) == 0) {
        *b = (struct large){.size = size, .tag = rng_next(&w->rng) | 1};
        b->bytes = mem_alloc_zeroed(size);
        STRESS_CHECK(b->bytes != NULL, "out of memory for %zu zeroed bytes", size);
        check_zeroed(b);
        w->live_bytes += size;
    } else {
        make(w, b);
    }
    if (b->bytes != NULL) {
        stamp(b);
    }
}

static void drop(struct worker *w, struct large *b) {
    verify(b, b->size, "free");
    STRESS_CHECK(mem_usable(b->bytes) >= b->size, "usable size is less than %zu", b->size);
    mem_free(b->bytes);
    w->live_bytes -= b->size;
    b->bytes = NULL;
}

static void resize(struct worker *w, struct large *b) {
    size_t size = rng_below(&w->rng, 8) == 0 ? 100 + rng_below(&w->rng, 30000) // to a small class
                                             : large_size(&w->rng);
    if (w->live_bytes - b->size + size > MAX_LIVE_BYTES) {
        return;
    }
    verify(b, b->size, "before realloc");
    size_t kept = size < b->size ? size : b->size;
    unsigned char *moved = mem_resize(b->bytes, size);
    STRESS_CHECK(moved != NULL, "realloc from %zu to %zu failed", b->size, size);
    w->live_bytes += size - b->size;
    *b = (struct large){.bytes = moved, .size = size, .tag = b->tag};
    // The last byte of the old size is inside the block after growth: only whole pages count.
    verify(b, kept == size ? kept - 1 : kept, "after realloc");
    stamp(b);
}

static void check_impossible(void) {
    // Volatile: compilers warn of, or fold, a request they can see to be impossible.
    static const volatile size_t sizes[] = {SIZE_MAX, SIZE_MAX - 4096, (SIZE_MAX >> 1) + 1,
                                            (size_t)1 << 60};
#ifndef FIRN_DIRECT // below the C library's semantics callers promise PTRDIFF_MAX
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        errno = 0;
        void *p = mem_alloc(sizes[i]);
        STRESS_CHECK(p == NULL && errno == ENOMEM, "malloc(%zu) gave %p, errno %d", sizes[i], p,
                     errno);
    }
#endif
    void *p = mem_alloc(100000);
    STRESS_CHECK(p != NULL, "out of memory");
    memset(p, 7, 100000);
    errno = 0;
    void *q = mem_resize(p, sizes[3]);
    STRESS_CHECK(q == NULL && errno == ENOMEM, "realloc to %zu gave %p, errno %d", sizes[3], q,
                 errno);
    STRESS_CHECK(((unsigned char *)p)[99999] == 7, "a failed realloc changed the block");
    mem_free(p);
}

static void *run(void *arg) {
    struct worker *w = arg;
    while (!stress_time_is_up()) {
        struct large *b = &w->blocks[rng_below(&w->rng, BLOCKS)];
        if (b->bytes == NULL) {
            make_checked(w, b);
        } else if (rng_below(&w->rng, 2) == 0) {
            resize(w, b);
        } else {
            drop(w, b);
        }
        w->operations++;
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (w->blocks[i].bytes != NULL) {
            drop(w, &w->blocks[i]);
        }
    }
    STRESS_CHECK(w->live_bytes == 0, "the count of live bytes is off by %zu", w->live_bytes);
    return NULL;
}

int main(int argc, char **argv) {
    stress_start("stress_large", argc, argv);
    size_t before = stress_pss_kib();
    check_impossible();
    uint64_t operations = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].rng = rng_for(i + 1);
        workers[i].thread = stress_thread(run, &workers[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        stress_join(workers[i].thread);
        operations += workers[i].operations;
    }
    size_t after = stress_pss_settled_kib();
    // Another allocator may keep more; Firn promises not to.
    STRESS_CHECK(!stress_pss_counts() || stress_firn_level() < 0 || after <= before + 24 * 1024,
                 "nothing is live, Pss went from %zu to %zu KiB", before, after);
    printf("ok %s operations=%" PRIu64 " pss=%zuK..%zuK seed=%" PRIu64 "\n", stress_name,
           operations, before, after, stress_seed);
    return 0;
}
