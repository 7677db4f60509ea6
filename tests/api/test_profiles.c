// The filters that service managers and containers put around a program, before it starts or while it runs,
// and a program that has shut itself out of the file system: with merging and the cold tier at work no call
// may end the process, and no byte may change.
//
// firn-test: timeout=300
#include "tests/api/api.h"
#include "tests/support/child.h"
#include "tests/support/filter.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { BLOCKS = 20000, LARGE = 8, LARGE_BYTES = 300000, WRONG = 40, NO_FILTER = 41 };

static unsigned char *blocks[BLOCKS + LARGE];

static size_t size_of(unsigned i) {
    return i < BLOCKS ? 32 + i * 7 % 480 : LARGE_BYTES;
}

static void fill(unsigned from, unsigned to) {
    for (unsigned i = from; i < to; i++) {
        blocks[i] = malloc(size_of(i));
        if (blocks[i] == NULL) {
            _exit(WRONG);
        }
        memset(blocks[i], (int)(i % 251), size_of(i));
    }
}

static void check(unsigned step) {
    for (unsigned i = 0; i < BLOCKS + LARGE; i += i < BLOCKS ? step : 1) {
        for (size_t at = 0; at < size_of(i); at++) {
            if (blocks[i][at] != i % 251) {
                _exit(WRONG);
            }
        }
    }
}

// Long enough for pages to freeze, then for fragments to be merged; a child works on what it inherits.
static void work(void) {
    usleep(2300000);
    check(1);
    for (unsigned i = 0; i < BLOCKS; i++) {
        if (i % 8 != 0) {
            free(blocks[i]);
        }
    }
    malloc_trim(0);
    usleep(1500000);
    pid_t child = fork();
    if (child == 0) {
        check(8);
        _exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        _exit(WRONG + 2);
    }
    check(8);
}

// Of the kernel's header (Linux 5.13), which libc's may be older than.
#define LANDLOCK_CREATE 444
#define LANDLOCK_RESTRICT 446

// Nothing of the file system may be opened, made or removed any more.
static bool shut_out(void) {
    const uint64_t handled = (1u << 13) - 1; // what the first version knows
    const int rules = (int)syscall(LANDLOCK_CREATE, &handled, sizeof handled, 0);
    return rules >= 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(LANDLOCK_RESTRICT, rules, 0) == 0;
}

struct place {
    const char *name; // as the first argument of this program when it starts anew
    enum filter_kind kind;
    bool is_landlock;
};

static const struct place places[] = {
    {"service", FILTER_SERVICE, false},
    {"docker", FILTER_DOCKER, false},
    {"landlock", 0, true},
};
enum { PLACES = sizeof places / sizeof places[0] };

static void enter(const struct place *p, enum filter_way way) {
    if (p->is_landlock ? !shut_out() : !filter_install(p->kind, way)) {
        _exit(NO_FILTER);
    }
}

static void run(const struct place *p) {
    fill(0, BLOCKS / 2);
    if (p != NULL) {
        enter(p, FILTER_BY_SECCOMP);
    }
    fill(BLOCKS / 2, BLOCKS + LARGE);
    work();
}

static void start_anew(const struct place *p, bool is_late, const char *options) {
    setenv("FIRN_OPTIONS", options, 1);
    // Landlock would refuse to run anything: there it always comes late.
    if (!is_late && !p->is_landlock) {
        enter(p, FILTER_BY_PRCTL);
    }
    execl("/proc/self/exe", "test_profiles", is_late || p->is_landlock ? p->name : "outside",
          (char *)NULL);
    _exit(WRONG + 3);
}

// All at the same time: they wait for the most part.
static void run_all(void *context) {
    static const char *const options[] = {"", "cold=on:cold_after=1", "mesh=auto",
                                          "cold=on:cold_after=1:mesh=auto:seal=aead",
                                          "cold=on:cold_after=1:mesh=auto:fault=protect"};
    enum { OPTIONS = sizeof options / sizeof options[0] };
    const struct place *p = context;
    pid_t pids[2 * OPTIONS];
    unsigned failures = 0;
    for (unsigned i = 0; i < 2 * OPTIONS; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            start_anew(p, i % 2 != 0, options[i / 2]);
        }
    }
    for (unsigned i = 0; i < 2 * OPTIONS; i++) {
        int status = -1;
        if (pids[i] < 0 || waitpid(pids[i], &status, 0) != pids[i] || status != 0) {
            fprintf(stderr, "%s, %s, FIRN_OPTIONS=%s: status %x\n", p->name,
                    i % 2 != 0 ? "late" : "from the start", options[i / 2], (unsigned)status);
            failures++;
        }
    }
    _exit(failures != 0);
}

static void lives_in(const struct place *p) {
    struct child c;
    child_run(&c, run_all, (void *)(uintptr_t)p);
    if (!child_exited(&c, 0)) {
        print_error("status %x: %s\n", (unsigned)c.status, c.said);
    }
    assert_true(child_exited(&c, 0));
}

static void service(void **state) {
    (void)state;
    lives_in(&places[0]);
}

static void docker(void **state) {
    (void)state;
    lives_in(&places[1]);
}

static void landlock(void **state) {
    (void)state;
    if (syscall(LANDLOCK_CREATE, NULL, 0, 1) < 1) {
        skip(); // no Landlock in this kernel
    }
    lives_in(&places[2]);
}

int main(int argc, char **argv) {
    api_require_firn("profiles");
    if (argc > 1) {
        const struct place *p = NULL;
        for (unsigned i = 0; i < PLACES; i++) {
            p = strcmp(argv[1], places[i].name) == 0 ? &places[i] : p;
        }
        run(p);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(service),
        cmocka_unit_test(docker),
        cmocka_unit_test(landlock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
