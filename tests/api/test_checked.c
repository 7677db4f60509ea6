// firn-test: levels=3
//
// The checked memory and string functions do what libc's do, and let every right call pass: P-BOUNDS has no
// false alarms. What they stop is in tests/death/test_bounds.c.
#include "tests/api/api.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

void *__memcpy_chk(void *to, const void *from, size_t n, size_t room);
void *__memset_chk(void *p, int byte, size_t n, size_t room);
char *__strcpy_chk(char *to, const char *from, size_t room);
char *__strncat_chk(char *to, const char *from, size_t n, size_t room);
char *__stpncpy_chk(char *to, const char *from, size_t n, size_t room);

enum { ARENA = 20000, LONGEST = 400, SHIFT = 80 };

static unsigned char want[ARENA], *got; // `got` is one heap block

static void refill(void) {
    for (unsigned i = 0; i < ARENA; i++) {
        want[i] = got[i] = (unsigned char)(i * 7 + i / 251 + 1);
    }
}

static void compare(unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        if (want[i] != got[i]) {
            fail_msg("byte %u is %u, not %u", i, got[i], want[i]);
        }
    }
}

static void reference_move(unsigned to, unsigned from, unsigned n) {
    static unsigned char kept[ARENA];
    for (unsigned i = 0; i < n; i++) {
        kept[i] = want[from + i];
    }
    for (unsigned i = 0; i < n; i++) {
        want[to + i] = kept[i];
    }
}

static void moves_of_every_overlap(void **state) {
    (void)state;
    for (unsigned n = 0; n <= LONGEST; n += n < 80 ? 1 : 37) {
        for (unsigned shift = 0; shift <= 2 * SHIFT; shift++) {
            refill();
            reference_move(600 + shift - SHIFT, 600, n);
            assert_ptr_equal(memmove(got + 600 + shift - SHIFT, got + 600, n),
                             got + 600 + shift - SHIFT);
            compare(1200);
        }
    }
    refill();
    reference_move(3, 0, ARENA - 3);
    memmove(got + 3, got, ARENA - 3);
    compare(ARENA);
    reference_move(0, 5, ARENA - 5);
    bcopy(got + 5, got, ARENA - 5);
    compare(ARENA);
}

static void copies_of_every_size(void **state) {
    (void)state;
    for (unsigned n = 0; n <= LONGEST; n++) {
        refill();
        reference_move(n % 9, 1000 + n % 16, n);
        assert_ptr_equal(memcpy(got + n % 9, got + 1000 + n % 16, n), got + n % 9);
        reference_move(2000, 1000, n);
        assert_ptr_equal(mempcpy(got + 2000, got + 1000, n), got + 2000 + n);
        reference_move(3000, 1000, n);
        assert_ptr_equal(__memcpy_chk(got + 3000, got + 1000, n, n), got + 3000);
        compare(4000);
    }
}

static void fills_of_every_size(void **state) {
    (void)state;
    for (unsigned n = 0; n <= LONGEST; n++) {
        for (unsigned at = 100; at < 117; at++) {
            refill();
            for (unsigned i = 0; i < n; i++) {
                want[at + i] = (unsigned char)(n + at);
                want[1000 + i] = 0;
            }
            assert_ptr_equal(memset(got + at, (int)(n + at), n), got + at);
            bzero(got + 1000, n);
            compare(1500);
        }
    }
}

static void strings_of_every_length(void **state) {
    (void)state;
    for (size_t n = 0; n <= LONGEST; n++) {
        char *from = malloc(n + 1), *to = malloc(2 * n + 1);
        memset(from, 'a', n);
        from[n] = '\0';
        assert_ptr_equal(strcpy(to, from), to);
        assert_string_equal(to, from);
        assert_ptr_equal(stpcpy(to, from), to + n);
        assert_ptr_equal(strcat(to, from), to);
        assert_int_equal(strlen(to), 2 * n);
        to[n] = '\0';
        assert_ptr_equal(strncat(to, from, n + 1), to);
        assert_int_equal(strlen(to), 2 * n);
        to[n] = '\0';
        assert_ptr_equal(__strncat_chk(to, from, n / 2, 2 * n + 1), to);
        assert_int_equal(strlen(to), n + n / 2);
        memset(to, 'b', 2 * n + 1);
        assert_ptr_equal(strncpy(to, from, n), to);
        assert_true(n == 0 || (to[n - 1] == 'a' && to[n] == 'b'));
        assert_ptr_equal(stpncpy(to, from, 2 * n + 1), to + n);
        assert_int_equal(strnlen(to, 2 * n + 1), n);
        assert_int_equal(to[2 * n], '\0');
        assert_ptr_equal(__stpncpy_chk(to, from, n, n), to + n);
        assert_ptr_equal(__strcpy_chk(to, from, n + 1), to);
        free(from);
        free(to);
    }
}

