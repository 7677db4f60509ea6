// Figures and knobs: mallinfo, mallinfo2, malloc_info, malloc_stats, firn_stats, mallopt,
// malloc_trim.
#include "tests/api/api.h"

#include "include/firn/firn.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 1000 };

static int (*stats)(struct firn_stats *);

static struct firn_stats stats_now(void) {
    struct firn_stats s;
    memset(&s, 0, sizeof(s));
    s.struct_bytes = sizeof(s);
    assert_int_equal(stats(&s), 0);
    return s;
}

static void test_firn_stats_counts_blocks(void **state) {
    (void)state;
    static void *small[BLOCKS];
    const struct firn_stats before = stats_now();
    for (int i = 0; i < BLOCKS; i++) {
        small[i] = malloc(1000);
        memset(small[i], 1, 1000);
    }
    void *large = malloc(10000000);
    memset(large, 1, 10000000);
    const struct firn_stats during = stats_now();
    assert_in_range(during.small_blocks - before.small_blocks, BLOCKS, BLOCKS + 16);
    assert_int_equal(during.large_blocks - before.large_blocks, 1);
    assert_in_range(during.allocated - before.allocated, 11000000, 12000000);
    assert_true(during.active >= during.allocated);
    assert_true(during.resident >= during.active);
    assert_true(during.mapped >= during.active);
    assert_true(during.reserved >= during.mapped);
    assert_true(during.metadata > 0);
    assert_true(during.thread_caches >= 1);
    for (int i = 0; i < BLOCKS; i++) {
        free(small[i]);
    }
    free(large);
    const struct firn_stats after = stats_now();
    assert_true(after.small_blocks <= before.small_blocks + 16);
    assert_int_equal(after.large_blocks, before.large_blocks);
    assert_true(after.allocated < before.allocated + 100000);
}

