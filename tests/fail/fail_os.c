// The os layer with the Nth call into the kernel failing, once and for good, for every N: a function
// fails as its contract says or succeeds, nothing that held before is lost, and once the kernel
// answers again everything works.
// firn-test: wrap=mmap,munmap,mprotect,madvise,mremap,munlock,mlock2,getrlimit,syscall
#include "src/meta/arena.h"
#include "src/os/caps.h"
#include "src/os/map.h"
#include "src/os/random.h"
#include "src/os/sys.h"
#include "tests/support/child.h"
#include "tests/support/inject.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define NO_MARKERS (CAP_ALL & ~(uint32_t)CAP_GUARD_MARKER)

enum { UNREACHED = 7, CALLS_MOST = 200 };

struct round {
    void (*scenario)(const struct round *);
    unsigned nth;
    enum inject_mode mode;
    int error;
    uint32_t caps;
    bool is_sparse;
};

static void need_at(bool condition, const char *what, int line) {
    if (!condition) {
        dprintf(STDERR_FILENO, "line %d: %s", line, what);
        _exit(1);
    }
}
#define NEED(condition) need_at((condition), #condition, __LINE__)

static void arm(const struct round *r) {
    errno = 0;
    inject_start(r->nth, r->mode, r->error);
}

// The scenario is over when no call was left to fail.
static void disarm(void) {
    if (!inject_stop()) {
        _exit(UNREACHED);
    }
}

static unsigned char *at(uintptr_t address) {
    return (unsigned char *)address;
}

static struct reservation committed(const struct round *r) {
    struct reservation range;
    NEED(map_reserve(&range, MIB, 64 * KIB, 47, r->is_sparse));
    NEED(map_commit(&range, range.base, MIB));
    memset(at(range.base), 1, MIB);
    return range;
}

static void in_child(void *context) {
    const struct round *r = context;
    caps_probe(r->caps);
    r->scenario(r);
}

static void run_all(struct round r) {
    static const int errors[] = {0, ENOMEM, EPERM, EAGAIN, ENOSYS};
    struct child c;
    for (unsigned e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
        for (unsigned mode = 0; mode < 2; mode++) {
            c.status = -1;
            r.error = errors[e];
            r.mode = (enum inject_mode)mode;
            for (r.nth = 1; r.nth < CALLS_MOST && !child_exited(&c, UNREACHED); r.nth++) {
                child_run(&c, in_child, &r);
                if (!child_exited(&c, 0) && !child_exited(&c, UNREACHED)) {
                    fail_msg("call %u, mode %u, errno %d: %s", r.nth, mode, r.error, c.said);
                }
            }
            // At least one call was made, and there was an end to them.
            assert_in_range(r.nth, 3, CALLS_MOST - 1);
        }
    }
}

static void run_both(void (*scenario)(const struct round *)) {
    struct round r = {.scenario = scenario, .caps = CAP_ALL};
    run_all(r);
    r.is_sparse = true;
    run_all(r);
}

static void run_with_and_without_markers(void (*scenario)(const struct round *)) {
    struct round r = {.scenario = scenario, .caps = CAP_ALL};
    run_all(r);
    r.caps = NO_MARKERS;
    run_all(r);
}

static void probing(const struct round *r) {
    arm(r);
    errno = 77;
    caps_probe(CAP_ALL);
    NEED(errno == 77);
    disarm();
    NEED(caps_limits()->max_map_count > 0);
    // Whatever was found is enough to work with.
    struct reservation range;
    NEED(map_reserve(&range, MIB, FIRN_PAGE, caps_has(CAP_WIDE_ADDRESS) ? 47 : 39, false) ||
         map_reserve(&range, MIB, FIRN_PAGE, 47, false));
    NEED(map_commit(&range, range.base, MIB));
    NEED(memory_is_zero(at(range.base), MIB));
}

static void reserving(const struct round *r) {
    struct reservation range;
    size_t vmas = memory_count_vmas(0, UINTPTR_MAX);
    arm(r);
    bool done = map_reserve(&range, MIB, 64 * KIB, 47, r->is_sparse);
    int why = errno;
    disarm();
    NEED(done || why != 0);
    NEED(done || inject_hit_munmap() || memory_count_vmas(0, UINTPTR_MAX) == vmas);
    NEED(done || map_reserve(&range, MIB, 64 * KIB, 47, r->is_sparse));
    // In a sparse one the trial page may still be there if it could not be unmapped.
    bool is_usable = map_commit(&range, range.base, MIB);
    NEED(is_usable || (r->is_sparse && inject_hit_munmap()));
    NEED(!is_usable || memory_is_zero(at(range.base), MIB));
}