// As much as fits, nothing at all at places where nothing fits, and memory that is not the heap's.
static void right_calls_pass(void **state) {
    static const size_t sizes[] = {1, 15, 16, 100, 4096, 32768, 32769, 1 << 20};
    static char outside[1 << 21];
    char on_stack[64], *volatile nothing = NULL;
    volatile size_t none = 0;
    (void)state;
    errno = 77;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char *p = malloc(sizes[i]), *q = malloc(sizes[i]);
        const size_t all = malloc_usable_size(p);
        memset(p, 1, all);
        memcpy(outside, p, all);
        memmove(p + all / 2, outside, all - all / 2);
        memcpy(p, q, 0);
        memset(p + all, 1, none);
        memcpy(outside, p + all, 0);
        strncpy(p + all, outside, 0);
        p[all - 1] = '\0';
        p[0] = all > 1 ? 'x' : '\0';
        assert_true(strcpy(outside, p) == outside && strcpy(p, outside) == p);
        free(p);
        memcpy(p, q, 0); // dangling, but nothing is touched
        free(q);
    }
    memcpy(nothing, outside, 0);
    memset(on_stack, 's', sizeof(on_stack) - 1);
    on_stack[sizeof(on_stack) - 1] = '\0';
    strcpy(outside, on_stack);
    strcat(outside, on_stack);
    assert_int_equal(strlen(outside), 2 * sizeof(on_stack) - 2);
    assert_int_equal(errno, 77);
}

static void overruns_a_known_size(void) {
    __strcpy_chk(malloc(100), "four", 4);
}

static void overruns_a_known_empty(void) {
    __strcpy_chk(malloc(100), "", 0);
}

static void fills_a_known_size(void) {
    __memset_chk(malloc(100), 1, 11, 10);
}

// What the compiler knew is still checked, as libc does.
static void fortified_calls_die(void **state) {
    static void (*const wrong[])(void) = {overruns_a_known_size, overruns_a_known_empty,
                                          fills_a_known_size};
    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        int err[2], status;
        char said[200];
        assert_int_equal(pipe(err), 0);
        const pid_t child = fork();
        if (child == 0) {
            signal(SIGABRT, SIG_DFL);
            dup2(err[1], STDERR_FILENO);
            wrong[i]();
            _exit(0);
        }
        close(err[1]);
        const ssize_t n = read(err[0], said, sizeof(said) - 1);
        said[n > 0 ? n : 0] = '\0';
        close(err[0]);
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        assert_string_equal(said, "*** buffer overflow detected ***: terminated\n");
    }
}

static void all_are_ours(void **state) {
    static const char *const names[] = {
        "memcpy",       "memmove",      "mempcpy",      "memset",        "bcopy",
        "bzero",        "strcpy",       "stpcpy",       "strncpy",       "stpncpy",
        "strcat",       "strncat",      "__memcpy_chk", "__memmove_chk", "__mempcpy_chk",
        "__memset_chk", "__strcpy_chk", "__stpcpy_chk", "__strncpy_chk", "__stpncpy_chk",
        "__strcat_chk", "__strncat_chk"};
    (void)state;
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!api_is_ours(names[i])) {
            fail_msg("%s is not Firn's", names[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_are_ours),
        cmocka_unit_test(moves_of_every_overlap),
        cmocka_unit_test(copies_of_every_size),
        cmocka_unit_test(fills_of_every_size),
        cmocka_unit_test(strings_of_every_length),
        cmocka_unit_test(right_calls_pass),
        cmocka_unit_test(fortified_calls_die),
    };
    api_require_firn("test_checked");
    got = malloc(ARENA);
    return got == NULL ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
