// The cold tier in a whole heap: what is idle goes, what is touched comes back as it was, by whomever and
// however it is touched, and what is in use stays.
// firn-test: levels=1,2 timeout=300 sanitize=none
#include "src/cold/cold.h"

#include "src/cold/table.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"
#include "src/meta/page_state.h"
#include "tests/support/child.h"
#include "tests/support/cold_case.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 12000, BYTES = 500 };
static const uintptr_t site = 0x409000;

static char *blocks[BLOCKS];

static void describe(char *out, unsigned i) {
    memset(out, 0, BYTES);
    snprintf(out, BYTES, "block %u: %s", i, "all work and no play makes jack a dull boy ");
    for (unsigned k = 64; k < BYTES; k++) {
        out[k] = (char)('a' + (k * i) % 7);
    }
}

static bool is_right(unsigned i) {
    char expected[BYTES];
    describe(expected, i);
    return memcmp(blocks[i], expected, BYTES) == 0;
}

static bool are_right(unsigned from, unsigned until) {
    for (unsigned i = from; i < until; i++) {
        if (!is_right(i)) {
            return false;
        }
    }
    return true;
}

// What came back in the tests before is forgotten: after that much, pages would have to be older.
static void allocate(void) {
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = heap_alloc(BYTES, site);
        assert_non_null(blocks[i]);
        describe(blocks[i], i);
    }
}

static void release(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(blocks[i], site);
    }
    (void)heap_trim();
}

static bool is_frozen(unsigned i) {
    return page_state_get((uintptr_t)blocks[i]) == PAGE_FROZEN;
}

static unsigned count_frozen(void) {
    unsigned n = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        n += is_frozen(i);
    }
    return n;
}

static bool are_mostly_frozen(void) {
    return count_frozen() >= BLOCKS * 8 / 10;
}

static void test_idle_pages_go_and_come_back(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(are_mostly_frozen);
    struct cold_stats s = cold_case_stats();
    assert_true(s.frozen >= 1000 && s.away >= 1000);
    assert_true(s.packed_pages + s.uniform_pages >= 1000 && s.freeze_cpu_ns > 0);
    assert_true(s.stored_bytes <= s.store_bytes && s.stored_bytes < s.packed_pages * FIRN_PAGE / 2);
    assert_string_equal(s.engine, "event");
    assert_true(are_right(0, BLOCKS));
    s = cold_case_stats();
    assert_true(s.thaws >= 1000 && s.thaw_p50_ns > 0 && s.thaw_longest_ns >= s.thaw_p50_ns / 2);
    uint64_t waited = 0;
    for (unsigned i = 0; i < COLD_TIMES; i++) {
        waited += s.thaw_times[i];
    }
    assert_true(waited > 0 && waited <= s.thaws && s.thaw_cpu_ns > 0);
    cold_case_sleep(4 * COLD_CASE_AFTER_MS);
    s = cold_case_stats();
    assert_true(s.refaults >= waited && s.idle_ms > COLD_CASE_AFTER_MS); // that was too much of it
    release();
}

// Read, never written: nothing but staging can tell.
static void test_what_is_read_stays(void **state) {
    (void)state;
    enum { HOT = 64 };
    allocate();
    cold_case_freeze(are_mostly_frozen);
    assert_true(are_right(0, HOT));
    uint64_t thaws = 0;
    for (unsigned ms = 0; ms < 3000; ms += 20) {
        assert_true(are_right(0, HOT));
        cold_case_sleep(20);
        if (ms == 1000) {
            thaws = cold_case_stats().thaws;
        }
    }
    // Others on the same pages, and their neighbours, may come and go: no more than these few pages.
    assert_true(cold_case_stats().thaws - thaws <= 4);
    release();
}

