// realloc: in place when the new size belongs to the same class or to the same pages; large blocks
// move by page tables where that is cheaper than copying (span/large).
#include "src/heap/aside.h"
#include "src/heap/fast.h"
#include "src/heap/find.h"
#include "src/heap/heap.h"
#include "src/heap/life.h"

#include <errno.h>
#include <string.h>

static void *move(void *p, size_t old_usable, size_t size, uintptr_t site) {
    void *q = heap_alloc_fast(size, site);
    if (q == NULL) {
        // A shrink needs no memory: the old block holds it. Not so when growing.
        if (size > old_usable) {
            return NULL;
        }
        heap_note_larger();
        return p;
    }
    memcpy(q, p, old_usable < size ? old_usable : size);
    heap_free_fast(p, site);
    return q;
}

// P-LARGE-SLACK: what the block gains is zeros, not the filling of its last page.
static void *resize_large(uintptr_t address, const struct large_block *block, size_t size,
                          enum large_kind *kind) {
    if (!FIRN_LARGE_SLACK) {
        return large_resize(address, size, kind);
    }
    uintptr_t end = address + block->size;
    uintptr_t page_end = large_page_end(address, block->size);
    memset((void *)end, 0, page_end - end); // NOLINT(performance-no-int-to-ptr)
    void *q = large_resize(address, size, kind);
    if (q != NULL) {
        slack_fill((uintptr_t)q + size, large_page_end((uintptr_t)q, size));
    } else if (*kind == LARGE_LIVE) {
        slack_fill(end, page_end);
    }
    return q;
}

// A block of the next allocator's (large_only), perhaps on its way here.
static void *resize_next(void *p, size_t size, uintptr_t site) {
    if (aside_takes(size)) {
        return firn_aside.realloc(p, size);
    }
    void *q = heap_alloc_fast(size, site);
    if (q != NULL) {
        size_t usable = firn_aside.malloc_usable_size(p);
        memcpy(q, p, usable < size ? usable : size);
        firn_aside.free(p);
    }
    return q;
}

void *heap_resize(void *p, size_t size, uintptr_t site) {
    return heap_resize_as(p, &(struct heap_call){"realloc", site, size, 0});
}

void *heap_resize_as(void *p, const struct heap_call *call) {
    size_t size = call->size;
    uintptr_t site = call->site;
    struct found f;
    if (FIRN_UNLIKELY(firn_cache == &firn_empty_cache) && life_is_aside()) {
        return firn_aside.realloc(p, size);
    }
    if (FIRN_UNLIKELY(firn_large_only != 0) && find_is_outside(p)) {
        return resize_next(p, size, site);
    }
    find_pointer(p, &f);
    find_check(&f);
    if (f.kind == FOUND_BAD) {
        find_report(p, &f, call);
    }
    if (size > PTRDIFF_MAX) {
        errno = ENOMEM;
        return NULL;
    }
    size_t class_size = aside_class_size(size) + FIRN_SLOT_EXTRA;
    bool is_small = class_size <= SMALL_MAX;
    if (f.kind == FOUND_SLOT) {
        if (is_small && size_class_of(class_size) == root_cell_class(f.span->cell)) {
            slack_resize((uintptr_t)p, f.class_bytes, size);
            return p;
        }
        void *q = move(p, slack_size((uintptr_t)p, f.class_bytes), size, site);
        if (FIRN_UNLIKELY(q == p)) {
            slack_resize((uintptr_t)p, f.class_bytes, size);
        }
        return q;
    }
    if (f.kind == FOUND_SAMPLE && size == f.block.size) {
        return p;
    }
    if (is_small || aside_takes(size) || f.kind == FOUND_SAMPLE) {
        bool is_known = f.kind == FOUND_LARGE && FIRN_LARGE_SLACK;
        return move(p, is_known ? f.block.size : f.block.capacity, size, site);
    }
    enum large_kind kind;
    void *q = resize_large((uintptr_t)p, &f.block, size, &kind);
    if (kind != LARGE_LIVE) {
        find_describe_large(kind, &f);
        find_report(p, &f, call);
    }
    return q;
}
