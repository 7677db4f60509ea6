// The whole heap with the Nth call into the kernel failing, once and for good, for every N that a
// mixed workload reaches: each request is served or answers NULL with ENOMEM, no block loses its
// content, nothing crashes, and once the kernel answers again everything works.
// firn-test: levels=2,3 timeout=1800 wrap=mmap,munmap,mprotect,madvise,mremap,munlock,mlock2,getrlimit,syscall
#include "src/heap/heap.h"

#include "hardening/sample.h"

#include "src/os/caps.h"
#include "tests/support/child.h"
#include "tests/support/inject.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

enum {
    UNREACHED = 7,
    BLOCKS = 64,
    WARM_STEPS = 80,
    STEPS = 120,
    STRIDE = 65536,
    CALLS_MOST = 4000,
    SITE = 0x1000
};

struct round {
    unsigned nth;
    enum inject_mode mode;
    int error;
    bool is_start;  // the heap's own start is part of what fails
    bool is_sparse; // address space is only chosen, not reserved
};

struct block {
    unsigned char *p;
    size_t size;
    unsigned char mark;
};

static struct block blocks[BLOCKS];
static uint64_t generator = 1;
static size_t refusals;

static void need_at(bool condition, const char *what, int line) {
    if (!condition) {
        dprintf(STDERR_FILENO, "line %d: %s", line, what);
        _exit(1);
    }
}
#define NEED(condition) need_at((condition), #condition, __LINE__)

// The same steps in every child: N means the same call.
static uint32_t draw(uint32_t bound) {
    generator = generator * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((generator >> 33) % bound);
}

static size_t draw_size(void) {
    switch (draw(8)) {
    case 0:
        return draw(32) * KIB;
    case 1:
        return 32 * KIB + draw(64) * KIB;
    case 2:
        return draw(3) * MIB + draw(1000);
    case 3:
        return draw(12) == 0 ? 40 * MIB : MIB;
    default:
        return draw(1024);
    }
}

// Both ends, and a page here and there.
static void fill(struct block *b) {
    b->mark = (unsigned char)(1 + draw(255));
    for (size_t i = 0; i < b->size; i += STRIDE) {
        b->p[i] = b->mark;
    }
    if (b->size > 0) {
        b->p[b->size - 1] = b->mark;
    }
}

// `written`: how many of the bytes fill() had seen; `kept`: how many of those are still there.
static void check_bytes(const unsigned char *p, size_t written, size_t kept, unsigned char mark) {
    for (size_t i = 0; i < kept; i += STRIDE) {
        NEED(p[i] == mark);
    }
    if (written > 0 && written == kept) {
        NEED(p[written - 1] == mark);
    }
}

static void check_content(const struct block *b) {
    check_bytes(b->p, b->size, b->size, b->mark);
}

static void note_refusal(void) {
    NEED(errno == ENOMEM);
    refusals++;
}

static void make(struct block *b) {
    b->size = draw_size();
    unsigned how = draw(4);
    errno = 0;
    if (how == 0) {
        b->p = heap_alloc_zeroed(b->size, SITE);
        if (b->p != NULL) {
            check_bytes(b->p, b->size, b->size, 0);
        }
    } else if (how == 1) {
        size_t align = (size_t)32 << draw(16);
        b->p = heap_alloc_aligned(align, b->size, SITE);
        NEED((uintptr_t)b->p % align == 0);
    } else {
        b->p = heap_alloc(b->size, SITE);
    }
    if (b->p == NULL) {
        note_refusal();
        return;
    }
    NEED((uintptr_t)b->p % 16 == 0 && heap_usable(b->p, SITE) >= b->size);
    fill(b);
}

static void resize(struct block *b) {
    size_t size = draw_size() + 1;
    size_t kept = size < b->size ? size : b->size;
    errno = 0;
    unsigned char *p = heap_resize(b->p, size, SITE);
    if (p == NULL) {
        note_refusal();
        check_content(b);
        return;
    }
    check_bytes(p, b->size, kept, b->mark);
    b->p = p;
    b->size = size;
    fill(b);
}

