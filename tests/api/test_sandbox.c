// A program that installs a seccomp filter late, as sshd's child does, and allocates on: no call of Firn's
// may be one that the filter ends the process for.
#include "tests/api/api.h"
#include "tests/support/child.h"
#include "tests/support/filter.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

// Enough allocations for hundreds of guarded samples at level 3, dozens at level 1.
enum { ROUNDS = 300000, LIVE = 512 };

static void *live[LIVE];

static void need(bool is_true, int code) {
    if (!is_true) {
        _exit(code);
    }
}

static void churn(unsigned rounds) {
    unsigned seed = 1;
    for (unsigned i = 0; i < rounds; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned at = (seed >> 8) % LIVE;
        size_t size = (seed >> 17) % 100 == 0 ? 3000 + (seed >> 4) % 300000 : (seed >> 20) % 500;
        free(live[at]);
        live[at] = malloc(size);
        need(live[at] != NULL, 20);
        memset(live[at], 1, size < 4096 ? size : 4096);
    }
}

static void grow(void) {
    char *p = NULL;
    for (size_t n = 1; n <= (size_t)16 << 20; n *= 2) {
        p = realloc(p, n);
        need(p != NULL, 21);
        p[n - 1] = 1;
    }
    free(p);
}

struct plan {
    enum filter_kind kind;
    enum filter_way way;
    unsigned before; // allocations before the filter
};

static void run(void *context) {
    const struct plan *plan = context;
    churn(plan->before);
    need(filter_install(plan->kind, plan->way), 22);
    churn(ROUNDS);
    grow();
    usleep(1100000); // what was freed is due to be given back
    churn(ROUNDS / 10);
    malloc_trim(0);
    churn(ROUNDS / 10);
}

static void ends_well(void (*function)(void *), const void *context) {
    struct child c;
    child_run(&c, function, (void *)(uintptr_t)context);
    if (!child_exited(&c, 0)) {
        print_error("status %x: %s\n", (unsigned)c.status, c.said);
    }
    assert_true(child_exited(&c, 0));
}

static void openssh(void **state) {
    (void)state;
    ends_well(run, &(struct plan){FILTER_OPENSSH, FILTER_BY_PRCTL, 0});
    ends_well(run, &(struct plan){FILTER_OPENSSH, FILTER_BY_SECCOMP, ROUNDS / 10});
}

// ---- the kernel's strict mode: nothing but read, write and the end of the thread ----

static void fill_and_free(unsigned rounds) {
    unsigned seed = 3;
    for (unsigned i = 0; i < rounds; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned at = (seed >> 8) % LIVE;
        size_t size = (seed >> 17) % 100 == 0 ? 3000 + (seed >> 4) % 300000 : (seed >> 20) % 500;
        free(live[at]);
        live[at] = malloc(size); // may find nothing more
        if (live[at] != NULL) {
            memset(live[at], 1, size);
        }
    }
}

// Samples, large blocks, and what is due to be given back are among what is freed.
static void run_strict(void *context) {
    const struct plan *plan = context;
    char *kept = malloc(100000);
    churn(ROUNDS / 10);
    char *small = malloc(300);
    int ends[2]; // not in the heap: nothing is pinned before
    need(pipe(ends) == 0 && write(ends[1], "firn", 4) == 4 && small != NULL, 29);
    need(kept != NULL && filter_install(plan->kind, plan->way), 22);
    need(read(ends[0], small, 4) == 4 && memcmp(small, "firn", 4) == 0, 30);
    memset(kept, 7, 100000);
    fill_and_free(ROUNDS / 5);
    errno = 0;
    need(malloc((size_t)1 << 30) == NULL && errno == ENOMEM, 23);
    char *zeros = calloc(1, 5000);
    for (unsigned i = 0; zeros != NULL && i < 5000; i++) {
        need(zeros[i] == 0, 24);
    }
    char *grown = realloc(kept, 200000);
    need((grown != NULL ? grown : kept)[99999] == 7, 25);
    (void)malloc_trim(0);
    // What is due at times comes due: the coarse clock goes on, its cycle counter is the kernel's now.
    struct timespec began, now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &began);
    do {
        fill_and_free(ROUNDS / 10);
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    } while (now.tv_sec - began.tv_sec < 2);
    for (unsigned i = 0; i < LIVE; i++) {
        free(live[i]);
    }
    syscall(SYS_exit, 0);
}

