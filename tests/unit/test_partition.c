// Partitions: which call site goes where.
//
// firn-test: sanitize=address,thread
#include "src/cache/partition.h"

#include "tests/support/small_case.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

enum { SITES = 64 * 1024, THREADS = 8, SHARED_SITES = 200 };

// Return addresses lie close together and share their high bits.
static uint64_t key(void) {
    return atomic_load(&FIRN_ROOT.site_key);
}

static uintptr_t site(unsigned i) {
    return (uintptr_t)0x555555555000 + i * (uintptr_t)5;
}

// Multiplicative hashing spreads an arithmetic sequence evenly for all but unlucky keys.
static void hash_uses_every_partition(void **state) {
    (void)state;
    unsigned hits[64] = {0};
    for (unsigned i = 0; i < SITES; i++) {
        unsigned p = partition_hash(site(i), key());
        assert_true(p < FIRN_PARTITIONS);
        assert_int_equal(partition_hash(site(i), key()), p);
        hits[p]++;
    }
    for (unsigned p = 0; p < FIRN_PARTITIONS; p++) {
        assert_in_range(hits[p], SITES / FIRN_PARTITIONS / 2, SITES / FIRN_PARTITIONS * 2);
    }
}

// Two given sites share a partition for about one key in FIRN_PARTITIONS: the root is read-only, so
// other sites stand for other keys.
static void two_sites_seldom_share(void **state) {
    (void)state;
    unsigned shared = 0;
    uint64_t seed = 3;
    for (unsigned i = 0; i < SITES; i++) {
        uintptr_t a = site((unsigned)small_draw(&seed, 1 << 30));
        uintptr_t b = site((unsigned)small_draw(&seed, 1 << 30));
        shared += a != b && partition_hash(a, key()) == partition_hash(b, key());
    }
    assert_in_range(shared, 0, SITES / FIRN_PARTITIONS * 3 / 2);
}

static void the_mode_decides(void **state) {
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        unsigned p = partition_of(site(i), key());
        assert_true(p < FIRN_PARTITIONS);
        if (FIRN_PARTITION_MODE == 0) {
            assert_int_equal(p, 0);
        } else if (FIRN_PARTITION_MODE == 1) {
            assert_int_equal(p, partition_hash(site(i), key()));
        } else {
            assert_int_equal(p, partition_intern(site(i)));
        }
    }
}

static pthread_barrier_t barrier;
static unsigned answers[THREADS][SHARED_SITES];

static void *ask(void *argument) {
    unsigned *mine = argument;
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < SHARED_SITES; i++) {
        mine[i] = partition_intern(site(1000 + i));
    }
    return NULL;
}

// Also while the sites are first seen, and while partitions run out.
static void threads_agree(void **state) {
    (void)state;
    pthread_t threads[THREADS];
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    for (unsigned t = 0; t < THREADS; t++) {
        assert_int_equal(pthread_create(&threads[t], NULL, ask, answers[t]), 0);
    }
    for (unsigned t = 0; t < THREADS; t++) {
        assert_int_equal(pthread_join(threads[t], NULL), 0);
    }
    for (unsigned i = 0; i < SHARED_SITES; i++) {
        assert_true(answers[0][i] < FIRN_PARTITIONS);
        assert_int_equal(partition_intern(site(1000 + i)), answers[0][i]);
        for (unsigned t = 1; t < THREADS; t++) {
            assert_int_equal(answers[t][i], answers[0][i]);
        }
    }
    pthread_barrier_destroy(&barrier);
}

// By now many more sites were seen than there are partitions: new ones share, by their hash.
static void later_sites_are_hashed(void **state) {
    (void)state;
    for (unsigned i = 0; i < SITES; i++) {
        assert_int_equal(partition_intern(site(5000 + i)), partition_hash(site(5000 + i), key()));
    }
}

// Runs first: nothing is used up yet. A site that finds four places taken is given up and hashed, so not
// every one of the first sites needs to have a partition of its own.
static void first_sites_have_their_own(void **state) {
    (void)state;
    unsigned users[64] = {0}, alone = 0;
    // The second one falls on the first one's place in the table.
    unsigned second = 1;
    while (partition_mix(site(second)) >> 24 != partition_mix(site(0)) >> 24) {
        second++;
    }
    uintptr_t early[64] = {site(0), site(second)};
    for (unsigned i = 2; i < 64; i++) {
        early[i] = site(2 * SITES + 100 * i);
    }
    for (unsigned i = 0; i < FIRN_PARTITIONS; i++) {
        unsigned p = partition_intern(early[i]);
        assert_true(i >= 2 || p == i);
        assert_int_equal(partition_intern(early[i]), p);
        users[p]++;
    }
    for (unsigned p = 0; p < FIRN_PARTITIONS; p++) {
        alone += users[p] == 1;
    }
    // Hashed alone, a little more than a third would be.
    assert_true(alone * 4 >= FIRN_PARTITIONS * 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_sites_have_their_own),
        cmocka_unit_test(the_mode_decides),
        cmocka_unit_test(hash_uses_every_partition),
        cmocka_unit_test(two_sites_seldom_share),
        cmocka_unit_test(threads_agree),
        cmocka_unit_test(later_sites_are_hashed),
    };
    return cmocka_run_group_tests(tests, small_start, NULL);
}
