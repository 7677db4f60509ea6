// The store of frozen pages: what was put comes back, or the process ends with a report; its memory
// follows what is stored; children have their own. P-COLD-SEAL
// firn-test: sanitize=address,thread
#include "src/cold/store.h"

#include "src/cold/desk.h"
#include "src/cold/seal.h"
#include "src/os/caps.h"
#include "src/os/random.h"
#include "tests/support/child.h"
#include "tests/support/memory.h"
#include "tests/support/pages.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define HEAP ((uintptr_t)0x200000000000)

static void need(bool condition, int code) {
    if (!condition) {
        dprintf(STDERR_FILENO, "need %d\n", code);
        _exit(code);
    }
}
#define NEED(condition) need(condition, __LINE__)

// In a child, where nothing was started yet. The caps and the seal are set first.
struct scenario {
    void (*body)(void);
    uint32_t caps;
    unsigned seal;
    uint64_t most_bytes;
};

static void play(void *context) {
    const struct scenario *s = context;
    caps_probe(s->caps);
    cold_store_choose(s->seal, s->most_bytes);
    errno = 77;
    NEED(cold_store_start() && cold_store_start() && errno == 77);
    s->body();
    NEED(errno == 77);
}

static void run(void (*body)(void), unsigned seal) {
    struct child c;
    struct scenario s = {body, CAP_ALL, seal, 0};
    child_run(&c, play, &s);
    assert_string_equal(c.said, "");
    assert_true(child_exited(&c, 0));
}

static uintptr_t address_of(unsigned i) {
    return HEAP + (uintptr_t)i * FIRN_PAGE * 37;
}

static struct cold_blob put(unsigned i, enum pages_kind kind) {
    unsigned char page[FIRN_PAGE];
    struct cold_blob blob = {99};
    pages_fill(page, kind, i);
    NEED(cold_store_put(address_of(i), i, page, &blob) == COLD_STORED && blob.word != 0);
    return blob;
}

static void check(unsigned i, enum pages_kind kind, struct cold_blob blob) {
    unsigned char page[FIRN_PAGE + 1], want[FIRN_PAGE];
    pages_fill(want, kind, i);
    page[FIRN_PAGE] = 0xa5;
    cold_store_get(address_of(i), i, blob, page);
    NEED(memcmp(page, want, FIRN_PAGE) == 0 && page[FIRN_PAGE] == 0xa5);
}

// ---- what comes back --------------------------------------------------------------------------

enum { SOME = 500 };

static void puts_and_gets(void) {
    struct cold_blob blobs[SOME];
    for (unsigned i = 0; i < SOME; i++) {
        blobs[i] = put(i, i % PAGES_RANDOM);
    }
    for (unsigned i = 0; i < SOME; i++) {
        check(i, i % PAGES_RANDOM, blobs[i]);
        check(i, i % PAGES_RANDOM, blobs[i]); // a get takes nothing out
    }
    for (unsigned i = 0; i < SOME; i += 2) {
        cold_store_drop(blobs[i]);
        blobs[i] = put(i + SOME, PAGES_JSON);
    }
    for (unsigned i = 0; i < SOME; i++) {
        check(i % 2 == 0 ? i + SOME : i, i % 2 == 0 ? PAGES_JSON : i % PAGES_RANDOM, blobs[i]);
        cold_store_drop(blobs[i]);
    }
    struct cold_store_figures f;
    cold_store_figures(&f);
    NEED(f.pages == 0 && f.stored_bytes == 0 && f.puts == SOME + SOME / 2);
    NEED(f.drops == f.puts && f.gets == 3 * SOME);
}

static void special_pages(void) {
    unsigned char page[FIRN_PAGE], out[FIRN_PAGE];
    struct cold_blob blob;
    struct cold_store_figures f;
    memset(page, 0, sizeof page);
    NEED(cold_store_is_zero(page));
    NEED(cold_store_put(HEAP, 1, page, &blob) == COLD_STORED && blob.word != 0);
    memset(out, 1, sizeof out);
    cold_store_get(HEAP, 1, blob, out);
    NEED(cold_store_is_zero(out));
    cold_store_drop(blob);
    memset(page, 0x5a, sizeof page);
    NEED(!cold_store_is_zero(page));
    NEED(cold_store_put(HEAP, 1, page, &blob) == COLD_STORED);
    cold_store_figures(&f);
    NEED(f.pages == 1 && f.uniform_pages == 1 && f.stored_bytes == 0 && f.resident_bytes == 0);
    cold_store_get(HEAP, 1, blob, out);
    NEED(memcmp(page, out, sizeof page) == 0);
    cold_store_drop(blob);
    page[FIRN_PAGE - 1] = 0;
    NEED(cold_store_put(HEAP, 1, page, &blob) == COLD_STORED);
    cold_store_get(HEAP, 1, blob, out);
    NEED(memcmp(page, out, sizeof page) == 0);
    pages_fill(page, PAGES_RANDOM, 1);
    NEED(cold_store_put(HEAP, 1, page, &blob) == COLD_POOR);
    cold_store_figures(&f);
    NEED(f.poor == 1 && f.pages == 1);
}