// The kernel reads and writes pages that are away.
static void test_system_calls(void **state) {
    (void)state;
    int ends[2];
    char text[BYTES], path[] = "/tmp/firn-cold-XXXXXX";
    allocate();
    int fd = mkstemp(path);
    assert_true(fd >= 0 && pipe(ends) == 0);
    cold_case_freeze(are_mostly_frozen);
    unsigned n = 0;
    for (unsigned i = 0; i + 1 < BLOCKS && n < 200; i += 61) {
        if (!is_frozen(i) || !is_frozen(i + 1)) {
            continue;
        }
        n++;
        assert_int_equal(write(ends[1], blocks[i], BYTES), BYTES);
        assert_int_equal(read(ends[0], blocks[i + 1], BYTES), BYTES);
        describe(text, i);
        assert_memory_equal(blocks[i + 1], text, BYTES);
        assert_int_equal(pwrite(fd, blocks[i + 1], BYTES, 0), BYTES);
        describe(text, i + 1);
        assert_int_equal(pwrite(fd, text, BYTES, BYTES), BYTES);
        assert_int_equal(pread(fd, blocks[i + 1], BYTES, BYTES), BYTES);
    }
    assert_true(n >= 50);
    assert_true(are_right(0, BLOCKS));
    close(fd);
    unlink(path);
    close(ends[0]);
    close(ends[1]);
    release();
}

static pid_t clone_raw(void) {
    return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
}

static int wait_for(pid_t pid) {
    int status = -1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void child_works(bool is_known) {
    if (!are_right(0, BLOCKS / 2)) {
        _exit(1);
    }
    for (unsigned i = BLOCKS / 2; is_known && i < BLOCKS; i += 2) {
        heap_free(blocks[i], site);
        blocks[i] = heap_alloc(BYTES, site);
        describe(blocks[i], i);
    }
    _exit(are_right(0, BLOCKS) ? 0 : 2);
}

// A child has what its parent had, whichever call made it, though the parent goes on.
static void test_children(void **state) {
    (void)state;
    for (unsigned way = 0; way < 3; way++) {
        allocate();
        cold_case_freeze(are_mostly_frozen);
        pid_t pid = way == 1 ? clone_raw() : fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            pid_t grandchild = way == 2 ? fork() : 0;
            if (grandchild != 0) {
                int status = -1;
                waitpid(grandchild, &status, 0);
                _exit(status == 0 && are_right(0, BLOCKS) ? 0 : 3);
            }
            child_works(way != 1);
        }
        for (unsigned i = 0; i < BLOCKS; i++) { // the parent changes it all
            memset(blocks[i], 0x55, BYTES);
        }
        assert_int_equal(wait_for(pid), 0);
        release();
    }
}

// Every page was shared with it; none is any more.
static void test_a_child_that_is_gone_holds_up_nothing(void **state) {
    (void)state;
    allocate();
    cold_case_sleep(COLD_CASE_AFTER_MS); // the chunks are being looked at
    for (unsigned i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            _exit(0);
        }
        assert_int_equal(wait_for(pid), 0);
        cold_case_sleep(COLD_CASE_AFTER_MS / 2);
    }
    uint64_t refused = cold_case_stats().refused;
    cold_case_freeze(are_mostly_frozen);
    assert_true(cold_case_stats().refused - refused < 100);
    assert_true(are_right(0, BLOCKS));
    release();
}

// Idle pages that were shared with a child are unshared before they go: not where nobody may write.
static void test_read_only_pages_are_left_alone(void **state) {
    (void)state;
    enum { SOME = 200 };
    allocate();
    cold_case_sleep(COLD_CASE_AFTER_MS);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    assert_int_equal(wait_for(pid), 0);
    for (unsigned writable = 0; writable < 2; writable++) {
        int how = writable != 0 ? PROT_READ | PROT_WRITE : PROT_READ;
        for (unsigned i = 0; i < SOME; i++) {
            uintptr_t page = (uintptr_t)blocks[i] & ~(uintptr_t)(FIRN_PAGE - 1);
            assert_int_equal(mprotect((void *)page, FIRN_PAGE, how), 0);
        }
        cold_case_sleep(writable != 0 ? 0 : 6 * COLD_CASE_AFTER_MS);
    }
    assert_true(are_right(0, BLOCKS));
    release();
}

// Freed unread, given back, used again: zeros, and nothing of what was there.
static void test_freed_while_frozen(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(are_mostly_frozen);
    release();
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = heap_alloc_zeroed(BYTES, site);
        for (unsigned k = 0; k < BYTES; k++) {
            assert_int_equal(blocks[i][k], 0);
        }
    }
    release();
    for (unsigned ms = 0; cold_case_stats().away > 16; ms += 20) {
        assert_true(ms < COLD_CASE_WAIT_MS);
        cold_case_sleep(20);
    }
}

