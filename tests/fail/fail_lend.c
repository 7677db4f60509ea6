// Forks of a merged heap that go wrong half-way: the kernel refuses the fork itself, a call into it fails
// before, or what the child needs fails in the child. The parent goes on, with every byte, and merges again.
// firn-test: timeout=240 wrap=mmap,munmap,mprotect,madvise,mremap,munlock,mlock2,getrlimit,syscall
#include "mesh/merge.h"
#include "mesh/mesh.h"
#include "src/heap/compact.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/os/caps.h"
#include "tests/support/child.h"
#include "tests/support/filter.h"
#include "tests/support/inject.h"
#include "tests/support/small_case.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 3000, BYTES = 512, REFUSALS = 40, UNREACHED = 7, CALLS_MOST = 4000 };

struct round {
    unsigned nth;
    enum inject_mode mode;
    bool is_lesser, is_in_child;
};

static const uintptr_t site = 0x408000;
static unsigned char *blocks[BLOCKS];

static void need_all_whole(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        for (unsigned j = 0; blocks[i] != NULL && j < BYTES - 8; j++) {
            NEED(blocks[i][j] == (unsigned char)(i + j));
        }
    }
}

static size_t meshed_pages(void) {
    struct mesh_stats s;
    mesh_stats(&s);
    return s.meshed_pages;
}

// The child has no merged page where merging is not possible: then these tests are of a plain heap.
static void make_merged(const struct round *r) {
    uint64_t seed = 5;
    if (r->is_lesser) { // the kernel cannot copy mappings
        caps_probe(CAP_ALL & ~(uint32_t)CAP_MREMAP_KEEP);
    }
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
    (void)compact_now();
    NEED(meshed_pages() > 0 || small_is_rationed() || !merge_is_possible());
}

static void free_all(void) {
    (void)compact_now();
    need_all_whole();
    small_check();
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i] != NULL) {
            heap_free(blocks[i], site);
            blocks[i] = NULL;
        }
    }
    (void)compact_now();
    NEED(meshed_pages() == 0);
    small_check();
}

// ---- the kernel refuses -------------------------------------------------------------------------

static void forks_are_refused(void *context) {
    make_merged(context);
    if (!filter_install(FILTER_NO_FORK, FILTER_BY_PRCTL)) {
        return;
    }
    for (unsigned i = 0; i < REFUSALS; i++) {
        errno = 0;
        NEED(fork() == -1 && errno == EAGAIN);
        need_all_whole();
        if (i % 8 == 0) {
            (void)compact_now();
        }
        life_begin_fork();
        NEED(syscall(SYS_fork) == -1);
        life_end_fork(false);
    }
    free_all();
}

static void the_kernel_refuses(void **state) {
    (void)state;
    struct round r = {.is_lesser = false};
    assert_true(small_run(forks_are_refused, &r));
    r.is_lesser = true;
    assert_true(small_run(forks_are_refused, &r));
}

// ---- calls fail ---------------------------------------------------------------------------------

static void end_child(const struct round *r, bool was_hit) {
    if (r->is_in_child) {
        inject_start(r->nth, r->mode, 0);
    }
    life_end_fork(true);
    was_hit = r->is_in_child ? inject_stop() : was_hit;
    need_all_whole();
    free_all();
    _exit(was_hit ? 0 : UNREACHED);
}

// A child that cannot have what it needs ends with a report; it must not go on without.
static void fork_with_failures(void *context) {
    const struct round *r = context;
    int status = -1;
    make_merged(r);
    if (!r->is_in_child) {
        inject_start(r->nth, r->mode, 0);
    }
    life_begin_fork();
    bool was_hit = r->is_in_child || inject_stop();
    pid_t child = (pid_t)syscall(SYS_fork);
    NEED(child >= 0);
    if (child == 0) {
        end_child(r, was_hit);
    }
    life_end_fork(false);
    need_all_whole();
    free_all();
    NEED(waitpid(child, &status, 0) == child);
    bool is_reached = !WIFEXITED(status) || WEXITSTATUS(status) != UNREACHED;
    bool is_well = WIFEXITED(status) && (WEXITSTATUS(status) == 0 || !is_reached);
    NEED(is_well || (r->is_in_child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT));
    if (!is_reached) {
        _exit(UNREACHED);
    }
}

static void run(struct round r) {
    struct child c = {.status = -1};
    for (r.nth = 1; r.nth < CALLS_MOST && !child_exited(&c, UNREACHED); r.nth += 1 + r.nth / 4) {
        child_run(&c, fork_with_failures, &r);
        if (!child_exited(&c, 0) && !child_exited(&c, UNREACHED)) {
            fail_msg("call %u, mode %d%s: status %#x: %s", r.nth, r.mode,
                     r.is_lesser ? ", lesser" : "", (unsigned)c.status, c.said);
        }
    }
    assert_in_range(r.nth, 2, CALLS_MOST - 1);
}

static void calls_fail_before(void **state) {
    (void)state;
    run((struct round){.mode = INJECT_ONCE});
    run((struct round){.mode = INJECT_FOREVER});
    run((struct round){.mode = INJECT_ONCE, .is_lesser = true});
    run((struct round){.mode = INJECT_FOREVER, .is_lesser = true});
}

static void calls_fail_in_the_child(void **state) {
    (void)state;
    run((struct round){.mode = INJECT_ONCE, .is_in_child = true});
    run((struct round){.mode = INJECT_FOREVER, .is_in_child = true});
    run((struct round){.mode = INJECT_ONCE, .is_lesser = true, .is_in_child = true});
    run((struct round){.mode = INJECT_FOREVER, .is_lesser = true, .is_in_child = true});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_refuses),
        cmocka_unit_test(calls_fail_before),
        cmocka_unit_test(calls_fail_in_the_child),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
