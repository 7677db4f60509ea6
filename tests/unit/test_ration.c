// Address space that becomes scarce while the heap is in use: what is in use stays, what is reserved
// is given back, and growth finds its way around what others put there.
#include "src/heap/ration.h"

#include "src/heap/find.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/os/caps.h"
#include "src/span/large_heap.h"
#include "src/span/region.h"
#include "tests/support/memory.h"
#include "tests/support/small_case.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

enum { BLOCKS = 1500, SITE = 0x40e000, FOREIGN_MOST = 512 };

struct block {
    unsigned char *p;
    size_t size;
    unsigned char mark;
};

struct user {
    struct block blocks[BLOCKS];
    uint64_t seed;
};

static struct user first, others[3];
static uintptr_t foreign[FOREIGN_MOST];
static unsigned foreign_count;

static size_t draw_size(struct user *u) {
    switch (small_draw(&u->seed, 20)) {
    case 0:
        return small_draw(&u->seed, 3 * MIB);
    case 1:
    case 2:
        return small_draw(&u->seed, 100000);
    default:
        return small_draw(&u->seed, 2000);
    }
}

static void put(struct user *u, struct block *b) {
    b->size = draw_size(u);
    b->mark = (unsigned char)(1 + small_draw(&u->seed, 255));
    b->p = heap_alloc(b->size, SITE);
    NEED(b->p != NULL);
    memset(b->p, b->mark, b->size < 4096 ? b->size : 4096);
}

static void discard(struct block *b) {
    for (size_t i = 0; i < b->size && i < 4096; i++) {
        NEED(b->p[i] == b->mark);
    }
    heap_free(b->p, SITE);
    b->p = NULL;
}

static void work(struct user *u, unsigned steps) {
    for (unsigned i = 0; i < steps; i++) {
        struct block *b = &u->blocks[small_draw(&u->seed, BLOCKS)];
        if (b->p == NULL) {
            put(u, b);
        } else {
            discard(b);
        }
    }
}

static size_t mapped_bytes(void) {
    size_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    NEED(f != NULL && fscanf(f, "%zu", &pages) == 1);
    fclose(f);
    return pages * FIRN_PAGE;
}

// What was in reserve is anybody's now.
static void settle_at(uintptr_t at) {
    if (foreign_count < FOREIGN_MOST) {
        void *p = mmap((void *)at, FIRN_PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        NEED(p == (void *)at);
        memset(p, 0x3c, FIRN_PAGE);
        foreign[foreign_count++] = at;
    }
}

// Right behind everything that grows.
static void settle_everywhere(void) {
    for (unsigned cell = 0; cell < CELLS; cell++) {
        uintptr_t limit = atomic_load(&firn_cell_limits[cell]);
        if (limit != 0) {
            settle_at(limit);
        }
    }
    for (unsigned i = 0; i < firn_large.space.count; i++) {
        settle_at(firn_large.space.tracts[i].frontier);
    }
}

static void check_foreign(void) {
    for (unsigned i = 0; i < foreign_count; i++) {
        const unsigned char *p = (const unsigned char *)foreign[i];
        NEED(p[0] == 0x3c && memcmp(p, p + 1, FIRN_PAGE - 1) == 0);
        NEED(find_is_outside(p));
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        NEED(first.blocks[i].p == NULL || !find_is_outside(first.blocks[i].p));
    }
}

struct setting {
    const char *name;
    const char *caps;
    bool is_data_limited;
};

static void start(const struct setting *s) {
    struct rlimit limit = {4 * GIB, 4 * GIB};
    setenv("FIRN_TEST_CAPS", s->caps, 1);
    NEED(!s->is_data_limited || setrlimit(RLIMIT_DATA, &limit) == 0);
    life_start();
    NEED(life_has_started());
    first.seed = 5;
}

static void ration_amid_work(void *context) {
    start(context);
    work(&first, 6000);
    (void)heap_trim();
    work(&first, 500);
    errno = 77;
    ration_addresses();
    NEED(errno == 77 && FIRN_ROOT.data.is_sparse && FIRN_ROOT.meta.is_sparse);
    NEED(mapped_bytes() < 2 * GIB);
    ration_addresses(); // nothing left to do
    small_check();
    settle_everywhere();
    work(&first, 12000);
    (void)heap_trim();
    small_check();
    // An object that no range has room for.
    void *large = heap_alloc(8 * GIB, SITE);
    NEED(large != NULL || ((struct setting *)context)->is_data_limited);
    heap_free(large, SITE);
    NEED(mapped_bytes() < 3 * GIB);
    pid_t child = fork();
    work(&first, 3000);
    check_foreign();
    int status = 0;
    if (child == 0) {
        _exit(0);
    }
    NEED(waitpid(child, &status, 0) == child && status == 0);
}

static void addresses_are_given_back(void **state) {
    (void)state;
    static struct setting settings[] = {
        {"plain", "ffff", false},       {"no markers", "fffe", false},
        {"limited data", "ffff", true}, {"sparse from the start", "ffef", false},
        {"39 bits", "ffdf", false},
    };
    if (memory_is_sanitized()) {
        skip(); // its shadow is larger than what is given back
    }
    for (unsigned i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        if (!small_run(ration_amid_work, &settings[i])) {
            fail_msg("%s", settings[i].name);
        }
    }
}

static void *run_user(void *user) {
    work(user, 30000);
    return NULL;
}

static void ration_with_threads(void *unused) {
    (void)unused;
    pthread_t threads[3];
    static const struct setting plain = {"", "ffff", false};
    start(&plain);
    for (unsigned i = 0; i < 3; i++) {
        others[i].seed = 100 + i;
        NEED(pthread_create(&threads[i], NULL, run_user, &others[i]) == 0);
    }
    work(&first, 2000);
    ration_addresses();
    work(&first, 2000);
    for (unsigned i = 0; i < 3; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    NEED(FIRN_ROOT.data.is_sparse);
    small_check();
}

static void other_threads_go_on(void **state) {
    (void)state;
    assert_true(small_run(ration_with_threads, NULL));
}

static void ration_before_start(void *unused) {
    (void)unused;
    ration_addresses();
    NEED(!life_has_started());
    void *p = heap_alloc(100, SITE);
    NEED(p != NULL);
    heap_free(p, SITE);
}

static void before_the_start_it_does_nothing(void **state) {
    (void)state;
    assert_true(small_run(ration_before_start, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_given_back),
        cmocka_unit_test(other_threads_go_on),
        cmocka_unit_test(before_the_start_it_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
