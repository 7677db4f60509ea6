// Large blocks in the cold tier: what is idle goes and comes back as it was, whatever is done to the block
// meanwhile: grown, cut, moved, freed, used again, shared with a child, made read-only.
// firn-test: levels=0,2,3 timeout=300 sanitize=none
#include "src/cold/cold.h"

#include "src/cold/table.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/meta/page_state.h"
#include "src/span/large_heap.h"
#include "tests/support/cold_case.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 24 };
static const uintptr_t site = 0x409000;

struct block {
    unsigned char *p;
    size_t bytes;
    unsigned seed;
};
static struct block blocks[BLOCKS];

static unsigned char byte_of(unsigned seed, size_t i) {
    static const char text[] = "the quick brown fox jumps over the lazy dog ";
    return (unsigned char)((unsigned char)text[(seed + i) % 44] ^ (seed + i / 4096) % 4);
}

static void fill_from(struct block *b, size_t from) {
    for (size_t i = from; i < b->bytes; i++) {
        b->p[i] = byte_of(b->seed, i);
    }
}

static bool is_right(const struct block *b) {
    for (size_t i = 0; i < b->bytes; i++) {
        if (b->p[i] != byte_of(b->seed, i)) {
            return false;
        }
    }
    return true;
}

static bool are_zeros(const unsigned char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != 0) {
            return false;
        }
    }
    return true;
}

static size_t bytes_of(unsigned i) {
    static const size_t sizes[] = {40000, 70000, 270000, 300001, 1 << 20, 3 << 20};
    return sizes[i % (sizeof sizes / sizeof *sizes)];
}

static void make(unsigned i, size_t bytes) {
    blocks[i] = (struct block){heap_alloc(bytes, site), bytes, 7 * i + (unsigned)bytes};
    assert_non_null(blocks[i].p);
    fill_from(&blocks[i], 0);
}

static void allocate(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        make(i, bytes_of(i));
    }
}

static void release(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(blocks[i].p, site);
    }
    (void)heap_trim();
    large_check();
}

static bool all_right(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (!is_right(&blocks[i])) {
            return false;
        }
    }
    return true;
}

static size_t frozen_pages(const struct block *b) {
    size_t n = 0;
    for (size_t at = 0; at < b->bytes; at += FIRN_PAGE) {
        n += page_state_get((uintptr_t)b->p + at) == PAGE_FROZEN;
    }
    return n;
}

static bool is_mostly_frozen(void) {
    size_t all = 0, frozen = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        all += blocks[i].bytes / FIRN_PAGE;
        frozen += frozen_pages(&blocks[i]);
    }
    return frozen >= all * 8 / 10;
}

static void test_idle_blocks_go_and_come_back(void **state) {
    (void)state;
    int ends[2];
    unsigned char text[4000];
    allocate();
    cold_case_freeze(is_mostly_frozen);
    assert_true(cold_case_stats().stored_bytes < (size_t)12 << 20);
    assert_int_equal(pipe(ends), 0);
    for (unsigned i = 0; i < BLOCKS; i++) { // the kernel reads and writes what is away
        struct block *b = &blocks[i];
        size_t at = b->bytes / 2;
        assert_int_equal(write(ends[1], b->p + at, sizeof text), sizeof text);
        assert_int_equal(read(ends[0], b->p + 5000, sizeof text), sizeof text);
        for (size_t k = 0; k < sizeof text; k++) {
            assert_int_equal(b->p[5000 + k],
                             byte_of(b->seed, at < 5000 && at + k >= 5000 ? 0 : at + k));
            b->p[5000 + k] = byte_of(b->seed, 5000 + k);
        }
    }
    close(ends[0]);
    close(ends[1]);
    assert_true(all_right());
    release();
}

// Growth in place, by a move of pages, by a copy; cut to a piece; cut to a small block.
static void test_frozen_blocks_are_resized(void **state) {
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        allocate();
        cold_case_freeze(is_mostly_frozen);
        for (unsigned i = 0; i < BLOCKS; i++) {
            struct block *b = &blocks[i];
            size_t old = b->bytes;
            size_t bytes = i % 4 == 0   ? old * 3
                           : i % 4 == 1 ? old + 8 * FIRN_PAGE
                           : i % 4 == 2 ? old / 2
                                        : 20000;
            b->p = heap_resize(b->p, bytes, site);
            assert_non_null(b->p);
            b->bytes = bytes < old ? bytes : old;
            assert_true(is_right(b));
            b->bytes = bytes;
            fill_from(b, old);
            large_check();
        }
        assert_true(all_right());
        if (round == 1) { // what was resized goes, too
            for (unsigned ms = 0; ms < 10 * COLD_CASE_AFTER_MS; ms += 20) {
                cold_case_sleep(20);
            }
            assert_true(all_right());
        }
        release();
    }
}

