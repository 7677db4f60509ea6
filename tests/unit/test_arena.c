// Descriptor memory: aligned, zero, distinct, small at first, and gone without a crash when memory is.
// firn-test: sanitize=address,thread
#include "src/meta/arena.h"

#include "src/os/caps.h"
#include "tests/support/child.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

// Each scenario runs in a child, where the arena is as it is at start.
static void in_child(void (*scenario)(void *), void *context) {
    struct child c;
    child_run(&c, scenario, context);
    assert_string_equal(c.said, "");
    assert_true(child_exited(&c, 0));
}

static void need(bool condition, int code) {
    if (!condition) {
        dprintf(STDERR_FILENO, "need %d\n", code);
        _exit(code);
    }
}

static void allocate_some(void *mask) {
    uintptr_t last = 0;
    caps_probe(*(uint32_t *)mask);
    need(arena_committed_bytes() == 0, 1);
    for (size_t align = 16; align <= FIRN_PAGE; align *= 2) {
        errno = 77;
        unsigned char *p = arena_alloc(align / 2 + 1, align);
        need(p != NULL && errno == 77, 2);
        need((uintptr_t)p % align == 0, 3);
        need((uintptr_t)p >= last, 4);
        need(memory_is_zero(p, align / 2 + 1), 5);
        memset(p, 0xff, align);
        last = (uintptr_t)p + align;
    }
    need(arena_committed_bytes() == 64 * KIB, 6);
    // Nothing in front of the first page, nothing behind the last.
    uintptr_t first = (last - 1) & ~(uintptr_t)(64 * KIB - 1);
    need(!memory_can_read(first - 1), 7);
}

static void allocates(void **state) {
    (void)state;
    uint32_t masks[] = {CAP_ALL, CAP_ALL & ~(uint32_t)CAP_RESERVE,
                        CAP_ALL & ~(uint32_t)(CAP_WIDE_ADDRESS), 0};
    unsigned count = memory_is_sanitized() ? 2 : 4; // a shadow lies in the lowest 39 bits
    for (unsigned i = 0; i < count; i++) {
        in_child(allocate_some, &masks[i]);
    }
}

static void grow(void *mask) {
    caps_probe(*(uint32_t *)mask);
    size_t total = 0;
    for (size_t i = 0; i < 20000; i++) {
        size_t bytes = 64 + i % 1000;
        unsigned char *p = arena_alloc(bytes, 64);
        need(p != NULL && memory_is_zero(p, bytes), 1);
        memset(p, 0xff, bytes);
        total += (bytes + 63) / 64 * 64;
        need(arena_committed_bytes() >= total, 2);
        need(arena_committed_bytes() <= 2 * total + 2 * MIB, 3);
    }
    need(arena_alloc(40 * MIB, 16) != NULL, 4);
}

static void grows(void **state) {
    (void)state;
    uint32_t masks[] = {CAP_ALL, CAP_ALL & ~(uint32_t)CAP_RESERVE};
    in_child(grow, &masks[0]);
    in_child(grow, &masks[1]);
}

static void ask_for_too_much(void *unused) {
    (void)unused;
    caps_probe(CAP_ALL);
    errno = 77;
    need(arena_alloc(SIZE_MAX, 16) == NULL, 1);
    need(arena_alloc(SIZE_MAX - 14, 16) == NULL, 2);
    need(arena_alloc((size_t)PTRDIFF_MAX + 1, 16) == NULL, 3);
    need(arena_alloc(PTRDIFF_MAX, FIRN_PAGE) == NULL, 4);
    need(arena_alloc((size_t)1 << 47, 16) == NULL, 5);
    need(errno == 77, 6);
    need(arena_alloc(16, 16) != NULL, 7);
}

static void refuses_too_much(void **state) {
    (void)state;
    in_child(ask_for_too_much, NULL);
}

static void exhaust(void *limit) {
    setrlimit(*(__rlimit_resource_t *)limit, &(struct rlimit){256 * MIB, 256 * MIB});
    caps_probe(CAP_ALL);
    size_t total = 0;
    errno = 77;
    while (arena_alloc(64 * KIB, FIRN_PAGE) != NULL) {
        total += 64 * KIB;
        need(total <= 256 * MIB, 1);
    }
    need(errno == 77, 2);
    need(total >= 128 * MIB, 3);
    // A little less than what was refused may still be there, and asking on does no harm.
    for (int i = 0; i < 1000; i++) {
        (void)arena_alloc(64, 64);
        need(arena_alloc(64 * KIB, FIRN_PAGE) == NULL, 4);
    }
    need(arena_committed_bytes() <= 256 * MIB, 5);
}

