// Writes past the end of a block. Sizes 8 below a power of two fill their slots at levels with a
// canary: the first byte past them counts. 100 and 100,000 leave a rest that is nobody's.
//
// What is written is even, as no byte of a canary is: an odd byte is the right one, by chance, once in 128 times.
#include "tests/matrix/matrix.h"

#include <wchar.h>

static char text[2 << 20]; // no zero in it, but at its end

static void fill_text(size_t n) {
    memset(text, 'B', n);
    text[n] = '\0';
}

// How much is written: the block, and what is too much.
static size_t reach(const struct matrix_case *c, int is_wrong) {
    return c->size + (is_wrong ? c->count : 0);
}

static int run_set(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, 'B', c->size);
    for (size_t i = c->size; i < reach(c, is_wrong); i++) {
        p[i] = 'B';
    }
    free(p);
    return MATRIX_END;
}

static int run_memset(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, 'B', reach(c, is_wrong));
    free(p);
    return MATRIX_END;
}

static int run_loop(const struct matrix_case *c, int is_wrong) {
    int *p = opaque(block(c->size));
    const size_t n = c->size / sizeof(int);
    for (size_t i = 0; is_wrong ? i <= n : i < n; i++) {
        p[i] = 1;
    }
    free(p);
    return MATRIX_END;
}

static int run_memcpy(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    fill_text(reach(c, is_wrong));
    memcpy(p, text, reach(c, is_wrong));
    free(p);
    return MATRIX_END;
}

static int run_memmove(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, 'B', c->size);
    memmove(p + (is_wrong ? c->count : 0), p, c->size);
    free(p);
    return MATRIX_END;
}

// The terminator does not fit.
static int run_strcpy(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    fill_text(reach(c, is_wrong) - 1);
    strcpy(p, text);
    free(p);
    return MATRIX_END;
}

static int run_stpcpy(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    fill_text(reach(c, is_wrong) - 1);
    stpcpy(p, text);
    free(p);
    return MATRIX_END;
}

static int run_strcat(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    strcpy(p, "0123456789");
    fill_text(reach(c, is_wrong) - 11);
    strcat(p, text);
    free(p);
    return MATRIX_END;
}

// The bound given is that of the source, not of what is left.
static int run_strncat(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    strcpy(p, "0123456789");
    fill_text(2 * c->size);
    strncat(p, text, reach(c, is_wrong) - 11);
    free(p);
    return MATRIX_END;
}

// strncpy fills up with zeros to the wrong bound.
static int run_strncpy(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    strncpy(p, "short", reach(c, is_wrong));
    free(p);
    return MATRIX_END;
}

static int run_sprintf(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    sprintf(p, "%0*d", (int)reach(c, is_wrong) - 1, 7);
    free(p);
    return MATRIX_END;
}

static int run_snprintf(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    fill_text(2 * c->size);
    snprintf(p, reach(c, is_wrong), "%s", text);
    free(p);
    return MATRIX_END;
}

static int run_wcscpy(const struct matrix_case *c, int is_wrong) {
    wchar_t wide[512];
    wchar_t *p = opaque(block(c->size));
    const size_t n = reach(c, is_wrong) / sizeof(wchar_t);
    wmemset(wide, L'B', n - 1);
    wide[n - 1] = L'\0';
    wcscpy(p, wide);
    free(p);
    return MATRIX_END;
}

static int run_fgets(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    fill_text(2 * c->size);
    FILE *in = fmemopen(text, 2 * c->size, "r");
    if (in == NULL || fgets(p, (int)reach(c, is_wrong), in) == NULL) {
        return MATRIX_BROKEN;
    }
    fclose(in);
    free(p);
    return MATRIX_END;
}

static int run_read(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    int ends[2];
    fill_text(c->size + c->count);
    if (pipe(ends) != 0 || write(ends[1], text, c->size + c->count) < 0 ||
        read(ends[0], p, reach(c, is_wrong)) < 0) {
        return MATRIX_BROKEN;
    }
    free(p);
    return MATRIX_END;
}

static int run_calloc(const struct matrix_case *c, int is_wrong) {
    char *p = opaque(calloc(1, c->size));
    memset(p, 'B', reach(c, is_wrong));
    free(p);
    return MATRIX_END;
}

static int run_aligned(const struct matrix_case *c, int is_wrong) {
    char *p = opaque(aligned_alloc(64, c->size));
    memset(p, 'B', reach(c, is_wrong));
    free(p);
    return MATRIX_END;
}

static int run_after_realloc(const struct matrix_case *c, int is_wrong) {
    char *p = opaque(realloc(block(c->size / 3), c->size));
    memset(p, 'B', reach(c, is_wrong));
    free(p);
    return MATRIX_END;
}

// Noticed by other calls than the block's own free.
static int run_resized(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, 'B', reach(c, is_wrong));
    p = opaque(realloc(p, 4 * c->size));
    free(p);
    return MATRIX_END;
}

