#include "src/heap/find.h"

#include "hardening/sample.h"
#include "hardening/slack.h"
#include "hardening/slot.h"
#include "src/cache/cache.h"
#include "src/span/large_extent.h"
#include "src/span/region.h"

static void bad(struct found *out, enum fatal_id id, const char *what) {
    out->kind = FOUND_BAD;
    out->id = id;
    out->what = what;
}

// P-FREE-MISALIGNED, P-FREE-NEVER, P-FREE-INTERIOR, P-FREE-DOUBLE: everything that an address in a
// class can be but a live slot.
static void find_slot(uintptr_t address, struct found *out) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    unsigned cell = (unsigned)(offset >> FIRN_ROOT.cell_shift);
    const struct class_info *c = &FIRN_ROOT.classes[root_cell_class(cell)];
    out->class_bytes = c->bytes;
    if (address % 16 != 0) {
        bad(out, FATAL_MISALIGNED_POINTER, "address is not a multiple of 16");
        return;
    }
    struct span *s = region_is_described(offset) ? span_at(offset, c) : NULL;
    unsigned slot = span_slot(c, offset);
    if (s == NULL || span_state(s) == SPAN_UNUSED || slot >= c->slots) {
        bad(out, FATAL_NEVER_ALLOCATED, "no block was ever here");
    } else if (slot * (uintptr_t)c->bytes != (offset & c->span_mask)) {
        bad(out, FATAL_INTERIOR_POINTER, "pointer into the middle of a slot");
    } else if (span_is_live(s, slot) && !span_is_remote(s, slot)) {
        out->kind = FOUND_SLOT;
        out->span = s;
        out->slot = slot;
    } else if (cache_is_virgin(s, address)) {
        bad(out, FATAL_NEVER_ALLOCATED, "slot was never handed out");
    } else {
        bad(out, FATAL_DOUBLE_FREE, "slot is already free");
    }
}

// The same for large blocks, and P-FREE-FOREIGN.
void find_describe_large(enum large_kind kind, struct found *out) {
    out->class_bytes = FATAL_CLASS_LARGE;
    switch (kind) {
    case LARGE_LIVE:
        out->kind = FOUND_LARGE;
        return;
    case LARGE_INTERIOR:
        bad(out, FATAL_INTERIOR_POINTER, "pointer into the middle of a block");
        return;
    case LARGE_FREED:
        bad(out, FATAL_DOUBLE_FREE, "block is already free");
        return;
    case LARGE_NEVER:
        bad(out, FATAL_NEVER_ALLOCATED, "no block was ever here");
        return;
    case LARGE_FOREIGN:
    default:
        out->class_bytes = FATAL_CLASS_NONE;
        bad(out, FATAL_FOREIGN_POINTER, "address is outside the heap");
        return;
    }
}

void find_describe_sample(enum large_kind kind, struct found *out) {
    find_describe_large(kind, out);
    out->class_bytes = sample_class_bytes(out->block.size);
    if (kind == LARGE_LIVE) {
        out->kind = FOUND_SAMPLE;
    }
}

static bool is_in_use(uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    if (offset >= FIRN_ROOT.small_bytes) {
        return large_extent(address) != 0;
    }
    const struct class_info *c =
        &FIRN_ROOT.classes[root_cell_class((unsigned)(offset >> FIRN_ROOT.cell_shift))];
    return region_is_described(offset) && span_state(span_at(offset, c)) == SPAN_ACTIVE;
}

// Where addresses are rationed, those that are not in use are anybody's.
bool find_is_outside(const void *p) {
    uintptr_t address = (uintptr_t)p;
    if (sample_contains(address)) {
        return false;
    }
    if (address - FIRN_ROOT.data.base < FIRN_ROOT.data.bytes) {
        return FIRN_ROOT.data.is_sparse && !is_in_use(address);
    }
    size_t extent = large_has_more_tracts() ? large_extent(address) : LARGE_EXTENT_FOREIGN;
    return extent == LARGE_EXTENT_FOREIGN || (extent == 0 && FIRN_ROOT.data.is_sparse);
}

void find_pointer(const void *p, struct found *out) {
    uintptr_t address = (uintptr_t)p;
    *out = (struct found){.kind = FOUND_BAD};
    if (address - FIRN_ROOT.small_base < FIRN_ROOT.small_bytes) {
        find_slot(address, out);
        return;
    }
    enum large_kind kind;
    if (sample_contains(address)) {
        kind = sample_find(address, &out->block);
        find_describe_sample(kind, out);
    } else {
        kind = large_find(address, &out->block);
        find_describe_large(kind, out);
    }
    if (kind != LARGE_FOREIGN && address % 16 != 0) {
        bad(out, FATAL_MISALIGNED_POINTER, "address is not a multiple of 16");
    }
}

// Nothing was written between what was asked for and the end of the slot or page.
static bool is_slack_whole(const struct found *f) {
    if (FIRN_SLACK && f->kind == FOUND_SLOT) {
        return slack_is_whole(span_base(f->span) + f->slot * f->class_bytes, f->class_bytes);
    }
    if (FIRN_LARGE_SLACK && f->kind == FOUND_LARGE) {
        const struct large_block *b = &f->block;
        return slack_is_filled(b->base + b->size, large_page_end(b->base, b->size));
    }
    return true;
}

void find_check(struct found *f) {
    if (f->kind == FOUND_SLOT && !slot_is_whole(f->span, f->slot, &f->id, &f->what)) {
        f->kind = FOUND_BAD;
    }
    if (!is_slack_whole(f)) {
        bad(f, FATAL_OVERFLOW, SLACK_FOUND);
    }
}

void find_report(const void *p, const struct found *found, const struct heap_call *call) {
    struct fatal_info info = {
        .api = call->api,
        .address = (uintptr_t)p,
        .class_bytes = found->class_bytes,
        .size = call->size,
        .found = found->what,
        .caller = call->site,
    };
    fatal(found->id, &info);
}
