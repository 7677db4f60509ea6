// Reservations, commits, guards and moves, each on every path a kernel can force us onto: the masks
// below take capabilities away from the kernel that runs the test.
// firn-test: share=2
#include "src/os/map.h"

#include "src/os/caps.h"
#include "tests/support/child.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
#define TIB ((size_t)1 << 40)

static const uint32_t masks[] = {CAP_ALL, CAP_ALL & ~(uint32_t)CAP_GUARD_MARKER,
                                 CAP_ALL & ~(uint32_t)(CAP_NOREPLACE | CAP_MREMAP_KEEP)};
enum { MASKS = sizeof(masks) / sizeof(masks[0]) };

static int restore_caps(void **state) {
    (void)state;
    caps_probe(CAP_ALL);
    return 0;
}

static struct reservation reserve(size_t bytes, bool sparse) {
    struct reservation r;
    assert_true(map_reserve(&r, bytes, 64 * KIB, 47, sparse));
    return r;
}

static unsigned char *at(uintptr_t address) {
    return (unsigned char *)address;
}

static void reserves_where_asked(void **state) {
    (void)state;
    static const size_t sizes[] = {64 * KIB, GIB, 4 * TIB};
    for (unsigned m = 0; m < MASKS; m++) {
        caps_probe(masks[m]);
        for (unsigned i = 0; i < 3; i++) {
            struct reservation r, other;
            assert_true(map_reserve(&r, sizes[i], GIB, 47, false));
            assert_true(map_reserve(&other, sizes[i], GIB, 47, false));
            assert_int_equal(r.base % GIB, 0);
            assert_int_equal(r.bytes, sizes[i]);
            assert_false(r.is_sparse);
            assert_true(r.base >= 32 * TIB && r.base + r.bytes <= 80 * TIB);
            assert_int_not_equal(r.base, other.base);
            assert_false(memory_can_read(r.base));
            assert_false(memory_can_read(r.base + r.bytes - 1));
            assert_true(memory_has_flag(r.base, "dd"));
            assert_true(memory_has_flag(r.base, "nh"));
            assert_int_equal(munmap((void *)r.base, r.bytes), 0);
            assert_int_equal(munmap((void *)other.base, other.bytes), 0);
        }
    }
}

// Larger than the window of random places, and larger than everything.
static void reserves_the_outsized(void **state) {
    (void)state;
    struct reservation r;
    assert_true(map_reserve(&r, 56 * TIB, 2 * MIB, 47, false));
    assert_int_equal(r.base % (2 * MIB), 0);
    assert_true(r.base + r.bytes <= 128 * TIB);
    assert_int_equal(memory_count_vmas(r.base, r.bytes), 1);
    assert_int_equal(munmap((void *)r.base, r.bytes), 0);
    errno = 0;
    assert_false(map_reserve(&r, 256 * TIB, 2 * MIB, 47, false));
    assert_int_equal(errno, ENOMEM);
    assert_false(map_reserve(&r, 256 * TIB, 2 * MIB, 47, true));
    assert_false(map_reserve(&r, (size_t)0 - FIRN_PAGE, (size_t)1 << 62, 47, false));
}

static void reserves_in_39_bits(void **state) {
    (void)state;
    if (memory_is_sanitized()) {
        skip(); // the shadow lies there
    }
    for (unsigned m = 0; m < MASKS; m++) {
        caps_probe(masks[m]);
        for (int sparse = 0; sparse < 2; sparse++) {
            struct reservation r;
            assert_true(map_reserve(&r, 64 * GIB, 2 * MIB, 39, sparse));
            assert_true(r.base + r.bytes <= (uintptr_t)1 << 39);
            assert_true(map_commit(&r, r.base, 64 * KIB));
            *at(r.base) = 1;
            map_decommit(&r, r.base, 64 * KIB);
            map_unreserve(&r);
        }
    }
    struct reservation r;
    assert_false(map_reserve(&r, TIB, 2 * MIB, 39, false));
    assert_false(map_reserve(&r, TIB, 2 * MIB, 39, true));
}

