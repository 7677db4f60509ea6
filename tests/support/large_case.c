#include "tests/support/large_case.h"

#include "src/base/align.h"
#include "src/os/caps.h"
#include "src/span/large_heap.h"
#include "tests/support/child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

void case_failed(const char *what, int line) {
    fprintf(stderr, "line %d: %s (errno %d)\n", line, what, errno);
    _exit(1);
}

const struct setting settings[SETTINGS] = {
    {"plain", CAP_ALL, 4 * TIB, false, false},
    {"no markers", CAP_ALL & ~(uint32_t)CAP_GUARD_MARKER, 4 * TIB, false, false},
    {"no mremap", CAP_ALL & ~(uint32_t)CAP_MREMAP_KEEP, 4 * TIB, false, false},
    {"exact", CAP_ALL, 4 * TIB, false, true},
    {"exact, no markers", CAP_ALL & ~(uint32_t)CAP_GUARD_MARKER, 4 * TIB, false, true},
    {"sparse", CAP_ALL & ~(uint32_t)CAP_RESERVE, 64 * GIB, true, false},
    {"sparse, no markers", CAP_ALL & ~(uint32_t)(CAP_RESERVE | CAP_GUARD_MARKER), 64 * GIB, true,
     false},
    {"small first", CAP_ALL, 4 * MIB, false, false},
    {"small first, sparse", CAP_ALL & ~(uint32_t)CAP_RESERVE, 4 * MIB, true, false},
};
struct reservation case_range;
uint64_t case_seed;

void case_start(const struct setting *s) {
    // cmocka's handlers would go on with the next test, in the child.
    signal(SIGSEGV, SIG_DFL);
    signal(SIGBUS, SIG_DFL);
    signal(SIGABRT, SIG_DFL);
    if (s->is_rationed) {
        rlim_t bytes = CASE_SANITIZED ? 100 * TIB : 4 * GIB;
        struct rlimit limit = {bytes, bytes};
        ENSURE(setrlimit(RLIMIT_DATA, &limit) == 0);
    }
    caps_probe(s->caps);
    ENSURE(map_reserve(&case_range, s->bytes, 2 * MIB, 47, s->is_sparse));
    large_start(&case_range);
}

struct scenario {
    const struct setting *setting;
    void (*body)(void);
};

static void run_scenario(void *context) {
    const struct scenario *s = context;
    case_start(s->setting);
    s->body();
    large_check();
}

bool case_run(const struct setting *setting, void (*body)(void)) {
    struct child c;
    struct scenario s = {setting, body};
    child_run(&c, run_scenario, &s);
    if (!child_exited(&c, 0)) {
        fprintf(stderr, "%s: status %x: %s\n", setting->name, (unsigned)c.status, c.said);
    }
    return child_exited(&c, 0);
}

bool case_run_everywhere(void (*body)(void)) {
    bool is_good = true;
    for (unsigned i = 0; i < SETTINGS; i++) {
        is_good = case_run(&settings[i], body) && is_good;
    }
    return is_good;
}

unsigned char *case_alloc(size_t size, size_t align, bool *is_zero) {
    errno = 77;
    unsigned char *p = large_alloc(size, align, is_zero);
    ENSURE(p != NULL && errno == 77 && align_is_aligned((uintptr_t)p, align));
    return p;
}

unsigned char *case_alloc_any(size_t size) {
    bool is_zero;
    return case_alloc(size, 16, &is_zero);
}

enum large_kind case_free(const void *p) {
    struct large_block block;
    errno = 78;
    enum large_kind kind = large_free((uintptr_t)p, &block);
    ENSURE(errno == 78);
    return kind;
}

uint64_t case_draw(uint64_t bound) {
    case_seed ^= case_seed << 13;
    case_seed ^= case_seed >> 7;
    case_seed ^= case_seed << 17;
    return case_seed % bound;
}