static void what_was_put_comes_back(void **state) {
    (void)state;
    for (unsigned seal = SEAL_OFF; seal <= SEAL_AEAD; seal++) {
        run(puts_and_gets, seal);
        run(special_pages, seal);
    }
}

// ---- what does not ----------------------------------------------------------------------------

static struct cold_blob victim;

static void wrong_address(void) {
    unsigned char out[FIRN_PAGE];
    victim = put(1, PAGES_JSON);
    cold_store_get(address_of(2), 1, victim, out);
}
static void wrong_generation(void) {
    unsigned char out[FIRN_PAGE];
    victim = put(1, PAGES_JSON);
    cold_store_get(address_of(1), 2, victim, out);
}
static void dropped(void) {
    unsigned char out[FIRN_PAGE];
    victim = put(1, PAGES_JSON);
    (void)put(2, PAGES_JSON);
    cold_store_drop(victim);
    (void)put(1, PAGES_JSON);
    cold_store_get(address_of(1), 1, victim, out);
}
static void dropped_twice(void) {
    victim = put(1, PAGES_JSON);
    cold_store_drop(victim);
    cold_store_drop(victim);
}
static void uniform_elsewhere(void) {
    unsigned char page[FIRN_PAGE];
    memset(page, 7, sizeof page);
    NEED(cold_store_put(HEAP, 1, page, &victim) == COLD_STORED);
    victim.word ^= 1;
    cold_store_get(HEAP, 1, victim, page);
}

static void dies(void (*body)(void), unsigned seal, const char *line) {
    struct child c;
    struct scenario s = {body, CAP_ALL, seal, 0};
    child_run(&c, play, &s);
    assert_true(child_died_of(&c, SIGABRT));
    c.said[strcspn(c.said, "\n")] = '\0';
    assert_string_equal(c.said, line);
}

#define LINE(slug, address, found)                                                                 \
    "firn: " slug ": thaw(" address "): class=none size=? found: " found                           \
    "; expected: the page as it was frozen; caller=?+0x0"
#define UNSEALED "bytes, address or generation that were not sealed together"
#define ANOTHER "another blob, or none, at its place in the store"

static void what_was_not_put_is_fatal(void **state) {
    (void)state;
    for (unsigned seal = SEAL_MAC; seal <= SEAL_AEAD; seal++) {
        dies(wrong_address, seal, LINE("cold-seal", "0x20000004a000", UNSEALED));
        dies(wrong_generation, seal, LINE("cold-seal", "0x200000025000", UNSEALED));
    }
    for (unsigned seal = SEAL_OFF; seal <= SEAL_AEAD; seal++) {
        dies(dropped, seal, LINE("cold-store", "0x200000025000", ANOTHER));
        dies(dropped_twice, seal, LINE("cold-store", "0x0", ANOTHER));
        dies(uniform_elsewhere, seal,
             LINE("cold-store", "0x200000000000", "a name that no blob has"));
    }
}

// ---- children ---------------------------------------------------------------------------------

enum { GENERATIONS = 4 };

// Each generation opens what all before it stored, and stores itself; the parent does the same at the
// same time.
static void descend(void) {
    struct cold_blob blobs[2 * GENERATIONS];
    unsigned n = 0, depth = 0;
    for (; depth < GENERATIONS; depth++) {
        blobs[n] = put(n, PAGES_JSON);
        n++;
        cold_store_before_fork();
        pid_t child = fork();
        cold_store_after_fork(child == 0);
        struct cold_blob own = put(n, PAGES_JSON);
        if (child != 0) {
            int status;
            NEED(waitpid(child, &status, 0) == child && status == 0);
            check(n, PAGES_JSON, own);
            cold_store_drop(own);
            for (unsigned i = 0; i < n; i++) {
                check(i, PAGES_JSON, blobs[i]);
            }
            break;
        }
        blobs[n++] = own;
        for (unsigned i = 0; i < n; i++) {
            check(i, PAGES_JSON, blobs[i]);
        }
    }
    if (depth > 0) {
        _exit(0);
    }
}

