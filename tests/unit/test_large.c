// Large objects: layout, exact ownership, alignment, and content under random use.
//
// firn-test: levels=2,3 timeout=300 sanitize=address
#include "src/span/large.h"

#include "src/base/align.h"
#include "src/base/config.h"
#include "src/span/large_heap.h"
#include "tests/support/child.h"
#include "tests/support/large_case.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

// ---- layout ----

static void check_guards(void) {
    enum { COUNT = 64 };
    unsigned char *p[COUNT];
    size_t size[COUNT];
    for (unsigned i = 0; i < COUNT; i++) {
        size[i] = 40 * KIB + i * 7919;
        p[i] = case_alloc_any(size[i]);
        memset(p[i], 1, size[i]);
    }
    // Also those made from holes: of odd sizes, so that something is left over.
    for (unsigned i = 0; i < COUNT; i += 3) {
        ENSURE(case_free(p[i]) == LARGE_LIVE);
    }
    large_trim();
    for (unsigned i = 0; i < COUNT; i += 3) {
        size[i] -= 12 * KIB;
        p[i] = case_alloc_any(size[i]);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        size_t capacity = align_up(size[i], FIRN_PAGE);
        ENSURE(memory_can_write((uintptr_t)p[i]));
        ENSURE(memory_can_write((uintptr_t)p[i] + capacity - 1));
        ENSURE(!memory_can_read((uintptr_t)p[i] - 1));
        ENSURE(!memory_can_read((uintptr_t)p[i] - FIRN_PAGE));
        ENSURE(!memory_can_read((uintptr_t)p[i] + capacity));
    }
}

// Of a run that is reused as it is the end is guarded, and the front where the level says so.
static void check_reuse(void) {
    unsigned char *p[40];
    for (unsigned round = 0; round < 200; round++) {
        size_t size = (40 + case_draw(400)) * KIB;
        unsigned k = (unsigned)case_draw(40);
        if (round >= 40) {
            ENSURE(case_free(p[k]) == LARGE_LIVE);
        } else {
            k = round;
        }
        bool is_zero;
        p[k] = case_alloc(size, 16, &is_zero);
        ENSURE(!is_zero || memory_is_zero(p[k], size));
        memset(p[k], 0xa5, size);
        ENSURE(!memory_can_read((uintptr_t)p[k] + align_up(size, FIRN_PAGE)));
        ENSURE(!FIRN_LARGE_SNUG || !memory_can_read((uintptr_t)p[k] - 1)); // P-LARGE-SNUG
    }
}

static void reuse(void **state) {
    (void)state;
    case_seed = 123456789;
    assert_true(case_run_everywhere(check_reuse));
}

// P-LARGE-GUARD
static void guards(void **state) {
    (void)state;
    assert_true(case_run_everywhere(check_guards));
}

static void touch_behind(void *context) {
    case_start(context);
    unsigned char *p = case_alloc_any(40 * KIB);
    *(volatile unsigned char *)(p + 40 * KIB) = 1;
}

static void touch_before(void *context) {
    case_start(context);
    unsigned char *p = case_alloc_any(40 * KIB);
    *(volatile unsigned char *)(p - 1) = 1;
}

// A sanitizer reports the fault and exits.
static bool is_fault(const struct child *c) {
    return child_died_of(c, SIGSEGV) || strstr(c->said, "SEGV") != NULL;
}

// Not what the kernel says, but what a program would see.
static void guards_fault(void **state) {
    (void)state;
    for (unsigned i = 0; i < SETTINGS; i++) {
        struct setting s = settings[i];
        struct child c;
        child_run(&c, touch_behind, &s);
        assert_true(is_fault(&c));
        child_run(&c, touch_before, &s);
        assert_true(is_fault(&c));
    }
}

static void check_gaps(void) {
    size_t distances[8] = {0};
    unsigned char *last = case_alloc_any(64 * KIB);
    for (unsigned i = 0; i < 400; i++) {
        unsigned char *p = case_alloc_any(64 * KIB);
        size_t gap = (size_t)(p - last) / FIRN_PAGE - 16;
        ENSURE(p > last && gap >= 1 && gap < 8);
        distances[gap]++;
        last = p;
    }
    // Four equally likely gaps: fewer than 50 of 400 for one of them has odds below 2^-20.
    for (unsigned gap = 1; gap <= 4; gap++) {
        ENSURE(distances[gap] >= 50);
    }
}

static void gaps_are_random(void **state) {
    (void)state;
    assert_true(case_run(&settings[PLAIN], check_gaps));
}

// ---- ownership ----

