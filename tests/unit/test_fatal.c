// The abort line, byte by byte, and that nothing a program does keeps a fatal error from ending it.
// firn-test: share=2 sanitize=address,thread
#include "src/base/fatal.h"

#include "include/firn/firn.h"
#include "tests/support/child.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cmocka.h>

static const struct fatal_info sample = {.api = "free",
                                         .address = 0x3f2a10c0,
                                         .class_bytes = 64,
                                         .size = FATAL_SIZE_UNKNOWN,
                                         .found = "slot is already free",
                                         .caller = 0x401169};

static uintptr_t locate(uintptr_t pc, char *path, size_t path_bytes) {
    snprintf(path, path_bytes, "/usr/bin/prog");
    return pc - 0x400000;
}

static void die_plainly(void *context) {
    (void)context;
    fatal(FATAL_DOUBLE_FREE, &sample);
}

static void die_located(void *context) {
    (void)context;
    fatal_set_locator(locate);
    fatal(FATAL_DOUBLE_FREE, &sample);
}

static void check_first_line(void (*body)(void *), void *context, const char *line) {
    struct child c;
    child_run(&c, body, context);
    assert_true(child_died_of(&c, SIGABRT));
    size_t length = strcspn(c.said, "\n");
    assert_int_equal(c.said[length], '\n');
    c.said[length] = '\0';
    assert_string_equal(c.said, line);
}

static void exact_line(void **state) {
    (void)state;
    check_first_line(die_located, NULL,
                     "firn: double-free: free(0x3f2a10c0): class=64 size=? found: slot is already "
                     "free; expected: a live slot; caller=/usr/bin/prog+0x1169");
    check_first_line(die_plainly, NULL,
                     "firn: double-free: free(0x3f2a10c0): class=64 size=? found: slot is already "
                     "free; expected: a live slot; caller=?+0x401169");
}

static void further_lines_are_marked(void **state) {
    (void)state;
    struct child c;
    child_run(&c, die_plainly, NULL);
    char *line = strchr(c.said, '\n');
    assert_non_null(line);
    assert_memory_equal(line + 1, "firn:   thread: ", 16);
    line = strchr(line + 1, '\n');
    assert_non_null(line);
    assert_string_equal(line + 1, "firn:   hint: the block was already freed: look for two owners "
                                  "of one pointer\n");
}

static void die_named(void *context) {
    (void)context;
    prctl(PR_SET_NAME, "wor\nker", 0, 0, 0);
    fatal_set_locator(locate);
    fatal(FATAL_DOUBLE_FREE, &sample);
}

static void thread_and_place_are_named(void **state) {
    (void)state;
    struct child c;
    child_run(&c, die_named, NULL);
    assert_non_null(strstr(c.said, " \"wor?ker\" of process "));
    assert_non_null(strstr(c.said, "\nfirn:   look at: addr2line -f -C -e /usr/bin/prog 0x1169\n"));
}

static void recall_sizes(const struct fatal_info *info, struct fatal_record *out) {
    assert_int_equal(info->address, 0x3f2a10c0);
    assert_int_equal(out->requested, FATAL_SIZE_UNKNOWN);
    out->requested = 60;
}

static void recall_traces(const struct fatal_info *info, struct fatal_record *out) {
    (void)info;
    assert_int_equal(out->requested, 60);
    out->allocated = (struct fatal_trace){.thread = 17, .count = 2, .pcs = {0x400010, 0x400020}};
    out->freed = (struct fatal_trace){.count = 1, .pcs = {0x400030}};
}

static void die_recalled(void *context) {
    (void)context;
    fatal_set_locator(locate);
    if (!fatal_add_recall(recall_sizes) || !fatal_add_recall(recall_traces)) {
        _exit(9);
    }
    fatal(FATAL_DOUBLE_FREE, &sample);
}

