// Wording and layout follow AddressSanitizer's reports, which triage tools read line by line: the
// ERROR line, the access, frames "#N 0xPC (module+0xoffset)", where the address lies, who allocated and
// freed, SUMMARY. Lines that begin with "Firn:" are ours.
#include "src/fuzzbuild/verdict.h"

#include "src/base/text.h"
#include "src/fuzzbuild/blocks.h"
#include "src/fuzzbuild/report.h"
#include "src/fuzzbuild/settings.h"

#include <signal.h>

enum { STACK_NEAR = 64 << 10, ZERO_PAGE = 4096 };

struct found {
    struct slot slot;
    const struct block *block;
    uintptr_t start, end;
    size_t distance; // of the address from the block; 0: inside
};

static struct found found_at(const struct slot *s, uintptr_t address) {
    struct found f = {.slot = *s, .block = space_block(s->id)};
    f.start = blocks_start_of(s, f.block);
    f.end = f.start + f.block->size;
    f.distance = address < f.start ? f.start - address : address >= f.end ? address - f.end + 1 : 0;
    return f;
}

// A guard page lies between two blocks; the nearer one is meant. False: no block anywhere near.
static bool find_nearest(uintptr_t address, struct found *out) {
    struct slot s, other;
    if (!space_find(address, &s)) {
        return false;
    }
    *out = found_at(&s, address);
    bool is_guard = address >= s.end && s.class != SPACE_LARGE;
    if (is_guard && space_find(address + FIRN_PAGE, &other) && other.id != s.id) {
        struct found next = found_at(&other, address);
        if (next.block->state != BLOCK_UNUSED && next.distance < out->distance) {
            *out = next;
        }
    }
    return out->block->state != BLOCK_UNUSED;
}

static void put_region(struct text *t, const struct found *f, uintptr_t address) {
    report_address(t, address);
    text_str(t, " is located ");
    if (address < f->start) {
        text_dec(t, f->start - address);
        text_str(t, " bytes to the left of ");
    } else if (address >= f->end) {
        text_dec(t, address - f->end);
        text_str(t, " bytes to the right of ");
    } else {
        text_dec(t, address - f->start);
        text_str(t, " bytes inside of ");
    }
    text_dec(t, f->block->size);
    text_str(t, "-byte region [");
    report_address(t, f->start);
    text_char(t, ',');
    report_address(t, f->end);
    text_str(t, ")\n");
}

static void put_history(struct text *t, const struct found *f) {
    bool is_live = f->block->state == BLOCK_LIVE;
    if (!is_live) {
        text_str(t, "freed by thread T");
        text_dec(t, f->block->free_thread);
        text_str(t, " here:\n");
        report_recorded(t, f->block->free_trace);
    }
    text_str(t, is_live ? "allocated by thread T" : "previously allocated by thread T");
    text_dec(t, f->block->alloc_thread);
    text_str(t, " here:\n");
    report_recorded(t, f->block->alloc_trace);
}

static const char *heap_bug(const struct found *f) {
    return f->block->state == BLOCK_LIVE ? "heap-buffer-overflow" : "heap-use-after-free";
}

static void put_registers(struct text *t, const struct verdict_fault *f) {
    text_str(t, " pc ");
    report_address(t, f->pc);
    text_str(t, " bp ");
    report_address(t, f->bp);
    text_str(t, " sp ");
    report_address(t, f->sp);
}

static void put_access(struct text *t, const struct verdict_fault *f) {
    text_str(t, f->is_write ? "WRITE of size " : "READ of size ");
    text_dec(t, f->size != 0 ? f->size : 1);
    text_str(t, " at ");
    report_address(t, f->address);
    text_str(t, " thread T");
    text_dec(t, verdict_thread());
    text_char(t, '\n');
}

bool verdict_heap_fault(const struct verdict_fault *f) {
    struct found where;
    if (!find_nearest(f->address, &where) ||
        (where.block->state == BLOCK_LIVE && where.distance == 0)) {
        return false; // the program took the access away itself
    }
    struct text *t = report_begin(heap_bug(&where));
    text_str(t, " on address ");
    report_address(t, f->address);
    text_str(t, " at");
    put_registers(t, f);
    text_char(t, '\n');
    put_access(t, f);
    report_context(t, f->pc, f->bp, f->sp);
    put_region(t, &where, f->address);
    put_history(t, &where);
    report_end(t, heap_bug(&where), f->pc);
    return true;
}

static const char *signal_name(int signal) {
    return signal == SIGFPE ? "FPE" : signal == SIGILL ? "ILL" : signal == SIGBUS ? "BUS" : "SEGV";
}

void verdict_wild_fault(int signal, const struct verdict_fault *f) {
    bool is_stack =
        signal == SIGSEGV && f->has_address && f->address - f->sp + STACK_NEAR < 2 * STACK_NEAR;
    const char *bug = is_stack ? "stack-overflow" : signal_name(signal);
    struct text *t = report_begin(bug);
    text_str(t, is_stack ? " on address " : " on unknown address ");
    if (f->has_address || signal == SIGFPE || signal == SIGILL) {
        report_address(t, f->address);
        text_char(t, ' ');
    }
    text_char(t, '(');
    text_str(t, "pc ");
    report_address(t, f->pc);
    text_str(t, " bp ");
    report_address(t, f->bp);
    text_str(t, " sp ");
    report_address(t, f->sp);
    text_str(t, " T");
    text_dec(t, verdict_thread());
    text_str(t, ")\n");
    if (signal == SIGSEGV || signal == SIGBUS) {
        report_prefix(t);
        text_str(t, f->is_write ? "The signal is caused by a WRITE memory access.\n"
                                : "The signal is caused by a READ memory access.\n");
    }
    if (signal == SIGSEGV && f->has_address && f->address < ZERO_PAGE) {
        report_prefix(t);
        text_str(t, "Hint: address points to the zero page.\n");
    } else if (signal == SIGSEGV && !f->has_address) {
        report_prefix(t);
        text_str(t,
                 "Hint: this fault was caused by a dereference of a high value address, or by an "
                 "aligned vector instruction on a misaligned one (then try align=16).\n");
    }
    report_context(t, f->pc, f->bp, f->sp);
    report_end(t, bug, f->pc);
}

