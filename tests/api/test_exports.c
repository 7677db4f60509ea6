// Every documented name is exported, and answered by Firn whoever calls it.
#include "tests/api/api.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const char *const names[] = {"malloc",
                                    "free",
                                    "calloc",
                                    "realloc",
                                    "reallocarray",
                                    "posix_memalign",
                                    "aligned_alloc",
                                    "memalign",
                                    "valloc",
                                    "pvalloc",
                                    "malloc_usable_size",
                                    "malloc_trim",
                                    "mallopt",
                                    "mallinfo",
                                    "mallinfo2",
                                    "malloc_stats",
                                    "malloc_info",
                                    "free_sized",
                                    "free_aligned_sized",
                                    "cfree",
                                    "__libc_malloc",
                                    "__libc_free",
                                    "__libc_calloc",
                                    "__libc_realloc",
                                    "__libc_reallocarray",
                                    "__libc_memalign",
                                    "__libc_valloc",
                                    "__libc_pvalloc",
                                    "__posix_memalign",
                                    "_Znwm",
                                    "_ZnwmRKSt9nothrow_t",
                                    "_ZnwmSt11align_val_t",
                                    "_ZnwmSt11align_val_tRKSt9nothrow_t",
                                    "_Znam",
                                    "_ZnamRKSt9nothrow_t",
                                    "_ZnamSt11align_val_t",
                                    "_ZnamSt11align_val_tRKSt9nothrow_t",
                                    "_ZdlPv",
                                    "_ZdlPvm",
                                    "_ZdlPvRKSt9nothrow_t",
                                    "_ZdlPvSt11align_val_t",
                                    "_ZdlPvmSt11align_val_t",
                                    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
                                    "_ZdaPv",
                                    "_ZdaPvm",
                                    "_ZdaPvRKSt9nothrow_t",
                                    "_ZdaPvSt11align_val_t",
                                    "_ZdaPvmSt11align_val_t",
                                    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
                                    "firn_compact",
                                    "firn_exclude",
                                    "firn_hint_cold",
                                    "firn_hint_hot",
                                    "firn_stats",
                                    "firn_thaw_all",
                                    "firn_version"};

static void test_every_name_is_ours(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!api_is_ours(names[i])) {
            fail_msg("%s is not Firn's", names[i]);
        }
    }
}

static void test_version_names_the_level(void **state) {
    (void)state;
    char want[32];
    assert_non_null(api_version());
    assert_true(api_level() >= 0 && api_level() <= 3);
    snprintf(want, sizeof(want), "0.1.0 level=%d", api_level());
    assert_string_equal(api_version(), want);
}

// Declares a function pointer and fetches it by name; a cast from object to function is not ISO C.
#define FETCH(declaration, variable, name)                                                         \
    declaration = NULL;                                                                            \
    do {                                                                                           \
        void *symbol = api_symbol(name);                                                           \
        memcpy(&variable, &symbol, sizeof(symbol));                                                \
        assert_non_null(symbol);                                                                   \
    } while (0)

// libc's own names share a heap with the standard ones: a block may cross over.
static void test_libc_aliases_work(void **state) {
    (void)state;
    FETCH(void *(*libc_malloc)(size_t), libc_malloc, "__libc_malloc");
    FETCH(void *(*libc_calloc)(size_t, size_t), libc_calloc, "__libc_calloc");
    FETCH(void *(*libc_realloc)(void *, size_t), libc_realloc, "__libc_realloc");
    FETCH(void *(*libc_reallocarray)(void *, size_t, size_t), libc_reallocarray,
          "__libc_reallocarray");
    FETCH(void *(*libc_memalign)(size_t, size_t), libc_memalign, "__libc_memalign");
    FETCH(void *(*libc_valloc)(size_t), libc_valloc, "__libc_valloc");
    FETCH(void *(*libc_pvalloc)(size_t), libc_pvalloc, "__libc_pvalloc");
    FETCH(int (*libc_posix_memalign)(void **, size_t, size_t), libc_posix_memalign,
          "__posix_memalign");
    FETCH(void (*libc_free)(void *), libc_free, "__libc_free");
    FETCH(void (*old_free)(void *), old_free, "cfree");
    free(libc_malloc(100));
    libc_free(malloc(100));
    char *zeros = libc_calloc(10, 10);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(zeros[i], 0);
    }
    zeros = libc_realloc(zeros, 5000);
    zeros = libc_reallocarray(zeros, 100, 100);
    assert_true(malloc_usable_size(zeros) >= 10000);
    old_free(zeros);
    old_free(NULL);
    libc_free(NULL);
    void *p = libc_memalign(256, 10);
    assert_int_equal((uintptr_t)p % 256, 0);
    free(p);
    p = libc_valloc(10);
    assert_int_equal((uintptr_t)p % 4096, 0);
    free(p);
    p = libc_pvalloc(10);
    assert_int_equal((uintptr_t)p % 4096, 0);
    free(p);
    assert_int_equal(libc_posix_memalign(&p, 512, 10), 0);
    assert_int_equal((uintptr_t)p % 512, 0);
    free(p);
    errno = 0;
    assert_null(libc_malloc(SIZE_MAX));
    assert_int_equal(errno, ENOMEM);
}

// Blocks that libc allocates for the caller are ours to free.
static void test_blocks_from_libc_are_ours(void **state) {
    (void)state;
    char *copy = strdup("a string");
    char *printed = NULL;
    assert_true(malloc_usable_size(copy) >= 9);
    assert_int_equal(asprintf(&printed, "%0500d", 7), 500);
    assert_true(malloc_usable_size(printed) >= 501);
    char *line = NULL;
    size_t room = 0;
    FILE *f = fopen("/proc/self/status", "r");
    assert_non_null(f);
    assert_true(getline(&line, &room, f) > 0);
    assert_true(malloc_usable_size(line) >= room);
    fclose(f);
    char *path = realpath("/proc/self/exe", NULL);
    assert_true(malloc_usable_size(path) > strlen(path));
    free(copy);
    free(printed);
    free(line);
    free(path);
}

int main(void) {
    api_require_firn("test_exports");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name_is_ours),
        cmocka_unit_test(test_version_names_the_level),
        cmocka_unit_test(test_libc_aliases_work),
        cmocka_unit_test(test_blocks_from_libc_are_ours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
