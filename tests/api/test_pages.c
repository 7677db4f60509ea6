// A program that changes how pages of its own blocks are mapped, of pages that share memory with others, and of
// pages that would: it gets what it asked for, for those pages alone.
#include "tests/api/api.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#pragma weak firn_compact
size_t firn_compact(void);

enum { BLOCKS = 20000, BYTES = 200, PAGE = 4096 };

static unsigned char *blocks[BLOCKS];

static void need_at(bool condition, const char *what, int line) {
    if (!condition) {
        dprintf(STDERR_FILENO, "line %d: %s, errno %d\n", line, what, errno);
        _exit(1);
    }
}
#define NEED(condition) need_at((condition), #condition, __LINE__)

static unsigned char *page_of(const void *p) {
    return (unsigned char *)((uintptr_t)p & ~(uintptr_t)(PAGE - 1));
}

static bool is_in(const unsigned char *p, const unsigned char *page) {
    return p + BYTES > page && p < page + PAGE;
}

// Every tenth block is left, its pages merged where the kernel allows it.
static void fragment(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BYTES);
        NEED(blocks[i] != NULL);
        memset(blocks[i], (int)i | 1, BYTES);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (i % 10 != 0) {
            free(blocks[i]);
            blocks[i] = NULL;
        }
    }
    (void)firn_compact();
}

// All blocks but those on `page` hold what they held; NULL: all.
static void check(const unsigned char *page) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        for (unsigned k = 0;
             blocks[i] != NULL && !(page != NULL && is_in(blocks[i], page)) && k < BYTES; k++) {
            NEED(blocks[i][k] == (unsigned char)(i | 1));
        }
    }
}

static void let_go(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
    fragment();
    check(NULL);
}

static void read_only(void) {
    int zeros = open("/dev/zero", O_RDONLY);
    NEED(zeros >= 0);
    fragment();
    for (unsigned i = 0; i < BLOCKS; i += 500) {
        unsigned char *page = page_of(blocks[i]);
        NEED(mprotect(page, PAGE, PROT_READ) == 0);
        (void)firn_compact();
        check(NULL);
        NEED(read(zeros, page, 1) == -1 && errno == EFAULT);
        NEED(mprotect(page, PAGE, PROT_READ | PROT_WRITE) == 0);
        memset(blocks[i], (int)i | 1, BYTES);
    }
    let_go();
}

// The page's blocks read as zeros, and nobody else's.
static void dropped(void) {
    fragment();
    unsigned char *page = page_of(blocks[1000]);
    NEED(madvise(page, PAGE, MADV_DONTNEED) == 0);
    check(page);
    for (unsigned k = 0; k < PAGE; k++) {
        NEED(page[k] == 0);
    }
    (void)firn_compact();
    check(page);
}

static void locked(void) {
    fragment();
    for (unsigned i = 0; i < BLOCKS; i += 1000) {
        NEED(mlock(blocks[i], BYTES) == 0 || errno == ENOMEM || errno == EPERM);
        NEED(posix_madvise(page_of(blocks[i]), PAGE, POSIX_MADV_WILLNEED) == 0);
        (void)firn_compact();
        check(NULL);
        (void)munlock(blocks[i], BYTES);
    }
    let_go();
}

static void moved_and_back(void) {
    fragment();
    unsigned char *page = page_of(blocks[1000]);
    unsigned char before[PAGE];
    unsigned char *to = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    NEED(to != MAP_FAILED);
    for (unsigned i = 0; i < PAGE;
         i++) { // level 3 checks memcpy, and free blocks are on the page, too
        before[i] = ((volatile unsigned char *)page)[i];
    }
    NEED(mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    for (unsigned i = 0; i < BLOCKS;
         i++) { // the blocks' bytes; what else the page held is not the program's
        for (unsigned k = 0; blocks[i] != NULL && is_in(blocks[i], page) && k < BYTES; k++) {
            unsigned char *p = blocks[i] + k;
            NEED(p < page || p >= page + PAGE || to[p - page] == before[p - page]);
        }
    }
    NEED(mremap(to, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page) == page);
    (void)firn_compact();
    check(NULL);
    let_go();
}

static void run(void (*body)(void)) {
    int status = -1;
    if (firn_compact == NULL) {
        skip();
    }
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        body();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_read_only(void **state) {
    (void)state;
    run(read_only);
}

static void test_dropped(void **state) {
    (void)state;
    run(dropped);
}

static void test_locked(void **state) {
    (void)state;
    run(locked);
}

static void test_moved_and_back(void **state) {
    (void)state;
    run(moved_and_back);
}

static void test_elsewhere_as_ever(void **state) {
    (void)state;
    unsigned char *p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(mprotect(p, PAGE, PROT_READ | PROT_WRITE), 0);
    *p = 7;
    assert_int_equal(posix_madvise(p, PAGE, POSIX_MADV_DONTNEED), 0);
    assert_int_equal(*p, 7);
    assert_int_equal(madvise(p, PAGE, MADV_DONTNEED), 0);
    assert_int_equal(*p, 0);
    assert_int_equal(madvise(p, PAGE, -1), -1);
    assert_int_equal(errno, EINVAL);
    errno = 0;
    assert_int_equal(posix_madvise(p, PAGE, -1), EINVAL);
    assert_int_equal(errno, 0);
    p = mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(pkey_mprotect(p, 2 * PAGE, PROT_READ, -1), 0);
    assert_int_equal(munmap(p, 2 * PAGE), 0);
    assert_int_equal(mprotect(p, PAGE, PROT_READ), -1);
    assert_int_equal(errno, ENOMEM);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_dropped),
        cmocka_unit_test(test_locked),
        cmocka_unit_test(test_moved_and_back),
        cmocka_unit_test(test_elsewhere_as_ever),
    };
    api_require_firn("test_pages");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
