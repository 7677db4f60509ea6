// Claims of SECURITY.md that can be seen from outside: where blocks lie. Each is an experiment with
// a bound that a right implementation misses less than once in a million runs.
#include "tests/api/api.h"

#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 20000, BYTES = 64, SITES = 8, PER_SITE = 4000 };
// No class's span is smaller than a page, so blocks of different spans lie on different pages; and
// blocks of one class and partition fill whole spans. Pages are what the tests below compare.
#define PAGE_OF(p) ((uintptr_t)(p) >> 12)

static void *blocks[BLOCKS];

static void fill(size_t bytes) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(bytes);
        assert_non_null(blocks[i]);
    }
}

static void drain(void) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        free(blocks[i]);
    }
}

// P-ORDER. In order, every block would be its predecessor's neighbour. At random among 256 slots at
// hand, about one in 128 is; the bound leaves room for vectors that run low.
static void order_is_random(void **state) {
    (void)state;
    unsigned neighbours = 0;
    fill(BYTES);
    for (unsigned i = 1; i < BLOCKS; i++) {
        ptrdiff_t step = (char *)blocks[i] - (char *)blocks[i - 1];
        neighbours += step == BYTES || step == -BYTES;
    }
    drain();
    assert_in_range(neighbours, 0, BLOCKS / 25);
}

// The same for reuse: the block freed last is rarely the next one handed out.
static void reuse_is_random(void **state) {
    (void)state;
    unsigned same = 0;
    fill(BYTES);
    for (unsigned i = 0; i < BLOCKS; i++) {
        uintptr_t old = (uintptr_t)blocks[i];
        free(blocks[i]);
        blocks[i] = malloc(BYTES);
        assert_non_null(blocks[i]);
        same += (uintptr_t)blocks[i] == old;
    }
    drain();
    assert_in_range(same, 0, BLOCKS / 20);
}

// What a fresh process of this program prints for `question`: a number.
static uintptr_t ask_fresh_process(const char *question) {
    char text[32] = "";
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDOUT_FILENO);
        execl("/proc/self/exe", "test_properties", question, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    close(ends[0]);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    return (uintptr_t)strtoull(text, NULL, 16);
}

// P-BASE, P-FORK: processes differ in where the heap lies, by more than the kernel's own shuffling
// of pages: compared are multiples of 2 MiB.
static void base_is_random(void **state) {
    (void)state;
    enum { PROCESSES = 8 };
    uintptr_t seen[PROCESSES];
    for (unsigned i = 0; i < PROCESSES; i++) {
        seen[i] = ask_fresh_process("--where") >> 21;
        for (unsigned j = 0; j < i; j++) {
            assert_int_not_equal(seen[i], seen[j]);
        }
    }
}

// P-FORK: two children of one parent, and the parent, choose differently.
static void children_differ(void **state) {
    (void)state;
    enum { FAMILY = 3, CHOICES = 64 };
    uintptr_t chosen[FAMILY][CHOICES];
    for (unsigned i = 0; i < FAMILY; i++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t child = i == 0 ? 0 : fork();
        assert_true(child >= 0);
        if (child == 0) {
            uintptr_t mine[CHOICES];
            for (unsigned j = 0; j < CHOICES; j++) {
                void *p = malloc(BYTES);
                mine[j] = (uintptr_t)p;
                free(p);
            }
            ssize_t n = write(ends[1], mine, sizeof(mine));
            if (i != 0) {
                _exit(n == (ssize_t)sizeof(mine) ? 0 : 1);
            }
        } else {
            assert_int_equal(waitpid(child, NULL, 0), child);
        }
        assert_int_equal(read(ends[0], chosen[i], sizeof(chosen[i])), sizeof(chosen[i]));
        close(ends[0]);
        close(ends[1]);
    }
    assert_memory_not_equal(chosen[0], chosen[1], sizeof(chosen[0]));
    assert_memory_not_equal(chosen[0], chosen[2], sizeof(chosen[0]));
    assert_memory_not_equal(chosen[1], chosen[2], sizeof(chosen[1]));
}

static int compare_pages(const void *a, const void *b) {
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return (x > y) - (x < y);
}

static int is_page_in(uintptr_t page, const uintptr_t *pages, size_t count) {
    return bsearch(&page, pages, count, sizeof(page), compare_pages) != NULL;
}

