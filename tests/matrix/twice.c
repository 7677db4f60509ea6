// Blocks that are freed twice, in all the ways that programs find to do it. The right program forgets
// the pointer in time.
#include "tests/matrix/matrix.h"

#include <malloc.h>

void *reallocarray(void *p, size_t count, size_t size);
void _ZdlPv(void *p) __attribute__((weak));
void _ZdaPv(void *p) __attribute__((weak));
void *_Znwm(size_t size) __attribute__((weak));

// What the wrong program frees again; free(NULL) is right.
static void *again(void *p, int is_wrong) {
    return is_wrong ? opaque(p) : NULL;
}

static int run_at_once(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    free(p);
    free(again(p, is_wrong));
    return MATRIX_END;
}

static int run_after_others(const struct matrix_case *c, int is_wrong) {
    char *crowd[CROWD];
    char *p = crowded_block(c->size, crowd);
    for (int i = 0; i < CROWD; i++) {
        free(crowd[i]);
    }
    free(again(p, is_wrong));
    return MATRIX_END;
}

// a, b, a: the pattern that passes a check of the list's head.
static int run_interleaved(const struct matrix_case *c, int is_wrong) {
    char *a = block(c->size);
    char *b = block(c->size);
    free(a);
    free(b);
    free(again(a, is_wrong));
    return MATRIX_END;
}

// The block must not have been handed out again meanwhile, however many are asked for.
static int run_after_mallocs(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    free(p);
    for (size_t i = 0; i < c->count; i++) {
        (void)block(c->size);
    }
    free(again(p, is_wrong));
    return MATRIX_END;
}

static int run_twice_in_loop(const struct matrix_case *c, int is_wrong) {
    char *blocks[10];
    for (int i = 0; i < 10; i++) {
        blocks[i] = block(c->size);
    }
    for (int i = 0; i < (is_wrong ? 11 : 10); i++) {
        free(opaque(blocks[i % 10]));
    }
    return MATRIX_END;
}

static int run_remote_local(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    in_thread(matrix_free, p);
    free(again(p, is_wrong));
    return MATRIX_END;
}

static int run_local_remote(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    free(p);
    in_thread(matrix_free, again(p, is_wrong));
    return MATRIX_END;
}

static int run_two_remotes(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    in_thread(matrix_free, p);
    in_thread(matrix_free, again(p, is_wrong));
    return MATRIX_END;
}

static void *free_twice(void *p) {
    free(p);
    free(opaque(p));
    return NULL;
}

static int run_one_remote(const struct matrix_case *c, int is_wrong) {
    in_thread(is_wrong ? free_twice : matrix_free, block(c->size));
    return MATRIX_END;
}

static pthread_barrier_t barrier;

static void *free_together(void *p) {
    pthread_barrier_wait(&barrier);
    free(p);
    return NULL;
}

static int run_race(const struct matrix_case *c, int is_wrong) {
    for (int i = 0; i < 10; i++) {
        pthread_t thread;
        char *p = block(c->size);
        pthread_barrier_init(&barrier, NULL, 2);
        pthread_create(&thread, NULL, free_together, p);
        free_together(again(p, is_wrong));
        pthread_join(thread, NULL);
        pthread_barrier_destroy(&barrier);
    }
    return MATRIX_END;
}

static int run_after_realloc(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    char *q = opaque(realloc(p, 5 * c->size));
    free(again(p, is_wrong));
    free(q);
    return MATRIX_END;
}

static int run_after_realloc_zero(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    (void)opaque(realloc(p, 0));
    free(again(p, is_wrong));
    return MATRIX_END;
}

static int run_by_realloc(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    free(p);
    free(opaque(realloc(again(p, is_wrong), 2 * c->size)));
    return MATRIX_END;
}

static int run_by_reallocarray(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    free(p);
    free(opaque(reallocarray(again(p, is_wrong), 2, c->size)));
    return MATRIX_END;
}

static int run_by_usable_size(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    free(p);
    return malloc_usable_size(again(p, is_wrong)) == 0 || is_wrong ? MATRIX_END : MATRIX_BROKEN;
}