static bool are_apart(const struct reservation *a, const struct reservation *b) {
    return a->base >= b->base + b->bytes || b->base >= a->base + a->bytes;
}

// What the kernel knows nothing of is kept apart all the same, even where it takes most of what there
// is (a heap in 39 bits: 256 GiB for blocks, 8 for their descriptors, 16 for others). In the middle of
// one lies nothing of another, mapped or chosen.
static void chosen_ranges_never_overlap(void **state) {
    (void)state;
    enum { RANGES = 4, ROUNDS = 60 };
    static const size_t sizes[RANGES] = {256 * GIB, 8 * GIB, 16 * GIB, GIB};
    if (memory_is_sanitized()) {
        skip(); // the shadow lies there
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct reservation r[RANGES];
        unsigned n = 0;
        for (unsigned i = 0; i < RANGES; i++) {
            // A mapped one, too.
            bool is_there = map_reserve(&r[n], sizes[i], 2 * MIB, 39, i != RANGES - 1);
            assert_true(is_there || i == 2);
            n += is_there;
        }
        for (unsigned i = 0; i < n; i++) {
            for (unsigned j = 0; j < i; j++) {
                assert_true(are_apart(&r[i], &r[j]));
            }
        }
        for (unsigned i = 0; i < n; i++) {
            map_unreserve(&r[i]);
        }
    }
}

// Neighbouring commits merge, so that a grown heap is one VMA and not one for each step.
static void commits_merge(void **state) {
    (void)state;
    for (unsigned m = 0; m < MASKS; m++) {
        caps_probe(masks[m]);
        for (int sparse = 0; sparse < 2; sparse++) {
            struct reservation r = reserve(GIB, sparse);
            for (size_t i = 0; i < 16; i++) {
                uintptr_t piece = r.base + i * 64 * KIB;
                assert_true(map_commit(&r, piece, 64 * KIB));
                assert_true(memory_is_zero(at(piece), 64 * KIB));
                memset(at(piece), 0x5a, 64 * KIB);
            }
            assert_int_equal(memory_count_vmas(r.base, MIB), 1);
            assert_int_equal(memory_count_vmas(r.base, GIB), sparse ? 1 : 2);
            assert_false(memory_can_read(r.base + MIB));
            assert_true(memory_has_flag(r.base, "nh"));
            assert_false(memory_has_flag(r.base, "dd"));
            map_decommit(&r, r.base, MIB);
            assert_false(memory_can_read(r.base));
            assert_int_equal(memory_count_vmas(r.base, GIB), sparse ? 0 : 1);
            map_unreserve(&r);
        }
    }
}

static void decommitted_comes_back_zero(void **state) {
    (void)state;
    for (int sparse = 0; sparse < 2; sparse++) {
        struct reservation r = reserve(MIB, sparse);
        assert_true(map_commit(&r, r.base, 256 * KIB));
        memset(at(r.base), 1, 256 * KIB);
        errno = 77;
        map_decommit(&r, r.base + 64 * KIB, 64 * KIB);
        assert_int_equal(errno, 77);
        assert_false(memory_can_read(r.base + 64 * KIB));
        assert_int_equal(*at(r.base + 64 * KIB - 1), 1);
        assert_int_equal(*at(r.base + 128 * KIB), 1);
        assert_true(map_commit(&r, r.base + 64 * KIB, 64 * KIB));
        assert_true(memory_is_zero(at(r.base + 64 * KIB), 64 * KIB));
        map_decommit(&r, r.base, 256 * KIB);
    }
}

static void commit_is_idempotent(void **state) {
    (void)state;
    struct reservation r = reserve(MIB, false);
    assert_true(map_commit(&r, r.base, 128 * KIB));
    *at(r.base) = 9;
    assert_true(map_commit(&r, r.base, 256 * KIB));
    assert_int_equal(*at(r.base), 9);
    munmap((void *)r.base, r.bytes);
}