static void committing(const struct round *r) {
    struct reservation range;
    NEED(map_reserve(&range, MIB, 64 * KIB, 47, r->is_sparse));
    arm(r);
    bool done = map_commit(&range, range.base, MIB);
    int why = errno;
    disarm();
    NEED(done || why != 0);
    NEED(done || map_commit(&range, range.base, MIB));
    NEED(memory_is_zero(at(range.base), MIB));
    memset(at(range.base), 1, MIB);
}

static void decommitting(const struct round *r) {
    struct reservation range = committed(r);
    uintptr_t middle = range.base + 256 * KIB;
    NEED(map_guard(middle + 64 * KIB, FIRN_PAGE));
    arm(r);
    errno = 77;
    map_decommit(&range, middle, 256 * KIB);
    NEED(errno == 77);
    bool is_hit = inject_stop();
    NEED(map_guard_vmas() == 0);
    NEED(*at(middle - 1) == 1 && *at(middle + 256 * KIB) == 1);
    // For good: neither mapping, protecting nor advising works, and no page can be dropped.
    if (is_hit && r->mode == INJECT_ONCE) {
        bool is_back = map_commit(&range, middle, 256 * KIB);
        NEED(is_back || (r->is_sparse && inject_hit_munmap()));
        NEED(!is_back || memory_is_zero(at(middle), 256 * KIB));
    }
    _exit(is_hit ? 0 : UNREACHED);
}

static void purging(const struct round *r) {
    struct reservation range = committed(r);
    arm(r);
    errno = 77;
    map_purge(range.base + 64 * KIB, 256 * KIB);
    NEED(errno == 77);
    disarm();
    NEED(memory_is_zero(at(range.base + 64 * KIB), 256 * KIB));
    NEED(*at(range.base + 64 * KIB - 1) == 1 && *at(range.base + 320 * KIB) == 1);
    memset(at(range.base), 1, MIB);
}

static void populating(const struct round *r) {
    struct reservation range;
    NEED(map_reserve(&range, MIB, FIRN_PAGE, 47, r->is_sparse) &&
         map_commit(&range, range.base, MIB));
    memset(at(range.base), 1, FIRN_PAGE);
    arm(r);
    errno = 77;
    map_populate(range.base, 256 * KIB);
    NEED(errno == 77);
    disarm();
    NEED(*at(range.base) == 1 && *at(range.base + FIRN_PAGE - 1) == 1);
    NEED(memory_is_zero(at(range.base + FIRN_PAGE), MIB - FIRN_PAGE));
    memset(at(range.base), 1, MIB);
}

static void purging_locked(const struct round *r) {
    struct reservation range = committed(r);
    NEED(mlock((void *)range.base, 128 * KIB) == 0);
    arm(r);
    map_purge(range.base, 128 * KIB);
    disarm();
    NEED(memory_is_zero(at(range.base), 128 * KIB));
    NEED(*at(range.base + 128 * KIB) == 1);
}

static void guarding(const struct round *r) {
    struct reservation range = committed(r);
    uintptr_t page = range.base + 64 * KIB;
    arm(r);
    bool done = map_guard(page, FIRN_PAGE);
    int why = errno;
    disarm();
    NEED(done || why != 0);
    NEED(memory_can_read(page) == !done);
    NEED(done || map_guard_vmas() == 0);
    NEED(*at(page - 1) == 1 && *at(page + FIRN_PAGE) == 1);
    NEED(map_unguard(range.base, MIB));
    NEED(map_guard_vmas() == 0);
    NEED(!done || memory_is_zero(at(page), FIRN_PAGE));
    memset(at(range.base), 1, MIB);
}

static void unguarding(const struct round *r) {
    struct reservation range = committed(r);
    uintptr_t page = range.base + 64 * KIB;
    NEED(map_guard(page, FIRN_PAGE));
    arm(r);
    bool done = map_unguard(range.base, MIB);
    int why = errno;
    disarm();
    NEED(done || why != 0);
    NEED(memory_can_read(page) == done);
    NEED(done || map_unguard(range.base, MIB));
    NEED(map_guard_vmas() == 0);
    NEED(memory_is_zero(at(page), FIRN_PAGE) && *at(page - 1) == 1);
    memset(at(range.base), 1, MIB);
}

static void moving(const struct round *r) {
    struct reservation range = committed(r);
    uintptr_t to = range.base + 512 * KIB;
    memset(at(range.base), 7, 64 * KIB);
    arm(r);
    bool done = map_move(range.base, to, 64 * KIB);
    int why = errno;
    disarm();
    NEED(!done && why != 0);
    NEED(*at(range.base) == 7 && *at(range.base + 64 * KIB - 1) == 7);
    memset(at(to), 2, 64 * KIB);
}

