// A heap of large objects for each case, in a child process: in every way the kernel and the limits
// can force on us.
#ifndef FIRN_TESTS_LARGE_CASE_H
#define FIRN_TESTS_LARGE_CASE_H

#include "src/os/map.h"
#include "src/span/large.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)
#define TIB ((size_t)1 << 40)

// A sanitizer's shadow is memory of ours as far as limits and figures go.
#ifdef __SANITIZE_ADDRESS__
#define CASE_SANITIZED 1
#else
#define CASE_SANITIZED 0
#endif

// In a child a failed check cannot go through cmocka.
#define ENSURE(cond) ((cond) ? (void)0 : case_failed(#cond, __LINE__))
void case_failed(const char *what, int line);

struct setting {
    const char *name;
    uint32_t caps;
    size_t bytes; // of the first reservation
    bool is_sparse;
    bool is_rationed; // RLIMIT_DATA
};

enum {
    PLAIN,
    NO_MARKERS,
    NO_MREMAP,
    EXACT,
    EXACT_NO_MARKERS,
    SPARSE,
    SPARSE_NO_MARKERS,
    SMALL_FIRST,
    SMALL_FIRST_SPARSE,
    SETTINGS
};
extern const struct setting settings[SETTINGS];
extern struct reservation case_range; // the first reservation, once started

// Sets the process up and starts the heap.
void case_start(const struct setting *s);
// Runs `body` and then the validator in a child that was set up so. False, and what happened on
// stderr, unless it ended well.
bool case_run(const struct setting *s, void (*body)(void));
bool case_run_everywhere(void (*body)(void));

// Blocks, with a check of errno and alignment.
unsigned char *case_alloc(size_t size, size_t align, bool *is_zero);
unsigned char *case_alloc_any(size_t size);
enum large_kind case_free(const void *p);

// A generator of the test's own: the same sequence in every run.
extern uint64_t case_seed;
uint64_t case_draw(uint64_t bound);

#endif
