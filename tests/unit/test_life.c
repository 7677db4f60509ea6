// Start, threads and forks, whichever call makes the child: one that runs the handlers, _Fork, or the
// kernel's own. Each case in a process of its own, whose heap has not started.
// firn-test: timeout=240 sanitize=address,thread
#include "src/heap/life.h"

#include "src/heap/heap.h"
#include "src/os/caps.h"
#include "src/os/kernel.h"
#include "src/span/region.h"
#include "tests/support/memory.h"
#include "tests/support/small_case.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 400, CHOICES = 64, SIZE = 96, LARGE_SIZE = 100000 };

static const uintptr_t site = 0x40d000;

// ---- ways to fork -----------------------------------------------------------------------------

enum fork_kind { WITH_HANDLERS, WITHOUT_HANDLERS, RAW, FORK_KINDS };

static pid_t fork_by(enum fork_kind kind) {
    switch (kind) {
    case WITH_HANDLERS:
        return fork();
    case WITHOUT_HANDLERS:
        return _Fork();
    default:
        return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
    }
}

static void wait_for(pid_t pid) {
    int status;
    NEED(waitpid(pid, &status, 0) == pid);
    NEED(status == 0);
}

static void run_by_each_kind(void (*body)(void *)) {
    for (unsigned i = 0; i < FORK_KINDS; i++) {
        enum fork_kind kind = (enum fork_kind)i;
        // A sanitizer's own allocator needs the handlers.
        if (kind != WITH_HANDLERS && memory_is_sanitized()) {
            continue;
        }
        if (!small_run(body, &kind)) {
            fail_msg("fork kind %u", i);
        }
    }
}

// ---- start ------------------------------------------------------------------------------------

static pthread_barrier_t barrier;

static void *start_here(void *unused) {
    (void)unused;
    pthread_barrier_wait(&barrier);
    return heap_alloc(SIZE, site);
}

static void start_from_many(void *context) {
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    void *p[THREADS];
    (void)context;
    NEED(!life_has_started());
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        NEED(pthread_create(&threads[i], NULL, start_here, NULL) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        NEED(pthread_join(threads[i], &p[i]) == 0);
        NEED(p[i] != NULL);
        for (unsigned k = 0; k < i; k++) {
            NEED(p[k] != p[i]);
        }
    }
    NEED(life_has_started());
    struct root before = FIRN_ROOT;
    life_start();
    NEED(memcmp(&before, &FIRN_ROOT, sizeof before) == 0);
    small_check();
}

static void threads_may_start_the_heap_together(void **state) {
    (void)state;
    assert_true(small_run(start_from_many, NULL));
}

// The fast path looks at the call site before the heap has started, and so before sites have a key.
static void alloc_first(void *context) {
    (void)context;
    void *p = heap_alloc(SIZE, site);
    NEED(p != NULL);
    NEED(small_span(p)->cell == small_cell(SIZE, site));
    NEED(FIRN_PARTITION_MODE != 2 || partition_of(site, FIRN_ROOT.site_key) == 0);
    NEED(FIRN_PARTITION_MODE != 2 || partition_of(site + 16, FIRN_ROOT.site_key) == 1);
}

static void the_first_site_has_one_partition(void **state) {
    (void)state;
    assert_true(small_run(alloc_first, NULL));
}

static void attach_twice(void *context) {
    (void)context;
    NEED(firn_cache == &firn_empty_cache);
    struct cache *c = life_thread_cache();
    NEED(c != NULL && c != &firn_empty_cache && c == firn_cache);
    NEED(life_thread_cache() == c);
}

static void a_thread_has_one_cache(void **state) {
    (void)state;
    assert_true(small_run(attach_twice, NULL));
}

// ---- threads ----------------------------------------------------------------------------------

static void *use_heap(void *keep) {
    void *p[50];
    for (unsigned i = 0; i < 50; i++) {
        p[i] = heap_alloc(16 + i * 20, site + i % 7 * 16);
        NEED(p[i] != NULL);
    }
    for (unsigned i = 0; i < 50; i += keep != NULL ? 2 : 1) {
        heap_free(p[i], site);
    }
    return NULL;
}

// All of a wave have caches and blocks at the same time.
static void *use_heap_together(void *unused) {
    void *p = heap_alloc(1000, site);
    NEED(p != NULL);
    use_heap(NULL);
    pthread_barrier_wait(&barrier);
    heap_free(p, site);
    return unused;
}