// Freed unread; what is allocated there next is zeros where that was asked for, and whole in any case.
static void test_freed_while_frozen(void **state) {
    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        allocate();
        cold_case_freeze(is_mostly_frozen);
        uint64_t thaws = cold_case_stats().thaws;
        if (round == 0) { // from the cache of freed blocks
            for (unsigned i = 0; i < BLOCKS; i++) {
                heap_free(blocks[i].p, site);
            }
        } else {
            release();
        }
        assert_true(cold_case_stats().thaws - thaws < 100);
        for (unsigned i = 0; i < BLOCKS; i++) {
            size_t bytes = bytes_of(i + round);
            unsigned char *p = heap_alloc_zeroed(bytes, site);
            assert_true(p != NULL && are_zeros(p, bytes));
            blocks[i] = (struct block){p, bytes, i};
            fill_from(&blocks[i], 0);
        }
        assert_true(all_right());
        release();
    }
    for (unsigned ms = 0; cold_case_stats().away > 64; ms += 20) {
        assert_true(ms < COLD_CASE_WAIT_MS);
        cold_case_sleep(20);
    }
}

static pid_t clone_raw(void) {
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

// A child goes on with what its parent had, at once: grows it, frees it, uses it again.
static void child_works(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        struct block *b = &blocks[i];
        if (i % 3 == 0) {
            size_t old = b->bytes;
            b->p = heap_resize(b->p, 2 * old, site);
            if (b->p == NULL || !is_right(b)) {
                _exit(2);
            }
        } else if (i % 3 == 1) {
            heap_free(b->p, site);
            b->p = heap_alloc_zeroed(b->bytes, site);
            if (b->p == NULL || !are_zeros(b->p, b->bytes)) {
                _exit(3);
            }
            fill_from(b, 0);
        }
    }
    (void)heap_trim();
    for (unsigned i = 1; i < BLOCKS; i += 3) {
        heap_free(blocks[i].p, site);
    }
    (void)heap_trim();
    for (unsigned i = 1; i < BLOCKS; i += 3) {
        blocks[i].p = heap_alloc_zeroed(blocks[i].bytes, site);
        if (blocks[i].p == NULL || !are_zeros(blocks[i].p, blocks[i].bytes)) {
            _exit(4);
        }
        fill_from(&blocks[i], 0);
    }
    _exit(all_right() ? 0 : 5);
}

static void test_children(void **state) {
    (void)state;
    for (unsigned way = 0; way < 3; way++) {
        allocate();
        cold_case_freeze(is_mostly_frozen);
        pid_t pid = way == 1 ? clone_raw() : fork();
        assert_true(pid >= 0);
        if (pid == 0 && way != 1) {
            child_works();
        } else if (pid == 0) {
            _exit(all_right() ? 0 : 1);
        }
        for (unsigned i = 0; i < BLOCKS; i++) { // the parent changes it all, and frees some
            memset(blocks[i].p, 0x55, blocks[i].bytes);
            if (way == 2 && i % 2 == 0) {
                heap_free(blocks[i].p, site);
                make(i, bytes_of(i));
            }
        }
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        release();
    }
}

static void test_hints(void **state) {
    (void)state;
    if (cold_case_stats().reason != NULL) {
        skip();
    }
    cold_choose(true, 60000, 0, 0);
    allocate();
    for (unsigned ms = 0; !is_mostly_frozen(); ms += 20) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            cold_hint_cold((uintptr_t)blocks[i].p, blocks[i].bytes);
        }
        assert_true(ms < COLD_CASE_WAIT_MS);
        cold_case_sleep(20);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        cold_hint_hot((uintptr_t)blocks[i].p, blocks[i].bytes);
        assert_int_equal(frozen_pages(&blocks[i]), 0);
    }
    assert_true(cold_exclude((uintptr_t)blocks[5].p, blocks[5].bytes));
    for (unsigned i = 0; i < BLOCKS; i++) {
        cold_hint_cold((uintptr_t)blocks[i].p, blocks[i].bytes);
    }
    cold_case_sleep(200);
    assert_int_equal(frozen_pages(&blocks[5]), 0);
    cold_thaw_all();
    for (unsigned i = 0; i < BLOCKS; i++) {
        assert_int_equal(frozen_pages(&blocks[i]), 0);
    }
    assert_true(all_right());
    release();
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
}

