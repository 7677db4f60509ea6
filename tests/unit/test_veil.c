// Pages that nobody can access, and who touches them all the same.
// firn-test: share=2 sanitize=none
#include "src/os/veil.h"

#include "src/base/compiler.h"
#include "src/os/caps.h"
#include "src/os/signals.h"
#include "tests/support/child.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGES = 256, THREADS = 6, ROUNDS = 3000 };

static char *heap;
static _Atomic bool is_away[PAGES];
static atomic_bool is_over;

static uintptr_t page(unsigned i) {
    return (uintptr_t)heap + (uintptr_t)i * FIRN_PAGE;
}

static unsigned index_of(uintptr_t address) {
    return (unsigned)((address - (uintptr_t)heap) / FIRN_PAGE);
}

static bool bring(uintptr_t address) {
    bool was_away = atomic_load(&is_away[index_of(address)]);
    if (was_away) {
        veil_ask(address);
    }
    return was_away;
}

// Firn's thread: what is asked for is put back, with its number in each byte.
static void serve_all(void) {
    static char content[FIRN_PAGE];
    for (uintptr_t at; (at = veil_next()) != 0;) {
        unsigned i = index_of(at);
        if (atomic_load(&is_away[i])) {
            memset(content, (int)i, sizeof content);
            assert_true(veil_write(at, content) && veil_show(at, FIRN_PAGE));
            atomic_store(&is_away[i], false);
        }
        veil_wake(at);
    }
}

static void *serve(void *context) {
    veil_enter();
    while (!atomic_load(&is_over)) {
        serve_all();
        (void)veil_wait(-1, 0);
    }
    return context;
}

static void hide(unsigned first, unsigned n) {
    for (unsigned i = first; i < first + n; i++) {
        atomic_store(&is_away[i], true);
    }
    assert_true(veil_hide(page(first), n * FIRN_PAGE));
    assert_int_equal(madvise((void *)page(first), n * FIRN_PAGE, MADV_DONTNEED), 0);
}

static int start(void **state) {
    (void)state;
    caps_probe(~0u);
    heap =
        mmap(NULL, PAGES * FIRN_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t thread;
    if (heap == MAP_FAILED || veil_open() != NULL ||
        pthread_create(&thread, NULL, serve, NULL) != 0) {
        return -1;
    }
    for (unsigned i = 0; i < PAGES; i++) {
        memset((void *)page(i), (int)i, FIRN_PAGE);
    }
    veil_arm((uintptr_t)heap, PAGES * FIRN_PAGE, bring);
    return 0;
}

// cmocka puts a handler of its own in our place, before each test; and libc blocks signals while a thread begins.
static void arm(void) {
    const struct timespec between = {0, 5000000};
    unsigned tries = 0;
    while (veil_refusal() != NULL) {
        assert_true(++tries < 1000);
        nanosleep(&between, NULL);
    }
}

static void test_content_is_reached(void **state) {
    (void)state;
    char content[FIRN_PAGE];
    assert_true(veil_hide(page(3), 2 * FIRN_PAGE));
    assert_true(veil_read(page(4), content) && content[7] == 4);
    memset(content, 9, sizeof content);
    assert_true(veil_write(page(4), content) && veil_show(page(3), 2 * FIRN_PAGE));
    assert_int_equal(((char *)page(4))[FIRN_PAGE - 1], 9);
    memset((void *)page(4), 4, FIRN_PAGE);
}

static void test_a_touch_waits(void **state) {
    (void)state;
    arm();
    hide(10, 4);
    errno = 77;
    assert_int_equal(*(volatile char *)(page(12) + 99), 12);
    *(volatile char *)page(11) = 1;
    assert_int_equal(errno, 77);
    assert_int_equal(*(volatile char *)(page(11) + 1), 11);
    assert_true(atomic_load(&is_away[10]) && !atomic_load(&is_away[11]));
    assert_int_equal(*(volatile char *)page(10), 10);
    memset((void *)page(11), 11, FIRN_PAGE);
}

static void *touch_all(void *context) {
    unsigned seed = (unsigned)(uintptr_t)context;
    uintptr_t wrong = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        seed = seed * 1103515245 + 12345;
        unsigned i = 64 + seed / 65536 % 64;
        const volatile char *p = (const char *)page(i);
        wrong += p[seed % FIRN_PAGE] != (char)i || p[0] != (char)i;
    }
    return (void *)wrong;
}

// Nobody sees a part of a page, and nobody sleeps for ever.
static void test_many_touch_the_same(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    arm();
    for (unsigned round = 0; round < 20; round++) {
        hide(64, 64);
        for (unsigned i = 0; i < THREADS; i++) {
            assert_int_equal(
                pthread_create(&threads[i], NULL, touch_all, (void *)(uintptr_t)(i + round)), 0);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            void *wrong;
            pthread_join(threads[i], &wrong);
            assert_null(wrong);
        }
        for (unsigned i = 64; i < 128; i++) {
            assert_int_equal(*(volatile char *)page(i), i);
        }
    }
}

static void touch_forbidden(void *context) {
    (void)context;
    const struct sigaction standard = {.sa_handler = SIG_DFL};
    signals_after_fork_in_child();
    (void)signals_action(SIGSEGV, &standard, NULL);
    mprotect((void *)page(200), FIRN_PAGE, PROT_NONE);
    *(volatile char *)page(200) = 1;
}

static void test_other_faults_are_the_programs(void **state) {
    (void)state;
    struct child c;
    child_run(&c, touch_forbidden, NULL);
    assert_true(child_died_of(&c, SIGSEGV));
}

static void test_few_mappings_take_long_rows(void **state) {
    (void)state;
    arm();
    assert_true(veil_has_room(1));
    size_t most = caps_limits()->max_map_count / 2;
    for (size_t i = 0; i < most / 4; i++) {
        veil_note_split();
    }
    assert_true(!veil_has_room(4) && veil_has_room(16));
    for (size_t i = 0; i < most / 4; i++) {
        veil_note_split();
    }
    assert_false(veil_has_room(64));
    arm(); // counts them anew
    assert_true(veil_has_room(1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content_is_reached),
        cmocka_unit_test(test_a_touch_waits),
        cmocka_unit_test(test_many_touch_the_same),
        cmocka_unit_test(test_other_faults_are_the_programs),
        cmocka_unit_test(test_few_mappings_take_long_rows),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
