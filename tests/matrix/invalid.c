// Frees of what is no block: inside of one, beside one, or not in the heap at all.
#include "tests/matrix/matrix.h"

#include <malloc.h>
#include <sys/mman.h>

extern char **environ;
static char global[64] __attribute__((aligned(64)));

// The wrong program frees something else than the right one, which frees its block.
static int free_one(char *p, void *other, int is_wrong) {
    free(opaque(is_wrong ? other : p));
    return MATRIX_END;
}

static int run_interior(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    return free_one(p, p + c->count, is_wrong);
}

static int run_before(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    return free_one(p, (char *)opaque(p) - c->count, is_wrong);
}

static int run_by_realloc(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    free(opaque(realloc((char *)opaque(p) + (is_wrong ? c->count : 0), 3 * c->size)));
    return MATRIX_END;
}

static int run_by_usable_size(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    return malloc_usable_size((char *)opaque(p) + (is_wrong ? c->count : 0)) > 0 ? MATRIX_END
                                                                                 : MATRIX_BROKEN;
}

static int run_by_thread(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    in_thread(matrix_free, (char *)opaque(p) + (is_wrong ? c->count : 0));
    return MATRIX_END;
}

static int run_aligned_inside(const struct matrix_case *c, int is_wrong) {
    char *p = opaque(aligned_alloc(4096, c->size));
    return free_one(p, p + 4096, is_wrong);
}

// A pointer that was advanced while the text was read.
static int run_advanced(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    char *at = p;
    memset(p, ' ', c->size - 1);
    p[c->size - 1] = '\0';
    while (*at == ' ') {
        at++;
    }
    return free_one(p, at, is_wrong);
}

static int run_truncated(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    return free_one(p, (void *)((uintptr_t)p & 0xffffffff), is_wrong);
}

static int run_stack(const struct matrix_case *c, int is_wrong) {
    char local[64] __attribute__((aligned(16)));
    return free_one(block(c->size), local, is_wrong);
}

static int run_alloca(const struct matrix_case *c, int is_wrong) {
    return free_one(block(c->size), __builtin_alloca(64), is_wrong);
}

static int run_realloc_stack(const struct matrix_case *c, int is_wrong) {
    char local[64] __attribute__((aligned(16)));
    char *p = block(c->size);
    free(opaque(realloc(opaque(is_wrong ? local : p), 200)));
    return MATRIX_END;
}

static int run_global(const struct matrix_case *c, int is_wrong) {
    return free_one(block(c->size), global, is_wrong);
}

static int run_literal(const struct matrix_case *c, int is_wrong) {
    static const char literal[] __attribute__((aligned(16))) = "a constant";
    return free_one(block(c->size), (void *)(uintptr_t)literal, is_wrong);
}

static int run_thread_local(const struct matrix_case *c, int is_wrong) {
    static __thread char local[64] __attribute__((aligned(16)));
    return free_one(block(c->size), local, is_wrong);
}

static int run_code(const struct matrix_case *c, int is_wrong) {
    return free_one(block(c->size), (void *)(uintptr_t)run_literal, is_wrong);
}

static int run_environment(const struct matrix_case *c, int is_wrong) {
    return free_one(block(c->size), environ[0], is_wrong);
}

static char *map_pages(void) {
    void *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        _exit(MATRIX_BROKEN);
    }
    return p;
}

static int run_mmap(const struct matrix_case *c, int is_wrong) {
    return free_one(block(c->size), map_pages(), is_wrong);
}

static int run_munmapped(const struct matrix_case *c, int is_wrong) {
    char *p = map_pages();
    munmap(p, 65536);
    return free_one(block(c->size), p, is_wrong);
}

static int run_number(const struct matrix_case *c, int is_wrong) {
    return free_one(block(c->size), (void *)c->count, is_wrong);
}

static int run_never(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    return free_one(p, (char *)opaque(p) + c->count, is_wrong);
}

// Overwritten with text before it is freed.
static int run_text(const struct matrix_case *c, int is_wrong) {
    char *p = block(c->size);
    char *wrong;
    memcpy(&wrong, "/usr/bin", sizeof(wrong));
    return free_one(p, wrong, is_wrong);
}

static const struct matrix_case cases[] = {
    {"inside_24", "check", 24, 16, run_interior},
    {"inside_248", "check", 248, 64, run_interior},
    {"inside_4088", "check", 4088, 1024, run_interior},
    {"inside_100000", "check", 100000, 16, run_interior},
    {"page_inside_100000", "check", 100000, 4096, run_interior},
    {"misaligned_24", "check", 24, 8, run_interior},
    {"misaligned_1016", "check", 1016, 1, run_interior},
    {"misaligned_100000", "check", 100000, 8, run_interior},
    {"end_248", "check", 240, 240, run_interior},
    {"header_before_120", "check", 120, 16, run_before},
    {"header_before_100000", "check", 100000, 16, run_before},
    {"realloc_inside_248", "check", 248, 32, run_by_realloc},
    {"realloc_inside_100000", "check", 100000, 8192, run_by_realloc},
    {"usable_size_inside_248", "check", 248, 16, run_by_usable_size},
    {"thread_inside_248", "check", 248, 16, run_by_thread},
    {"aligned_inside_8184", "check", 8184, 0, run_aligned_inside},
    {"advanced_248", "check", 248, 0, run_advanced},
    {"truncated_56", "check", 56, 0, run_truncated},
    {"stack", "check", 56, 0, run_stack},
    {"alloca", "check", 56, 0, run_alloca},
    {"realloc_stack", "check", 56, 0, run_realloc_stack},
    {"global", "check", 56, 0, run_global},
    {"literal", "check", 56, 0, run_literal},
    {"thread_local", "check", 56, 0, run_thread_local},
    {"code", "check", 56, 0, run_code},
    {"environment", "check", 56, 0, run_environment},
    {"mmap", "check", 56, 0, run_mmap},
    {"munmapped", "check", 56, 0, run_munmapped},
    {"small_integer", "check", 56, 16, run_number},
    {"minus_one", "check", 56, SIZE_MAX, run_number},
    {"kernel_address", "check", 56, (size_t)0xffffffff81000000, run_number},
    {"text", "check", 56, 0, run_text},
    {"far_from_small", "check", 120, (size_t)64 << 20, run_never},
    {"far_from_large", "check", 100000, (size_t)1 << 30, run_never},
};

MATRIX_MAIN(cases)
