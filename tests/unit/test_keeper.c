// Firn's own thread: started by fragmentation alone, ends by itself or when told to, and leaves no trace in
// forked children.
// firn-test: timeout=300 wrap=thread_start
#include "src/heap/keeper.h"

#include "mesh/merge.h"
#include "mesh/mesh.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"
#include "src/os/sys.h"
#include "src/os/thread.h"
#include "tests/support/memory.h"
#include "tests/support/small_case.h"

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 60000, BYTES = 180, SECONDS_MOST = 40 };

bool __real_thread_start(void (*body)(void));
bool __wrap_thread_start(void (*body)(void));

static const uintptr_t site = 0x408000;
static bool has_no_threads;

bool __wrap_thread_start(void (*body)(void)) {
    return !has_no_threads && __real_thread_start(body);
}

static unsigned char *blocks[BLOCKS];

static unsigned count_threads(void) {
    unsigned n = 0;
    DIR *d = opendir("/proc/self/task");
    NEED(d != NULL);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        n += e->d_name[0] != '.';
    }
    closedir(d);
    return n;
}

static bool is_running(void) {
    struct keeper_stats k;
    keeper_stats(&k);
    return k.is_running;
}

static size_t meshed_pages(void) {
    struct mesh_stats m;
    mesh_stats(&m);
    return m.meshed_pages;
}

static void need_all_whole(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        for (unsigned j = 0; blocks[i] != NULL && j < BYTES; j++) {
            NEED(blocks[i][j] == (unsigned char)i);
        }
    }
}

static void make_all(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = heap_alloc(BYTES, site);
        NEED(blocks[i] != NULL);
        memset(blocks[i], (int)i, BYTES);
    }
}

static void drop_most(void) {
    uint64_t seed = 11;
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (small_draw(&seed, 10) != 0) {
            heap_free(blocks[i], site);
            blocks[i] = NULL;
        }
    }
}

// The clock that slow paths look at has steps, and they look at it now and then.
static void until_running(void) {
    for (unsigned i = 0; i < SECONDS_MOST * 20 && !is_running(); i++) {
        thread_sleep(50000000);
        keeper_look(site);
    }
    NEED(is_running());
}

static void fragment(void) {
    keeper_set_share(100);
    keeper_allow();
    make_all();
    NEED(!is_running() && count_threads() == 1);
    drop_most();
    until_running();
}

static void silence_compacts(void *context) {
    (void)context;
    fragment();
    NEED(count_threads() == 2);
    for (unsigned i = 0; i < SECONDS_MOST * 10 && merge_is_possible() && meshed_pages() == 0; i++) {
        thread_sleep(100000000);
    }
    NEED(small_is_rationed() || !merge_is_possible() || meshed_pages() > 0);
    // Nothing happens any more: it ends.
    for (unsigned i = 0; i < SECONDS_MOST * 10 && is_running(); i++) {
        thread_sleep(100000000);
    }
    NEED(!is_running());
    need_all_whole();
    small_check();
    // What is settled is no reason for another one.
    keeper_look(site);
    NEED(!is_running());
}

static void test_silence_compacts(void **state) {
    (void)state;
    assert_true(small_run(silence_compacts, NULL));
}

static void off_is_off(void *context) {
    (void)context;
    keeper_set_share(0);
    keeper_allow();
    make_all();
    drop_most();
    keeper_look(site);
    NEED(!is_running() && count_threads() == 1);
}

static void test_off_is_off(void **state) {
    (void)state;
    assert_true(small_run(off_is_off, NULL));
}

// In the middle of whatever it does; and setuid waits for each thread's answer.
static void stops_when_told(void *context) {
    (void)context;
    fragment();
    NEED(setuid(getuid()) == 0);
    keeper_stop();
    NEED(!is_running() && count_threads() == 1);
    keeper_stop(); // nothing to stop
    need_all_whole();
    small_check();
}

static void test_stops_when_told(void **state) {
    (void)state;
    assert_true(small_run(stops_when_told, NULL));
}

static void children_have_none(void *context) {
    (void)context;
    fragment();
    for (unsigned i = 0; i < 10; i++) {
        pid_t child = fork();
        NEED(child >= 0);
        if (child == 0) {
            NEED(!is_running() && count_threads() == 1);
            need_all_whole();
            keeper_stop();
            keeper_look(site);
            _exit(0);
        }
        int status = -1;
        NEED(waitpid(child, &status, 0) == child && status == 0);
        thread_sleep(20000000);
    }
    need_all_whole();
}