// Somebody else's mapping inside a chosen range is refused, and left alone.
static void sparse_never_overwrites(void **state) {
    (void)state;
    for (unsigned m = 0; m < MASKS; m++) {
        caps_probe(masks[m]);
        struct reservation r = reserve(MIB, true);
        assert_int_equal(memory_count_vmas(r.base, r.bytes), 0);
        void *theirs = mmap((void *)(r.base + 128 * KIB), FIRN_PAGE, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        assert_ptr_equal(theirs, (void *)(r.base + 128 * KIB));
        *at(r.base + 128 * KIB) = 3;
        errno = 0;
        assert_false(map_commit(&r, r.base + 64 * KIB, 128 * KIB));
        assert_int_equal(errno, EEXIST);
        assert_int_equal(*at(r.base + 128 * KIB), 3);
        assert_int_equal(memory_count_vmas(r.base, r.bytes), 1);
        assert_true(map_commit(&r, r.base + 64 * KIB, 64 * KIB));
        map_decommit(&r, r.base + 64 * KIB, 64 * KIB);
        munmap(theirs, FIRN_PAGE);
    }
}

static void purge_drops_pages(void **state) {
    (void)state;
    struct reservation r = reserve(MIB, false);
    assert_true(map_commit(&r, r.base, MIB));
    memset(at(r.base), 1, MIB);
    assert_int_equal(memory_resident_kib(r.base), 1024);
    errno = 77;
    map_purge(r.base + 64 * KIB, 512 * KIB);
    assert_int_equal(errno, 77);
    assert_int_equal(memory_resident_kib(r.base), 512);
    assert_true(memory_is_zero(at(r.base + 64 * KIB), 512 * KIB));
    assert_int_equal(*at(r.base + 64 * KIB - 1), 1);
    assert_int_equal(*at(r.base + 576 * KIB), 1);
    munmap((void *)r.base, r.bytes);
}

static void populates_what_it_can(void **state) {
    (void)state;
    static const uint32_t without[] = {CAP_ALL, CAP_ALL & ~(uint32_t)CAP_POPULATE};
    for (unsigned i = 0; i < 2; i++) {
        caps_probe(without[i]);
        size_t there = caps_has(CAP_POPULATE) ? 64 : 0;
        struct reservation r = reserve(MIB, false);
        assert_true(map_commit(&r, r.base, MIB));
        errno = 77;
        map_populate(r.base, FIRN_PAGE); // one is left to the first touch
        assert_int_equal(memory_resident_kib(r.base), 0);
        map_populate(r.base, 64 * KIB);
        assert_int_equal(errno, 77);
        assert_int_equal(memory_resident_kib(r.base), there);
        assert_true(memory_is_zero(at(r.base), MIB));
        // What is there stays as it is.
        memset(at(r.base), 1, 8 * KIB);
        map_populate(r.base, 64 * KIB);
        assert_int_equal(*at(r.base + 8 * KIB - 1), 1);
        assert_true(memory_is_zero(at(r.base + 8 * KIB), 56 * KIB));
        munmap((void *)r.base, r.bytes);
    }
}

// The kernel stops at a guard, and refuses what is not mapped: neither is anybody's business.
static void a_refused_populate_does_no_harm(void **state) {
    (void)state;
    struct reservation r = reserve(MIB, false);
    assert_true(map_commit(&r, r.base, 64 * KIB));
    assert_true(map_guard(r.base + 16 * KIB, FIRN_PAGE));
    errno = 77;
    map_populate(r.base, 64 * KIB);
    map_populate(r.base + 64 * KIB, 64 * KIB);
    assert_int_equal(errno, 77);
    assert_false(memory_can_read(r.base + 16 * KIB));
    assert_false(memory_can_read(r.base + 64 * KIB));
    assert_true(memory_is_zero(at(r.base), 16 * KIB));
    assert_true(map_unguard(r.base + 16 * KIB, FIRN_PAGE));
    assert_true(memory_is_zero(at(r.base), 64 * KIB));
    munmap((void *)r.base, r.bytes);
}

static void purge_drops_locked_pages(void **state) {
    (void)state;
    struct reservation r = reserve(MIB, false);
    assert_true(map_commit(&r, r.base, 64 * KIB));
    memset(at(r.base), 1, 64 * KIB);
    if (mlock((void *)r.base, 64 * KIB) != 0) {
        skip();
    }
    map_purge(r.base, 64 * KIB);
    assert_true(memory_is_zero(at(r.base), 64 * KIB));
    munmap((void *)r.base, r.bytes);
}

static void guards_and_unguards(void **state) {
    (void)state;
    for (unsigned m = 0; m < MASKS; m++) {
        caps_probe(masks[m]);
        bool markers = caps_has(CAP_GUARD_MARKER);
        struct reservation r = reserve(MIB, false);
        assert_true(map_commit(&r, r.base, MIB));
        memset(at(r.base), 1, MIB);
        size_t vmas = map_guard_vmas();
        assert_true(map_guard(r.base + 16 * KIB, 2 * FIRN_PAGE));
        assert_true(map_guard(r.base + 64 * KIB, FIRN_PAGE));
        assert_false(memory_can_read(r.base + 16 * KIB));
        assert_false(memory_can_read(r.base + 24 * KIB - 1));
        assert_false(memory_can_read(r.base + 64 * KIB));
        assert_true(memory_can_write(r.base + 24 * KIB));
        assert_int_equal(map_guard_vmas(), markers ? vmas : vmas + 4);
        assert_int_equal(memory_count_vmas(r.base, MIB), markers ? 1 : 5);
        assert_true(map_unguard(r.base, MIB));
        assert_int_equal(map_guard_vmas(), vmas);
        assert_int_equal(memory_count_vmas(r.base, MIB), 1);
        assert_true(memory_is_zero(at(r.base + 16 * KIB), 2 * FIRN_PAGE));
        assert_true(memory_is_zero(at(r.base + 64 * KIB), FIRN_PAGE));
        assert_int_equal(*at(r.base + 24 * KIB), 1);
        assert_int_equal(*at(r.base), 1);
        munmap((void *)r.base, r.bytes);
    }
}

static void decommit_and_renew_forget_guards(void **state) {
    (void)state;
    for (unsigned m = 0; m < MASKS; m++) {
        caps_probe(masks[m]);
        struct reservation r = reserve(MIB, false);
        for (int renew = 0; renew < 2; renew++) {
            assert_true(map_commit(&r, r.base, MIB));
            assert_true(map_guard(r.base + 64 * KIB, FIRN_PAGE));
            if (renew) {
                assert_true(map_renew(&r, r.base, MIB));
            } else {
                map_decommit(&r, r.base, MIB);
                assert_true(map_commit(&r, r.base, MIB));
            }
            assert_int_equal(map_guard_vmas(), 0);
            assert_true(memory_is_zero(at(r.base), MIB));
            memset(at(r.base), 1, MIB);
        }
        munmap((void *)r.base, r.bytes);
    }
}

// Fewer guards, never a failure of anything else.
static void guards_stay_within_the_budget(void **state) {
    (void)state;
    caps_probe(CAP_ALL & ~(uint32_t)CAP_GUARD_MARKER);
    size_t pages = map_guard_vma_budget() + 64, guards = 0;
    struct reservation r = reserve(pages * FIRN_PAGE, false);
    assert_int_equal(map_guard_vma_budget(), caps_limits()->max_map_count / 4);
    assert_true(map_commit(&r, r.base, pages * FIRN_PAGE));
    for (size_t page = 0; page < pages; page += 2) {
        bool is_guarded = map_guard(r.base + page * FIRN_PAGE, FIRN_PAGE);
        assert_int_equal(memory_can_read(r.base + page * FIRN_PAGE), !is_guarded);
        guards += is_guarded;
    }
    assert_int_equal(guards, map_guard_vma_budget() / 2);
    assert_int_equal(map_guard_vmas(), guards * 2);
    assert_true(map_unguard(r.base, pages * FIRN_PAGE));
    assert_int_equal(map_guard_vmas(), 0);
    assert_int_equal(memory_count_vmas(r.base, r.bytes), 1);
    assert_true(map_guard(r.base, FIRN_PAGE));
    assert_true(map_unguard(r.base, FIRN_PAGE));
    munmap((void *)r.base, r.bytes);
}

// The kernel refuses markers in locked memory.
static void guards_locked_memory(void **state) {
    (void)state;
    struct reservation r = reserve(MIB, false);
    assert_true(map_commit(&r, r.base, 64 * KIB));
    memset(at(r.base), 1, 64 * KIB);
    if (mlock((void *)r.base, 64 * KIB) != 0) {
        skip();
    }
    assert_true(map_guard(r.base + 16 * KIB, FIRN_PAGE));
    assert_false(memory_can_read(r.base + 16 * KIB));
    assert_true(map_unguard(r.base, 64 * KIB));
    assert_true(memory_is_zero(at(r.base + 16 * KIB), FIRN_PAGE));
    assert_int_equal(map_guard_vmas(), 0);
    munmap((void *)r.base, r.bytes);
}

static void moves_pages(void **state) {
    (void)state;
    struct reservation r = reserve(16 * MIB, false);
    uintptr_t from = r.base, to = r.base + 8 * MIB;
    if (!caps_has(CAP_MREMAP_KEEP)) {
        skip();
    }
    assert_true(map_commit(&r, r.base, 16 * MIB));
    memset(at(from), 7, MIB);
    memset(at(to), 1, MIB);
    assert_true(map_move(from, to, MIB));
    assert_int_equal(*at(to), 7);
    assert_int_equal(*at(to + MIB - 1), 7);
    assert_true(memory_is_zero(at(from), MIB));
    assert_true(memory_can_write(from));
    assert_true(map_renew(&r, to, MIB));
    assert_true(memory_is_zero(at(to), MIB));
    assert_true(map_renew(&r, from, MIB));
    assert_int_equal(memory_count_vmas(r.base, r.bytes), 1);
    munmap((void *)r.base, r.bytes);
}

static void moves_are_refused_cleanly(void **state) {
    (void)state;
    struct reservation r = reserve(MIB, true);
    assert_true(map_commit(&r, r.base, 512 * KIB));
    // Nothing is there to be moved, and some kernels have unmapped the target when they find out.
    assert_false(map_move(r.base + 768 * KIB, r.base, 128 * KIB));
    assert_true(memory_can_write(r.base));
    assert_true(memory_can_write(r.base + 128 * KIB - 1));
    assert_int_equal(memory_count_vmas(r.base, MIB), 1);
    caps_probe(CAP_ALL & ~(uint32_t)CAP_MREMAP_KEEP);
    assert_false(map_move(r.base, r.base + 256 * KIB, 64 * KIB));
    assert_int_equal(errno, ENOSYS);
    munmap((void *)r.base, r.bytes);
}

static void write_byte(void *address) {
    *(volatile unsigned char *)address = 1;
}

static void readonly_and_back(void **state) {
    (void)state;
    struct child c;
    struct reservation r = reserve(64 * KIB, false);
    assert_true(map_commit(&r, r.base, 64 * KIB));
    *at(r.base) = 1;
    map_make_readonly(r.base, FIRN_PAGE);
    assert_true(memory_can_read(r.base));
    assert_false(memory_can_write(r.base));
    child_run(&c, write_byte, (void *)r.base);
    assert_true(child_died_of(&c, SIGSEGV));
    map_make_writable(r.base, FIRN_PAGE);
    child_run(&c, write_byte, (void *)r.base);
    assert_true(child_exited(&c, 0));
    munmap((void *)r.base, r.bytes);
}

static void expect_zero(void *address) {
    _exit(*(unsigned char *)address == 0 ? 0 : 1);
}

static void wipes_on_fork(void **state) {
    (void)state;
    struct child c;
    struct reservation r = reserve(64 * KIB, false);
    assert_true(map_commit(&r, r.base, 64 * KIB));
    memset(at(r.base), 1, 64 * KIB);
    if (!map_wipe_on_fork(r.base, FIRN_PAGE)) {
        skip();
    }
    child_run(&c, expect_zero, (void *)r.base);
    assert_true(child_exited(&c, 0));
    child_run(&c, expect_zero, (void *)(r.base + FIRN_PAGE));
    assert_true(child_exited(&c, 1));
    caps_probe(CAP_ALL & ~(uint32_t)CAP_WIPE_ON_FORK);
    assert_false(map_wipe_on_fork(r.base, FIRN_PAGE));
    munmap((void *)r.base, r.bytes);
}

static void excluded_from_dump(void **state) {
    (void)state;
    struct reservation r = reserve(64 * KIB, false);
    assert_true(map_commit(&r, r.base, 64 * KIB));
    assert_false(memory_has_flag(r.base, "dd"));
    assert_true(map_exclude_from_dump(r.base, FIRN_PAGE));
    assert_true(memory_has_flag(r.base, "dd"));
    munmap((void *)r.base, r.bytes);
}

static void commit_too_much(void *context) {
    const struct rlimit *limit = context;
    struct reservation r;
    if (!map_reserve(&r, GIB, FIRN_PAGE, 47, false)) {
        _exit(1);
    }
    setrlimit(RLIMIT_DATA, limit);
    errno = 0;
    if (map_commit(&r, r.base, GIB) || errno != ENOMEM) {
        _exit(2);
    }
    if (!map_commit(&r, r.base, 64 * KIB)) {
        _exit(3);
    }
}

// RLIMIT_DATA counts what is writable.
static void commit_respects_limits(void **state) {
    (void)state;
    struct rlimit limit = {256 * MIB, 256 * MIB};
    struct child c;
    if (memory_is_sanitized()) {
        skip(); // the shadow counts
    }
    child_run(&c, commit_too_much, &limit);
    assert_true(child_exited(&c, 0));
}

static void commit_outside(void *context) {
    struct reservation *r = context;
    if (!map_commit(r, r->base + r->bytes - FIRN_PAGE, 2 * FIRN_PAGE)) {
        _exit(1);
    }
}

static void outside_is_fatal(void **state) {
    (void)state;
    struct child c;
    struct reservation r = reserve(64 * KIB, false);
    child_run(&c, commit_outside, &r);
    assert_true(child_died_of(&c, SIGABRT));
    assert_non_null(strstr(c.said, "firn: internal-error: "));
    munmap((void *)r.base, r.bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reserves_where_asked, restore_caps),
        cmocka_unit_test_setup(reserves_the_outsized, restore_caps),
        cmocka_unit_test_setup(reserves_in_39_bits, restore_caps),
        cmocka_unit_test_setup(chosen_ranges_never_overlap, restore_caps),
        cmocka_unit_test_setup(commits_merge, restore_caps),
        cmocka_unit_test_setup(decommitted_comes_back_zero, restore_caps),
        cmocka_unit_test_setup(commit_is_idempotent, restore_caps),
        cmocka_unit_test_setup(sparse_never_overwrites, restore_caps),
        cmocka_unit_test_setup(purge_drops_pages, restore_caps),
        cmocka_unit_test_setup(populates_what_it_can, restore_caps),
        cmocka_unit_test_setup(a_refused_populate_does_no_harm, restore_caps),
        cmocka_unit_test_setup(purge_drops_locked_pages, restore_caps),
        cmocka_unit_test_setup(guards_and_unguards, restore_caps),
        cmocka_unit_test_setup(decommit_and_renew_forget_guards, restore_caps),
        cmocka_unit_test_setup(guards_stay_within_the_budget, restore_caps),
        cmocka_unit_test_setup(guards_locked_memory, restore_caps),
        cmocka_unit_test_setup(moves_pages, restore_caps),
        cmocka_unit_test_setup(moves_are_refused_cleanly, restore_caps),
        cmocka_unit_test_setup(readonly_and_back, restore_caps),
        cmocka_unit_test_setup(wipes_on_fork, restore_caps),
        cmocka_unit_test_setup(excluded_from_dump, restore_caps),
        cmocka_unit_test_setup(commit_respects_limits, restore_caps),
        cmocka_unit_test_setup(outside_is_fatal, restore_caps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