// Idle pages that were shared with a child are unshared before they go: not those that nobody may write to.
static void test_what_is_read_only_is_left_alone(void **state) {
    (void)state;
    allocate();
    cold_case_sleep(COLD_CASE_AFTER_MS);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    for (unsigned i = 0; i < BLOCKS; i += 2) {
        assert_int_equal(
            mprotect(blocks[i].p, blocks[i].bytes & ~(size_t)(FIRN_PAGE - 1), PROT_READ), 0);
    }
    cold_case_sleep(6 * COLD_CASE_AFTER_MS);
    assert_true(all_right());
    for (unsigned i = 0; i < BLOCKS; i += 2) {
        assert_int_equal(mprotect(blocks[i].p, blocks[i].bytes & ~(size_t)(FIRN_PAGE - 1),
                                  PROT_READ | PROT_WRITE),
                         0);
    }
    release();
}

// ---- all at once --------------------------------------------------------------------------------

static atomic_bool is_over;
static atomic_uint wrong;

static unsigned draw(unsigned *seed) {
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16;
}

static void step(struct block *b, unsigned *seed) {
    if (b->p != NULL && !is_right(b)) {
        atomic_fetch_add(&wrong, 1);
    }
    size_t bytes = 33000 + draw(seed) % 64 * 9000;
    switch (draw(seed) % 4) {
    case 0:
        heap_free(b->p, site);
        b->p = heap_alloc_zeroed(bytes, site);
        if (b->p == NULL || !are_zeros(b->p, bytes)) {
            atomic_fetch_add(&wrong, 1);
        }
        *b = (struct block){b->p, bytes, draw(seed)};
        fill_from(b, 0);
        break;
    case 1: {
        size_t old = b->bytes;
        b->p = b->p != NULL ? heap_resize(b->p, bytes, site) : heap_alloc(bytes, site);
        b->bytes = bytes < old ? bytes : old;
        if (b->p == NULL || !is_right(b)) {
            atomic_fetch_add(&wrong, 1);
        }
        b->bytes = bytes;
        fill_from(b, old < bytes ? old : bytes);
        break;
    }
    default:
        break;
    }
}

static void *work(void *argument) {
    enum { OWN = 40 };
    static struct block all[3][OWN];
    uintptr_t number = (uintptr_t)argument;
    unsigned seed = (unsigned)number + 1;
    while (!atomic_load(&is_over)) {
        step(&all[number][draw(&seed) % OWN], &seed);
        cold_case_sleep(draw(&seed) % 30);
    }
    for (unsigned i = 0; i < OWN; i++) {
        if (all[number][i].p != NULL && !is_right(&all[number][i])) {
            atomic_fetch_add(&wrong, 1);
        }
        heap_free(all[number][i].p, site);
    }
    return NULL;
}

static void test_threads_forks_and_thaws(void **state) {
    (void)state;
    enum { WORKERS = 3 };
    pthread_t threads[WORKERS];
    allocate();
    for (uintptr_t i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        cold_case_sleep(150);
        pid_t pid = fork();
        if (pid == 0) {
            _exit(all_right() ? 0 : 1);
        }
        if (i % 2 == 0) {
            cold_thaw_all(); // while a child lacks pages, and another thread may be forking
        } else {
            (void)heap_trim();
        }
        int status = -1;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
    }
    atomic_store(&is_over, true);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&wrong), 0);
    assert_true(all_right());
    release();
}

// One thread forks again and again while another one wants everything back.
static void *fork_often(void *failures) {
    for (unsigned i = 0; i < 30; i++) {
        int status = -1;
        pid_t pid = fork();
        if (pid == 0) {
            _exit(is_right(&blocks[i % BLOCKS]) ? 0 : 1);
        }
        *(unsigned *)failures += waitpid(pid, &status, 0) != pid || status != 0;
    }
    atomic_store(&is_over, true);
    return NULL;
}

static void test_thaw_all_beside_forks(void **state) {
    (void)state;
    unsigned failures = 0, calls = 0;
    pthread_t thread;
    allocate();
    cold_case_freeze(is_mostly_frozen);
    atomic_store(&is_over, false);
    assert_int_equal(pthread_create(&thread, NULL, fork_often, &failures), 0);
    while (!atomic_load(&is_over)) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            cold_hint_cold((uintptr_t)blocks[i].p, blocks[i].bytes);
        }
        cold_thaw_all();
        calls++;
    }
    pthread_join(thread, NULL);
    assert_int_equal(failures, 0);
    assert_true(calls > 0 && all_right());
    release();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_blocks_go_and_come_back),
        cmocka_unit_test(test_frozen_blocks_are_resized),
        cmocka_unit_test(test_freed_while_frozen),
        cmocka_unit_test(test_children),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_what_is_read_only_is_left_alone),
        cmocka_unit_test(test_threads_forks_and_thaws),
        cmocka_unit_test(test_thaw_all_beside_forks),
    };
    return cmocka_run_group_tests(tests, cold_case_start, NULL);
}