static void run_threads(void *context) {
    enum { THREADS = 2000, AT_ONCE = 4 };
    struct heap_stats stats;
    uint64_t mapped = 0;
    (void)context;
    pthread_barrier_init(&barrier, NULL, AT_ONCE);
    (void)heap_alloc(1, site);
    for (unsigned i = 0; i < THREADS / AT_ONCE; i++) {
        pthread_t threads[AT_ONCE];
        for (unsigned k = 0; k < AT_ONCE; k++) {
            NEED(pthread_create(&threads[k], NULL, use_heap_together, NULL) == 0);
        }
        for (unsigned k = 0; k < AT_ONCE; k++) {
            NEED(pthread_join(threads[k], NULL) == 0);
        }
        if (i == 20) {
            heap_stats(&stats);
            mapped = stats.mapped + stats.metadata;
        }
    }
    heap_stats(&stats);
    NEED(stats.caches == AT_ONCE + 1);
    NEED(stats.caches_in_use == 1);
    NEED(stats.small_live == 1);
    // Threads that come and go leak nothing.
    NEED(stats.mapped + stats.metadata <= mapped + mapped / 2);
    small_check();
}

static void exiting_threads_hand_everything_back(void **state) {
    (void)state;
    assert_true(small_run(run_threads, NULL));
}

// A destructor that runs after the heap's own, and allocates, in every round that libc grants: the thread
// gets a cache once more, and that one comes back, too.
static pthread_key_t late_key;
static void *late_block;
// ThreadSanitizer ends its own part of a thread in the same rounds: what is instrumented crashes after that.
enum { LATE_ROUNDS = KERNEL_TSAN ? 2 : PTHREAD_DESTRUCTOR_ITERATIONS };

static void allocate_late(void *value) { // the number of the round
    heap_free(heap_alloc(SIZE, site), site);
    heap_free(heap_alloc(LARGE_SIZE, site), site);
    heap_free(late_block, site);
    late_block = heap_alloc(SIZE, site);
    (void)heap_trim();
    if ((uintptr_t)value < LATE_ROUNDS) {
        (void)pthread_setspecific(late_key, (void *)((uintptr_t)value + 1));
    }
}

static void *leave_late(void *unused) {
    (void)unused;
    heap_free(heap_alloc(SIZE, site), site);
    (void)pthread_setspecific(late_key, (void *)1);
    return NULL;
}

static void exit_late(void *context) {
    struct heap_stats stats;
    (void)context;
    (void)heap_alloc(1, site);
    NEED(pthread_key_create(&late_key, allocate_late) == 0);
    for (unsigned i = 0; i < 20; i++) {
        pthread_t thread;
        NEED(pthread_create(&thread, NULL, leave_late, NULL) == 0);
        NEED(pthread_join(thread, NULL) == 0);
    }
    heap_stats(&stats);
    NEED(stats.caches_in_use == 1);
    NEED(stats.caches == 2);
    small_check();
}

static void destructors_may_allocate(void **state) {
    (void)state;
    assert_true(small_run(exit_late, NULL));
}

// ---- forks ------------------------------------------------------------------------------------

static void *theirs[BLOCKS], *mine[BLOCKS];

static void fill(void **blocks) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = heap_alloc(SIZE + i % 3 * 200, site);
        NEED(blocks[i] != NULL);
        memset(blocks[i], (int)i, SIZE);
    }
    for (unsigned i = 0; i < BLOCKS; i += 4) { // some in mixers and vectors
        heap_free(blocks[i], site);
        blocks[i] = NULL;
    }
}

// Has blocks, and slots in hand, and stays.
static void *stay(void *unused) {
    (void)unused;
    fill(theirs);
    pthread_barrier_wait(&barrier);
    for (;;) {
        pause();
    }
    return NULL;
}

static void start_companion(void) {
    pthread_t thread;
    pthread_barrier_init(&barrier, NULL, 2);
    NEED(pthread_create(&thread, NULL, stay, NULL) == 0);
    pthread_barrier_wait(&barrier);
    fill(mine);
}

static void free_all(void **blocks) {
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (blocks[i] != NULL) {
            unsigned char expected[SIZE];
            memset(expected, (int)i, SIZE);
            NEED(memcmp(blocks[i], expected, SIZE) == 0);
            heap_free(blocks[i], site);
        }
    }
}

// No span is anybody's who is not here.
static void ensure_recovered(void) {
    for (unsigned cell = 0; cell < CELLS; cell++) {
        for (uint32_t i = 0; i < firn_regions[cell].committed; i++) {
            const struct span *s = span_by_index(cell, i);
            const struct cache *owner = atomic_load(&s->owner);
            NEED(owner == NULL || owner == firn_cache);
        }
    }
}