static void exhaustion_returns_null(void **state) {
    (void)state;
    __rlimit_resource_t limits[] = {RLIMIT_AS, RLIMIT_DATA};
    if (memory_is_sanitized()) {
        skip(); // the shadow counts
    }
    in_child(exhaust, &limits[0]);
    in_child(exhaust, &limits[1]);
}

// In a range that is only chosen, somebody else may sit down right behind us.
static void meet_a_stranger(void *unused) {
    (void)unused;
    caps_probe(CAP_ALL & ~(uint32_t)CAP_RESERVE);
    unsigned char *p = arena_alloc(16, 16);
    need(p != NULL, 1);
    uintptr_t end = ((uintptr_t)p & ~(uintptr_t)(FIRN_PAGE - 1)) + 64 * KIB;
    unsigned char *theirs =
        mmap((void *)end, FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need((uintptr_t)theirs == end, 2);
    for (int i = 0; i < 64; i++) {
        unsigned char *q = arena_alloc(4 * KIB, 64);
        need(q != NULL && memory_is_zero(q, 4 * KIB), 3);
        memset(q, 0xff, 4 * KIB);
    }
    need(memory_is_zero(theirs, FIRN_PAGE), 4);
}

static void strangers_are_left_alone(void **state) {
    (void)state;
    in_child(meet_a_stranger, NULL);
}

static void *allocate_and_mark(void *number) {
    for (int i = 0; i < 2000; i++) {
        unsigned char *p = arena_alloc(48, 16);
        if (p == NULL || !memory_is_zero(p, 48)) {
            return NULL;
        }
        memset(p, *(int *)number, 48);
    }
    return number;
}

static void allocate_in_threads(void *unused) {
    (void)unused;
    pthread_t threads[4];
    int numbers[4] = {1, 2, 3, 4};
    caps_probe(CAP_ALL);
    for (int i = 0; i < 4; i++) {
        need(pthread_create(&threads[i], NULL, allocate_and_mark, &numbers[i]) == 0, 1);
    }
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result);
        need(result == &numbers[i], 2);
    }
}

static void threads_share_it(void **state) {
    (void)state;
    in_child(allocate_in_threads, NULL);
}

static void allocate_after_fork(void *before) {
    arena_after_fork(true);
    unsigned char *p = arena_alloc(16, 16);
    need(p != NULL && p != before, 1);
}

static void forks(void **state) {
    (void)state;
    caps_probe(CAP_ALL);
    void *before = arena_alloc(16, 16);
    assert_non_null(before);
    arena_before_fork();
    in_child(allocate_after_fork, before);
    arena_after_fork(false);
    assert_non_null(arena_alloc(16, 16));
}

// Small ones share a page, which a forked child finds zero; and which is nobody else's.
static void allocate_wiped(void *context) {
    caps_probe(CAP_ALL);
    bool is_wiped[3];
    errno = 77;
    unsigned char *p = arena_alloc_wiped(1, &is_wiped[0]);
    unsigned char *q = arena_alloc_wiped(512, &is_wiped[1]);
    unsigned char *large = arena_alloc_wiped(FIRN_PAGE, &is_wiped[2]);
    unsigned char *plain = arena_alloc(64, 64);
    need(p != NULL && q != NULL && large != NULL && plain != NULL && errno == 77, 1);
    need((uintptr_t)p % FIRN_PAGE == 0 && q == p + 64, 2);
    need((uintptr_t)large % FIRN_PAGE == 0 && large != p, 3);
    need((uintptr_t)plain / FIRN_PAGE != (uintptr_t)p / FIRN_PAGE, 4);
    need(memory_is_zero(q, 512) && memory_is_zero(large, FIRN_PAGE), 5);
    need(is_wiped[0] == is_wiped[1] && is_wiped[1] == is_wiped[2], 6);
    p[0] = q[511] = large[0] = plain[0] = 1;
    if (is_wiped[0]) {
        pid_t child = fork();
        if (child == 0) {
            _exit(p[0] + q[511] + large[0] + (plain[0] == 1 ? 0 : 1));
        }
        int status = -1;
        need(waitpid(child, &status, 0) == child && status == 0, 7);
    }
    (void)context;
}

static void allocates_what_a_child_loses(void **state) {
    (void)state;
    in_child(allocate_wiped, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocates_what_a_child_loses),
        cmocka_unit_test(allocates),
        cmocka_unit_test(grows),
        cmocka_unit_test(refuses_too_much),
        cmocka_unit_test(exhaustion_returns_null),
        cmocka_unit_test(strangers_are_left_alone),
        cmocka_unit_test(threads_share_it),
        cmocka_unit_test(forks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
