// The heap at the end of what a limit allows: requests are refused with ENOMEM however often they
// are repeated, blocks keep their content, and what is freed can be had again.
// firn-test: levels=2,3 timeout=1800
#include "src/heap/heap.h"

#include "src/os/caps.h"
#include "tests/support/child.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)

enum { SITE = 0x1000, REFUSALS = 500 };

struct limit {
    __rlimit_resource_t resource;
    size_t size;
    uint32_t caps;
};

// A block begins with a link to the one before it; the rest of it is what is tested.
struct block {
    struct block *next;
    size_t size;
};

static void need_at(bool condition, const char *what, int line) {
    if (!condition) {
        dprintf(STDERR_FILENO, "line %d: %s", line, what);
        _exit(1);
    }
}
#define NEED(condition) need_at((condition), #condition, __LINE__)

// Allocates until nothing is left, and then some more. Returns the bytes that could be had.
static size_t exhaust(struct block **list, size_t size) {
    size_t bytes = 0;
    for (unsigned refusals = 0; refusals < REFUSALS;) {
        errno = 0;
        struct block *b = heap_alloc(size, SITE);
        if (b == NULL) {
            NEED(errno == ENOMEM);
            refusals++;
            continue;
        }
        b->next = *list;
        b->size = size;
        ((unsigned char *)b)[size - 1] = (unsigned char)size;
        *list = b;
        bytes += size;
        NEED(bytes < 1024 * MIB);
    }
    return bytes;
}

static void release(struct block **list) {
    while (*list != NULL) {
        struct block *b = *list;
        NEED(((unsigned char *)b)[b->size - 1] == (unsigned char)b->size);
        *list = b->next;
        heap_free(b, SITE);
    }
}

static void live(void *context) {
    const struct limit *l = context;
    const struct rlimit limit = {128 * MIB, 128 * MIB};
    struct block *list = NULL;
    char text[16];
    snprintf(text, sizeof(text), "%x", (unsigned)l->caps);
    setenv("FIRN_TEST_CAPS", text, 1);
    NEED(setrlimit(l->resource, &limit) == 0);
    size_t first = exhaust(&list, l->size);
    NEED(first >= 48 * MIB);
    release(&list);
    NEED(exhaust(&list, l->size) >= first / 10 * 9);
    release(&list);
    // And, once it is given back, for requests of other sizes. Small classes keep the addresses they
    // have, and what is committed there counts: only large blocks are exchanged for others.
    if (l->size > 32768) {
        (void)heap_trim();
        NEED(exhaust(&list, 512) >= first / 2);
        release(&list);
    }
}

static void check(__rlimit_resource_t resource, uint32_t caps) {
    static const size_t sizes[] = {64, 1000, 8192, 100000, 3 * MIB};
    // Each size with each limit, and each with markers and without, unless all of both are wanted.
    unsigned step = test_is_thorough() ? 1 : 2;
    unsigned first = step == 2 && (resource == RLIMIT_AS) == (caps == CAP_ALL) ? 1 : 0;
    for (unsigned i = first; i < sizeof(sizes) / sizeof(sizes[0]); i += step) {
        struct limit l = {resource, sizes[i], caps};
        struct child c;
        child_run(&c, live, &l);
        if (!child_exited(&c, 0)) {
            fail_msg("size %zu, caps %x, status %x: %s", l.size, (unsigned)caps, (unsigned)c.status,
                     c.said);
        }
    }
}

static void address_space(void **state) {
    (void)state;
    check(RLIMIT_AS, CAP_ALL);
    check(RLIMIT_AS, CAP_ALL & ~(uint32_t)CAP_GUARD_MARKER);
}

static void data(void **state) {
    (void)state;
    check(RLIMIT_DATA, CAP_ALL);
    check(RLIMIT_DATA, CAP_ALL & ~(uint32_t)CAP_GUARD_MARKER);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(address_space),
        cmocka_unit_test(data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
