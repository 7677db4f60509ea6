// Pages taken away and brought back: threads that wait, system calls, writes noticed, forks announced.
// firn-test: share=2
#include "src/os/missing.h"

#include "src/base/compiler.h"
#include "src/base/fatal.h"
#include "src/os/caps.h"
#include "tests/support/child.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGES = 512 };

static char *heap, *area;

static uintptr_t page(unsigned i) {
    return (uintptr_t)heap + (uintptr_t)i * FIRN_PAGE;
}

static uintptr_t slot(unsigned i) {
    return (uintptr_t)area + (uintptr_t)i * FIRN_PAGE;
}

static void *map(void) {
    void *p =
        mmap(NULL, PAGES * FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    madvise(p, PAGES * FIRN_PAGE, MADV_NOHUGEPAGE);
    return p;
}

static int start(void **state) {
    (void)state;
    caps_probe(~0u);
    heap = map();
    area = map();
    const char *why = missing_open(FAULT_EVENT);
    if (why != NULL) {
        print_message("%s\n", why);
        return 0;
    }
    memset(heap, 7, 100 * FIRN_PAGE);
    bool is_ready = missing_register(page(0), PAGES * FIRN_PAGE, false) &&
                    missing_register(slot(0), PAGES * FIRN_PAGE, true);
    return is_ready ? 0 : 1;
}

static void need(void) {
    if (!missing_sees_forks()) {
        skip();
    }
}

static void *touch(void *at) {
    return (void *)(uintptr_t) * (volatile unsigned char *)at;
}

// What the thread that thaws does, for one touch.
static struct missing_event next_event(void) {
    struct missing_event e;
    do {
        (void)missing_wait(-1, 0);
        e = missing_read(MISSING_SELF);
    } while (e.kind == MISSING_NOTHING);
    return e;
}

static void take_away(unsigned first, unsigned n) {
    size_t moved;
    assert_int_equal(missing_move(page(first), slot(first), n * FIRN_PAGE, &moved), MISSING_DONE);
    assert_int_equal(moved, n * FIRN_PAGE);
}

static void test_moved_away_and_back(void **state) {
    (void)state;
    pthread_t thread;
    void *seen;
    size_t moved;
    need();
    take_away(0, 4);
    assert_int_equal(*(char *)slot(2), 7);
    pthread_create(&thread, NULL, touch, (void *)(page(2) + 5));
    struct missing_event e = next_event();
    assert_int_equal(e.kind, MISSING_FAULT);
    assert_int_equal(e.address, page(2));
    assert_int_equal(missing_move(slot(2), page(2), FIRN_PAGE, &moved), MISSING_DONE);
    pthread_join(thread, &seen);
    assert_int_equal((uintptr_t)seen, 7);
    // Onto a page that is there, and from where there is none.
    assert_int_equal(missing_move(slot(3), page(2), FIRN_PAGE, &moved), MISSING_THERE);
    assert_int_equal(missing_move(slot(2), page(1), FIRN_PAGE, &moved), MISSING_NOWHERE);
    assert_int_equal(moved, 0);
    assert_int_equal(missing_move(slot(0), page(0), 2 * FIRN_PAGE, &moved), MISSING_DONE);
    assert_int_equal(missing_move(slot(3), page(3), FIRN_PAGE, &moved), MISSING_DONE);
}

static atomic_bool is_over;

// Everything it wrote is there.
static void *count_up(void *at) {
    volatile uint64_t *p = at;
    for (uint64_t n = 1; !atomic_load(&is_over); n++) {
        *p = n;
        if (*p != n) {
            return at;
        }
    }
    return NULL;
}

// A page that is taken away again the moment it is back, while its thread is on its way to it. (Linux 6.18 then moves it,
// at times, and says that there is one already.)
static void test_taken_away_while_it_is_touched(void **state) {
    (void)state;
    enum { ROUNDS = 20000 };
    static char copy[FIRN_PAGE];
    pthread_t thread;
    void *wrong;
    size_t moved;
    need();
    atomic_store(&is_over, false);
    pthread_create(&thread, NULL, count_up, (void *)page(60));
    struct missing_run run;
    for (unsigned i = 0; i < ROUNDS; i++) {
        (void)missing_scan(page(60), FIRN_PAGE, &run, 1);
        if (missing_move(page(60), slot(60), FIRN_PAGE, &moved) == MISSING_DONE) {
            memcpy(copy, (const void *)slot(60), FIRN_PAGE);
            madvise((void *)slot(60), FIRN_PAGE, MADV_DONTNEED);
            while (i % 2 == 0 && missing_read(MISSING_SELF).kind == MISSING_NOTHING) {
            }
            assert_int_equal(missing_fill(MISSING_SELF, page(60), copy), MISSING_DONE);
        }
        // Told of before, or of what is there again.
        while (missing_read(MISSING_SELF).kind == MISSING_FAULT) {
            assert_true(missing_is_there(page(60)));
            missing_wake(MISSING_SELF, page(60));
        }
    }
    atomic_store(&is_over, true);
    missing_wake(MISSING_SELF, page(60));
    pthread_join(thread, &wrong);
    assert_null(wrong);
}

static void test_filled(void **state) {
    (void)state;
    static _Alignas(FIRN_PAGE) char content[FIRN_PAGE];
    pthread_t thread;
    void *seen;
    need();
    take_away(10, 4);
    memset(content, 9, sizeof content);
    pthread_create(&thread, NULL, touch, (void *)page(10));
    assert_int_equal(next_event().address, page(10));
    assert_int_equal(missing_fill(MISSING_SELF, page(10), content), MISSING_DONE);
    pthread_join(thread, &seen);
    assert_int_equal((uintptr_t)seen, 9);
    assert_int_equal(missing_fill(MISSING_SELF, page(10), content), MISSING_THERE);
    pthread_create(&thread, NULL, touch, (void *)page(11));
    assert_int_equal(next_event().address, page(11));
    // It stops where there is a page.
    assert_int_equal(missing_fill_zero(MISSING_SELF, page(11), 4 * FIRN_PAGE), MISSING_DONE);
    pthread_join(thread, &seen);
    assert_int_equal((uintptr_t)seen, 0);
    assert_int_equal(*(char *)page(13), 0);
    assert_int_equal(*(char *)page(14), 7);
}

static void *write_from(void *at) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    ssize_t n = write(ends[1], at, 10);
    close(ends[0]);
    close(ends[1]);
    return (void *)n;
}