static int run_freed_elsewhere(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, 'B', reach(c, is_wrong));
    in_thread(matrix_free, p);
    churn(c->size);
    return MATRIX_END;
}

static int run_neighbour_freed(const struct matrix_case *c, int is_wrong) {
    enum { COUNT = 2000 };
    static char *crowd[COUNT];
    for (int i = 0; i < COUNT; i++) {
        crowd[i] = block(c->size);
    }
    for (int i = 0; i < COUNT; i += 100) {
        memset(crowd[i], 'B', reach(c, is_wrong));
        crowd[i] = NULL; // never freed
    }
    for (int i = 0; i < COUNT; i++) {
        free(crowd[i]);
    }
    return MATRIX_END;
}

static int run_never_freed(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    memset(p, 'B', reach(c, is_wrong));
    return MATRIX_END;
}

static const struct matrix_case cases[] = {
    {"byte_past_24", "canary", 24, 1, run_set},
    {"byte_past_56", "canary", 56, 1, run_set},
    {"byte_past_248", "canary", 248, 1, run_set},
    {"byte_past_1016", "canary", 1016, 1, run_set},
    {"byte_past_4088", "canary", 4088, 1, run_set},
    {"byte_past_16376", "canary", 16376, 1, run_set},
    {"byte_past_40960", "guard", 40960, 1, run_set},
    {"byte_past_1m", "guard", 1 << 20, 1, run_set},
    {"eight_past_24", "canary", 24, 8, run_set},
    {"eight_past_120", "canary", 120, 8, run_set},
    {"eight_past_1016", "canary", 1016, 8, run_set},
    {"eight_past_8184", "canary", 8184, 8, run_set},
    {"eight_past_40960", "guard", 40960, 8, run_set},
    {"page_past_24", "canary", 24, 4096, run_set},
    {"page_past_248", "canary", 248, 4096, run_set},
    {"page_past_4088", "canary", 4088, 4096, run_set},
    {"page_past_16376", "canary", 16376, 4096, run_set},
    {"page_past_100000", "guard", 100000, 4096, run_set},
    {"loop_56", "canary", 56, 0, run_loop},
    {"loop_1016", "canary", 1016, 0, run_loop},
    {"loop_4088", "canary", 4088, 0, run_loop},
    {"loop_40960", "guard", 40960, 0, run_loop},
    {"memset_120", "canary", 120, 24, run_memset},
    {"memset_1016", "canary", 1016, 8, run_memset},
    {"memset_40960", "guard", 40960, 1, run_memset},
    {"memcpy_24", "canary", 24, 64, run_memcpy},
    {"memcpy_120", "canary", 120, 1, run_memcpy},
    {"memcpy_1016", "canary", 1016, 16, run_memcpy},
    {"memcpy_4088", "canary", 4088, 100, run_memcpy},
    {"memcpy_1m", "guard", 1 << 20, 1, run_memcpy},
    {"memmove_248", "canary", 248, 4, run_memmove},
    {"memmove_4088", "canary", 4088, 1, run_memmove},
    {"strcpy_24", "canary", 24, 1, run_strcpy},
    {"strcpy_120", "canary", 120, 1, run_strcpy},
    {"strcpy_1016", "canary", 1016, 20, run_strcpy},
    {"strcpy_40960", "guard", 40960, 1, run_strcpy},
    {"stpcpy_56", "canary", 56, 1, run_stpcpy},
    {"strcat_56", "canary", 56, 1, run_strcat},
    {"strcat_248", "canary", 248, 9, run_strcat},
    {"strncat_120", "canary", 120, 1, run_strncat},
    {"strncpy_56", "canary", 56, 1, run_strncpy},
    {"strncpy_1016", "canary", 1016, 8, run_strncpy},
    {"sprintf_24", "canary", 24, 1, run_sprintf},
    {"sprintf_248", "canary", 248, 3, run_sprintf},
    {"snprintf_56", "canary", 56, 2, run_snprintf},
    {"wcscpy_248", "canary", 248, 4, run_wcscpy},
    {"fgets_120", "canary", 120, 2, run_fgets},
    {"read_248", "canary", 248, 8, run_read},
    {"calloc_56", "canary", 56, 1, run_calloc},
    {"aligned_120", "canary", 120, 1, run_aligned},
    {"after_realloc_120", "canary", 120, 8, run_after_realloc},
    {"resized_120", "canary", 120, 1, run_resized},
    {"freed_by_thread_56", "canary", 56, 1, run_freed_elsewhere},
    {"neighbour_freed_56", "canary", 56, 8, run_neighbour_freed},
    {"neighbour_freed_1016", "canary", 1016, 8, run_neighbour_freed},
    {"slack_of_100", "slack", 100, 1, run_set},
    {"slack_of_3000", "slack", 3000, 8, run_set},
    {"slack_of_100000", "page_slack", 100000, 1, run_set},
    {"never_freed_56", "sweep", 56, 1, run_never_freed},
};

MATRIX_MAIN(cases)
