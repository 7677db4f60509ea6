// Reads of memory that was never written: what stood in a block that somebody had before must not
// show.
#include "tests/matrix/matrix.h"

enum { SECRET = 0x5a, BLOCKS = 40, ROUNDS = 200 };

static void leave_secrets(size_t n, void *(*get)(size_t n)) {
    char *blocks[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        blocks[i] = opaque(get(n));
        memset(blocks[i], SECRET, n);
    }
    for (int i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
}

static int count_secret(const char *p, size_t from, size_t n) {
    int seen = 0;
    for (size_t i = from; i < n; i++) {
        seen += p[i] == SECRET;
    }
    return seen;
}

static int judge(int seen, int is_wrong) {
    return is_wrong && seen == 0 ? MATRIX_HARMLESS : MATRIX_END;
}

// Looks at what new blocks hold. The right program writes first.
static int look(const struct matrix_case *c, int is_wrong, void *(*get)(size_t n)) {
    char *blocks[ROUNDS];
    const int rounds = c->size > 40000 ? BLOCKS : ROUNDS;
    int seen = 0;
    leave_secrets(c->size, get);
    for (int i = 0; i < rounds; i++) {
        blocks[i] = opaque(get(c->size));
        if (!is_wrong) {
            memset(blocks[i], 0, c->size);
        }
        seen += count_secret(blocks[i], 0, c->size);
    }
    for (int i = 0; i < rounds; i++) {
        free(blocks[i]);
    }
    return is_wrong || seen == 0 ? judge(seen, is_wrong) : MATRIX_BROKEN;
}

static void *get_block(size_t n) {
    return block(n);
}

static int run_malloc(const struct matrix_case *c, int is_wrong) {
    return look(c, is_wrong, get_block);
}

static void *get_aligned(size_t n) {
    return aligned_alloc(64, n);
}

static int run_aligned(const struct matrix_case *c, int is_wrong) {
    return look(c, is_wrong, get_aligned);
}

static void *get_memalign(size_t n) {
    void *p = NULL;
    return posix_memalign(&p, 32, n) == 0 ? p : NULL;
}

static int run_memalign(const struct matrix_case *c, int is_wrong) {
    return look(c, is_wrong, get_memalign);
}

static void *get_by_growing(size_t n) {
    return realloc(malloc(8), n);
}

static int run_grown(const struct matrix_case *c, int is_wrong) {
    return look(c, is_wrong, get_by_growing);
}

// The program's own data, cut off and then exposed again.
static int run_shrunk_and_grown(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, SECRET, c->size);
    p = opaque(realloc(p, c->count));
    p = opaque(realloc(p, c->size));
    if (!is_wrong) {
        memset(p + c->count, 0, c->size - c->count);
    }
    int seen = count_secret(p, c->count, c->size);
    free(p);
    return judge(seen, is_wrong);
}

static void *free_with_secret(void *p) {
    memset(p, SECRET, 248);
    free(p);
    return NULL;
}

static int run_from_thread(const struct matrix_case *c, int is_wrong) {
    char *blocks[ROUNDS];
    int seen = 0;
    for (int i = 0; i < BLOCKS; i++) {
        in_thread(free_with_secret, block(c->size));
    }
    for (int i = 0; i < ROUNDS; i++) {
        blocks[i] = block(c->size);
        if (!is_wrong) {
            memset(blocks[i], 0, c->size);
        }
        seen += count_secret(blocks[i], 0, c->size);
    }
    return judge(seen, is_wrong);
}

static const struct matrix_case cases[] = {
    {"malloc_24", "wipe", 24, 0, run_malloc},
    {"malloc_120", "wipe", 120, 0, run_malloc},
    {"malloc_1016", "wipe", 1016, 0, run_malloc},
    {"malloc_4088", "wipe", 4088, 0, run_malloc},
    {"malloc_16376", "wipe", 16376, 0, run_malloc},
    {"malloc_40960", "retire", 40960, 0, run_malloc},
    {"malloc_1m", "retire", 1 << 20, 0, run_malloc},
    {"aligned_248", "wipe", 248, 0, run_aligned},
    {"memalign_504", "wipe", 504, 0, run_memalign},
    {"grown_120", "wipe", 120, 0, run_grown},
    {"grown_4088", "wipe", 4088, 0, run_grown},
    {"grown_100000", "retire", 100000, 0, run_grown},
    {"from_thread_248", "wipe", 248, 0, run_from_thread},
    {"shrunk_and_grown_1016", "wipe", 1016, 100, run_shrunk_and_grown},
    {"shrunk_and_grown_1m", "retire", 1 << 20, 40960, run_shrunk_and_grown},
    {"shrunk_in_place_120", "slack", 120, 112, run_shrunk_and_grown},
};

MATRIX_MAIN(cases)
