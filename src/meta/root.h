// The root object: what every pointer computation starts from. Written once at start, then made
// read-only: an attacker with a write primitive cannot bend the map of the heap.
//
// Small objects live in *cells*: one stretch of address space per (size class, partition). The cell
// of an address is a shift, so that what an address was for once it is for always (P-CLASS,
// P-PARTITION-REUSE); its span and slot follow from the cell's geometry. Span descriptors are in an
// array per cell, in a reservation of their own.
//
// Cells are a power of two apart, but no cell begins where its address space does: each class's
// starts a random number of 2 MiB chunks further on. That hides where a class lies relative to
// another one, and keeps the page-table entries of all classes from competing for the same places of
// the caches: with every cell at its first address a random write to 27 MB of small objects took
// 8.3 ns, with starts apart 5.3 ns.
#ifndef FIRN_META_ROOT_H
#define FIRN_META_ROOT_H

#include "src/base/compiler.h"
#include "src/base/config.h"
#include "src/meta/size_class.h"
#include "src/os/map.h"

#include <stdatomic.h>
#include <stdint.h>

enum { CELLS = 1 << (SIZE_CLASS_SHIFT + FIRN_PARTITION_BITS), CELL_LINE_SHIFT = 6 };
enum { CELL_CHUNK_SHIFT = 21 }; // what a page of page tables maps

// One size class's constants.
struct class_info {
    uint32_t bytes;      // slot size
    uint32_t reciprocal; // ceil(2^32 / bytes): slot = offset * reciprocal >> 32, exact below 2^17
    uint16_t slots;      // a span
    uint16_t capacity;   // entries of a shuffle vector
    uint16_t span_shift;
    uint16_t step_shift; // from the descriptor of a cell's span to that of its next one
    uint32_t span_mask;  // span bytes - 1
    uint32_t max_spans;  // a cell has room for
    uint32_t start;  // CELL_CHUNKs from the beginning of a cell's address space to its first span
    uint32_t group;  // of classes whose descriptors alternate, counted from 0; below
    uintptr_t spans; // descriptor of its first partition's first span
};

struct root {
    uintptr_t small_base;  // start of the cells
    uintptr_t small_bytes; // all of them; 0 before start, so that every pointer is looked at slowly
    uint32_t cell_shift;
    uint32_t line_shift; // cell_shift - CELL_LINE_SHIFT
    uint32_t is_sparse;  // from the start; data and meta may become so (heap/ration.h)
    uint32_t colour;     // random: where classes and their descriptors start
    // Odd; salts the hash of call sites. 0 before start. Relaxed: a thread may look while another
    // one starts the heap; whatever it sees, its own cache is still empty.
    _Atomic uint64_t site_key;
    uint64_t slot_key;    // keys what hardening writes into slots
    uint64_t slot_factor; // odd; likewise
    // hardening/slot.h says what they do; which ones depends on the processor.
    void *(*slot_issue)(uintptr_t address, size_t slot_bytes, size_t before_bytes, bool is_virgin,
                        uintptr_t site);
    void (*slot_retire)(uintptr_t address, size_t slot_bytes, size_t before_bytes, const char *api,
                        uintptr_t site);
    struct reservation data; // cells, then the large region
    struct reservation meta; // descriptors
    _Alignas(64) struct class_info classes[SIZE_CLASSES];
};

// Page-aligned and alone on its pages. Hidden; read without indirection.
union root_pages {
    struct root root;
    char pages[FIRN_PAGE];
};
extern FIRN_HIDDEN union root_pages firn_root_pages;
_Static_assert(sizeof(struct root) <= FIRN_PAGE, "one page");
#define FIRN_ROOT (firn_root_pages.root)

FIRN_INLINE uint64_t root_site_key(void) {
    return atomic_load_explicit(&FIRN_ROOT.site_key, memory_order_relaxed);
}

FIRN_INLINE unsigned root_cell(unsigned class_index, unsigned partition) {
    return class_index << FIRN_PARTITION_BITS | partition;
}

FIRN_INLINE unsigned root_cell_class(unsigned cell) {
    return cell >> FIRN_PARTITION_BITS;
}

FIRN_INLINE unsigned root_cell_partition(unsigned cell) {
    return cell & (FIRN_PARTITIONS - 1);
}

// A cell's first span, in bytes into the small regions; and its address.
FIRN_INLINE uintptr_t root_cell_offset(unsigned cell) {
    return ((uintptr_t)cell << FIRN_ROOT.cell_shift) +
           ((uintptr_t)FIRN_ROOT.classes[root_cell_class(cell)].start << CELL_CHUNK_SHIFT);
}

FIRN_INLINE uintptr_t root_cell_base(unsigned cell) {
    return FIRN_ROOT.small_base + root_cell_offset(cell);
}

// Descriptors. Those of the partitions of a class alternate, and with them those of a *group* of
// classes whose spans have the same size: first all that are about the first span of a cell, then all
// about the second one. Small programs use many cells a little, and so touch few pages of them. The larger the
// spans, the more classes in a group: a descriptor and those left unused beside it take at most 1/64 of the
// span they stand for, or what the partitions of one class need. Measured (python3 -c pass, PSS over glibc, level 1,
// and what 64 MiB of JSON leave behind when frozen, level 2): 1/32: 1,009 KiB, 0.195; 1/64: 1,018, 0.177; 1/128:
// 1,049, 0.168.
//
// Groups begin at different lines of a page, and their page-table entries at different lines of a page
// table: otherwise the descriptors of all of them compete for the same few places of the caches.
enum { ROOT_SPANS_SHARE = 6, ROOT_SPANS_PLAY = 64 * 8 * FIRN_PAGE };

// sizeof(struct span), which is not known down here; span.h asserts that it agrees.
enum { ROOT_SPAN_SHIFT = 8 };

// Reserves the address space and fills in the root, adapting to what the limits allow: full size,
// then smaller, then sparse. Called once, by start. False when not even the least can be had.
bool root_start(void) FIRN_CHECKED;

#endif