static void child_uses_everything(void *context) {
    struct heap_stats stats;
    start_companion();
    pid_t pid = fork_by(*(enum fork_kind *)context);
    NEED(pid >= 0);
    if (pid == 0) {
        errno = 4711;
        free_all(theirs);
        NEED(errno == 4711);
        fill(theirs);
        free_all(mine);
        free_all(theirs);
        small_check();
        ensure_recovered();
        heap_stats(&stats);
        NEED(stats.small_live == 0);
        NEED(stats.caches_in_use == 1);
        // The dead thread's slots, also those it had in hand, can be had again.
        NEED(heap_trim());
        heap_stats(&stats);
        NEED(stats.active == 0 && stats.dirty == 0);
        _exit(0);
    }
    wait_for(pid);
    free_all(mine);
    free_all(theirs);
    heap_stats(&stats);
    NEED(stats.small_live == 0);
    NEED(stats.caches_in_use == 2);
}

static void a_child_has_the_whole_heap(void **state) {
    (void)state;
    run_by_each_kind(child_uses_everything);
}

// Without a word from the child: its recovery is due whenever it looks, also in its own child.
static void grandchild_uses_everything(void *context) {
    enum fork_kind kind = *(enum fork_kind *)context;
    start_companion();
    pid_t pid = fork_by(kind);
    NEED(pid >= 0);
    if (pid == 0) {
        pid_t grandchild = fork_by(kind);
        NEED(grandchild >= 0);
        if (grandchild == 0) {
            free_all(theirs);
            free_all(mine);
            small_check();
            ensure_recovered();
            _exit(0);
        }
        wait_for(grandchild);
        free_all(mine);
        small_check();
        _exit(0);
    }
    wait_for(pid);
}

static void so_has_its_child(void **state) {
    (void)state;
    run_by_each_kind(grandchild_uses_everything);
}

// The child's threads exit, and their caches are used again.
static void child_runs_threads(void *context) {
    start_companion();
    pid_t pid = fork_by(*(enum fork_kind *)context);
    NEED(pid >= 0);
    if (pid == 0) {
        struct heap_stats stats;
        for (unsigned i = 0; i < 50; i++) {
            pthread_t thread;
            NEED(pthread_create(&thread, NULL, use_heap, (void *)1) == 0);
            NEED(pthread_join(thread, NULL) == 0);
        }
        free_all(theirs);
        heap_stats(&stats);
        NEED(stats.caches <= 3);
        NEED(stats.caches_in_use == 1);
        small_check();
        _exit(0);
    }
    wait_for(pid);
}

static void a_child_may_have_threads(void **state) {
    (void)state;
    if (memory_is_sanitized()) {
        skip();
    }
    // The C library's threads need its own fork.
    enum fork_kind kind = WITH_HANDLERS;
    assert_true(small_run(child_runs_threads, &kind));
}

// ---- choices ----------------------------------------------------------------------------------

static void choose(uintptr_t chosen[CHOICES]) {
    for (unsigned i = 0; i < CHOICES; i++) {
        chosen[i] = (uintptr_t)heap_alloc(SIZE, site);
    }
}

static void choose_in_child(enum fork_kind kind, void *to_free, uintptr_t chosen[CHOICES]) {
    int ends[2];
    NEED(pipe(ends) == 0);
    pid_t pid = fork_by(kind);
    NEED(pid >= 0);
    if (pid == 0) {
        // Without handlers it takes a slow path for the child to notice; a free is one.
        heap_free(to_free, site);
        choose(chosen);
        NEED(write(ends[1], chosen, CHOICES * sizeof *chosen) ==
             (ssize_t)(CHOICES * sizeof *chosen));
        _exit(0);
    }
    NEED(read(ends[0], chosen, CHOICES * sizeof *chosen) == (ssize_t)(CHOICES * sizeof *chosen));
    close(ends[0]);
    close(ends[1]);
    wait_for(pid);
}

static unsigned count_equal(const uintptr_t a[CHOICES], const uintptr_t b[CHOICES]) {
    unsigned n = 0;
    for (unsigned i = 0; i < CHOICES; i++) {
        n += a[i] == b[i];
    }
    return n;
}

static void compare_choices(void *context) {
    enum fork_kind kind = *(enum fork_kind *)context;
    uintptr_t parent[CHOICES], child[2][CHOICES];
    void *p = heap_alloc(SIZE, site);
    for (unsigned i = 0; i < 1000; i++) { // a vector of some size
        mine[i % BLOCKS] = heap_alloc(SIZE, site);
    }
    for (unsigned i = 0; i < BLOCKS; i++) {
        heap_free(mine[i], site);
    }
    choose_in_child(kind, p, child[0]);
    choose_in_child(kind, p, child[1]);
    heap_free(p, site);
    choose(parent);
    NEED(count_equal(parent, child[0]) < CHOICES / 4);
    NEED(count_equal(parent, child[1]) < CHOICES / 4);
    NEED(count_equal(child[0], child[1]) < CHOICES / 4);
}