// A daemon that closes all it did not open, and one that gives up its rights.
static void test_descriptors_and_rights(void **state) {
    (void)state;
    allocate();
    cold_case_freeze(are_mostly_frozen);
    pid_t pid = fork();
    if (pid == 0) { // a new process, which starts its own
        cold_upkeep();
        if (!cold_case_wait(are_mostly_frozen)) {
            _exit(5);
        }
        (void)syscall(SYS_close_range, 3, ~0u, 0);
        if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) {
            _exit(4);
        }
        _exit(are_right(0, BLOCKS) ? 0 : 1);
    }
    assert_int_equal(wait_for(pid), 0);
    assert_true(are_right(0, BLOCKS));
    release();
}

// What is changed in the record of a page that is away.
enum record_change { HOLDS_CHANGED, NAME_CHANGED, GENERATION_CHANGED, SLOT_CHANGED };

static bool is_in(uintptr_t page, enum page_state state) {
    return page_state_get(page) == state;
}

// P-COLD-SEAL. In a child that starts its own cold tier: what was away in the parent is not shared with it.
static void change_record(void *context) {
    enum record_change change = *(enum record_change *)context;
    enum page_state away = change == SLOT_CHANGED ? PAGE_STAGED : PAGE_FROZEN;
    cold_upkeep();
    for (unsigned ms = 0; ms < COLD_CASE_WAIT_MS; ms++) {
        bool is_running =
            strcmp(cold_case_stats().engine, "event") == 0; // else the states are the parent's
        for (unsigned i = 0; is_running && i < BLOCKS; i++) {
            uintptr_t page = (uintptr_t)blocks[i] & ~(uintptr_t)(FIRN_PAGE - 1);
            if (!is_in(page, away)) {
                continue;
            }
            lock_acquire(&cold_lock);
            bool is_still = is_in(page, away);
            struct cold_page *p = table_page(table_find(page), page);
            if (is_still) {
                p->holds = change == HOLDS_CHANGED ? HOLDS_NOTHING : p->holds;
                p->at.blob.word ^= (uint64_t)(change == NAME_CHANGED) << 40;
                p->at.slot ^= (uint32_t)(change == SLOT_CHANGED) << 3;
                p->generation ^= (uint32_t)(change == GENERATION_CHANGED) << 5;
            }
            lock_release(&cold_lock);
            if (is_still) {
                (void)*(volatile char *)page;
                _exit(3);
            }
        }
        cold_case_sleep(1);
    }
    _exit(4);
}

static void test_changed_records_are_noticed(void **state) {
    (void)state;
    static const char *const lines[] = {
        [HOLDS_CHANGED] = "firn: cold-store: thaw(",
        [NAME_CHANGED] = "firn: cold-store: thaw(",
        [GENERATION_CHANGED] = "firn: cold-seal: thaw(",
        [SLOT_CHANGED] = "firn: cold-store: thaw(",
    };
    allocate();
    cold_case_freeze(are_mostly_frozen);
    for (unsigned change = HOLDS_CHANGED; change <= SLOT_CHANGED; change++) {
        bool is_sealed = strcmp(cold_case_stats().seal, "off") != 0;
        struct child c;
        child_run(&c, change_record, &change);
        assert_true(child_died_of(&c, SIGABRT) || (change == GENERATION_CHANGED && !is_sealed));
        if (change != GENERATION_CHANGED || is_sealed) {
            assert_int_equal(strncmp(c.said, lines[change], strlen(lines[change])), 0);
        }
    }
    release();
}