static int run_delete_delete(const struct matrix_case *c, int is_wrong) {
    char *p = opaque(_Znwm(c->size));
    _ZdlPv(p);
    _ZdlPv(again(p, is_wrong));
    return MATRIX_END;
}

static int run_delete_free(const struct matrix_case *c, int is_wrong) {
    char *p = opaque(_Znwm(c->size));
    _ZdlPv(p);
    free(again(p, is_wrong));
    return MATRIX_END;
}

static int run_delete_array(const struct matrix_case *c, int is_wrong) {
    char *p = opaque(_Znwm(c->size));
    _ZdaPv(p);
    _ZdaPv(again(p, is_wrong));
    return MATRIX_END;
}

static int run_after_trim(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    free(p);
    malloc_trim(0);
    free(again(p, is_wrong));
    return MATRIX_END;
}

static int run_calloc(const struct matrix_case *c, int is_wrong) {
    char *p = opaque(calloc(2, c->size / 2));
    free(p);
    free(again(p, is_wrong));
    return MATRIX_END;
}

static int run_aligned(const struct matrix_case *c, int is_wrong) {
    char *p = opaque(aligned_alloc(256, c->size));
    free(p);
    free(again(p, is_wrong));
    return MATRIX_END;
}

static void *to_free_at_exit;
static void free_at_exit(void) {
    free(to_free_at_exit);
}

static int run_at_exit(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    atexit(free_at_exit);
    to_free_at_exit = again(p, is_wrong);
    free(p);
    return MATRIX_END;
}

static const struct matrix_case cases[] = {
    {"at_once_24", "check", 24, 0, run_at_once},
    {"at_once_1016", "check", 1016, 0, run_at_once},
    {"at_once_16376", "check", 16376, 0, run_at_once},
    {"at_once_100000", "check", 100000, 0, run_at_once},
    {"after_others_24", "check", 24, 0, run_after_others},
    {"after_others_1016", "check", 1016, 0, run_after_others},
    {"after_others_100000", "check", 100000, 0, run_after_others},
    {"interleaved_56", "check", 56, 0, run_interleaved},
    {"interleaved_4088", "check", 4088, 0, run_interleaved},
    {"interleaved_1m", "check", 1 << 20, 0, run_interleaved},
    {"after_mallocs_56", "quarantine", 56, 300, run_after_mallocs},
    {"after_mallocs_1016", "quarantine", 1016, 300, run_after_mallocs},
    {"twice_in_loop_120", "check", 120, 0, run_twice_in_loop},
    {"remote_local_248", "check", 248, 0, run_remote_local},
    {"remote_local_100000", "check", 100000, 0, run_remote_local},
    {"local_remote_248", "check", 248, 0, run_local_remote},
    {"local_remote_100000", "check", 100000, 0, run_local_remote},
    {"two_remotes_56", "check", 56, 0, run_two_remotes},
    {"one_remote_56", "check", 56, 0, run_one_remote},
    {"race_120", "check", 120, 0, run_race},
    {"after_realloc_56", "check", 56, 0, run_after_realloc},
    {"after_realloc_16376", "check", 16376, 0, run_after_realloc},
    {"after_realloc_zero_120", "check", 120, 0, run_after_realloc_zero},
    {"by_realloc_56", "check", 56, 0, run_by_realloc},
    {"by_realloc_100000", "check", 100000, 0, run_by_realloc},
    {"by_reallocarray_56", "check", 56, 0, run_by_reallocarray},
    {"by_usable_size_56", "check", 56, 0, run_by_usable_size},
    {"delete_delete_56", "check", 56, 0, run_delete_delete},
    {"delete_free_56", "check", 56, 0, run_delete_free},
    {"delete_array_1016", "check", 1016, 0, run_delete_array},
    {"after_trim_56", "check", 56, 0, run_after_trim},
    {"after_trim_100000", "check", 100000, 0, run_after_trim},
    {"calloc_248", "check", 248, 0, run_calloc},
    {"aligned_504", "check", 504, 0, run_aligned},
    {"at_exit_56", "check", 56, 0, run_at_exit},
};

MATRIX_MAIN(cases)