static void a_child_makes_its_own_choices(void **state) {
    (void)state;
    run_by_each_kind(compare_choices);
}

// Which fresh spans are taken, and in which order, where the kernel wipes nothing in a child.
enum { SPANS = 24 };

static void choose_spans(uintptr_t chosen[SPANS]) {
    uintptr_t last = 0;
    for (unsigned n = 0; n < SPANS;) {
        void *p = heap_alloc(16, site);
        NEED(p != NULL);
        uintptr_t base = span_base(small_span(p));
        bool is_new = base != last;
        for (unsigned i = 0; i < n && is_new; i++) {
            is_new = chosen[i] != base;
        }
        if (is_new) {
            chosen[n++] = base;
        }
        last = base;
    }
}

static void compare_choices_unwiped(void *context) {
    setenv("FIRN_TEST_CAPS", "7d", 1); // all but CAP_WIPE_ON_FORK
    compare_choices(context);
    NEED(!caps_has(CAP_WIPE_ON_FORK));
}

static void compare_spans_unwiped(void *unused) {
    uintptr_t parent[SPANS], child[SPANS];
    int ends[2];
    (void)unused;
    setenv("FIRN_TEST_CAPS", "7d", 1);
    (void)heap_alloc(16, site);
    NEED(!caps_has(CAP_WIPE_ON_FORK));
    NEED(pipe(ends) == 0);
    pid_t pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        choose_spans(child);
        NEED(write(ends[1], child, sizeof child) == (ssize_t)sizeof child);
        _exit(0);
    }
    NEED(read(ends[0], child, sizeof child) == (ssize_t)sizeof child);
    wait_for(pid);
    choose_spans(parent);
    unsigned equal = 0;
    for (unsigned i = 0; i < SPANS; i++) {
        equal += parent[i] == child[i];
    }
    NEED(equal < SPANS / 2);
}

static void also_where_the_kernel_does_not_help(void **state) {
    (void)state;
    enum fork_kind kind = WITH_HANDLERS;
    assert_true(small_run(compare_choices_unwiped, &kind));
    assert_true(small_run(compare_spans_unwiped, NULL));
}

// ---- forks at any moment ----------------------------------------------------------------------

static atomic_bool is_over;

static void *work(void *argument) {
    uint64_t seed = (uintptr_t)argument;
    void *p[64] = {NULL};
    while (!atomic_load(&is_over)) {
        unsigned i = (unsigned)small_draw(&seed, 64);
        heap_free(p[i] != NULL ? p[i] : heap_alloc(1, site), site);
        p[i] = heap_alloc(small_draw(&seed, 3000), site);
        if (small_draw(&seed, 200) == 0) {
            (void)heap_trim();
        }
    }
    for (unsigned i = 0; i < 64; i++) {
        if (p[i] != NULL) {
            heap_free(p[i], site);
        }
    }
    return NULL;
}

static void fork_among_workers(void *context) {
    enum { WORKERS = 3, FORKS = 40 };
    pthread_t threads[WORKERS];
    (void)context;
    for (uintptr_t i = 0; i < WORKERS; i++) {
        NEED(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    }
    for (unsigned i = 0; i < FORKS; i++) {
        fill(mine);
        pid_t pid = fork();
        NEED(pid >= 0);
        if (pid == 0) {
            alarm(20);
            free_all(mine);
            fill(theirs);
            free_all(theirs);
            (void)heap_trim();
            small_check();
            ensure_recovered();
            _exit(0);
        }
        free_all(mine);
        wait_for(pid);
    }
    atomic_store(&is_over, true);
    for (unsigned i = 0; i < WORKERS; i++) {
        NEED(pthread_join(threads[i], NULL) == 0);
    }
    small_check();
    struct heap_stats stats;
    heap_stats(&stats);
    NEED(stats.small_live == 0);
}

static void a_child_is_whole_whatever_others_were_doing(void **state) {
    (void)state;
    assert_true(small_run(fork_among_workers, NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_may_start_the_heap_together),
        cmocka_unit_test(the_first_site_has_one_partition),
        cmocka_unit_test(a_thread_has_one_cache),
        cmocka_unit_test(exiting_threads_hand_everything_back),
        cmocka_unit_test(destructors_may_allocate),
        cmocka_unit_test(a_child_has_the_whole_heap),
        cmocka_unit_test(so_has_its_child),
        cmocka_unit_test(a_child_may_have_threads),
        cmocka_unit_test(a_child_makes_its_own_choices),
        cmocka_unit_test(also_where_the_kernel_does_not_help),
        cmocka_unit_test(a_child_is_whole_whatever_others_were_doing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