// P-CLASS: what was freed as blocks of one size never comes back as another size, small or large.
static void classes_keep_their_addresses(void **state) {
    (void)state;
    static uintptr_t pages[BLOCKS];
    fill(BYTES);
    for (unsigned i = 0; i < BLOCKS; i++) {
        pages[i] = PAGE_OF(blocks[i]);
    }
    drain();
    (void)malloc_trim(0);
    qsort(pages, BLOCKS, sizeof(pages[0]), compare_pages);
    static const size_t sizes[] = {16, 48, 80, 128, 1024, 32768, 40000, 100000};
    for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        enum { SOME = 2000 };
        void *others[SOME];
        for (unsigned i = 0; i < SOME; i++) {
            others[i] = malloc(sizes[s]);
            assert_non_null(others[i]);
            assert_false(is_page_in(PAGE_OF(others[i]), pages, BLOCKS));
        }
        for (unsigned i = 0; i < SOME; i++) {
            free(others[i]);
        }
    }
}

// ---- partitions: eight call sites, each a function of its own ----

#define SITE(n)                                                                                    \
    __attribute__((noinline)) static void *site_##n(void) {                                        \
        void *volatile p = malloc(BYTES); /* volatile: no tail call, which would hide the site */  \
        return p;                                                                                  \
    }                                                                                              \
    static void *site_##n(void)
SITE(0);
SITE(1);
SITE(2);
SITE(3);
SITE(4);
SITE(5);
SITE(6);
SITE(7);

static void *(*const sites[SITES])(void) = {site_0, site_1, site_2, site_3,
                                            site_4, site_5, site_6, site_7};
static void *by_site[SITES][PER_SITE];

static void fill_by_site(uintptr_t pages[SITES][PER_SITE]) {
    for (unsigned i = 0; i < PER_SITE; i++) {
        for (unsigned s = 0; s < SITES; s++) {
            by_site[s][i] = sites[s]();
            assert_non_null(by_site[s][i]);
            pages[s][i] = PAGE_OF(by_site[s][i]);
        }
    }
    for (unsigned s = 0; s < SITES; s++) {
        qsort(pages[s], PER_SITE, sizeof(pages[s][0]), compare_pages);
    }
}

static void drain_by_site(void) {
    for (unsigned s = 0; s < SITES; s++) {
        for (unsigned i = 0; i < PER_SITE; i++) {
            free(by_site[s][i]);
        }
    }
}

static unsigned count_shared(const uintptr_t *a, const uintptr_t *b) {
    unsigned shared = 0;
    for (unsigned i = 0; i < PER_SITE; i++) {
        shared += (unsigned)is_page_in(a[i], b, PER_SITE);
    }
    return shared;
}

// Pairs of sites that share no page, before and after everything was freed and given back; pairs that
// were apart must stay so. ~0 if they did not.
static unsigned count_sites_apart(void) {
    static uintptr_t before[SITES][PER_SITE], after[SITES][PER_SITE];
    fill_by_site(before);
    drain_by_site();
    (void)malloc_trim(0);
    fill_by_site(after);
    drain_by_site();
    unsigned apart = 0;
    for (unsigned a = 0; a < SITES; a++) {
        for (unsigned b = a + 1; b < SITES; b++) {
            if (count_shared(before[a], before[b]) != 0) {
                continue;
            }
            apart++;
            if (count_shared(after[a], after[b]) != 0 || count_shared(before[a], after[b]) != 0 ||
                count_shared(after[a], before[b]) != 0) {
                return ~0u;
            }
        }
    }
    return apart;
}

// P-LINK-NONE: no word of a freed block leads to another block of the heap, whichever thread freed it.
enum { FEW = 600 };

static void *free_odd_blocks(void *unused) {
    (void)unused;
    for (unsigned i = 1; i < FEW; i += 2) {
        free(blocks[i]);
    }
    return NULL;
}

static bool leads_to_a_block(uintptr_t word) {
    for (unsigned i = 0; i < FEW; i++) {
        if (word - (uintptr_t)blocks[i] < 64) {
            return true;
        }
    }
    return false;
}

// A freed block may have been a guarded sample: then nobody can read there. The kernel says so.
static bool can_read(int to, int from, const void *block) {
    char bytes[64];
    return write(to, block, sizeof(bytes)) == (ssize_t)sizeof(bytes) &&
           read(from, bytes, sizeof(bytes)) == (ssize_t)sizeof(bytes);
}