static void check_kinds(void) {
    struct large_block b;
    unsigned char *p = case_alloc_any(100 * KIB + 1);
    unsigned char *q = case_alloc_any(3 * MIB);
    uintptr_t at = (uintptr_t)p;
    ENSURE(large_find(at, &b) == LARGE_LIVE);
    ENSURE(b.base == at && b.size == 100 * KIB + 1 && b.capacity == 104 * KIB);
    ENSURE(large_find(at + 16, &b) == LARGE_INTERIOR && b.base == at);
    ENSURE(large_find(at + 103 * KIB, &b) == LARGE_INTERIOR && b.base == at);
    ENSURE(large_find((uintptr_t)q + 2 * MIB, &b) == LARGE_INTERIOR && b.base == (uintptr_t)q);
    ENSURE(large_find(at - 16, &b) == LARGE_NEVER);
    ENSURE(large_find(at + 104 * KIB, &b) == LARGE_NEVER);
    ENSURE(large_find((uintptr_t)q + 3 * MIB + 64 * KIB, &b) == LARGE_NEVER);
    ENSURE(large_find((uintptr_t)&b, &b) == LARGE_FOREIGN);
    ENSURE(large_find(case_range.base - FIRN_PAGE, &b) == LARGE_FOREIGN);
    ENSURE(large_find(case_range.base + case_range.bytes, &b) == LARGE_FOREIGN);
    ENSURE(large_find(case_range.base, &b) == LARGE_NEVER);
    ENSURE(large_find(case_range.base + case_range.bytes - FIRN_PAGE, &b) == LARGE_NEVER);
    ENSURE(case_free(p + FIRN_PAGE) == LARGE_INTERIOR);
    ENSURE(case_free(p + 16) == LARGE_INTERIOR);
    ENSURE(case_free(p) == LARGE_LIVE);
    ENSURE(case_free(p) == LARGE_FREED);
    ENSURE(case_free(p + FIRN_PAGE) == LARGE_FREED);
    large_trim();
    ENSURE(case_free(p) == LARGE_FREED);
    ENSURE(case_free(q) == LARGE_LIVE);
    ENSURE(case_free(q) == LARGE_FREED);
    large_trim();
    ENSURE(case_free(q) == LARGE_FREED && case_free(p) == LARGE_FREED);
    enum large_kind kind;
    ENSURE(large_resize((uintptr_t)q, 64 * KIB, &kind) == NULL && kind == LARGE_FREED);
}

static void kinds(void **state) {
    (void)state;
    assert_true(case_run_everywhere(check_kinds));
}

static void check_refusals(void) {
    static const size_t sizes[] = {PTRDIFF_MAX,     (size_t)PTRDIFF_MAX - 4096,
                                   SIZE_MAX,        SIZE_MAX - 1,
                                   (size_t)1 << 62, (size_t)1 << 50};
    bool is_zero;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        errno = 0;
        ENSURE(large_alloc(sizes[i], 16, &is_zero) == NULL && errno == ENOMEM);
        errno = 0;
        ENSURE(large_alloc(64 * KIB, (size_t)1 << (48 + i), &is_zero) == NULL && errno == ENOMEM);
    }
    errno = 0;
    ENSURE(large_alloc(64 * KIB, (size_t)1 << 63, &is_zero) == NULL && errno == ENOMEM);
    // The old object survives.
    unsigned char *p = case_alloc_any(64 * KIB);
    memset(p, 7, 64 * KIB);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        enum large_kind kind;
        errno = 0;
        ENSURE(large_resize((uintptr_t)p, sizes[i], &kind) == NULL);
        ENSURE(kind == LARGE_LIVE && errno == ENOMEM);
    }
    ENSURE(p[0] == 7 && p[64 * KIB - 1] == 7 && case_free(p) == LARGE_LIVE);
}

static void refusals(void **state) {
    (void)state;
    assert_true(case_run_everywhere(check_refusals));
}

static void check_alignment(void) {
    for (unsigned round = 0; round < 3; round++) {
        for (size_t align = 16; align <= GIB; align *= 2) {
            bool is_zero;
            unsigned char *p = case_alloc(align / 2 + 1, align, &is_zero);
            unsigned char *q = case_alloc(64 * KIB, align, &is_zero);
            p[0] = p[align / 2] = q[0] = q[64 * KIB - 1] = 1;
            // A run that is reused may be longer than the object and open in front of it.
            ENSURE(!FIRN_LARGE_SNUG || !memory_can_read((uintptr_t)q - 1));
            ENSURE(!memory_can_read((uintptr_t)q + 64 * KIB));
            ENSURE(case_free(p) == LARGE_LIVE);
            if (round > 0) {
                ENSURE(case_free(q) == LARGE_LIVE);
            }
        }
        large_check();
    }
}

