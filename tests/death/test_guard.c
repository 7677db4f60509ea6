// P-GUARD-SPAN: whoever writes on and on past the end of a small block, or before its start, dies of
// SIGSEGV at the guard of the next fence, before reaching the second group of spans from there.
#include "tests/api/api.h"

#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 4000, STEP = 64 };

static const struct {
    size_t size, span_bytes;
} cases[] = {{8, 4 << 10}, {100, 32 << 10}, {1000, 128 << 10}, {20000, 128 << 10}};
enum { CASES = sizeof(cases) / sizeof(cases[0]) };

// Spans of which one is a fence.
static size_t group(void) {
    return api_level() == 1 ? 16 : api_level() == 2 ? 4 : 2;
}

static volatile size_t *progress; // shared with the child

static size_t run_off(volatile char *p, ptrdiff_t step) {
    *progress = 0;
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); // cmocka has its own
        for (;; p += step) {
            *p = 'x';
            *progress += STEP;
        }
    }
    int status = 0;
    assert_true(child > 0 && waitpid(child, &status, 0) == child);
    assert_true(WIFSIGNALED(status));
    // A guarded sample's guard is told from others, and reported.
    assert_true(WTERMSIG(status) == SIGSEGV || WTERMSIG(status) == SIGABRT);
    return *progress;
}

static int is_rationed(void) {
    struct rlimit address, data;
    char mode = '0';
    FILE *f = fopen("/proc/sys/vm/overcommit_memory", "r");
    if (f != NULL) {
        mode = (char)fgetc(f);
        fclose(f);
    }
    return getrlimit(RLIMIT_AS, &address) != 0 || getrlimit(RLIMIT_DATA, &data) != 0 ||
           address.rlim_cur != RLIM_INFINITY || data.rlim_cur != RLIM_INFINITY || mode == '2';
}

static void overflows_and_underflows_end_at_a_guard(void **state) {
    (void)state;
    static char *p[BLOCKS];
    if (is_rationed()) {
        skip();
    }
    progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(progress != MAP_FAILED);
    for (unsigned i = 0; i < CASES; i++) {
        const unsigned blocks = cases[i].size > 10000 ? 200 : BLOCKS;
        for (unsigned k = 0; k < blocks; k++) {
            p[k] = malloc(cases[i].size);
            assert_non_null(p[k]);
        }
        for (unsigned k = 0; k < blocks; k += blocks / 20) {
            // The fence of the next group may be its last span, that of this one be behind us.
            const size_t most = 2 * group() * cases[i].span_bytes;
            assert_in_range(run_off(p[k], STEP), cases[i].size, most);
            assert_in_range(run_off(p[k], -STEP), STEP, most);
        }
        for (unsigned k = 0; k < blocks; k++) {
            free(p[k]);
        }
    }
}

int main(void) {
    api_require_firn("test_guard");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overflows_and_underflows_end_at_a_guard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