static FIRN_NORETURN void end_call(struct text *t, const char *bug, struct trace_origin from) {
    report_end(t, bug, from.pc != 0 ? from.pc - 1 : 0);
    verdict_die();
}

void verdict_changed(const struct slot *s, uintptr_t address, struct trace_origin from) {
    struct found where = found_at(s, address);
    const struct verdict_fault f = {.address = address,
                                    .pc = from.pc,
                                    .bp = from.fp,
                                    .sp = from.fp,
                                    .size = 1,
                                    .is_write = true};
    struct text *t = report_begin(heap_bug(&where));
    text_str(t, " on address ");
    report_address(t, address);
    text_str(t, " at");
    put_registers(t, &f);
    text_char(t, '\n');
    put_access(t, &f);
    report_walk(t, from);
    put_region(t, &where, address);
    put_history(t, &where);
    text_str(t, from.pc == 0 ? "Firn: written at an unknown earlier time, found at exit\n"
                             : "Firn: written earlier, found by the call of the first stack\n");
    end_call(t, heap_bug(&where), from);
}

// malloc_usable_size is the one call that takes a block and gives nothing back.
static bool is_usable_size(const char *api) {
    return api[0] == 'm';
}

static void put_call(struct text *t, const char *what, uintptr_t address, const char *end) {
    text_str(t, what);
    report_address(t, address);
    text_str(t, " in thread T");
    text_dec(t, verdict_thread());
    text_str(t, end);
}

#define USABLE_UNOWNED "attempting to call malloc_usable_size() for pointer which is not owned: "

void verdict_freed(const struct slot *s, const char *api, uintptr_t address,
                   struct trace_origin from) {
    struct found where = found_at(s, address);
    struct text *t = report_begin(NULL);
    if (is_usable_size(api)) {
        put_call(t, USABLE_UNOWNED, address, "\n");
    } else {
        put_call(t, "attempting double-free on ", address, ":\n");
    }
    report_walk(t, from);
    put_region(t, &where, address);
    put_history(t, &where);
    end_call(t, is_usable_size(api) ? "bad-malloc_usable_size" : "double-free", from);
}

void verdict_bad_pointer(const char *api, uintptr_t address, struct trace_origin from) {
    struct found where;
    struct text *t = report_begin(NULL);
    put_call(t,
             is_usable_size(api) ? USABLE_UNOWNED
                                 : "attempting free on address which was not malloc()-ed: ",
             address, "\n");
    report_walk(t, from);
    if (find_nearest(address, &where)) {
        put_region(t, &where, address);
        put_history(t, &where);
    } else {
        text_str(t, "Address is a wild pointer, or memory that another allocator, the stack or a "
                    "global variable owns.\n");
    }
    end_call(t, is_usable_size(api) ? "bad-malloc_usable_size" : "bad-free", from);
}

void verdict_kind_mismatch(const struct slot *s, const char *freed_by, struct trace_origin from) {
    static const char *const makers[] = {"malloc", "operator new", "operator new []"};
    struct found where = found_at(s, 0);
    struct text *t = report_begin("alloc-dealloc-mismatch (");
    text_str(t, makers[where.block->kind]);
    text_str(t, " vs ");
    text_str(t, freed_by);
    text_str(t, ") on ");
    report_address(t, where.start);
    text_char(t, '\n');
    report_walk(t, from);
    put_region(t, &where, where.start);
    put_history(t, &where);
    end_call(t, "alloc-dealloc-mismatch", from);
}

void verdict_size_mismatch(const struct slot *s, size_t size, struct trace_origin from) {
    struct found where = found_at(s, 0);
    struct text *t = report_begin("new-delete-type-mismatch on ");
    report_address(t, where.start);
    text_str(t, " in thread T");
    text_dec(t, verdict_thread());
    text_str(t, ":\n  object passed to delete has wrong type:\n  size of the allocated type:   ");
    text_dec(t, where.block->size);
    text_str(t, " bytes;\n  size of the deallocated type: ");
    text_dec(t, size);
    text_str(t, " bytes.\n");
    report_walk(t, from);
    put_region(t, &where, where.start);
    put_history(t, &where);
    end_call(t, "new-delete-type-mismatch", from);
}

void verdict_calloc_overflow(size_t count, size_t size, struct trace_origin from) {
    struct text *t = report_begin("calloc-overflow: calloc parameters overflow: count * size (");
    text_dec(t, count);
    text_str(t, " * ");
    text_dec(t, size);
    text_str(t, ") cannot be represented in type size_t (thread T");
    text_dec(t, verdict_thread());
    text_str(t, ")\n");
    report_walk(t, from);
    end_call(t, "calloc-overflow", from);
}

void verdict_limit(size_t size, size_t limit, struct trace_origin from) {
    struct text *t = report_begin("allocation-size-too-big: requested allocation size ");
    text_hex(t, size);
    text_str(t, " exceeds maximum supported size of ");
    text_hex(t, limit);
    text_str(t, ", or live blocks exceed it together (thread T");
    text_dec(t, verdict_thread());
    text_str(t, ")\n");
    report_walk(t, from);
    end_call(t, "allocation-size-too-big", from);
}
