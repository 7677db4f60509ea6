// P-LARGE-RETIRE, P-LARGE-CLOSE: what becomes of a large block's memory when it is freed.
#include "src/span/release.h"

#include "src/base/config.h"
#include "src/base/fatal.h"
#include "src/span/large_heap.h"
#include "tests/support/child.h"
#include "tests/support/large_case.h"
#include "tests/support/memory.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static bool is_gone(const unsigned char *p, size_t size) {
    for (size_t i = 0; i < size; i += FIRN_PAGE) {
        if (memory_can_read((uintptr_t)p + i) && !memory_is_zero(p + i, FIRN_PAGE)) {
            return false;
        }
    }
    return true;
}

static unsigned char *dirty_block(size_t size) {
    unsigned char *p = case_alloc_any(size);
    memset(p, 0x5a, size);
    return p;
}

static void check_freed_is_gone(void) {
    static const size_t sizes[] = {40 * KIB, 100 * KIB, MIB, 5 * MIB, 40 * MIB};
    for (unsigned i = 0; i < 5; i++) {
        unsigned char *p = dirty_block(sizes[i]);
        ENSURE(case_free(p) == LARGE_LIVE);
        ENSURE(!FIRN_LARGE_RETIRE || is_gone(p, sizes[i]));
        bool is_zero;
        unsigned char *q = case_alloc(sizes[i], 16, &is_zero);
        ENSURE(!FIRN_LARGE_RETIRE || (is_zero && memory_is_zero(q, sizes[i])));
        memset(q, 0x5a, sizes[i]);
        ENSURE(case_free(q) == LARGE_LIVE);
    }
}

static void check_cut_off_is_gone(void) {
    enum large_kind kind;
    unsigned char *p = dirty_block(MIB);
    ENSURE(large_resize((uintptr_t)p, 64 * KIB, &kind) == p);
    ENSURE(is_gone(p + 64 * KIB, MIB - 64 * KIB - FIRN_PAGE));
    unsigned char *q = large_resize((uintptr_t)p, 3 * MIB, &kind);
    ENSURE(q != NULL && q[0] == 0x5a && q[64 * KIB - 1] == 0x5a);
    ENSURE(q == p || !FIRN_LARGE_RETIRE || is_gone(p, 64 * KIB));
}

// More than the queue holds, of all sizes, freed in any order.
static void check_long_run(void) {
    enum { LIVE = 40, ROUNDS = 3000 };
    unsigned char *p[LIVE] = {NULL};
    size_t size[LIVE];
    for (unsigned i = 0; i < ROUNDS; i++) {
        unsigned k = (unsigned)case_draw(LIVE);
        if (p[k] != NULL) {
            ENSURE(p[k][0] == k && p[k][size[k] - 1] == k);
            ENSURE(case_free(p[k]) == LARGE_LIVE);
        }
        size[k] = 33 * KIB + case_draw(case_draw(4) == 0 ? 2 * MIB : 64 * KIB);
        p[k] = case_alloc_any(size[k]);
        p[k][0] = (unsigned char)k;
        p[k][size[k] - 1] = (unsigned char)k;
    }
    ENSURE(FIRN_LARGE_CLOSE || firn_large.closed.runs == 0);
}

static void check_closed_waits(void) {
    unsigned char *p = dirty_block(64 * KIB);
    ENSURE(case_free(p) == LARGE_LIVE);
    for (unsigned i = 0; i < 50; i++) {
        unsigned char *q = case_alloc_any(64 * KIB);
        ENSURE(q != p);
        ENSURE(case_free(q) == LARGE_LIVE);
    }
    ENSURE(!memory_can_read((uintptr_t)p));
    ENSURE(firn_large.closed.runs > 0 && firn_large.closed.bytes >= 51 * 64 * KIB);
}

static void freed_is_gone(void **state) {
    (void)state;
    assert_true(case_run_everywhere(check_freed_is_gone));
}

static void cut_off_is_gone(void **state) {
    (void)state;
    assert_true(case_run_everywhere(check_cut_off_is_gone));
}

static void long_run(void **state) {
    (void)state;
    assert_true(case_run_everywhere(check_long_run));
}

static void closed_waits(void **state) {
    (void)state;
    if (!FIRN_LARGE_CLOSE || memory_is_sanitized()) {
        skip();
    }
    assert_true(case_run(&settings[PLAIN], check_closed_waits));
}

// Cached, as at level 2; where it would be closed, the write itself is the end.
static void write_stale(void *context) {
    (void)context;
    case_start(&settings[PLAIN]);
    fatal_note_call("calloc", 0);
    unsigned char *p = dirty_block(100 * KIB);
    case_free(p);
    p[20001] = 1;
    for (unsigned i = 0; i < 100; i++) {
        case_alloc_any(100 * KIB);
    }
}

static void a_write_is_found(void **state) {
    (void)state;
    struct child c;
    if (!FIRN_LARGE_RETIRE) {
        skip();
    }
    child_run(&c, write_stale, NULL);
    if (FIRN_LARGE_CLOSE) {
        assert_true(child_died_of(&c, SIGSEGV));
        return;
    }
    assert_true(child_died_of(&c, SIGABRT));
    assert_non_null(strstr(c.said, "firn: write-after-free: calloc(0x"));
    assert_non_null(strstr(c.said, "class=large size=? found: byte 20001 of a freed block was "
                                   "written to; expected: the zeros written when"));
}

// A child forked while another thread had runs in hand.
static void check_recovery(void) {
    unsigned char *p = dirty_block(MIB);
    struct large_block block;
    ENSURE(large_find((uintptr_t)p, &block) == LARGE_LIVE);
    large_before_fork();
    struct run *run = page_map_get(&firn_large.space.tracts[0].map, (uintptr_t)p);
    ENSURE(run != NULL && run->state == RUN_LIVE);
    firn_large.live--;
    firn_large.live_bytes -= MIB;
    page_map_set(&firn_large.space.tracts[0].map, (uintptr_t)p,
                 (uintptr_t)p == run->start ? run : NULL);
    run->object = 0;
    run->state = RUN_BUSY;
    firn_large.busy++;
    firn_large.busy_bytes += run_body_bytes(run);
    ENSURE(!FIRN_LARGE_CLOSE || map_guard(run->body, run_body_bytes(run)));
    large_after_fork(true);
    ENSURE(is_gone(p, MIB));
    case_alloc_any(MIB)[0] = 1;
}

static void a_child_finishes_what_was_begun(void **state) {
    (void)state;
    assert_true(case_run(&settings[PLAIN], check_recovery));
    assert_true(case_run(&settings[EXACT], check_recovery));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(freed_is_gone),    cmocka_unit_test(cut_off_is_gone),
        cmocka_unit_test(long_run),         cmocka_unit_test(closed_waits),
        cmocka_unit_test(a_write_is_found), cmocka_unit_test(a_child_finishes_what_was_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
