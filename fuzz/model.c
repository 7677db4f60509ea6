#include "fuzz/model.h"

#include "src/base/config.h"

#include <string.h>

struct model firn_fuzz_model;

// Of a block larger than two edges only these are filled: its first and last bytes are where
// neighbours, rounding and resizing go wrong, and pages never touched cost nothing.
enum { EDGE = 2048 };

static uint8_t expected(const struct block *b, size_t i) {
    return (uint8_t)(b->pattern + i + (i >> 8) * 31);
}

// Calls for [from, to) of the parts of a block that are filled.
static void visit(struct block *b, size_t limit, void (*range)(struct block *, size_t, size_t)) {
    if (b->usable <= 2 * EDGE) {
        range(b, 0, limit);
        return;
    }
    range(b, 0, limit < EDGE ? limit : EDGE);
    if (limit > b->usable - EDGE) {
        range(b, b->usable - EDGE, limit);
    }
}

static void fill_range(struct block *b, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        b->p[i] = expected(b, i);
    }
}

static void check_range(struct block *b, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        FUZZ_ENSURE(b->p[i] == expected(b, i));
    }
}

static void fill(struct block *b) {
    // 0 stays out: a page that lost its content must not look right.
    firn_fuzz_model.next_pattern += 37;
    b->pattern = firn_fuzz_model.next_pattern;
    visit(b, b->usable, fill_range);
}

struct block *model_find(unsigned wanted) {
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        struct block *b = &firn_fuzz_model.blocks[(wanted + i) % MODEL_BLOCKS];
        if (b->p != NULL) {
            return b;
        }
    }
    return NULL;
}

struct block *model_find_empty(unsigned wanted) {
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        struct block *b = &firn_fuzz_model.blocks[(wanted + i) % MODEL_BLOCKS];
        if (b->p == NULL) {
            return b;
        }
    }
    return NULL;
}

struct block *model_containing(uintptr_t address) {
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        struct block *b = &firn_fuzz_model.blocks[i];
        if (b->p != NULL && address - (uintptr_t)b->p < b->usable) {
            return b;
        }
    }
    return NULL;
}

static void enter(struct block *b, uint8_t *p, size_t size, size_t usable) {
    uintptr_t start = (uintptr_t)p;
    FUZZ_ENSURE(p != NULL && start % 16 == 0);
    FUZZ_ENSURE(b->align == 0 || start % b->align == 0);
    FUZZ_ENSURE(usable >= size && start + usable >= start);
    FUZZ_ENSURE(usable > 0 || FIRN_SLACK);
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        const struct block *other = &firn_fuzz_model.blocks[i];
        if (other->p != NULL && other != b) {
            uintptr_t base = (uintptr_t)other->p;
            FUZZ_ENSURE(start + usable <= base || base + other->usable <= start);
        }
    }
    b->p = p;
    b->size = size;
    b->usable = usable;
}

void model_add(struct block *b, void *p, size_t size, size_t usable, size_t align) {
    FUZZ_ENSURE(b->p == NULL);
    b->align = align;
    enter(b, p, size, usable);
    firn_fuzz_model.count++;
    firn_fuzz_model.made++;
    firn_fuzz_model.bytes += usable;
    fill(b);
}

static void note_freed(const void *p) {
    firn_fuzz_model.stale[firn_fuzz_model.freed++ % MODEL_STALE] = (uintptr_t)p;
    firn_fuzz_model.made_at_last_free = firn_fuzz_model.made;
}

void *model_remove(struct block *b) {
    void *p = b->p;
    model_check(b);
    note_freed(p);
    firn_fuzz_model.count--;
    firn_fuzz_model.bytes -= b->usable;
    *b = (struct block){0};
    return p;
}

void model_resized(struct block *b, void *p, size_t size, size_t usable) {
    size_t kept = size < b->size ? size : b->size;
    if (p != (void *)b->p) {
        note_freed(b->p);
    }
    struct block moved = *b;
    moved.p = p;
    visit(&moved, kept, check_range);
    firn_fuzz_model.bytes += usable - b->usable;
    b->align = 0;
    enter(b, p, size, usable);
    fill(b);
}

void model_check(const struct block *b) {
    struct block copy = *b;
    visit(&copy, b->usable, check_range);
}

void model_check_all(void) {
    for (unsigned i = 0; i < MODEL_BLOCKS; i++) {
        if (firn_fuzz_model.blocks[i].p != NULL) {
            model_check(&firn_fuzz_model.blocks[i]);
        }
    }
}

void model_check_zeros(const uint8_t *p, size_t size) {
    // Every page of up to 256 KiB; of more, 256 places.
    const size_t step = size / 256 < 1024 ? 1024 : size / 256;
    for (size_t i = 0; i < size; i++) {
        FUZZ_ENSURE(p[i] == 0);
        if (size > 2 * EDGE && i >= EDGE && i < size - EDGE) {
            i = (i + step < size - EDGE ? i + step : size - EDGE) - 1;
        }
    }
}