static void discard(struct block *b) {
    check_content(b);
    errno = 77;
    heap_free(b->p, SITE);
    NEED(errno == 77);
    b->p = NULL;
}

static void work(unsigned steps) {
    for (unsigned i = 0; i < steps; i++) {
        struct block *b = &blocks[draw(BLOCKS)];
        if (b->p == NULL) {
            make(b);
        } else if (draw(3) == 0) {
            resize(b);
        } else {
            discard(b);
        }
        if (i % 97 == 96) {
            (void)heap_trim();
        }
    }
}

static void live(void *context) {
    const struct round *r = context;
    if (!r->is_start) {
        work(WARM_STEPS);
        NEED(refusals == 0);
    }
    inject_start(r->nth, r->mode, r->error);
    work(r->is_start ? WARM_STEPS : STEPS);
    bool is_hit = inject_stop();
    void *p = heap_alloc(64, SITE);
    // A start that failed for good is not tried again: the heap then has nothing, and says so.
    if (p == NULL && r->is_start && r->mode == INJECT_FOREVER) {
        NEED(errno == ENOMEM);
        _exit(is_hit ? 0 : UNREACHED);
    }
    NEED(p != NULL);
    heap_free(p, SITE);
    refusals = 0;
    work(STEPS);
    // What could not be unmapped in a range that is only chosen stands in its own way.
    NEED(refusals == 0 || (r->is_sparse && inject_hit_munmap()));
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i].p != NULL) {
            discard(&blocks[i]);
        }
    }
    _exit(is_hit ? 0 : UNREACHED);
}

// There the kernel refuses on its own, when others have taken what there is.
static bool is_commit_rationed(void) {
    char digit = '0';
    FILE *f = fopen("/proc/sys/vm/overcommit_memory", "r");
    if (f != NULL) {
        digit = (char)fgetc(f);
        fclose(f);
    }
    return digit == '2';
}

static void run_all(bool is_start, uint32_t caps) {
    static const int errors[] = {ENOMEM, EPERM};
    char text[16];
    if (is_commit_rationed()) {
        skip();
    }
    snprintf(text, sizeof(text), "%x", (unsigned)caps);
    setenv("FIRN_TEST_CAPS", text, 1);
    for (unsigned e = 0; e < 2; e++) {
        for (unsigned mode = 0; mode < 2; mode++) {
            struct round r = {.mode = (enum inject_mode)mode,
                              .error = errors[e],
                              .is_start = is_start,
                              .is_sparse = (caps & CAP_RESERVE) == 0};
            struct child c = {.status = -1};
            // From some call on, a share of them: the same places are reached over and over.
            unsigned step = test_is_thorough() ? 7 : 67;
            for (r.nth = 1 + e * 2 + mode; r.nth < CALLS_MOST && !child_exited(&c, UNREACHED);
                 r.nth += r.nth < 40 ? (test_is_thorough() ? 1 : 5) : step) {
                child_run(&c, live, &r);
                if (!child_exited(&c, 0) && !child_exited(&c, UNREACHED)) {
                    fail_msg("call %u, mode %u, errno %d, caps %s: status %x %s", r.nth, mode,
                             r.error, text, (unsigned)c.status, c.said);
                }
            }
            assert_in_range(r.nth, 10, CALLS_MOST - 1);
        }
    }
}

static void start_fails(void **state) {
    (void)state;
    run_all(true, CAP_ALL);
    run_all(true, 0);
}

static void work_fails(void **state) {
    (void)state;
    run_all(false, CAP_ALL);
}

static void work_without_markers_fails(void **state) {
    (void)state;
    run_all(false, CAP_ALL & ~(uint32_t)CAP_GUARD_MARKER);
}

static void work_in_sparse_ranges_fails(void **state) {
    (void)state;
    run_all(false, CAP_ALL & ~(uint32_t)CAP_RESERVE);
}

int main(void) {
    firn_sample_rate = 8; // guarded samples are among the blocks
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(start_fails),
        cmocka_unit_test(work_fails),
        cmocka_unit_test(work_without_markers_fails),
        cmocka_unit_test(work_in_sparse_ranges_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
