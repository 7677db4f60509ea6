// Detected misuse: say what happened in one stable line, what else is known in lines below it, then
// abort.
//
// The first line is an interface (README, "What a Firn abort means"):
//   firn: SLUG: API(0xADDR): class=N size=N found: FOUND; expected: EXPECTED; caller=MODULE+0xOFF
// class is the slot size in bytes, or "large", or "none"; size is the size the caller gave, or "?".
// Every further line begins with "firn:   " (base/report_text.h).
#ifndef FIRN_BASE_FATAL_H
#define FIRN_BASE_FATAL_H

#include "src/base/compiler.h"

#include <stdbool.h>
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

// Ends the process: composes the report in a static buffer, writes it with one write(2) to stderr
// (or hands it to the writer), calls the program's report handler, restores SIGABRT's default action
// and raises it. Allocates nothing, takes no lock, may be called from any context, at any time
// before or after start. The first thread to arrive reports; any other waits for its death. When
// composing faults or comes here again, what is composed so far is written.
FIRN_NORETURN FIRN_COLD void fatal(enum fatal_id id, const struct fatal_info *info);

// The program's call this thread is in. Noted where the slow paths begin, for what is found in
// passing: a block that somebody wrote to is noticed when it is about to be reused, by a call that
// has nothing to do with it.
struct fatal_call {
    const char *api; // NULL: none noted yet
    uintptr_t site;
};
extern FIRN_TLS struct fatal_call firn_call;
FIRN_INLINE void fatal_note_call(const char *api, uintptr_t site) {
    firn_call.api = api;
    firn_call.site = site;
}

// ---- what the layers above add. Set at start; functions obey the rules of fatal() ----

// Finds the module that contains `pc`: writes its path to `path` (NUL-terminated, truncated to fit)
// and returns pc's offset in it, or pc itself and "?" when unknown (os/sys). Until it is set callers
// are shown as "?".
typedef uintptr_t fatal_locate_fn(uintptr_t pc, char *path, size_t path_bytes);
void fatal_set_locator(fatal_locate_fn *locate);

// A filter of system calls judges this process from now on, and may end it for any call but write(2). The
// first line, where to look and the hint are then written before everything else, with places found by `locate`,
// which makes no call; what the filter allows follows. Call before the filter is there.
void fatal_note_filter(fatal_locate_fn *locate);

// Appends lines about the block (heap/report): whole lines that begin with "firn:   ", at most
// `text_bytes` with a terminator. Returns the length. May read anything: a fault costs the lines of
// this function and no more. NULL for none.
typedef size_t fatal_detail_fn(enum fatal_id id, const struct fatal_info *info, char *text,
                               size_t text_bytes);
void fatal_set_detail(fatal_detail_fn *detail);

// What somebody recorded about a block: requested size, where it was allocated and freed.
enum { FATAL_FRAMES = 16, FATAL_RECALLS = 4 };
struct fatal_trace {
    int thread;                  // its id, 0: not recorded
    unsigned count;              // of pcs; 0: not recorded
    uintptr_t pcs[FATAL_FRAMES]; // return addresses, innermost first
};
struct fatal_record {
    size_t requested; // FATAL_SIZE_UNKNOWN: not recorded
    struct fatal_trace allocated;
    struct fatal_trace freed;
};
// Fills in what it knows of the block at info->address and leaves the rest of *out, in which nothing
// is recorded at first, as it is.
typedef void fatal_recall_fn(const struct fatal_info *info, struct fatal_record *out);
// Asked in the order they were added. False when there are FATAL_RECALLS already.
bool fatal_add_recall(fatal_recall_fn *recall);

// Takes the finished report (os/sink). NULL: it is out, nothing for stderr. Else stderr gets it, with
// the returned text, whole lines or empty, at its end.
typedef const char *fatal_write_fn(const char *text, size_t n);
void fatal_set_writer(fatal_write_fn *write_report);

// Called first, on the thread that reports: gives it a standard error to write to, where it has none
// (os/missing).
typedef void fatal_open_fn(void);
void fatal_set_opener(fatal_open_fn *open_error);

// firn_set_report_handler (include/firn/firn.h).
struct firn_report;
void fatal_set_handler(void (*handler)(const struct firn_report *));

const char *fatal_slug(enum fatal_id id);

// Firn's own invariants. Kept in every build: a broken heap must not go on. P-ENSURE.
FIRN_NORETURN FIRN_COLD void fatal_internal(const char *what, const char *file, int line);
#define FIRN_ENSURE(cond) (FIRN_LIKELY(cond) ? (void)0 : fatal_internal(#cond, __FILE__, __LINE__))

#endif