// Classes that nothing was allocated of before, by a thread that had allocated nothing.
static void *allocate_anew(void *context) {
    const struct plan *plan = context;
    need(filter_install(plan->kind, plan->way), 22);
    for (size_t size = 16; size < 400000; size += size / 4 + 16) {
        char *volatile p = malloc(size);
        if (p != NULL) {
            memset(p, 1, size);
        }
        free(p);
    }
    syscall(SYS_exit, 0);
    return NULL;
}

static void run_strict_thread(void *context) {
    pthread_t thread;
    need(pthread_create(&thread, NULL, allocate_anew, context) == 0, 27);
    need(pthread_join(thread, NULL) == 0, 28);
    churn(ROUNDS / 100); // the others' heap is as ever
    grow();
}

static void strict_mode(void **state) {
    (void)state;
    static const enum filter_way ways[] = {FILTER_BY_PRCTL, FILTER_BY_SECCOMP};
    for (unsigned i = 0; i < 2; i++) {
        ends_well(run_strict, &(struct plan){FILTER_STRICT, ways[i], 0});
        ends_well(run_strict_thread, &(struct plan){FILTER_STRICT, ways[i], 0});
    }
}

// Refused, as under a filter that came before: the heap goes on growing.
static void run_refused(void *context) {
    const struct plan *plan = context;
    need(filter_install(FILTER_NO_FORK, FILTER_BY_PRCTL), 22);
    need(!filter_install(plan->kind, plan->way) && errno == EINVAL, 26);
    churn(ROUNDS / 10);
    grow();
}

static void strict_mode_refused(void **state) {
    (void)state;
    static const enum filter_way ways[] = {FILTER_BY_PRCTL, FILTER_BY_SECCOMP};
    for (unsigned i = 0; i < 2; i++) {
        ends_well(run_refused, &(struct plan){FILTER_STRICT, ways[i], 0});
    }
}

// What needs a thread of Firn's own, and has none yet when the filter comes, has to do without.
static void start_anew(void *options) {
    setenv("FIRN_OPTIONS", options, 1);
    execl("/proc/self/exe", "test_sandbox", "anew", (char *)NULL);
    _exit(98);
}

static void no_thread_comes_later(void **state) {
    (void)state;
    static char options[] = "cold=on:cold_after=1";
    ends_well(start_anew, options);
}

// libc's syscall, which Firn replaces: six arguments, the answer, errno.
static void syscall_is_libcs(void **state) {
    (void)state;
    const int fd = memfd_create("six", MFD_CLOEXEC);
    assert_true(fd >= 0 && ftruncate(fd, 12288) == 0 && pwrite(fd, "x", 1, 8192) == 1);
    char *p = (char *)syscall(SYS_mmap, NULL, 4096ul, PROT_READ, MAP_PRIVATE, fd, 8192l);
    assert_true(p != MAP_FAILED && p[0] == 'x' && p[1] == 0);
    assert_int_equal(syscall(SYS_munmap, p, 4096ul), 0);
    errno = 0;
    assert_int_equal(syscall(SYS_close, -1), -1);
    assert_int_equal(errno, EBADF);
    errno = 0;
    assert_int_equal(syscall(-1L), -1);
    assert_int_equal(errno, ENOSYS);
    char name[17] = "";
    assert_int_equal(prctl(PR_SET_NAME, "prctl"), 0);
    assert_int_equal(syscall(SYS_prctl, PR_GET_NAME, name, 0, 0, 0), 0);
    assert_string_equal(name, "prctl");
    errno = 0;
    assert_int_equal(prctl(-1, 0, 0, 0, 0), -1);
    assert_int_equal(errno, EINVAL);
    close(fd);
}