static void renewing(const struct round *r) {
    struct reservation range = committed(r);
    NEED(map_guard(range.base + 64 * KIB, FIRN_PAGE));
    arm(r);
    bool done = map_renew(&range, range.base, MIB);
    int why = errno;
    disarm();
    NEED(done || why != 0);
    NEED(done || map_renew(&range, range.base, MIB));
    NEED(map_guard_vmas() == 0 && memory_is_zero(at(range.base), MIB));
    memset(at(range.base), 1, MIB);
}

static void protecting(const struct round *r) {
    struct reservation range = committed(r);
    arm(r);
    errno = 77;
    map_make_readonly(range.base, FIRN_PAGE);
    NEED(errno == 77);
    disarm();
    map_make_writable(range.base, FIRN_PAGE);
    *at(range.base) = 2;
}

static void advising(const struct round *r) {
    struct reservation range = committed(r);
    arm(r);
    bool is_wiped = map_wipe_on_fork(range.base, FIRN_PAGE);
    bool is_excluded = map_exclude_from_dump(range.base, FIRN_PAGE);
    disarm();
    NEED(!is_wiped || !is_excluded);
    NEED(memory_has_flag(range.base, "wf") == is_wiped);
    NEED(memory_has_flag(range.base, "dd") == is_excluded);
}

static void drawing(const struct round *r) {
    struct random_stream a = {0}, b = {0};
    uint8_t bytes[100] = {0};
    arm(r);
    errno = 77;
    random_seed_bytes(bytes, sizeof(bytes));
    uint64_t first = random_u64(&a), second = random_u64(&b);
    NEED(errno == 77);
    disarm();
    NEED(!memory_is_zero(bytes, sizeof(bytes)));
    NEED(first != second);
    // One failure has a second source; when everything fails, that is said.
    NEED(random_is_strong() == (r->mode == INJECT_ONCE));
}

static void asking(const struct round *r) {
    char text[64], path[64];
    arm(r);
    errno = 77;
    size_t n = sys_read_file("/proc/sys/kernel/ostype", text, sizeof(text));
    uintptr_t offset = sys_locate((uintptr_t)&asking, path, sizeof(path));
    sys_write(STDERR_FILENO, "", 1);
    NEED(errno == 77);
    disarm();
    NEED(strlen(text) == n && n <= 6);
    NEED(offset != 0 && strlen(path) > 0);
    NEED(path[0] == '/' || offset == (uintptr_t)&asking);
}

static void describing(const struct round *r) {
    arm(r);
    errno = 77;
    for (size_t i = 0; i < 40; i++) {
        void *p = arena_alloc(16 * KIB, 64);
        NEED(p == NULL || memory_is_zero(p, 16 * KIB));
        if (p != NULL) {
            memset(p, 1, 16 * KIB);
        }
    }
    NEED(errno == 77);
    disarm();
    void *p = arena_alloc(16 * KIB, 64);
    NEED(p != NULL && memory_is_zero(p, 16 * KIB));
}

static void describing_sparsely(const struct round *r) {
    caps_probe(CAP_ALL & ~(uint32_t)CAP_RESERVE);
    describing(r);
}

#define BOTH(name)                                                                                 \
    static void name##_fails(void **state) {                                                       \
        (void)state;                                                                               \
        run_both(name);                                                                            \
    }
#define GUARDS(name)                                                                               \
    static void name##_fails(void **state) {                                                       \
        (void)state;                                                                               \
        run_with_and_without_markers(name);                                                        \
    }
#define ONCE(name)                                                                                 \
    static void name##_fails(void **state) {                                                       \
        (void)state;                                                                               \
        run_all((struct round){.scenario = name, .caps = CAP_ALL});                                \
    }
ONCE(probing)
BOTH(reserving)
BOTH(committing)
BOTH(decommitting)
ONCE(purging)
ONCE(populating)
ONCE(purging_locked)
GUARDS(guarding)
GUARDS(unguarding)
ONCE(moving)
GUARDS(renewing)
ONCE(protecting)
ONCE(advising)
ONCE(drawing)
ONCE(asking)
ONCE(describing)
ONCE(describing_sparsely)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probing_fails),
        cmocka_unit_test(reserving_fails),
        cmocka_unit_test(committing_fails),
        cmocka_unit_test(decommitting_fails),
        cmocka_unit_test(purging_fails),
        cmocka_unit_test(purging_locked_fails),
        cmocka_unit_test(populating_fails),
        cmocka_unit_test(guarding_fails),
        cmocka_unit_test(unguarding_fails),
        cmocka_unit_test(moving_fails),
        cmocka_unit_test(renewing_fails),
        cmocka_unit_test(protecting_fails),
        cmocka_unit_test(advising_fails),
        cmocka_unit_test(drawing_fails),
        cmocka_unit_test(asking_fails),
        cmocka_unit_test(describing_fails),
        cmocka_unit_test(describing_sparsely_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