static void records_are_told(void **state) {
    (void)state;
    struct child c;
    child_run(&c, die_recalled, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    assert_non_null(strstr(
        c.said, "\nfirn:   requested: 60 bytes\n"
                "firn:   allocated: by thread 17 at /usr/bin/prog+0x10 < /usr/bin/prog+0x20\n"
                "firn:   freed: at /usr/bin/prog+0x30\n"));
}

static void recall_nothing_1(const struct fatal_info *info, struct fatal_record *out) {
    (void)info;
    (void)out;
}

static void recall_nothing_2(const struct fatal_info *info, struct fatal_record *out) {
    recall_nothing_1(info, out);
}

static void recall_nothing_3(const struct fatal_info *info, struct fatal_record *out) {
    recall_nothing_1(info, out);
}

static void add_too_many(void *context) {
    (void)context;
    bool fits = fatal_add_recall(recall_sizes) && fatal_add_recall(recall_traces) &&
                fatal_add_recall(recall_nothing_1) && fatal_add_recall(recall_nothing_2);
    _exit(fits && fatal_add_recall(recall_sizes) && !fatal_add_recall(recall_nothing_3) ? 7 : 8);
}

static void records_have_bounded_sources(void **state) {
    (void)state;
    struct child c;
    child_run(&c, add_too_many, NULL);
    assert_true(child_exited(&c, 7));
}

static void die_large(void *context) {
    (void)context;
    struct fatal_info info = {.api = "operator delete",
                              .address = 0x10,
                              .class_bytes = FATAL_CLASS_LARGE,
                              .size = 123,
                              .found = "x"};
    fatal(FATAL_SIZE_MISMATCH, &info);
}

static void die_classless(void *context) {
    (void)context;
    struct fatal_info info = {
        .api = "realloc", .class_bytes = FATAL_CLASS_NONE, .size = 0, .found = "y"};
    fatal(FATAL_FOREIGN_POINTER, &info);
}

static void special_values(void **state) {
    (void)state;
    check_first_line(die_large, NULL,
                     "firn: size-mismatch: operator delete(0x10): class=large size=123 found: x; "
                     "expected: the size the block was allocated with; caller=?+0x0");
    check_first_line(die_classless, NULL,
                     "firn: foreign-pointer: realloc(0x0): class=none size=0 found: y; "
                     "expected: a pointer into this heap; caller=?+0x0");
}

static void die_internally(void *context) {
    (void)context;
    int one = 1;
    FIRN_ENSURE(one == 2);
}

// P-ENSURE
static void internal_error(void **state) {
    (void)state;
    struct child c;
    static const char start[] =
        "firn: internal-error: firn(0x0): class=none size=? found: tests/unit/test_fatal.c:";
    child_run(&c, die_internally, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    assert_memory_equal(c.said, start, sizeof(start) - 1);
    assert_non_null(strstr(c.said, " not one == 2; expected: Firn's own invariants to hold; "));
}

static uintptr_t locate_forger(uintptr_t pc, char *path, size_t path_bytes) {
    snprintf(path, path_bytes, "/tmp/a\nfirn: double-free: free");
    return pc;
}

static void die_forged(void *context) {
    (void)context;
    fatal_set_locator(locate_forger);
    fatal(FATAL_DOUBLE_FREE, &sample);
}

// P-REPORT: a module's path is the program's to choose.
static void path_cannot_forge_a_line(void **state) {
    (void)state;
    check_first_line(die_forged, NULL,
                     "firn: double-free: free(0x3f2a10c0): class=64 size=? found: slot is already "
                     "free; expected: a live slot; caller=/tmp/a?firn: double-free: free+0x401169");
}

static void swallow(int number) {
    (void)number;
}

static void die_guarded(void *context) {
    sigset_t all;
    signal(SIGABRT, swallow);
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    die_plainly(context);
}

static void die_ignoring(void *context) {
    signal(SIGABRT, SIG_IGN);
    die_plainly(context);
}

// P-FATAL
static void handler_and_mask_do_not_save_it(void **state) {
    (void)state;
    struct child c;
    child_run(&c, die_guarded, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    child_run(&c, die_ignoring, NULL);
    assert_true(child_died_of(&c, SIGABRT));
}

static size_t faulty_detail(enum fatal_id id, const struct fatal_info *info, char *text, size_t n) {
    (void)text;
    (void)n;
    fatal(id, info);
}

static void die_in_detail(void *context) {
    fatal_set_detail(faulty_detail);
    die_plainly(context);
}

static void check_damaged(void (*body)(void *)) {
    static const char line[] = "\nfirn:   note: the heap is too damaged to describe the block\n";
    struct child c;
    child_run(&c, body, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    assert_memory_equal(c.said, "firn: double-free: free(", 24);
    assert_non_null(strstr(c.said, line));
    assert_non_null(strstr(c.said, "\nfirn:   hint: "));
    assert_null(strstr(strchr(c.said, '\n'), "double-free"));
}

static size_t crashing_detail(enum fatal_id id, const struct fatal_info *info, char *text,
                              size_t n) {
    (void)id;
    (void)info;
    memset(text, 'x', n - 1);
    raise(SIGSEGV);
    return n - 1;
}

static void die_crashing(void *context) {
    fatal_set_detail(crashing_detail);
    die_plainly(context);
}

// Reporting that fails leaves what is known, and ends the process.
static void reporting_may_fail(void **state) {
    (void)state;
    check_damaged(die_in_detail);
    check_damaged(die_crashing);
}

static void tell(const struct firn_report *report) {
    dprintf(2, "handler: %s %s %lx %zu %zu %s; %s; %s+%lx %d\n", report->word, report->function,
            (unsigned long)report->address, report->class_bytes, report->size, report->found,
            report->expected, report->module, (unsigned long)report->module_offset,
            report->thread == (int)gettid() && report->text_bytes == strlen(report->text) &&
                report->struct_bytes == sizeof(*report));
}

static void die_telling(void *context) {
    fatal_set_handler(tell);
    die_located(context);
}

static void die_untold(void *context) {
    fatal_set_handler(tell);
    fatal_set_handler(NULL);
    die_located(context);
}

static void handler_is_told(void **state) {
    (void)state;
    struct child c;
    child_run(&c, die_telling, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    const char *said = strstr(c.said, "handler:");
    assert_non_null(said);
    assert_true(said > strstr(c.said, "hint:"));
    assert_string_equal(said, "handler: double-free free 3f2a10c0 64 18446744073709551615 slot is "
                              "already free; a live slot; /usr/bin/prog+1169 1\n");
    child_run(&c, die_untold, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    assert_null(strstr(c.said, "handler:"));
}

static void misuse_again(const struct firn_report *report) {
    (void)report;
    dprintf(2, "again\n");
    fatal(FATAL_DOUBLE_FREE, &sample);
}

static void fault(const struct firn_report *report) {
    (void)report;
    dprintf(2, "again\n");
    raise(SIGBUS);
}

static sigjmp_buf way_out;
static void go_on(int number) {
    (void)number;
    siglongjmp(way_out, 1);
}

// A program whose own handler would go on after a fault.
static void die_with(void *context) {
    void (*handler)(const struct firn_report *);
    memcpy(&handler, context, sizeof(handler));
    signal(SIGSEGV, go_on);
    signal(SIGBUS, go_on);
    if (sigsetjmp(way_out, 1) != 0) {
        _exit(55);
    }
    fatal_set_handler(handler);
    die_plainly(NULL);
}

static void handler_cannot_loop(void **state) {
    (void)state;
    void (*const handlers[])(const struct firn_report *) = {misuse_again, fault};
    for (size_t i = 0; i < 2; i++) {
        struct child c;
        void (*handler)(const struct firn_report *) = handlers[i];
        child_run(&c, die_with, &handler);
        assert_true(child_died_of(&c, SIGABRT));
        char *first = strstr(c.said, "again\n");
        assert_non_null(first);
        assert_null(strstr(first + 1, "again"));
        assert_null(strstr(first, "firn: "));
    }
}

static const char *write_elsewhere(const char *text, size_t n) {
    dprintf(2, "elsewhere: %d\n", n == strlen(text));
    return NULL;
}

static const char *write_in_vain(const char *text, size_t n) {
    (void)text;
    (void)n;
    return "firn:   note: in vain\n";
}

static void die_elsewhere(void *context) {
    fatal_set_writer(write_elsewhere);
    die_plainly(context);
}

static void die_in_vain(void *context) {
    fatal_set_writer(write_in_vain);
    die_plainly(context);
}

static void writer_takes_the_report(void **state) {
    (void)state;
    struct child c;
    child_run(&c, die_elsewhere, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    assert_string_equal(c.said, "elsewhere: 1\n");
    child_run(&c, die_in_vain, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    assert_memory_equal(c.said, "firn: double-free", 17);
    assert_string_equal(strstr(c.said, "firn:   note"), "firn:   note: in vain\n");
}

static size_t long_detail(enum fatal_id id, const struct fatal_info *info, char *text, size_t n) {
    (void)id;
    (void)info;
    memset(text, 'x', n - 1);
    return n + 1000;
}

static void die_at_length(void *context) {
    fatal_set_detail(long_detail);
    die_plainly(context);
}

// What does not fit is cut at a line, and what to do is still there.
static void long_reports_keep_the_hint(void **state) {
    (void)state;
    struct child c;
    child_run(&c, die_at_length, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    assert_null(strstr(c.said, "xxx"));
    assert_non_null(strstr(c.said, "\nfirn:   hint: "));
    assert_int_equal(c.said[strlen(c.said) - 1], '\n');
}

static pthread_barrier_t barrier;

static void *die_together(void *unused) {
    (void)unused;
    pthread_barrier_wait(&barrier);
    die_plainly(NULL);
    return NULL;
}

static void die_by_four(void *context) {
    pthread_t threads[4];
    (void)context;
    pthread_barrier_init(&barrier, NULL, 4);
    for (int i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, die_together, NULL);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
}

// Four threads find something at once: one report, one death.
static void only_one_thread_reports(void **state) {
    (void)state;
    for (int round = 0; round < 20; round++) {
        struct child c;
        child_run(&c, die_by_four, NULL);
        assert_true(child_died_of(&c, SIGABRT));
        char *first = strstr(c.said, "firn: double-free");
        assert_non_null(first);
        assert_null(strstr(first + 1, "firn: double-free"));
    }
}

static void slugs(void **state) {
    (void)state;
    assert_string_equal(fatal_slug(FATAL_DOUBLE_FREE), "double-free");
    assert_string_equal(fatal_slug(FATAL_INTERNAL), "internal-error");
    for (int a = 0; a < FATAL_COUNT; a++) {
        for (int b = 0; b < a; b++) {
            assert_string_not_equal(fatal_slug((enum fatal_id)a), fatal_slug((enum fatal_id)b));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_line),
        cmocka_unit_test(further_lines_are_marked),
        cmocka_unit_test(thread_and_place_are_named),
        cmocka_unit_test(records_are_told),
        cmocka_unit_test(records_have_bounded_sources),
        cmocka_unit_test(handler_is_told),
        cmocka_unit_test(handler_cannot_loop),
        cmocka_unit_test(writer_takes_the_report),
        cmocka_unit_test(special_values),
        cmocka_unit_test(internal_error),
        cmocka_unit_test(path_cannot_forge_a_line),
        cmocka_unit_test(handler_and_mask_do_not_save_it),
        cmocka_unit_test(reporting_may_fail),
        cmocka_unit_test(long_reports_keep_the_hint),
        cmocka_unit_test(only_one_thread_reports),
        cmocka_unit_test(slugs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
