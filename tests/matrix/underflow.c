// Writes before the start of a block. The byte before a slot is the last of the canary of the slot
// before it, which nobody but Firn ever writes.
#include "tests/matrix/matrix.h"

static int run_set(const struct matrix_case *c, int is_wrong) {
    char *crowd[CROWD];
    char *p = crowded_block(c->size, crowd);
    memset(p, 'B', c->size);
    for (size_t i = 1; is_wrong && i <= c->count; i++) {
        *((char *)opaque(p) - i) = 'B';
    }
    for (int i = 0; i < CROWD; i++) {
        free(crowd[i]);
    }
    return MATRIX_END;
}

static int run_loop(const struct matrix_case *c, int is_wrong) {
    int *p = opaque(block(c->size));
    const long last = is_wrong ? -1 : 0;
    for (long i = (long)(c->size / sizeof(int)) - 1; i >= last; i--) {
        p[i] = 1;
    }
    free(p);
    return MATRIX_END;
}

static int run_memcpy(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    char text[64];
    memset(text, 'B', sizeof(text));
    memcpy((char *)opaque(p) - (is_wrong ? c->count : 0), text, 16);
    free(p);
    return MATRIX_END;
}

static int run_memmove(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, 'B', c->size);
    memmove((char *)opaque(p) - (is_wrong ? c->count : 0), p + 1, c->size / 2);
    free(p);
    return MATRIX_END;
}

// Removes trailing blanks from a line; an empty one has no last character.
static int run_trim(const struct matrix_case *c, int is_wrong) {
    enum { LINES = 500 };
    static char *lines[LINES];
    for (int i = 0; i < LINES; i++) {
        lines[i] = block(c->size);
        strcpy(lines[i], is_wrong && i % 10 == 0 ? "" : "x");
    }
    for (int i = 0; i < LINES; i++) {
        lines[i][(long)strlen(lines[i]) - 1] = '\0';
    }
    for (int i = 0; i < LINES; i++) {
        free(lines[i]);
    }
    return MATRIX_END;
}

static int run_freed_elsewhere(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset((char *)opaque(p) - (is_wrong ? c->count : 0), 'B', c->count);
    in_thread(matrix_free, p);
    churn(c->size);
    return MATRIX_END;
}

static int run_resized(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset((char *)opaque(p) - (is_wrong ? c->count : 0), 'B', c->count);
    p = opaque(realloc(p, 4 * c->size));
    free(p);
    return MATRIX_END;
}

static int run_neighbour_freed(const struct matrix_case *c, int is_wrong) {
    enum { COUNT = 2000 };
    static char *crowd[COUNT];
    for (int i = 0; i < COUNT; i++) {
        crowd[i] = block(c->size);
    }
    for (int i = 0; i < COUNT; i += 100) {
        memset((char *)opaque(crowd[i]) - (is_wrong ? c->count : 0), 'B', c->count);
        crowd[i] = NULL; // never freed
    }
    for (int i = 0; i < COUNT; i++) {
        free(crowd[i]);
    }
    return MATRIX_END;
}

static int run_never_freed(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset((char *)opaque(p) - (is_wrong ? c->count : 0), 'B', c->count);
    return MATRIX_END;
}

static const struct matrix_case cases[] = {
    {"byte_before_24", "canary", 24, 1, run_set},
    {"byte_before_56", "canary", 56, 1, run_set},
    {"byte_before_248", "canary", 248, 1, run_set},
    {"byte_before_1016", "canary", 1016, 1, run_set},
    {"byte_before_4088", "canary", 4088, 1, run_set},
    {"byte_before_40960", "guard", 40960, 1, run_set},
    {"byte_before_1m", "guard", 1 << 20, 1, run_set},
    {"eight_before_24", "canary", 24, 8, run_set},
    {"eight_before_120", "canary", 120, 8, run_set},
    {"eight_before_1016", "canary", 1016, 8, run_set},
    {"eight_before_40960", "guard", 40960, 8, run_set},
    {"sixteen_before_56", "canary", 56, 16, run_set},
    {"sixteen_before_248", "canary", 248, 16, run_set},
    {"sixteen_before_1016", "canary", 1016, 16, run_set},
    {"sixteen_before_100000", "guard", 100000, 16, run_set},
    {"loop_56", "canary", 56, 0, run_loop},
    {"loop_1016", "canary", 1016, 0, run_loop},
    {"loop_40960", "guard", 40960, 0, run_loop},
    {"memcpy_120", "canary", 120, 8, run_memcpy},
    {"memcpy_1016", "canary", 1016, 1, run_memcpy},
    {"memmove_248", "canary", 248, 1, run_memmove},
    {"trim_56", "canary", 56, 0, run_trim},
    {"freed_by_thread_120", "canary", 120, 8, run_freed_elsewhere},
    {"resized_120", "canary", 120, 1, run_resized},
    {"neighbour_freed_56", "canary", 56, 8, run_neighbour_freed},
    {"never_freed_56", "sweep", 56, 8, run_never_freed},
};

MATRIX_MAIN(cases)