// ---- P-REPORT: a report under a filter that ends the process for anything but write ----

static char *twice;

static __attribute__((noinline)) void misuse(void) {
    free(twice);
    free(twice);
    __asm__ volatile(""); // no tail call
}

static void misuse_under(void *context) {
    const struct plan *plan = context;
    churn(plan->before);
    // Not a guarded sample: to free one takes calls, which the strictest of these filters end the process
    // for. Samples begin or end where their page does.
    do {
        twice = malloc(40);
    } while ((uintptr_t)twice % 4096 - 64 >= 2048);
    free(malloc(40));
    need(filter_install(plan->kind, plan->way), 22);
    misuse();
}

// The whole first line, to the letter, and the caller in it is the second free.
static void reports(const struct plan *plan, bool is_stack_known) {
    struct child c;
    char path[512], want[1024];
    uintptr_t address = 0, offset = 0;
    unsigned class_bytes = 0;
    Dl_info module;
    child_run(&c, misuse_under, (void *)(uintptr_t)plan);
    assert_int_equal(
        sscanf(c.said, "firn: double-free: free(0x%lx): class=%u ", &address, &class_bytes), 2);
    const char *plus = strstr(c.said, "; caller=");
    assert_non_null(plus);
    assert_int_equal(sscanf(plus, "; caller=%511[^+]+0x%lx", path, &offset), 2);
    snprintf(
        want, sizeof want,
        "firn: double-free: free(0x%lx): class=%u size=? found: slot is already free; expected: a "
        "live slot; caller=%s+0x%lx\nfirn:   look at: addr2line -f -C -e %s 0x%lx\nfirn:   hint: ",
        address, class_bytes, path, offset, path, offset);
    assert_memory_equal(c.said, want, strlen(want));
    assert_true(address % 16 == 0 && class_bytes >= 40 && class_bytes <= 64);
    void *const function = (void *)(uintptr_t)&misuse;
    assert_int_not_equal(dladdr(function, &module), 0);
    const uintptr_t start = (uintptr_t)function - (uintptr_t)module.dli_fbase;
    assert_true(offset > start && offset < start + 64);
    struct stat named, self;
    assert_int_equal(stat(path, &named), 0);
    assert_int_equal(stat("/proc/self/exe", &self), 0);
    assert_true(named.st_ino == self.st_ino && named.st_dev == self.st_dev);
    assert_int_equal(is_stack_known, strstr(c.said, "firn:   block: ") != NULL);
    assert_false(WIFEXITED(c.status) && WEXITSTATUS(c.status) == 0);
}

static void report_comes_out(void **state) {
    (void)state;
    if (api_level() == 0) {
        skip(); // nothing is checked there
    }
    static const enum filter_way ways[] = {FILTER_BY_PRCTL, FILTER_BY_SECCOMP};
    for (unsigned i = 0; i < 2; i++) {
        reports(&(struct plan){FILTER_STRICT, ways[i], 1000}, false);
        reports(&(struct plan){FILTER_WRITE, ways[i], 1000}, false);
        reports(&(struct plan){FILTER_OPENSSH, ways[i], 1000}, false);
    }
}

int main(int argc, char **argv) {
    api_require_firn("sandbox");
    if (argc > 1 && strcmp(argv[1], "anew") == 0) {
        run(&(struct plan){FILTER_OPENSSH, FILTER_BY_SECCOMP, 1});
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syscall_is_libcs),      cmocka_unit_test(openssh),
        cmocka_unit_test(strict_mode),           cmocka_unit_test(strict_mode_refused),
        cmocka_unit_test(no_thread_comes_later), cmocka_unit_test(report_comes_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
