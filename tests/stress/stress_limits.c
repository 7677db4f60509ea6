// The end of memory, and what comes after it: under RLIMIT_AS and RLIMIT_DATA a program fills its
// limit with blocks of one size, is refused some, frees all, and must then get every other size.
// A sized free after a shrink that found no memory; alignment when a size has run out of addresses
// (36 bits of them a size in a narrow space, through the test hook).
//
// firn-test: levels=0,1,2,3 timeout=300 sanitize=none

#include "tests/stress/stress.h"

#include <sys/resource.h>
#include <sys/wait.h>

#define LIMIT_KIB 300000u
#define BLOCKS 2000000u
#define REFUSALS 500u
#define MANY_MIB 700u

static void *blocks[BLOCKS];

static size_t fill(size_t size) {
    size_t n = 0;
    while (n < BLOCKS && (blocks[n] = mem_alloc(size)) != NULL) {
        n++;
    }
    return n;
}

static void recover(void) {
    static const size_t sizes[] = {200, 4000, 30000, 100000};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = fill(sizes[i]);
        STRESS_CHECK(n * sizes[i] > (LIMIT_KIB << 10) / 3, "only %zu of %zu bytes", n, sizes[i]);
        for (unsigned k = 0; k < REFUSALS; k++) {
            mem_free(mem_alloc(sizes[i]));
        }
        while (n-- > 0) {
            mem_free(blocks[n]);
        }
        for (size_t size = 16; size < 200000; size += size / 4) {
            void *p = mem_alloc(size);
            STRESS_CHECK(p != NULL, "%zu bytes refused after all of %zu were freed", size,
                         sizes[i]);
            mem_free(p);
        }
    }
}

// Through a union: ISO C has no cast from an object pointer to a function pointer.
static void sized_free(void *p, size_t size) {
    union {
        void *object;
        void (*call)(void *, size_t);
    } f = {.object = dlsym(RTLD_DEFAULT, "free_sized")};
    if (f.object != NULL) {
        f.call(p, size);
    }
}

static void keep(void) {
    static const size_t sizes[][2] = {{5000, 100}, {200000, 100}, {200000, 40000}};
    void *p[3];
    for (unsigned i = 0; i < 3; i++) {
        p[i] = mem_alloc(sizes[i][0]);
        STRESS_CHECK(p[i] != NULL, "no memory to begin with");
    }
    struct rlimit least = {1, 1};
    STRESS_CHECK(setrlimit(RLIMIT_DATA, &least) == 0, "setrlimit: %s", strerror(errno));
    (void)fill(100);
    (void)fill(40000);
    for (unsigned i = 0; i < 3; i++) {
        p[i] = mem_resize(p[i], sizes[i][1]);
        STRESS_CHECK(p[i] != NULL, "a shrink to %zu failed", sizes[i][1]);
        sized_free(p[i], sizes[i][1]);
    }
}

static void align(void) {
    for (size_t n = 0; n < (size_t)MANY_MIB << 10; n++) {
        void *p = NULL;
        STRESS_CHECK(posix_memalign(&p, 1024, 1024) == 0, "no memory after %zu KiB", n);
        STRESS_CHECK((uintptr_t)p % 1024 == 0, "%p is not aligned, after %zu KiB", p, n);
    }
}

static const struct {
    const char *name;
    void (*run)(void);
    int resource; // limited to LIMIT_KIB
} cases[] = {{"address-space", recover, RLIMIT_AS},
             {"data", recover, RLIMIT_DATA},
             {"keep", keep, -1},
             {"align", align, -1}};
#define CASES (sizeof cases / sizeof *cases)

// Limits and hooks are read at start: every case is a process of its own.
static void start_case(unsigned i, char *program) {
    pid_t child = fork();
    STRESS_CHECK(child >= 0, "fork: %s", strerror(errno));
    if (child == 0) {
        struct rlimit limit = {(rlim_t)LIMIT_KIB << 10, (rlim_t)LIMIT_KIB << 10};
        if (cases[i].resource >= 0) {
            setrlimit((__rlimit_resource_t)cases[i].resource, &limit);
        } else if (cases[i].run == align) {
            setenv("FIRN_TEST_CAPS", "5f", 1); // all but wide addresses
        }
        execl(program, program, "0", "0", cases[i].name, (char *)NULL);
        _exit(2);
    }
    int status = 0;
    STRESS_CHECK(waitpid(child, &status, 0) == child, "waitpid: %s", strerror(errno));
    STRESS_CHECK(status == 0, "case %s ended with %#x", cases[i].name, status);
}

int main(int argc, char **argv) {
    stress_start("stress_limits", argc, argv);
    for (unsigned i = 0; i < CASES; i++) {
        if (argc <= 3) {
            start_case(i, argv[0]);
        } else if (strcmp(argv[3], cases[i].name) == 0) {
            cases[i].run();
            return 0;
        }
    }
    printf("ok stress_limits cases=%u\n", (unsigned)CASES);
    return 0;
}