// What does not get smaller is not tried again and again: a few pages of each chunk at most.
static void test_random_bytes_are_given_up(void **state) {
    (void)state;
    if (cold_case_stats().reason != NULL) {
        skip();
    }
    struct cold_stats before = cold_case_stats();
    uint64_t word = 1;
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = heap_alloc(BYTES, site);
        for (unsigned k = 0; k < BYTES; k++) {
            word = word * UINT64_C(6364136223846793005) + 1442695040888963407u;
            blocks[i][k] = (char)(word >> 56);
        }
    }
    for (unsigned ms = 0; cold_case_stats().poor - before.poor < 64 && ms < COLD_CASE_WAIT_MS;
         ms += 20) {
        cold_case_sleep(20);
    }
    cold_case_sleep(8 * COLD_CASE_AFTER_MS);
    assert_in_range(cold_case_stats().poor - before.poor, 64, BLOCKS * BYTES / FIRN_PAGE / 2);
    assert_true(cold_case_stats().spared - before.spared > cold_case_stats().poor - before.poor);
    release();
}

// ---- what the program says ----

enum { SELDOM_MS = 60000 };

static void wish_all_cold(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        cold_hint_cold((uintptr_t)blocks[i] & ~(uintptr_t)(FIRN_PAGE - 1), FIRN_PAGE);
    }
}

static bool is_wish_granted(void) {
    for (unsigned ms = 0; count_frozen() < BLOCKS * 8 / 10; ms += 20) {
        if (cold_case_stats().reason != NULL || ms > COLD_CASE_WAIT_MS) {
            return false;
        }
        wish_all_cold(); // what a fork or another touch kept back
        cold_case_sleep(20);
    }
    return true;
}

// Nothing is idle for that long: what goes goes because it was asked for, and comes back so.
static void test_hints(void **state) {
    (void)state;
    if (cold_case_stats().reason != NULL) {
        skip();
    }
    cold_choose(true, SELDOM_MS, 0, 0);
    allocate();
    assert_true(is_wish_granted());
    uint64_t thaws = cold_case_stats().thaws;
    for (unsigned i = 0; i < BLOCKS / 4; i++) {
        cold_hint_hot((uintptr_t)blocks[i], BYTES);
        assert_int_not_equal(page_state_get((uintptr_t)blocks[i]), PAGE_FROZEN);
    }
    assert_true(cold_case_stats().thaws > thaws);
    assert_true(are_right(0, BLOCKS));
    assert_true(is_wish_granted());
    cold_thaw_all();
    assert_int_equal(count_frozen(), 0);
    assert_true(are_right(0, BLOCKS));
    // Ranges that are nobody's, or all there is.
    cold_hint_cold((uintptr_t)state, sizeof state);
    cold_hint_cold(0, 0);
    cold_hint_hot(0, 0);
    cold_hint_hot(UINTPTR_MAX - 5, SIZE_MAX);
    assert_true(cold_exclude(16, 0) && cold_exclude(UINTPTR_MAX - 5, 3));
    cold_thaw_all();
    release();
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
}

static bool is_just_there(struct chunk *c, uintptr_t page) {
    enum page_state s = page_state_get(page);
    return (s == PAGE_RESIDENT || s == PAGE_TRACKED) && table_page(c, page)->holds == HOLDS_NOTHING;
}

enum { ROW = 64, PAIR = 4 };

// Of ROW pages, those of which the second next is there, too: one in PAIR.
static uint64_t find_pairs(struct chunk *c, uintptr_t from) {
    uint64_t pairs = 0;
    for (unsigned i = 0; i < ROW; i += PAIR) {
        bool is_pair =
            is_just_there(c, from + i * FIRN_PAGE) && is_just_there(c, from + (i + 2) * FIRN_PAGE);
        pairs |= (uint64_t)is_pair << i;
    }
    return pairs;
}

// As page_state_release leaves it until the next sweep: the page is in use again, and its record still names a slot of the
// staging area. By now that is another page's, which is about to be frozen.
static void confuse(struct chunk *c, uintptr_t from, uint64_t pairs) {
    uint32_t slot = 0; // one for each page that is wished away, in order
    lock_acquire(&cold_lock);
    for (uint64_t left = pairs; left != 0; left &= left - 1) {
        struct cold_page *p = table_page(c, from + (uintptr_t)__builtin_ctzll(left) * FIRN_PAGE);
        p->holds = HOLDS_SLOT;
        p->at.slot = slot + 1;
        slot += 2;
        table_count_away(c, 1);
    }
    atomic_fetch_or(&c->wished[table_index(c, from) / ROW], pairs | pairs << 2);
    lock_release(&cold_lock);
}

