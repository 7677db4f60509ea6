// Detected misuse: say what happened in one stable line, then abort.
//
// The first line is an interface (README, "What a Firn abort means"):
//   firn: SLUG: API(0xADDR): class=N size=N found: FOUND; expected: EXPECTED; caller=MODULE+0xOFF
// class is the slot size in bytes, or "large", or "none"; size is the size the caller gave, or "?".
#ifndef FIRN_BASE_FATAL_H
#define FIRN_BASE_FATAL_H

#include "src/base/compiler.h"

#include <stddef.h>
#include <stdint.h>

enum fatal_id {
#define FATAL(id, slug, expected, advice) FATAL_##id,
#include "src/base/fatal.def"
#undef FATAL
    FATAL_COUNT
};

#define FATAL_CLASS_NONE ((size_t)0)
#define FATAL_CLASS_LARGE ((size_t)-1)
#define FATAL_SIZE_UNKNOWN ((size_t)-1)

struct fatal_info {
    const char *api;    // the function the program called: "free", "realloc", "operator delete"
    uintptr_t address;  // the pointer in question
    size_t class_bytes; // slot size, FATAL_CLASS_NONE or FATAL_CLASS_LARGE
    size_t size;        // bytes the caller named, or FATAL_SIZE_UNKNOWN
    const char *found;  // what was found instead; a short phrase without ';'
    uintptr_t caller;   // return address of the program's call, or 0
};

// Ends the process: composes the line on the stack, writes it with one write(2) to stderr, restores
// SIGABRT's default action and raises it. Allocates nothing, takes no lock, may be called from any
// context, at any time after or before start. The second thread to arrive waits for its death.
FIRN_NORETURN FIRN_COLD void fatal(enum fatal_id id, const struct fatal_info *info);

// Finds the module that contains `pc`: writes its path to `path` (NUL-terminated, truncated to fit)
// and returns pc's offset in it, or pc itself and "?" when unknown. Set once at start by os/module;
// until then callers are shown as "?".
typedef uintptr_t fatal_locate_fn(uintptr_t pc, char *path, size_t path_bytes);
void fatal_set_locator(fatal_locate_fn *locate);

// Appends more lines after the first one (hardening/report). Same rules as fatal(). NULL for none.
typedef size_t fatal_detail_fn(enum fatal_id id, const struct fatal_info *info, char *text,
                               size_t text_bytes);
void fatal_set_detail(fatal_detail_fn *detail);

const char *fatal_slug(enum fatal_id id);

// Firn's own invariants. Kept in every build: a broken heap must not go on. P-ENSURE.
FIRN_NORETURN FIRN_COLD void fatal_internal(const char *what, const char *file, int line);
#define FIRN_ENSURE(cond) (FIRN_LIKELY(cond) ? (void)0 : fatal_internal(#cond, __FILE__, __LINE__))

#endif