static void test_children_have_none(void **state) {
    (void)state;
    assert_true(small_run(children_have_none, NULL));
}

static void never_again(void *context) {
    (void)context;
    fragment();
    keeper_forbid("of a test");
    NEED(!is_running() && count_threads() == 1);
    make_all();
    drop_most();
    keeper_look(site);
    struct keeper_stats k;
    keeper_stats(&k);
    NEED(!k.is_running && strcmp(k.why, "of a test") == 0);
}

static void test_never_again(void **state) {
    (void)state;
    assert_true(small_run(never_again, NULL));
}

// libc and the loader free under locks that the start of a thread needs.
static void libc_starts_none(void *context) {
    (void)context;
    keeper_set_share(100);
    make_all();
    drop_most();
    keeper_allow();
    void *libcs = dlsym(RTLD_NEXT, "abort");
    keeper_look((uintptr_t)libcs);
    NEED(!is_running());
    keeper_look(0);
    NEED(is_running());
    keeper_stop();
}

static void test_libc_starts_none(void **state) {
    (void)state;
    assert_true(small_run(libc_starts_none, NULL));
}

// Whoever comes by does a little of the work.
static void no_thread_no_harm(void *context) {
    (void)context;
    has_no_threads = true;
    keeper_set_share(100);
    keeper_allow();
    make_all();
    drop_most();
    for (unsigned i = 0; i < SECONDS_MOST * 10 && merge_is_possible() && meshed_pages() == 0; i++) {
        keeper_look(site);
        thread_sleep(100000000);
    }
    NEED(count_threads() == 1);
    NEED(small_is_rationed() || !merge_is_possible() || meshed_pages() > 0);
    need_all_whole();
    small_check();
}

static void test_no_thread_no_harm(void **state) {
    (void)state;
    assert_true(small_run(no_thread_no_harm, NULL));
}

// ---- an idle owner ----------------------------------------------------------------------------

static size_t resident(const void *p, size_t bytes) {
    static unsigned char pages[1 << 16];
    uintptr_t from = (uintptr_t)p & ~(uintptr_t)4095;
    size_t n = bytes / 4096, there = 0;
    NEED(n <= sizeof pages && mincore((void *)from, n * 4096, pages) == 0);
    for (size_t i = 0; i < n; i++) {
        there += pages[i] & 1;
    }
    return there;
}

static size_t resident_blocks(unsigned char *const where[]) {
    size_t n = 0;
    for (unsigned i = 0; i < BLOCKS; i += 64) {
        n += resident(where[i], 4096);
    }
    return n;
}

// All of an idle thread's blocks are freed by another one: their memory goes back although the owner never
// comes by, and when it does, it misses nothing.
static void idle_owners_give(void *context) {
    static unsigned char *were[BLOCKS];
    struct cache *owner = small_attach(), *other = small_attach();
    (void)context;
    NEED(owner != NULL && other != NULL);
    small_act_as(owner);
    make_all();
    memcpy(were, blocks, sizeof were);
    small_act_as(other);
    size_t before = resident_blocks(were);
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(blocks[i], site);
        blocks[i] = NULL;
    }
    const struct mesh_pace pace = {.is_forced = true, .share = 100};
    for (unsigned c = 0; c < SIZE_CLASSES; c++) {
        (void)mesh_pass(c, &pace);
    }
    NEED(small_is_rationed() || !merge_is_possible() || resident_blocks(were) * 4 < before);
    small_act_as(owner);
    make_all();
    need_all_whole();
    drop_most();
    need_all_whole();
    small_check();
}

static void test_idle_owners_give(void **state) {
    (void)state;
    if (memory_is_sanitized()) {
        skip();
    }
    assert_true(small_run(idle_owners_give, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silence_compacts),  cmocka_unit_test(test_off_is_off),
        cmocka_unit_test(test_stops_when_told),   cmocka_unit_test(test_children_have_none),
        cmocka_unit_test(test_never_again),       cmocka_unit_test(test_libc_starts_none),
        cmocka_unit_test(test_no_thread_no_harm), cmocka_unit_test(test_idle_owners_give),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