static void children_have_their_own(void **state) {
    (void)state;
    for (unsigned seal = SEAL_OFF; seal <= SEAL_AEAD; seal++) {
        run(descend, seal);
    }
}

static void abandon(void) {
    struct cold_store_figures f;
    for (unsigned i = 0; i < SOME; i++) {
        (void)put(i, i % PAGES_RANDOM);
    }
    pid_t pid = fork();
    if (pid == 0) {
        cold_store_abandon();
        cold_store_figures(&f);
        NEED(f.pages == 0 && f.stored_bytes == 0 && f.resident_bytes == 0);
        puts_and_gets();
        _exit(0);
    }
    int status = -1;
    NEED(waitpid(pid, &status, 0) == pid && status == 0);
    cold_store_figures(&f);
    NEED(f.pages == SOME);
}

static void children_may_start_anew(void **state) {
    (void)state;
    for (unsigned seal = SEAL_OFF; seal <= SEAL_AEAD; seal++) {
        run(abandon, seal);
    }
}

// The end of the memory into which the store puts its first blob, in a sparse reservation. 0: not found.
static uintptr_t end_of_blobs(void) {
    enum { GROWS_BY = 1 << 20 };
    static char before[1 << 16];
    char line[4096];
    FILE *maps = fopen("/proc/self/maps", "r");
    NEED(maps != NULL && fread(before, 1, sizeof before - 1, maps) > 0);
    fclose(maps);
    (void)put(0, PAGES_JSON);
    uintptr_t found = 0;
    maps = fopen("/proc/self/maps", "r");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        uintptr_t start, end;
        bool is_new = sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &start, &end) == 2 &&
                      end - start == GROWS_BY && strstr(before, line) == NULL;
        found = is_new ? end : found;
    }
    fclose(maps);
    return found;
}

