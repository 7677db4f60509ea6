// A merge with the Nth call into the kernel failing, once and for good, for every N: no block loses a
// byte, and when the kernel answers again merging works.
// firn-test: timeout=1800 wrap=mmap,munmap,mprotect,madvise,mremap,munlock,mlock2,getrlimit,syscall
#include "mesh/mesh.h"
#include "src/heap/compact.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "tests/support/child.h"
#include "tests/support/inject.h"
#include "tests/support/small_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 1500, BYTES = 512, UNREACHED = 7, CALLS_MOST = 4000 };

struct round {
    unsigned nth;
    enum inject_mode mode;
};

static unsigned char *blocks[BLOCKS];

static void need_all_whole(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        for (unsigned j = 0; blocks[i] != NULL && j < BYTES - 8; j++) {
            NEED(blocks[i][j] == (unsigned char)(i + j));
        }
    }
}

static void merge_with_failures(void *context) {
    const struct round *r = context;
    const uintptr_t site = 0x408000;
    uint64_t seed = 5;
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = heap_alloc(BYTES - 8, site);
        NEED(blocks[i] != NULL);
        for (unsigned j = 0; j < BYTES - 8; j++) {
            blocks[i][j] = (unsigned char)(i + j);
        }
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (small_draw(&seed, 10) > 0) {
            heap_free(blocks[i], site);
            blocks[i] = NULL;
        }
    }
    inject_start(r->nth, r->mode, 0);
    (void)compact_now();
    bool was_hit = inject_stop();
    need_all_whole();
    small_check();
    (void)compact_now();
    need_all_whole();
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i] != NULL) {
            heap_free(blocks[i], site);
        }
    }
    (void)compact_now();
    struct mesh_stats s;
    mesh_stats(&s);
    NEED(s.meshed_pages == 0 && s.frames == 0);
    small_check();
    if (!was_hit) {
        _exit(UNREACHED);
    }
}

static void run(enum inject_mode mode) {
    struct child c = {.status = -1};
    struct round r = {.mode = mode};
    // Every call at first, where everything is started; then samples of what repeats.
    for (r.nth = 1; r.nth < CALLS_MOST && !child_exited(&c, UNREACHED); r.nth += 1 + r.nth / 32) {
        child_run(&c, merge_with_failures, &r);
        if (!child_exited(&c, 0) && !child_exited(&c, UNREACHED)) {
            fail_msg("call %u, mode %d: status %#x: %s", r.nth, mode, (unsigned)c.status, c.said);
        }
    }
    assert_in_range(r.nth, 10, CALLS_MOST - 1);
}

static void one_call_fails(void **state) {
    (void)state;
    run(INJECT_ONCE);
}

static void calls_fail_for_good(void **state) {
    (void)state;
    run(INJECT_FOREVER);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_call_fails),
        cmocka_unit_test(calls_fail_for_good),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
