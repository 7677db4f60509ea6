// Streams: never the same bytes twice, in no process; uniform draws; nothing read stays behind.
// firn-test: share=2 sanitize=address,thread
#include "src/os/random.h"

#include "src/os/caps.h"
#include "src/os/map.h"
#include "tests/support/child.h"
#include "tests/support/memory.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int restore_caps(void **state) {
    (void)state;
    caps_probe(CAP_ALL);
    return 0;
}

static void zero_streams_differ(void **state) {
    (void)state;
    struct random_stream a = {0}, b = {0};
    assert_true(random_u64(&a) != random_u64(&b));
    assert_int_equal(a.left, RANDOM_BUFFER - 8);
    assert_true(a.blocks > 0);
    assert_true(random_is_strong());
}

// 1 MiB of one stream: no 8 bytes repeat those before, every byte value is about as frequent.
static void stream_looks_random(void **state) {
    (void)state;
    enum { DRAWS = 1 << 20 };
    struct random_stream r = {0};
    size_t counts[256] = {0};
    double chi = 0;
    for (size_t i = 0; i < DRAWS; i++) {
        counts[random_u8(&r)]++;
    }
    for (unsigned v = 0; v < 256; v++) {
        double d = (double)counts[v] - DRAWS / 256.0;
        chi += d * d / (DRAWS / 256.0);
    }
    // 255 degrees of freedom: outside of this once in more than 10^9 runs.
    assert_true(chi > 130 && chi < 410);
}

static void refills_change_the_key(void **state) {
    (void)state;
    struct random_stream r = {0};
    random_refill(&r);
    struct random_stream before = r;
    random_refill(&r);
    assert_memory_not_equal(before.key, r.key, sizeof(r.key));
    assert_memory_not_equal(before.buffer, r.buffer, sizeof(r.buffer));
    assert_int_equal(r.blocks, before.blocks - 1);
    // The key that made the buffer is not in the stream any more: restarting from what is left there
    // gives what comes next, and not what was.
    before.left = 0;
    random_refill(&before);
    assert_memory_equal(before.buffer, r.buffer, sizeof(r.buffer));
}

static void rekeys_when_due(void **state) {
    (void)state;
    struct random_stream r = {0};
    random_refill(&r);
    struct random_stream copy = r;
    r.blocks = copy.blocks = 0;
    random_refill(&r);
    random_refill(&copy);
    assert_memory_not_equal(r.buffer, copy.buffer, sizeof(r.buffer));
}

static void drawn_bytes_are_wiped(void **state) {
    (void)state;
    struct random_stream r = {0};
    random_refill(&r);
    for (unsigned i = 0; i < RANDOM_BUFFER / 16; i++) {
        random_u64(&r);
        random_u32(&r);
        random_u32(&r);
        assert_true(memory_is_zero(r.buffer, RANDOM_BUFFER - r.left));
    }
    assert_int_equal(r.left, 0);
}

// Draws of a size that does not divide the buffer: the rest is dropped, never read twice.
static void odd_draws(void **state) {
    (void)state;
    struct random_stream r = {0};
    (void)random_u8(&r);
    for (unsigned i = 0; i < 55; i++) {
        random_u64(&r);
    }
    assert_int_equal(r.left, 7);
    random_u64(&r);
    assert_int_equal(r.left, RANDOM_BUFFER - 8);
}

// Any number of bytes, over as many refills as it takes: none left out, none given twice.
static void bytes_of_any_number(void **state) {
    (void)state;
    struct random_stream r = {0}, same;
    uint8_t whole[3 * RANDOM_BUFFER + 5] = {0}, piece[sizeof(whole)];
    random_refill(&r);
    same = r;
    random_bytes(&r, whole, sizeof(whole));
    for (size_t i = 0; i < sizeof(piece); i++) {
        random_bytes(&same, piece + i, 1);
    }
    assert_memory_equal(whole, piece, sizeof(whole));
    assert_int_equal(r.left, same.left);
    assert_true(memory_is_zero(r.buffer, RANDOM_BUFFER - r.left));
    random_bytes(&r, piece, 0);
    assert_int_equal(r.left, same.left);
}

static void check_uniform(uint32_t bound, uint32_t divisor, unsigned cells, double chi_most) {
    enum { PER_CELL = 4000 };
    struct random_stream r = {0};
    size_t counts[64] = {0};
    double chi = 0;
    for (unsigned i = 0; i < cells * PER_CELL; i++) {
        uint32_t v = random_below(&r, bound);
        assert_true(v < bound);
        counts[v / divisor]++;
    }
    for (unsigned c = 0; c < cells; c++) {
        double d = (double)counts[c] - PER_CELL;
        chi += d * d / PER_CELL;
    }
    assert_true(chi < chi_most);
}

// The last two would put 1.5 times as much into some cells if the remainder were taken. The limits
// are passed by chance once in about 10^9 runs.
static void below_is_unbiased(void **state) {
    (void)state;
    check_uniform(2, 1, 2, 38);
    check_uniform(3, 1, 3, 42);
    check_uniform(7, 1, 7, 53);
    check_uniform(52, 1, 52, 135);
    check_uniform(4096, 64, 64, 155);
    check_uniform(4100, 100, 41, 118);
    check_uniform(3u << 30, 1u << 30, 3, 42);
    check_uniform(UINT32_C(0xc0000000), 0x10000000, 12, 64);
    struct random_stream r = {0};
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(random_below(&r, 1), 0);
    }
}