static void test_system_calls_wait(void **state) {
    (void)state;
    pthread_t thread;
    void *result;
    size_t moved;
    need();
    take_away(20, 1);
    pthread_create(&thread, NULL, write_from, (void *)page(20));
    assert_int_equal(next_event().address, page(20));
    assert_int_equal(missing_move(slot(20), page(20), FIRN_PAGE, &moved), MISSING_DONE);
    pthread_join(thread, &result);
    assert_int_equal((intptr_t)result, 10);
}

static void test_writes_are_noticed(void **state) {
    (void)state;
    struct missing_run runs[PAGES];
    need();
    (void)missing_scan(page(30), 10 * FIRN_PAGE, runs, PAGES);
    assert_int_equal(missing_scan(page(30), 10 * FIRN_PAGE, runs, PAGES), 1);
    assert_true(!runs[0].is_written && runs[0].is_plain);
    assert_true(runs[0].start == page(30) && runs[0].end == page(40));
    *(volatile char *)page(33) = 1;
    (void)*(volatile char *)page(35);
    assert_int_equal(missing_scan(page(30), 10 * FIRN_PAGE, runs, PAGES), 3);
    assert_true(runs[1].is_written && runs[1].start == page(33) && runs[1].end == page(34));
    // Where nothing is, nothing is said.
    assert_int_equal(missing_scan(page(200), 10 * FIRN_PAGE, runs, PAGES), 0);
}

