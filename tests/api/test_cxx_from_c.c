// The C++ operators in a C program: without a C++ runtime, and with one that a module brought along
// and that the global symbol order does not show.
#include "tests/api/api.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static void *(*plain_new)(size_t);
static void *(*aligned_new)(size_t, size_t);
static void *(*nothrow_new)(size_t, const void *);
static void (*sized_delete)(void *, size_t);

static void fetch(const char *name, void *function) {
    void *symbol = api_symbol(name);
    assert_non_null(symbol);
    memcpy(function, &symbol, sizeof(symbol));
}

static void fetch_operators(void) {
    fetch("_Znwm", &plain_new);
    fetch("_ZnwmSt11align_val_t", &aligned_new);
    fetch("_ZnwmRKSt9nothrow_t", &nothrow_new);
    fetch("_ZdlPvm", &sized_delete);
}

// Nobody can throw: NULL is all there is, and better than an abort of a program that may check it.
static void test_without_a_runtime(void **state) {
    (void)state;
    fetch_operators();
    assert_null(api_symbol("_ZSt15get_new_handlerv"));
    void *p = plain_new(100);
    assert_non_null(p);
    sized_delete(p, 100);
    errno = 0;
    assert_null(plain_new(SIZE_MAX));
    assert_int_equal(errno, ENOMEM);
    assert_null(aligned_new(SIZE_MAX, 64));
    assert_null(aligned_new(100, 24));
    assert_null(nothrow_new(SIZE_MAX, ""));
}

static void test_with_a_modules_runtime(void **state) {
    (void)state;
    char path[PATH_MAX + 32];
    const ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    assert_true(n > 0);
    path[n] = '\0';
    snprintf(strrchr(path, '/'), 32, "/libthrower.so");
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    assert_non_null(module);
    void *symbol = dlsym(module, "thrower_is_sound");
    int (*is_sound)(void) = NULL;
    memcpy(&is_sound, &symbol, sizeof(symbol));
    assert_non_null(symbol);
    assert_int_equal(is_sound(), 1);
    dlclose(module);
}

int main(void) {
    api_require_firn("test_cxx_from_c");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_a_runtime),
        cmocka_unit_test(test_with_a_modules_runtime),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
