#include "tests/support/small_case.h"

#include "src/cache/inspect.h"
#include "src/heap/life.h"
#include "src/os/caps.h"
#include "tests/support/child.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int small_start(void **state) {
    (void)state;
    life_start();
    return life_has_started() ? 0 : -1;
}

struct cache *small_attach(void) {
    return cache_attach() ? firn_cache : NULL;
}

void small_act_as(struct cache *c) {
    firn_cache = c;
}

void small_check(void) {
    inspect_ensure(NULL);
}

static uintptr_t offset_of(const void *p) {
    return (uintptr_t)p - FIRN_ROOT.small_base;
}

static const struct class_info *class_of(const void *p) {
    return &FIRN_ROOT.classes[root_cell_class((unsigned)(offset_of(p) >> FIRN_ROOT.cell_shift))];
}

struct span *small_span(const void *p) {
    return span_at(offset_of(p), class_of(p));
}

unsigned small_slot(const void *p) {
    return span_slot(class_of(p), offset_of(p));
}

unsigned small_class(size_t size) {
    return size_class_of(size + FIRN_SLOT_EXTRA);
}

unsigned small_cell(size_t size, uintptr_t site) {
    return root_cell(small_class(size), partition_of(site, FIRN_ROOT.site_key));
}

bool small_run(void (*body)(void *), void *context) {
    struct child c;
    child_run(&c, body, context);
    if (!child_exited(&c, 0)) {
        fprintf(stderr, "# child status %#x: %s\n", (unsigned)c.status, c.said);
        return false;
    }
    return true;
}

bool small_run_aborts(void (*body)(void *), void *context, const char *line) {
    struct child c;
    child_run(&c, body, context);
    const char *end = strchr(c.said, '\n');
    const char *found = strstr(c.said, line);
    if (!child_died_of(&c, SIGABRT) || found == NULL || (end != NULL && found > end)) {
        fprintf(stderr, "# child status %#x: %s\n", (unsigned)c.status, c.said);
        return false;
    }
    return true;
}

void small_failed(const char *what, const char *file, int line) {
    dprintf(STDERR_FILENO, "%s:%d: %s\n", file, line, what);
    _exit(1);
}

bool small_is_rationed(void) {
    const struct limits *limits = caps_limits();
    return FIRN_ROOT.is_sparse || limits->is_strict_overcommit || limits->data_bytes != UINT64_MAX;
}

uint64_t small_draw(uint64_t *seed, uint64_t bound) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (*seed >> 33) % bound;
}