static void *fork_and_wait(void *unused) {
    (void)unused;
    int status = -1;
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
    if (pid == 0) {
        _exit(*(volatile char *)page(60) == 11 && *(volatile char *)page(61) == 0 ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    return (void *)(intptr_t)status;
}

static void test_a_child_is_filled(void **state) {
    (void)state;
    static _Alignas(FIRN_PAGE) char content[FIRN_PAGE];
    pthread_t thread;
    void *result;
    size_t moved;
    need();
    take_away(60, 2);
    memset(content, 11, sizeof content);
    pthread_create(&thread, NULL, fork_and_wait, NULL);
    (void)missing_wait(-1, 0);
    // Until the report is read nothing is brought back.
    assert_int_equal(missing_fill(MISSING_SELF, page(60), content), MISSING_AGAIN);
    assert_int_equal(missing_move(slot(60), page(60), FIRN_PAGE, &moved), MISSING_AGAIN);
    struct missing_event e = missing_read(MISSING_SELF);
    assert_int_equal(e.kind, MISSING_FORK);
    assert_int_equal(missing_fill(e.child, page(60), content), MISSING_DONE);
    assert_int_equal(missing_fill_zero(e.child, page(61), FIRN_PAGE), MISSING_DONE);
    missing_close_child(e.child);
    pthread_join(thread, &result);
    assert_int_equal((intptr_t)result, 0);
    // What the child had a share of does not move until it is written to.
    assert_int_equal(missing_move(page(70), slot(70), FIRN_PAGE, &moved), MISSING_BUSY);
    *(volatile char *)page(70) = 3;
    assert_int_equal(missing_move(page(70), slot(70), FIRN_PAGE, &moved), MISSING_DONE);
    assert_int_equal(missing_move(slot(70), page(70), FIRN_PAGE, &moved), MISSING_DONE);
}

static void *isolate(void *unused) {
    struct stat st;
    (void)unused;
    bool is_isolated = missing_isolate();
    bool is_empty = fstat(0, &st) != 0 && fstat(1, &st) != 0 && fstat(2, &st) != 0;
    return (void *)(uintptr_t)(is_isolated && is_empty);
}

static void test_a_table_of_its_own(void **state) {
    (void)state;
    struct stat st;
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, isolate, NULL);
    pthread_join(thread, &result);
    assert_int_equal((uintptr_t)result, 1);
    assert_int_equal(fstat(1, &st), 0);
}

static void *report(void *unused) {
    (void)unused;
    if (missing_isolate()) {
        fatal_set_opener(missing_open_error);
        FIRN_ENSURE(unused != NULL);
    }
    return NULL;
}

static void fail_in_a_thread(void *unused) {
    pthread_t thread;
    (void)unused;
    pthread_create(&thread, NULL, report, NULL);
    pthread_join(thread, NULL);
}

static void test_reports_are_seen(void **state) {
    (void)state;
    struct child c;
    child_run(&c, fail_in_a_thread, NULL);
    assert_true(child_died_of(&c, SIGABRT));
    assert_non_null(strstr(c.said, "firn: internal-error: firn("));
}

static void test_masked_it_is_refused(void **state) {
    (void)state;
    missing_close();
    caps_probe(~(uint32_t)CAP_FAULT_EVENT);
    assert_string_equal(missing_open(FAULT_EVENT),
                        "no userfaultfd that serves system calls: that takes CAP_SYS_PTRACE");
    caps_probe(~0u);
}

static void must(bool is_so, int line) {
    if (!is_so) {
        fprintf(stderr, "line %d\n", line);
        _exit(1);
    }
}

// cold_store=swap: writes are told of, and a touch of what is not there is nobody's business. In a child: the
// descriptor is another one.
static void open_for_writes_only(void) {
    struct missing_run runs[8];
    missing_close();
    heap = map();
    must(missing_open_writes() == NULL, __LINE__);
    must(missing_serves_calls() && !missing_sees_forks(), __LINE__);
    must(missing_register(page(0), PAGES * FIRN_PAGE, false), __LINE__);
    memset(heap, 7, 4 * FIRN_PAGE); // nobody is asked
    must(missing_scan(page(0), PAGES * FIRN_PAGE, runs, 8) == 1, __LINE__);
    must(runs[0].is_there && runs[0].is_written && runs[0].end == page(4), __LINE__);
    (void)*(volatile unsigned char *)page(1);
    heap[2 * FIRN_PAGE] = 1;
    must(missing_scan(page(0), PAGES * FIRN_PAGE, runs, 8) == 3, __LINE__);
    must(!runs[0].is_written && runs[1].is_written && !runs[2].is_written, __LINE__);
    must(runs[1].start == page(2) && runs[1].end == page(3), __LINE__);
    must(missing_swapped(page(0), 64) == 0, __LINE__);
    must(missing_read(MISSING_SELF).kind == MISSING_NOTHING, __LINE__);
    _exit(0);
}

static void test_writes_alone(void **state) {
    (void)state;
    int status = 1;
    pid_t child = fork();
    if (child == 0) {
        open_for_writes_only();
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moved_away_and_back),
        cmocka_unit_test(test_taken_away_while_it_is_touched),
        cmocka_unit_test(test_filled),
        cmocka_unit_test(test_system_calls_wait),
        cmocka_unit_test(test_writes_are_noticed),
        cmocka_unit_test(test_a_child_is_filled),
        cmocka_unit_test(test_a_table_of_its_own),
        // Closes it: nobody has to listen to forks from here on.
        cmocka_unit_test(test_masked_it_is_refused),
        cmocka_unit_test(test_reports_are_seen),
        cmocka_unit_test(test_writes_alone),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
