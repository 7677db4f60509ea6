// Limits that a program sets for itself while it runs: what runs with libc's malloc then, runs.
#include "tests/api/api.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

enum { SKIPPED = 77 };

static void need_at(bool condition, const char *what, int line) {
    if (!condition) {
        dprintf(STDERR_FILENO, "line %d: %s\n", line, what);
        _exit(1);
    }
}
#define NEED(condition) need_at((condition), #condition, __LINE__)

static void run(void (*body)(void)) {
    int status = -1;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL);
        signal(SIGABRT, SIG_DFL);
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED) {
        skip();
    }
    assert_int_equal(status, 0);
}

static void *allocate(void *unused) {
    for (unsigned i = 0; i < 2000; i++) {
        char *p = malloc(i * 30);
        NEED(p != NULL);
        memset(p, 1, i * 30);
        free(p);
    }
    return unused;
}

// Small and large blocks, a thread, a mapping of the program's own, a child.
static void live_within_a_gib(void) {
    static char *blocks[200];
    pthread_t thread;
    int status = -1;
    for (unsigned i = 0; i < 200; i++) {
        blocks[i] = malloc(i * 1000);
        NEED(blocks[i] != NULL);
        memset(blocks[i], (int)i, i * 1000);
    }
    void *mine = mmap(NULL, 100 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(mine != MAP_FAILED);
    NEED(pthread_create(&thread, NULL, allocate, NULL) == 0 && pthread_join(thread, NULL) == 0);
    for (unsigned i = 0; i < 3; i++) {
        char *large = malloc(500 * MIB);
        NEED(large != NULL);
        large[0] = large[500 * MIB - 1] = 1;
        free(large); // and its addresses are there for others
        void *p = mmap(NULL, 500 * MIB, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        NEED(p != MAP_FAILED && munmap(p, 500 * MIB) == 0);
    }
    pid_t child = fork();
    if (child == 0) {
        allocate(NULL);
        _exit(0);
    }
    NEED(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    errno = 0;
    NEED(malloc(3 * GIB) == NULL && errno == ENOMEM);
    for (unsigned i = 0; i < 200; i++) {
        NEED(i == 0 || (blocks[i][0] == (char)i && blocks[i][i * 1000 - 1] == (char)i));
        free(blocks[i]);
    }
}

static void limit_addresses(void) {
    struct rlimit now, limit = {GIB, RLIM_INFINITY};
    free(malloc(100));
    NEED(setrlimit(RLIMIT_AS, &limit) == 0);
    NEED(getrlimit(RLIMIT_AS, &now) == 0 && now.rlim_cur == GIB);
    live_within_a_gib();
}

static void limit_addresses_by_prlimit(void) {
    struct rlimit old, limit = {GIB, RLIM_INFINITY};
    free(malloc(100));
    NEED(prlimit(getpid(), RLIMIT_AS, &limit, &old) == 0 && old.rlim_cur == RLIM_INFINITY);
    live_within_a_gib();
}

static void an_address_limit_set_late(void **state) {
    (void)state;
    run(limit_addresses);
}

static void an_address_limit_set_by_prlimit(void **state) {
    (void)state;
    run(limit_addresses_by_prlimit);
}

// The kernel's answers, and libc's, to what makes no sense. (ASan would not let the pointer pass.)
static void wrong_arguments(void **state) {
    (void)state;
    struct rlimit limit = {GIB, GIB - 1};
    errno = 0;
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(setrlimit((__rlimit_resource_t)99, &limit), -1);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(setrlimit(RLIMIT_AS, (const struct rlimit *)8), -1);
    assert_int_equal(errno, EFAULT);
    assert_int_equal(prlimit(-5, RLIMIT_AS, NULL, &limit), -1);
    assert_int_equal(errno, ESRCH);
    assert_int_equal(mlockall(1 << 20), -1);
    assert_int_equal(errno, EINVAL);
}

// The limit counts every mapping, reserved or used. This program takes about 3 MiB with libc's malloc.
static void lock_everything(void) {
    struct rlimit limit;
    free(malloc(100));
    if ((geteuid() == 0 && setuid(65534) != 0) || getrlimit(RLIMIT_MEMLOCK, &limit) != 0 ||
        limit.rlim_max < 8 * MIB) {
        _exit(SKIPPED);
    }
    limit.rlim_cur = limit.rlim_max;
    NEED(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    NEED(mlockall(MCL_CURRENT) == 0);
    char *p = malloc(100000);
    NEED(p != NULL);
    memset(p, 1, 100000);
    free(p);
    NEED(munlockall() == 0);
}

static void everything_is_locked(void **state) {
    (void)state;
    run(lock_everything);
}

#pragma weak firn_compact
size_t firn_compact(void);

static size_t resident_bytes(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    NEED(f != NULL && fscanf(f, "%*s %ld", &pages) == 1);
    fclose(f);
    return (size_t)pages * 4096;
}

// The view of merged memory is 16 GiB of addresses, and the reservation more: locked, they would be filled in.
static void lock_merged(int first, int second) {
    enum { BLOCKS = 20000, BYTES = 200 };
    static char *blocks[BLOCKS];
    struct rlimit limit;
    if (firn_compact == NULL || getrlimit(RLIMIT_MEMLOCK, &limit) != 0 ||
        (geteuid() != 0 && limit.rlim_cur != RLIM_INFINITY)) {
        _exit(SKIPPED);
    }
    NEED(first == 0 || mlockall(first) == 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BYTES);
        NEED(blocks[i] != NULL);
        memset(blocks[i], (int)i, BYTES);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (i % 10 != 0) {
            free(blocks[i]);
        }
    }
    (void)firn_compact();
    NEED(second == 0 || mlockall(second) == 0);
    (void)firn_compact();
    NEED(allocate(NULL) == NULL);
    NEED(resident_bytes() < GIB / 2);
    for (unsigned i = 0; i < BLOCKS; i += 10) {
        for (unsigned k = 0; k < BYTES; k++) {
            NEED(blocks[i][k] == (char)i);
        }
        free(blocks[i]);
    }
}

static void lock_after_merging(void) {
    lock_merged(0, MCL_CURRENT | MCL_FUTURE);
}

static void lock_before_merging(void) {
    lock_merged(MCL_FUTURE, MCL_CURRENT);
}

static void merged_pages_are_locked(void **state) {
    (void)state;
    run(lock_after_merging);
}

static void locked_pages_are_not_merged(void **state) {
    (void)state;
    run(lock_before_merging);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_limit_set_late),
        cmocka_unit_test(an_address_limit_set_by_prlimit),
        cmocka_unit_test(wrong_arguments),
        cmocka_unit_test(everything_is_locked),
        cmocka_unit_test(merged_pages_are_locked),
        cmocka_unit_test(locked_pages_are_not_merged),
    };
    api_require_firn("limits");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