static void free_blocks_hold_no_links(void **state) {
    pthread_t other;
    int ends[2];
    unsigned looked_at = 0;
    (void)state;
    assert_int_equal(pipe(ends), 0);
    for (unsigned i = 0; i < FEW; i++) {
        blocks[i] = malloc(64);
        assert_non_null(blocks[i]);
        memset(blocks[i], 0x5a, 64);
    }
    assert_int_equal(pthread_create(&other, NULL, free_odd_blocks, NULL), 0);
    assert_int_equal(pthread_join(other, NULL), 0);
    for (unsigned i = 2; i < FEW; i += 4) {
        free(blocks[i]);
    }
    for (unsigned i = 0; i < FEW; i++) {
        const volatile uintptr_t *words = blocks[i]; // freed or not: what matters is what is there
        if (!can_read(ends[1], ends[0], blocks[i])) {
            continue;
        }
        looked_at++;
        for (unsigned w = 0; w < 8; w++) {
            assert_false(leads_to_a_block(words[w]));
        }
    }
    assert_true(looked_at > FEW / 2);
    close(ends[0]);
    close(ends[1]);
    for (unsigned i = 0; i < FEW; i += 4) {
        free(blocks[i]);
    }
}

// P-PARTITION and P-PARTITION-REUSE, in fresh processes, because each draws one key for its sites.
// Evenly spaced sites like these are not hashed independently: all eight land in one of four
// partitions in about one process of eight (8 of 60 measured). In all twelve: 2^-36.
static void partitions_share_nothing(void **state) {
    (void)state;
    enum { PROCESSES = 12, PAIRS = SITES * (SITES - 1) / 2 };
    unsigned most = 0;
    for (unsigned i = 0; i < PROCESSES; i++) {
        unsigned apart = (unsigned)ask_fresh_process("--apart");
        assert_in_range(apart, api_level() == 3 ? PAIRS : 0, api_level() == 0 ? 0 : PAIRS);
        most = apart > most ? apart : most;
    }
    assert_in_range(most, api_level() == 0 ? 0 : SITES - 1, PAIRS);
}

// ---- large blocks ----

static int dies_touching(volatile char *at) {
    pid_t child = fork();
    if (child == 0) {
        signal(SIGSEGV, SIG_DFL); // cmocka's handler would go on with the test in the child
        *at = 1;
        _exit(0);
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
           WTERMSIG(status) == SIGSEGV;
}

// P-LARGE-GUARD, on fresh memory (this test comes first and frees last): neither the page before nor
// the one after is accessible. At level 3 that holds on reused memory, too.
static void large_blocks_are_guarded(void **state) {
    (void)state;
    enum { SIZES = 4, SOME = 8 };
    static const size_t sizes[SIZES] = {40000, 65536, 1 << 20, 3 << 20};
    static char *p[SIZES * SOME];
    for (unsigned round = 0; round < (api_level() == 3 ? 2 : 1); round++) {
        for (unsigned i = 0; i < SIZES * SOME; i++) {
            p[i] = malloc(sizes[i / SOME]);
            assert_non_null(p[i]);
        }
        for (unsigned i = 0; i < SIZES * SOME; i++) {
            // At level 3 usable is what was asked for; the guard begins with the next page.
            uintptr_t end = (uintptr_t)p[i] + malloc_usable_size(p[i]);
            assert_true(dies_touching((char *)((end + 4095) & ~(uintptr_t)4095)));
            assert_true(dies_touching(p[i] - 1));
        }
        for (unsigned i = 0; i < SIZES * SOME; i++) {
            free(p[i]);
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_blocks_are_guarded),  cmocka_unit_test(order_is_random),
        cmocka_unit_test(reuse_is_random),           cmocka_unit_test(base_is_random),
        cmocka_unit_test(children_differ),           cmocka_unit_test(classes_keep_their_addresses),
        cmocka_unit_test(free_blocks_hold_no_links), cmocka_unit_test(partitions_share_nothing),
    };
    if (argc > 1 && strcmp(argv[1], "--where") == 0) {
        printf("%p\n", malloc(BYTES));
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "--apart") == 0) {
        printf("%x\n", count_sites_apart());
        return 0;
    }
    api_require_firn("test_properties");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