static void test_firn_stats_checks_its_argument(void **state) {
    (void)state;
    struct firn_stats s;
    memset(&s, 0x55, sizeof(s));
    s.struct_bytes = 0;
    errno = 0;
    assert_int_equal(stats(&s), -1);
    assert_int_equal(errno, EINVAL);
    s.struct_bytes = sizeof(s.struct_bytes) - 1;
    errno = 0;
    assert_int_equal(stats(&s), -1);
    assert_int_equal(errno, EINVAL);
    errno = 0;
    assert_int_equal(stats(NULL), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(s.allocated, 0x5555555555555555);
}

// An older caller has a shorter struct, a newer one a longer one.
static void test_firn_stats_respects_the_callers_size(void **state) {
    (void)state;
    struct {
        struct firn_stats s;
        size_t newer;
    } both;
    memset(&both, 0x55, sizeof(both));
    both.s.struct_bytes = offsetof(struct firn_stats, active);
    assert_int_equal(stats(&both.s), 0);
    assert_int_not_equal(both.s.allocated, 0x5555555555555555);
    assert_int_equal(both.s.active, 0x5555555555555555);
    both.s.struct_bytes = sizeof(both);
    assert_int_equal(stats(&both.s), 0);
    assert_int_not_equal(both.s.reserved, 0x5555555555555555);
    assert_int_equal(both.newer, 0x5555555555555555);
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static struct mallinfo narrow(void) {
    return mallinfo();
}
#pragma GCC diagnostic pop

static void test_mallinfo_follows(void **state) {
    (void)state;
    const struct mallinfo2 before = mallinfo2();
    void *small[BLOCKS];
    for (int i = 0; i < BLOCKS; i++) {
        small[i] = malloc(500);
    }
    void *large = malloc(5000000);
    const struct mallinfo2 wide = mallinfo2();
    assert_in_range(wide.uordblks - before.uordblks, BLOCKS * 500, BLOCKS * 700);
    assert_int_equal(wide.hblks - before.hblks, 1);
    assert_in_range(wide.hblkhd - before.hblkhd, 5000000, 5100000);
    assert_true(wide.arena >= wide.uordblks);
    const struct mallinfo m = narrow();
    assert_in_range((size_t)m.uordblks, BLOCKS * 500, INT32_MAX);
    assert_in_range((size_t)m.hblkhd, 5000000, INT32_MAX);
    for (int i = 0; i < BLOCKS; i++) {
        free(small[i]);
    }
    free(large);
    assert_int_equal(mallinfo2().hblks, before.hblks);
}

// Three GiB do not fit an int: they must not show as a negative or small number.
static void test_mallinfo_saturates(void **state) {
    (void)state;
    void *p[3];
    for (int i = 0; i < 3; i++) {
        p[i] = malloc((size_t)1 << 30);
    }
    if (p[0] != NULL && p[1] != NULL && p[2] != NULL) {
        assert_true(mallinfo2().hblkhd >= (size_t)3 << 30);
        assert_int_equal(narrow().hblkhd, INT32_MAX);
    }
    for (int i = 0; i < 3; i++) {
        free(p[i]);
    }
}

// Checks nesting and quoting of the little XML there is; returns the number of elements.
static int count_elements(const char *xml) {
    char stack[16][16];
    int depth = 0, elements = 0;
    const char *at = xml;
    while ((at = strchr(at, '<')) != NULL) {
        const char *end = strchr(at, '>');
        assert_non_null(end);
        if (at[1] == '/') {
            assert_true(depth > 0);
            depth--;
            assert_int_equal(strncmp(stack[depth], at + 2, (size_t)(end - at - 2)), 0);
            assert_int_equal(stack[depth][end - at - 2], 0);
        } else {
            int quotes = 0;
            for (const char *c = at; c < end; c++) {
                quotes += *c == '"';
                assert_true(*c != '&');
            }
            assert_int_equal(quotes % 2, 0);
            elements++;
            if (end[-1] != '/') {
                assert_true(depth < 16);
                assert_int_equal(sscanf(at + 1, "%15[a-z]", stack[depth]), 1);
                depth++;
            }
        }
        at = end;
    }
    assert_int_equal(depth, 0);
    return elements;
}

static void test_malloc_info_is_well_formed(void **state) {
    (void)state;
    char *text = NULL;
    size_t n = 0;
    void *large = malloc(100000);
    FILE *f = open_memstream(&text, &n); // grows by realloc while malloc_info writes
    assert_non_null(f);
    assert_int_equal(malloc_info(0, f), 0);
    fclose(f);
    free(large);
    assert_int_equal(strncmp(text, "<malloc version=\"", 17), 0);
    assert_true(count_elements(text) > 10);
    assert_non_null(strstr(text, "<total type=\"mmap\" count=\""));
    assert_non_null(strstr(text, "<figure name=\"allocated\" value=\""));
    assert_non_null(strstr(text, "</malloc>\n"));
    free(text);
}

static void test_malloc_info_on_streams_that_allocate(void **state) {
    (void)state;
    for (int i = 0; i < 100; i++) {
        FILE *f = tmpfile();
        assert_non_null(f);
        assert_int_equal(malloc_info(0, f), 0);
        assert_int_equal(fclose(f), 0);
    }
}

static void test_malloc_info_refuses(void **state) {
    (void)state;
    char buffer[100] = "";
    FILE *f = fmemopen(buffer, sizeof(buffer), "w");
    assert_int_equal(malloc_info(1, f), EINVAL);
    assert_int_equal(malloc_info(-1, f), EINVAL);
    FILE *volatile none = NULL;
    assert_int_equal(malloc_info(0, none), EINVAL);
    assert_int_equal(ftell(f), 0);
    fclose(f);
}

// Standard error goes to a pipe for the call; the text comes back.
static void capture_stats(char *out, size_t capacity) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const int kept = dup(2);
    dup2(ends[1], 2);
    malloc_stats();
    dup2(kept, 2);
    close(kept);
    close(ends[1]);
    const ssize_t n = read(ends[0], out, capacity - 1);
    close(ends[0]);
    out[n > 0 ? n : 0] = '\0';
}

static void test_malloc_stats_is_text_for_people(void **state) {
    (void)state;
    char text[4096], start[64];
    capture_stats(text, sizeof(text));
    snprintf(start, sizeof(start), "firn: %s pid=%d\n", api_version(), (int)getpid());
    assert_memory_equal(text, start, strlen(start));
    for (const char *line = strchr(text, '\n') + 1; *line != '\0'; line = strchr(line, '\n') + 1) {
        char name[32];
        size_t value;
        const int is_words = strncmp(line, "firn:   mesh: engine ", 21) == 0;
        assert_true(is_words || sscanf(line, "firn:   %31[a-z_] %zu", name, &value) == 2);
    }
    assert_non_null(strstr(text, "\nfirn:   allocated "));
    assert_non_null(strstr(text, "\nfirn:   resident "));
}

static void test_malloc_stats_without_stderr(void **state) {
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        close(2);
        malloc_stats();
        _exit(errno == EBADF ? 1 : 0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_mallopt_knows_glibcs_parameters(void **state) {
    (void)state;
    static const int known[] = {M_MXFAST,         M_TRIM_THRESHOLD, M_TOP_PAD,
                                M_MMAP_THRESHOLD, M_MMAP_MAX,       M_CHECK_ACTION,
                                M_PERTURB,        M_ARENA_TEST,     M_ARENA_MAX};
    static const int unknown[] = {0, 5, 1000, -9, -100, 0x7fffffff, -0x7fffffff - 1};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        assert_int_equal(mallopt(known[i], 1), 1);
    }
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_int_equal(mallopt(unknown[i], 1), 0);
    }
    // M_CHECK_ACTION 0 asks glibc to ignore errors. Not here: tests/death runs after mallopt too.
    assert_int_equal(mallopt(M_CHECK_ACTION, 0), 1);
    void *p = malloc(100);
    assert_non_null(p);
    free(p);
}

static void test_malloc_trim_gives_back(void **state) {
    (void)state;
    enum { SIZE = 1000000, COUNT = 50 };
    void *p[COUNT];
    for (int i = 0; i < COUNT; i++) {
        p[i] = malloc(SIZE);
        memset(p[i], 1, SIZE);
    }
    for (int i = 0; i < COUNT; i++) {
        free(p[i]);
    }
    (void)malloc_trim(0);
    assert_true(stats_now().resident < 10000000);
    assert_in_range(malloc_trim(0), 0, 1);
    assert_in_range(malloc_trim(SIZE_MAX), 0, 1);
}

int main(void) {
    api_require_firn("test_info");
    void *symbol = api_symbol("firn_stats");
    memcpy(&stats, &symbol, sizeof(symbol));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_firn_stats_counts_blocks),
        cmocka_unit_test(test_firn_stats_checks_its_argument),
        cmocka_unit_test(test_firn_stats_respects_the_callers_size),
        cmocka_unit_test(test_mallinfo_follows),
        cmocka_unit_test(test_mallinfo_saturates),
        cmocka_unit_test(test_malloc_info_is_well_formed),
        cmocka_unit_test(test_malloc_info_on_streams_that_allocate),
        cmocka_unit_test(test_malloc_info_refuses),
        cmocka_unit_test(test_malloc_stats_is_text_for_people),
        cmocka_unit_test(test_malloc_stats_without_stderr),
        cmocka_unit_test(test_mallopt_knows_glibcs_parameters),
        cmocka_unit_test(test_malloc_trim_gives_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