static struct random_stream *wiped_stream(void) {
    static struct reservation range;
    assert_true(map_reserve(&range, FIRN_PAGE, FIRN_PAGE, 47, false));
    assert_true(map_commit(&range, range.base, FIRN_PAGE));
    assert_true(map_wipe_on_fork(range.base, FIRN_PAGE));
    return (struct random_stream *)range.base;
}

// What the child draws reaches the parent through a pipe; `fork_now` is the call under test.
static uint64_t drawn_by_child(struct random_stream *r, long (*fork_now)(void)) {
    int ends[2];
    uint64_t v = 0;
    assert_int_equal(pipe(ends), 0);
    long pid = fork_now();
    assert_true(pid >= 0);
    if (pid == 0) {
        v = random_u64(r);
        _exit(write(ends[1], &v, sizeof(v)) == sizeof(v) ? 0 : 1);
    }
    assert_int_equal(read(ends[0], &v, sizeof(v)), sizeof(v));
    assert_int_equal(waitpid((pid_t)pid, NULL, 0), pid);
    close(ends[0]);
    close(ends[1]);
    return v;
}

static long by_fork(void) {
    return fork();
}

static long by_raw_clone(void) {
    return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

// P-FORK
static void children_differ(void **state) {
    (void)state;
    long (*const ways[])(void) = {by_fork, by_raw_clone};
    if (!caps_has(CAP_WIPE_ON_FORK)) {
        skip();
    }
    struct random_stream *r = wiped_stream();
    for (unsigned i = 0; i < 2; i++) {
        random_u64(r);
        uint64_t first = drawn_by_child(r, ways[i]);
        uint64_t second = drawn_by_child(r, ways[i]);
        uint64_t own = random_u64(r);
        assert_true(first != second && first != own && second != own);
    }
}

// Without the kernel's help parent and child part after one buffer at the latest.
static void children_differ_without_wiping(void **state) {
    (void)state;
    caps_probe(CAP_ALL & ~(uint32_t)CAP_WIPE_ON_FORK);
    struct random_stream r = {0}, copy;
    random_u64(&r);
    copy = r;
    r.left = copy.left = 0;
    assert_true(random_u64(&r) != random_u64(&copy));
}

static void seeds(void **state) {
    (void)state;
    uint8_t a[1000], b[1000];
    for (unsigned masked = 0; masked < 2; masked++) {
        caps_probe(masked ? CAP_ALL & ~(uint32_t)CAP_GETRANDOM : CAP_ALL);
        memset(a, 0, sizeof(a));
        memset(b, 0, sizeof(b));
        errno = 77;
        random_seed_bytes(a, sizeof(a));
        random_seed_bytes(b, sizeof(b));
        assert_int_equal(errno, 77);
        assert_memory_not_equal(a, b, sizeof(a));
        for (size_t i = 0; i + 16 <= sizeof(a); i += 16) {
            assert_false(memory_is_zero(a + i, 16));
        }
        assert_true(random_is_strong());
    }
    random_seed_bytes(a, 0);
}

static void *draw_much(void *out) {
    struct random_stream r = {0};
    for (unsigned i = 0; i < 20000; i++) {
        *(uint64_t *)out ^= random_u64(&r);
    }
    return NULL;
}

static void streams_are_independent_in_threads(void **state) {
    (void)state;
    pthread_t threads[4];
    uint64_t sums[4] = {0};
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, draw_much, &sums[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_true(sums[0] != sums[1] && sums[1] != sums[2] && sums[2] != sums[3]);
}

static void below_nothing(void *context) {
    struct random_stream r = {0};
    (void)context;
    random_below(&r, 0);
}

static void bound_zero_is_fatal(void **state) {
    (void)state;
    struct child c;
    child_run(&c, below_nothing, NULL);
    assert_true(child_died_of(&c, SIGABRT));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(zero_streams_differ, restore_caps),
        cmocka_unit_test_setup(stream_looks_random, restore_caps),
        cmocka_unit_test_setup(refills_change_the_key, restore_caps),
        cmocka_unit_test_setup(rekeys_when_due, restore_caps),
        cmocka_unit_test_setup(drawn_bytes_are_wiped, restore_caps),
        cmocka_unit_test_setup(odd_draws, restore_caps),
        cmocka_unit_test_setup(bytes_of_any_number, restore_caps),
        cmocka_unit_test_setup(below_is_unbiased, restore_caps),
        cmocka_unit_test_setup(children_differ, restore_caps),
        cmocka_unit_test_setup(children_differ_without_wiping, restore_caps),
        cmocka_unit_test_setup(seeds, restore_caps),
        cmocka_unit_test_setup(streams_are_independent_in_threads, restore_caps),
        cmocka_unit_test_setup(bound_zero_is_fatal, restore_caps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
