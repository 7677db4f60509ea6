// What the user of the fuzz build asked for: FIRN_OPTIONS, FIRN_SEED and libdislocator's variables.
//
//   FIRN_OPTIONS=key=value:key=value   separators ':' and ','; a bare key means key=1
//
// fuzz/README.md explains every key. The environment is read once, during the first allocation, and
// never when AT_SECURE is set. What cannot be understood is reported on stderr in one line and
// ignored, or ends the process with abort_conf=1.
#ifndef FIRN_FUZZBUILD_SETTINGS_H
#define FIRN_FUZZBUILD_SETTINGS_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stdint.h>

enum { SETTINGS_DEPTH_MOST = 32, SETTINGS_NO_FILL = 256 };

struct settings {
    uint64_t seed;
    uint64_t quarantine; // bytes of pages kept inaccessible after free before any is used again
    uint64_t max_size;   // larger requests meet the limit
    uint64_t max_total;  // so do requests that would raise the live bytes above this
    uint64_t revoke;     // frees per pair of sites that are made inaccessible at once
    uint64_t fill_most;  // bytes of a new block that are filled
    uint64_t align;      // of blocks whose caller asked for none; a power of two up to 16
    uint64_t depth;      // frames kept per stack
    uint64_t fill;       // byte for new memory, or SETTINGS_NO_FILL
    uint64_t free_fill;  // byte for freed memory that stays accessible, never "no fill"
    uint64_t leaks;      // 0 nothing, 1 list at exit, 2 list and abort
    uint64_t is_left;    // blocks start after a guard instead of ending before one
    uint64_t is_limit_fatal;
    uint64_t is_overflow_null; // calloc whose product overflows returns NULL instead of dying
    uint64_t segv;             // report faults that have nothing to do with the heap
    uint64_t verbose;
    uint64_t abort_conf;
};

#define SETTINGS_REVOKE_ALL UINT64_MAX

// In force; the defaults before settings_read. Written by settings.c only.
extern struct settings settings_now;

FIRN_INLINE const struct settings *settings_get(void) {
    return &settings_now;
}

// Called once, single-threaded. Allocates nothing.
void settings_read(void);
// For tests: parses `text` over the defaults. Returns the number of complaints.
unsigned settings_parse(const char *text);

#endif