// Where address space is rationed the store owns what it has committed, and nothing between.
static void abandon_among_others(void) {
    uintptr_t end = end_of_blobs();
    NEED(end != 0);
    unsigned char *others = mmap((void *)(end + (1 << 21)), FIRN_PAGE, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    NEED((uintptr_t)others == end + (1 << 21));
    others[5] = 0xa5;
    cold_store_abandon();
    NEED(memory_can_read((uintptr_t)others) && others[5] == 0xa5);
    struct cold_store_figures f;
    cold_store_figures(&f);
    NEED(f.pages == 0 && f.index_bytes == 0 && !memory_can_read(end - FIRN_PAGE));
    puts_and_gets();
    cold_store_abandon();
    puts_and_gets();
    NEED(others[5] == 0xa5);
    errno = 77;
}

static void what_others_mapped_is_left_alone(void **state) {
    (void)state;
    struct child c;
    struct scenario s = {abandon_among_others, CAP_ALL & ~(uint32_t)CAP_RESERVE, SEAL_MAC, 0};
    child_run(&c, play, &s);
    assert_string_equal(c.said, "");
    assert_true(child_exited(&c, 0));
}

// A thread that does not exist in the child kept each of the desks.
static void abandon_with_desks_taken(void) {
    for (unsigned kind = 0; kind < DESK_KINDS; kind++) {
        unsigned n = kind == DESK_OPENING ? DESK_OPENING_MOST : DESK_PACKING_MOST;
        for (unsigned i = 0; i < n; i++) {
            (void)desk_take((enum desk_kind)kind);
        }
    }
    cold_store_abandon();
    puts_and_gets();
    errno = 77;
}

static void no_desk_stays_taken(void **state) {
    (void)state;
    run(abandon_with_desks_taken, SEAL_MAC);
    struct child c;
    struct scenario s = {abandon_with_desks_taken, CAP_ALL & ~(uint32_t)CAP_WIPE_ON_FORK, SEAL_OFF,
                         0};
    child_run(&c, play, &s);
    assert_string_equal(c.said, "");
    assert_true(child_exited(&c, 0));
}

// ---- memory -----------------------------------------------------------------------------------

enum { MANY = 6000 };
static struct cold_blob many[MANY];
static unsigned number[MANY];

static uint64_t draw_state = 1;
static unsigned below(unsigned n) {
    draw_state = draw_state * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (unsigned)((draw_state >> 33) % n);
}

// Waste of at most 5 % beyond the bytes of the blobs, and the slack of a few shelves.
static void need_tight(void) {
    struct cold_store_figures f;
    while (cold_store_tidy()) {
    }
    cold_store_figures(&f);
    NEED(f.resident_bytes <= f.stored_bytes + f.stored_bytes / 20 + (uint64_t)8 * 8 * FIRN_PAGE);
}

static void churn(void) {
    for (unsigned i = 0; i < MANY; i++) {
        number[i] = i;
        many[i] = put(i, i % 3);
    }
    need_tight();
    for (unsigned step = 0; step < 3 * MANY; step++) {
        unsigned i = below(MANY);
        cold_store_drop(many[i]);
        number[i] += MANY;
        many[i] = put(number[i], number[i] % 3);
    }
    need_tight();
    for (unsigned i = 0; i < MANY; i++) { // nine in ten die, at random
        if (i % 10 != 0) {
            cold_store_drop(many[i]);
            many[i].word = 0;
        }
    }
    need_tight();
    for (unsigned i = 0; i < MANY; i++) {
        if (many[i].word != 0) {
            check(number[i], number[i] % 3, many[i]);
            cold_store_drop(many[i]);
        }
    }
    need_tight();
    struct cold_store_figures f;
    cold_store_figures(&f);
    NEED(f.stored_bytes == 0 && f.pages == 0 && f.resident_bytes == 0);
}

static void memory_follows_what_is_stored(void **state) {
    (void)state;
    run(churn, SEAL_OFF);
    run(churn, SEAL_MAC);
}

static void until_the_cap(void) {
    unsigned char page[FIRN_PAGE];
    struct cold_blob blob;
    unsigned n = 0;
    for (;; n++) {
        pages_fill(page, PAGES_JSON, n);
        enum cold_put result = cold_store_put(address_of(n), n, page, &blob);
        if (result == COLD_FULL) {
            break;
        }
        NEED(result == COLD_STORED && n < 1000);
    }
    struct cold_store_figures f;
    cold_store_figures(&f);
    NEED(f.stored_bytes <= 100000 && f.stored_bytes > 90000 && f.full == 1);
}

static void a_cap_is_kept(void **state) {
    (void)state;
    struct child c;
    struct scenario s = {until_the_cap, CAP_ALL, SEAL_MAC, 100000};
    child_run(&c, play, &s);
    assert_string_equal(c.said, "");
    assert_true(child_exited(&c, 0));
}

static void lesser_kernels(void **state) {
    (void)state;
    static const uint32_t without[] = {CAP_SECRET, CAP_RESERVE, CAP_WIPE_ON_FORK,
                                       CAP_SECRET | CAP_RESERVE | CAP_GUARD_MARKER};
    for (unsigned i = 0; i < sizeof without / sizeof *without; i++) {
        struct child c;
        struct scenario s = {puts_and_gets, CAP_ALL & ~without[i], SEAL_AEAD, 0};
        child_run(&c, play, &s);
        assert_string_equal(c.said, "");
        assert_true(child_exited(&c, 0));
        s.body = descend;
        child_run(&c, play, &s);
        assert_string_equal(c.said, "");
        assert_true(child_exited(&c, 0));
    }
}

// ---- threads ----------------------------------------------------------------------------------

enum { THREADS = 4, ROUNDS = 300, EACH = 64 };

static void *freeze_and_thaw(void *argument) {
    unsigned self = (unsigned)(uintptr_t)argument;
    struct cold_blob blobs[EACH];
    for (unsigned i = 0; i < EACH; i++) {
        blobs[i] = put(self * EACH + i, i % 4);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned i = round * 7 % EACH;
        check(self * EACH + i, i % 4, blobs[i]);
        cold_store_drop(blobs[i]);
        blobs[i] = put(self * EACH + i, i % 4);
        if (round % 16 == 0) {
            (void)cold_store_tidy();
        }
    }
    for (unsigned i = 0; i < EACH; i++) {
        check(self * EACH + i, i % 4, blobs[i]);
        cold_store_drop(blobs[i]);
    }
    return NULL;
}

static void in_threads(void) {
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        NEED(pthread_create(&threads[i], NULL, freeze_and_thaw, (void *)i) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    errno = 77;
}

static void threads_do_not_meet(void **state) {
    (void)state;
    run(in_threads, SEAL_AEAD);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_comes_back),
        cmocka_unit_test(what_was_not_put_is_fatal),
        cmocka_unit_test(children_have_their_own),
        cmocka_unit_test(memory_follows_what_is_stored),
        cmocka_unit_test(a_cap_is_kept),
        cmocka_unit_test(lesser_kernels),
        cmocka_unit_test(threads_do_not_meet),
        cmocka_unit_test(children_may_start_anew),
        cmocka_unit_test(what_others_mapped_is_left_alone),
        cmocka_unit_test(no_desk_stays_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