static void alignment(void **state) {
    (void)state;
    assert_true(case_run_everywhere(check_alignment));
}

// ---- content ----

enum { SHADOWS = 64 };

static struct shadow {
    unsigned char *p;
    size_t size;
    unsigned char tag;
} shadows[SHADOWS];

// Every page's first byte, and the last byte.
static void stamp(struct shadow *s, unsigned char tag) {
    s->tag = tag;
    for (size_t at = 0; at < s->size; at += FIRN_PAGE) {
        s->p[at] = (unsigned char)(tag + at / FIRN_PAGE);
    }
    s->p[s->size - 1] = tag;
}

static void verify(const struct shadow *s, size_t size) {
    for (size_t at = 0; at < size; at += FIRN_PAGE) {
        if (at != s->size - 1) {
            ENSURE(s->p[at] == (unsigned char)(s->tag + at / FIRN_PAGE));
        }
    }
    if (size == s->size) {
        ENSURE(s->p[size - 1] == s->tag);
    }
}

static size_t draw_size(void) {
    switch (case_draw(8)) {
    case 0:
        return 1 + case_draw(8 * MIB);
    case 1:
        return 1 + case_draw(64 * KIB);
    default:
        return 32 * KIB + case_draw(MIB);
    }
}

static void shadow_resize(struct shadow *s) {
    enum large_kind kind;
    size_t size = case_draw(3) == 0 ? s->size + case_draw(64 * KIB) : draw_size();
    unsigned char *p = large_resize((uintptr_t)s->p, size, &kind);
    ENSURE(p != NULL && kind == LARGE_LIVE);
    s->p = p;
    size_t kept = size < s->size ? size : s->size;
    verify(s, kept == s->size ? kept : kept - 1);
    s->size = size;
    stamp(s, (unsigned char)case_draw(256));
}

static void check_random(void) {
    case_seed = 88172645463325252u;
    unsigned steps = test_is_thorough() ? 1000 : 400;
    for (unsigned i = 0; i < steps; i++) {
        struct shadow *s = &shadows[case_draw(SHADOWS)];
        if (s->p == NULL) {
            bool is_zero;
            s->size = draw_size();
            s->p =
                case_alloc(s->size, (size_t)1 << case_draw(case_draw(10) == 0 ? 22 : 13), &is_zero);
            ENSURE(!is_zero || case_draw(4) != 0 || memory_is_zero(s->p, s->size));
            stamp(s, (unsigned char)case_draw(256));
        } else if (case_draw(3) == 0) {
            shadow_resize(s);
        } else {
            verify(s, s->size);
            ENSURE(case_free(s->p) == LARGE_LIVE);
            s->p = NULL;
        }
        if (case_draw(500) == 0) {
            large_trim();
        }
        if (i % 100 == 0) {
            large_check();
        }
    }
}

static void random_use(void **state) {
    (void)state;
    assert_true(case_run_everywhere(check_random));
}

// One object grows by small steps among neighbours that do not let it grow in place for long.
static void check_growth(void) {
    struct shadow s = {.size = 300 * KIB};
    s.p = case_alloc_any(s.size);
    stamp(&s, 5);
    for (unsigned i = 0; i < 120; i++) {
        enum large_kind kind;
        unsigned char *wall = i % 4 == 0 ? case_alloc_any(33 * KIB) : NULL;
        size_t size = s.size + (64 + case_draw(128)) * KIB;
        unsigned char *p = large_resize((uintptr_t)s.p, size, &kind);
        ENSURE(p != NULL);
        s.p = p;
        verify(&s, s.size);
        s.size = size;
        stamp(&s, (unsigned char)i);
        if (wall != NULL && case_draw(2) == 0) {
            ENSURE(case_free(wall) == LARGE_LIVE);
        }
    }
    large_check();
    ENSURE(case_free(s.p) == LARGE_LIVE);
}

static void growth(void **state) {
    (void)state;
    case_seed = 362436069;
    assert_true(case_run_everywhere(check_growth));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guards),       cmocka_unit_test(reuse),
        cmocka_unit_test(guards_fault), cmocka_unit_test(gaps_are_random),
        cmocka_unit_test(kinds),        cmocka_unit_test(refusals),
        cmocka_unit_test(alignment),    cmocka_unit_test(random_use),
        cmocka_unit_test(growth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