static void test_a_slot_that_is_anothers_by_now(void **state) {
    (void)state;
    if (cold_case_stats().reason != NULL) {
        skip();
    }
    cold_choose(true, SELDOM_MS, 0, 0);
    allocate();
    assert_true(is_wish_granted());
    assert_true(are_right(0, BLOCKS));
    cold_thaw_all();
    cold_case_sleep(COLD_CASE_AFTER_MS / 2); // slots are handed back: the next one is the first
    unsigned confused = 0;
    for (struct chunk *c = table_first(); c != NULL && confused == 0; c = c->next) {
        for (unsigned word = 0; word < CHUNK_WORDS && confused == 0; word++) {
            uintptr_t from = c->base + (uintptr_t)word * ROW * FIRN_PAGE;
            uint64_t pairs = find_pairs(c, from);
            confused = (unsigned)__builtin_popcountll(pairs);
            if (confused != 0) {
                uint64_t frozen = cold_case_stats().frozen;
                confuse(c, from, pairs);
                cold_hint_cold(from + 2 * FIRN_PAGE, FIRN_PAGE);
                while (cold_case_stats().frozen < frozen + confused) {
                    cold_case_sleep(20);
                }
            }
        }
    }
    assert_true(confused > 0);
    assert_true(are_right(0, BLOCKS));
    release();
    cold_choose(true, COLD_CASE_AFTER_MS, 0, 0);
}

static void test_what_is_excluded_stays(void **state) {
    (void)state;
    enum { EXCLUDED = BLOCKS / 10 };
    if (cold_case_stats().reason != NULL) {
        skip();
    }
    allocate();
    cold_case_freeze(are_mostly_frozen);
    for (unsigned i = 0; i < EXCLUDED; i++) {
        assert_true(cold_exclude((uintptr_t)blocks[i], BYTES));
        assert_int_not_equal(page_state_get((uintptr_t)blocks[i]), PAGE_FROZEN);
    }
    wish_all_cold();
    cold_case_sleep(4 * COLD_CASE_AFTER_MS);
    for (unsigned i = 0; i < EXCLUDED; i++) {
        enum page_state now = page_state_get((uintptr_t)blocks[i]);
        assert_true(now == PAGE_RESIDENT || now == PAGE_TRACKED || now == PAGE_FRESH);
    }
    assert_true(cold_case_stats().frozen > 0 && are_right(0, BLOCKS));
    release();
}

static atomic_bool is_over;

static void *touch(void *argument) {
    unsigned seed = (unsigned)(uintptr_t)argument;
    uintptr_t wrong = 0;
    while (!atomic_load(&is_over)) {
        seed = seed * 1103515245u + 12345u;
        wrong += !is_right(seed / 65536 % BLOCKS);
        if (seed / 65536 % 8 == 0) {
            cold_case_sleep(2);
        }
    }
    return (void *)wrong;
}

static void test_threads_touch_the_same_pages(void **state) {
    (void)state;
    enum { TOUCHERS = 4 };
    pthread_t threads[TOUCHERS];
    allocate();
    cold_case_freeze(are_mostly_frozen);
    for (uintptr_t i = 0; i < TOUCHERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, touch, (void *)(i / 2)), 0);
    }
    cold_case_sleep(1500);
    atomic_store(&is_over, true);
    for (unsigned i = 0; i < TOUCHERS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    release();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_pages_go_and_come_back),
        cmocka_unit_test(test_what_is_read_stays),
        cmocka_unit_test(test_system_calls),
        cmocka_unit_test(test_children),
        cmocka_unit_test(test_a_child_that_is_gone_holds_up_nothing),
        cmocka_unit_test(test_read_only_pages_are_left_alone),
        cmocka_unit_test(test_freed_while_frozen),
        cmocka_unit_test(test_descriptors_and_rights),
        cmocka_unit_test(test_changed_records_are_noticed),
        cmocka_unit_test(test_random_bytes_are_given_up),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_a_slot_that_is_anothers_by_now),
        cmocka_unit_test(test_what_is_excluded_stays),
        cmocka_unit_test(test_threads_touch_the_same_pages),
    };
    return cmocka_run_group_tests(tests, cold_case_start, NULL);
}
