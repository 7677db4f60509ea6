// What was found, told in AddressSanitizer's layout, so that tools which sort its reports sort these.
//
// A report is composed in static memory and written with one write(2) to stderr; nothing is allocated
// and no lock is taken. The second thread to find something waits for the first to end the process.
#ifndef FIRN_FUZZBUILD_VERDICT_H
#define FIRN_FUZZBUILD_VERDICT_H

#include "src/base/compiler.h"
#include "src/fuzzbuild/space.h"
#include "src/fuzzbuild/trace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A memory access that faulted.
struct verdict_fault {
    uintptr_t address, pc, bp, sp;
    size_t size; // 0: unknown
    bool is_write;
    bool has_address; // a general-protection fault has none
};

// The fault lies in the heap: overflow, underflow or use after free. False, and nothing said, if the
// address belongs to no block. Returns after writing; the caller ends the process.
bool verdict_heap_fault(const struct verdict_fault *f);
// Any other fault.
void verdict_wild_fault(int signal, const struct verdict_fault *f);

// The following write their report and abort.

// Bytes around or in a block changed although nothing faulted: found when it was freed, when its slot
// was to be used again, or (from.pc 0) at exit.
FIRN_NORETURN void verdict_changed(const struct slot *s, uintptr_t address,
                                   struct trace_origin from);
// A block that was freed is given to `api`: "free", "malloc_usable_size", ...
FIRN_NORETURN void verdict_freed(const struct slot *s, const char *api, uintptr_t address,
                                 struct trace_origin from);
// An address that malloc never returned is.
FIRN_NORETURN void verdict_bad_pointer(const char *api, uintptr_t address,
                                       struct trace_origin from);
FIRN_NORETURN void verdict_kind_mismatch(const struct slot *s, const char *freed_by,
                                         struct trace_origin from);
FIRN_NORETURN void verdict_size_mismatch(const struct slot *s, size_t size,
                                         struct trace_origin from);
FIRN_NORETURN void verdict_calloc_overflow(size_t count, size_t size, struct trace_origin from);
FIRN_NORETURN void verdict_limit(size_t size, size_t limit, struct trace_origin from);

// Lists blocks that nothing points to any more, by allocating stack; their number.
size_t verdict_leaks(void);
// SIGABRT, whatever the program did about it.
FIRN_NORETURN void verdict_die(void);

// T0 is the first thread that allocated, T1 the next, and so on.
unsigned verdict_thread(void);

#endif
