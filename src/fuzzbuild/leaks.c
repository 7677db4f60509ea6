// The leak list: live blocks that nothing points to. Pointers are looked for, conservatively, in every
// writable mapping outside the heap and in every block found that way; a pointer into a block counts.
// Runs at exit, when no other thread should be at work; what others change meanwhile may be missed.
#include "src/base/align.h"
#include "src/fuzzbuild/access.h"
#include "src/fuzzbuild/blocks.h"
#include "src/fuzzbuild/report.h"
#include "src/fuzzbuild/verdict.h"
#include "src/os/sys.h"

#include <setjmp.h>

enum { MAPS_BYTES = 256 << 10, WORD = sizeof(uintptr_t) };

static char maps[MAPS_BYTES];
static uint32_t pending; // reached blocks whose content was not yet read, linked by next
static struct {
    uint32_t trace;
    size_t blocks, bytes;
} group, total;

// At exit nothing links live blocks: next is free to say what was reached.
#define UNREACHED UINT32_MAX
#define LAST (UINT32_MAX - 1)
#define LISTED (UINT32_MAX - 2)

static void forget(const struct slot *s, struct block *b) {
    (void)s;
    if (b->state == BLOCK_LIVE) {
        b->next = UNREACHED;
    }
}

static void scan(uintptr_t from, uintptr_t to) {
    for (uintptr_t at = align_up(from, WORD); at + WORD <= to; at += WORD) {
        uintptr_t word;
        struct slot s;
        if (!access_peek(at, &word)) {
            at = align_down(at, FIRN_PAGE) + FIRN_PAGE - WORD;
        } else if (space_find(word, &s)) {
            struct block *b = space_block(s.id);
            uintptr_t start = blocks_start_of(&s, b);
            // One past the end still counts: it is what a loop over a buffer leaves behind.
            if (b->state == BLOCK_LIVE && b->next == UNREACHED && word - start <= b->size) {
                b->next = pending;
                pending = s.id;
            }
        }
    }
}

static void scan_pending(void) {
    while (pending != LAST) {
        struct slot s = space_slot(pending);
        struct block *b = space_block(s.id);
        pending = b->next;
        b->next = LAST;
        uintptr_t start = blocks_start_of(&s, b);
        scan(start, start + b->size);
    }
}

static uintptr_t parse_hex(const char **at) {
    uintptr_t v = 0;
    for (;; (*at)++) {
        char c = **at;
        if (c >= '0' && c <= '9') {
            v = v << 4 | (uintptr_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            v = v << 4 | (uintptr_t)(c - 'a' + 10);
        } else {
            return v;
        }
    }
}

// "start-end rw.. ...": every writable mapping that is not the heap's. Of the stack in use only what is
// in use: below lie the remains of functions that returned.
static void scan_mappings(uintptr_t stack_pointer) {
    const char *at = maps;
    while (*at != '\0') {
        uintptr_t start = parse_hex(&at);
        at += *at == '-';
        uintptr_t end = parse_hex(&at);
        if (at[0] == ' ' && at[1] == 'r' && at[2] == 'w' && !space_contains(start)) {
            bool is_stack = stack_pointer >= start && stack_pointer < end;
            scan(is_stack ? stack_pointer : start, end);
        }
        while (*at != '\0' && *at++ != '\n') {
        }
    }
}

// Adds the leaks of group.trace; the first leak seen gives an empty group its trace.
static void gather(const struct slot *s, struct block *b) {
    (void)s;
    if (b->state != BLOCK_LIVE || b->next != UNREACHED ||
        (group.blocks != 0 && b->alloc_trace != group.trace)) {
        return;
    }
    group.trace = b->alloc_trace;
    group.blocks++;
    group.bytes += b->size;
    b->next = LISTED;
}

static void put_counts(struct text *t, size_t bytes, size_t blocks, const char *blocks_are) {
    text_dec(t, bytes);
    text_str(t, " byte(s) leaked in ");
    text_dec(t, blocks);
    text_str(t, blocks_are);
}

size_t verdict_leaks(void) {
    // Registers may hold the only pointer: they go on the stack, which is one of the mappings.
    jmp_buf registers;
    char line[4096];
    (void)setjmp(registers);
    if (sys_read_file("/proc/self/maps", maps, sizeof(maps)) == 0) {
        return 0;
    }
    pending = LAST;
    space_visit(forget);
    scan_mappings((uintptr_t)&registers);
    scan_pending();
    for (;;) {
        struct text t = text_on(line, sizeof(line));
        group.blocks = 0;
        group.bytes = 0;
        space_visit(gather);
        if (group.blocks == 0) {
            break;
        }
        if (total.blocks == 0) {
            text_char(&t, '\n');
            report_prefix(&t);
            text_str(&t, "ERROR: LeakSanitizer: detected memory leaks\n\n");
        }
        total.blocks += group.blocks;
        total.bytes += group.bytes;
        text_str(&t, "Direct leak of ");
        text_dec(&t, group.bytes);
        text_str(&t, " byte(s) in ");
        text_dec(&t, group.blocks);
        text_str(&t, " object(s) allocated from:\n");
        report_recorded(&t, group.trace);
        report_flush(&t);
    }
    if (total.blocks > 0) {
        struct text t = text_on(line, sizeof(line));
        text_str(&t, "SUMMARY: AddressSanitizer: ");
        put_counts(&t, total.bytes, total.blocks, " allocation(s).\n");
        report_flush(&t);
    }
    return total.blocks;
}
