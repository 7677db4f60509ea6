// Descriptors are read and never what a program put into blocks: those are its secrets, and may be
// inaccessible.
#include "src/heap/report.h"

#include "hardening/slack.h"
#include "src/base/text.h"
#include "src/cache/cache.h"
#include "src/cache/quarantine.h"
#include "src/span/large.h"
#include "src/span/region.h"

static const char *slot_state(const struct span *s, unsigned slot) {
    if (span_state(s) == SPAN_UNUSED) {
        return "never used";
    }
    if (span_is_live(s, slot)) {
        return span_is_remote(s, slot) ? "freed by another thread, not yet taken back" : "live";
    }
    if (s->virgin[slot >> 6] & span_bit(slot)) {
        return "never handed out";
    }
    if (s->free[slot >> 6] & span_bit(slot)) {
        return "free";
    }
    uintptr_t address = span_base(s) + slot * (uintptr_t)span_class(s)->bytes;
    const struct cache *owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
    return cache_is_virgin(s, address)                       ? "never handed out"
           : owner != NULL && quarantine_has(owner, address) ? "free, in quarantine"
                                                             : "free, held back for a while";
}

static const char *span_owner(const struct span *s) {
    const struct cache *owner = atomic_load_explicit(&s->owner, memory_order_relaxed);
    return owner == NULL ? "no thread" : owner == firn_cache ? "this thread" : "another thread";
}

static void text_neighbour(struct text *t, const char *where, const struct span *s, unsigned slot) {
    text_str(t, "firn:   ");
    text_str(t, where);
    text_str(t, ": ");
    text_hex(t, span_base(s) + slot * (uintptr_t)span_class(s)->bytes);
    text_str(t, ", ");
    text_str(t, slot_state(s, slot));
    text_char(t, '\n');
}

static void text_position(struct text *t, enum fatal_id id, uintptr_t address, const struct span *s,
                          unsigned slot) {
    uintptr_t start = span_base(s) + slot * (uintptr_t)span_class(s)->bytes;
    text_str(t, "firn:   block: ");
    if (address != start) {
        text_dec(t, address - start);
        text_str(t, " bytes into the slot at ");
        text_hex(t, start);
        text_str(t, ", ");
    }
    text_str(t, "slot ");
    text_dec(t, slot);
    text_str(t, " of ");
    text_dec(t, span_class(s)->slots);
    text_str(t, " of ");
    text_dec(t, span_class(s)->bytes);
    text_str(t, " bytes, in the span at ");
    text_hex(t, span_base(s));
    text_str(t, ", partition ");
    text_dec(t, root_cell_partition(s->cell));
    text_char(t, '\n');
    bool is_canary = id == FATAL_OVERFLOW || id == FATAL_UNDERFLOW;
    text_str(t, "firn:   state: ");
    // Its bits have changed already when the slot is looked at.
    text_str(t, id == FATAL_CORRUPT_LINK       ? "freed by another thread, being taken back"
                : id == FATAL_WRITE_AFTER_FREE ? "free, being handed out again"
                : is_canary                    ? "live, as far as the caller knows"
                                               : slot_state(s, slot));
    text_str(t, "; span of ");
    text_str(t, span_owner(s));
    text_str(t, " with ");
    text_dec(t, span_count_live(s));
    text_str(t, " live\n");
}

// P-SLACK. The only word of a block that is read here; that of a broken canary says nothing.
static void text_requested(struct text *t, enum fatal_id id, const struct span *s, unsigned slot) {
    if (!FIRN_SLACK) {
        return;
    }
    size_t bytes = span_class(s)->bytes;
    uintptr_t start = span_base(s) + slot * bytes;
    // Where a damaged block was found at its free, its bit has changed already.
    bool is_live = (span_is_live(s, slot) && !span_is_remote(s, slot)) || id == FATAL_OVERFLOW;
    if (is_live && canary_change(start, bytes) == 0) {
        text_str(t, "firn:   requested: ");
        text_dec(t, slack_size(start, bytes));
        text_str(t, " bytes\n");
    }
}

static void describe_small(struct text *t, enum fatal_id id, uintptr_t address) {
    uintptr_t offset = address - FIRN_ROOT.small_base;
    const struct class_info *c =
        &FIRN_ROOT.classes[root_cell_class((unsigned)(offset >> FIRN_ROOT.cell_shift))];
    const struct span *s = region_is_described(offset) ? span_at(offset, c) : NULL;
    unsigned slot = span_slot(c, offset);
    if (s == NULL || span_state(s) == SPAN_UNUSED) {
        text_str(t, "firn:   block: none: this part of the heap was never used\n");
        return;
    }
    if (slot >= c->slots) {
        text_str(t, "firn:   block: none: past the last slot of the span at ");
        text_hex(t, span_base(s));
        text_char(t, '\n');
        return;
    }
    text_position(t, id, address, s, slot);
    text_requested(t, id, s, slot);
    if (slot > 0) {
        text_neighbour(t, "before", s, slot - 1);
    }
    if (slot + 1 < c->slots) {
        text_neighbour(t, "after", s, slot + 1);
    }
}

static void text_run(struct text *t, const char *where, const struct large_neighbour *run) {
    if (run->state == LARGE_VIEW_NONE) {
        return;
    }
    text_str(t, "firn:   ");
    text_str(t, where);
    text_str(t, ": ");
    text_hex(t, run->start);
    text_str(t, run->state == LARGE_VIEW_LIVE ? ", live, " : ", free, ");
    text_dec(t, run->end - run->start);
    text_str(t, " bytes\n");
}

static void describe_large(struct text *t, uintptr_t address, const struct large_view *view) {
    const struct large_neighbour *self = &view->self;
    bool is_live = self->state == LARGE_VIEW_LIVE;
    text_str(t, "firn:   block: ");
    if (address > self->start) {
        text_dec(t, address - self->start);
        text_str(t, " bytes into ");
    } else if (address < self->start) {
        text_dec(t, self->start - address);
        text_str(t, " bytes before ");
    }
    text_str(t, is_live ? "the live block at " : "free pages at ");
    text_hex(t, self->start);
    text_str(t, ", ");
    text_dec(t, self->end - self->start);
    text_str(t, " bytes of whole pages\n");
    if (view->requested != 0) {
        text_str(t, is_live ? "firn:   requested: " : "firn:   requested, when last in use: ");
        text_dec(t, view->requested);
        text_str(t, " bytes\n");
    }
    text_run(t, "before", &view->before);
    text_run(t, "after", &view->after);
}

size_t report_describe(enum fatal_id id, const struct fatal_info *info, char *text,
                       size_t text_bytes) {
    struct text t = text_on(text, text_bytes);
    struct large_view view;
    if (info->address - FIRN_ROOT.small_base < FIRN_ROOT.small_bytes) {
        describe_small(&t, id, info->address);
    } else if (large_peek(info->address, &view)) {
        describe_large(&t, info->address, &view);
    }
    return t.length;
}
