#include "src/meta/root.h"

#include "src/os/caps.h"
#include "src/os/random.h"

_Alignas(FIRN_PAGE) union root_pages firn_root_pages; // P-ROOT: alone on its page

// sizeof(struct span), which is not known down here; span.h asserts that it agrees.
enum { DESCRIPTOR_BYTES = 256 };

// The cells take the lower half of the reservation (64 classes' worth, 52 used; the other twelve
// stay inaccessible), large objects the upper half.
static bool reserve(unsigned small_shift, unsigned limit_bits, bool sparse) {
    struct root *r = &FIRN_ROOT;
    size_t half = (size_t)1 << small_shift;
    if (!map_reserve(&r->data, 2 * half, (size_t)1 << 21, limit_bits, sparse)) {
        return false;
    }
    r->cell_shift = small_shift - SIZE_CLASS_SHIFT - FIRN_PARTITION_BITS;
    // Room for the descriptors of the smallest spans, one a page, in every class, and for its start.
    r->class_spans_bytes =
        (half >> SIZE_CLASS_SHIFT >> FIRN_PAGE_SHIFT) * DESCRIPTOR_BYTES + ROOT_SPANS_PLAY;
    // P-META
    if (!map_reserve(&r->meta, r->class_spans_bytes * SIZE_CLASSES, FIRN_PAGE, limit_bits,
                     sparse)) {
        map_unreserve(&r->data); // the caller tries with less
        return false;
    }
    r->line_shift = r->cell_shift - CELL_LINE_SHIFT;
    r->is_sparse = sparse;
    r->spans = r->meta.base;
    r->small_base = r->data.base;
    r->small_bytes = (half >> SIZE_CLASS_SHIFT) * SIZE_CLASSES;
    return true;
}

// 256 is what one random byte can reach while a vector is filled (cache/cache.c). For large slots no
// more than 256 KiB of memory that nobody else can use.
static uint32_t vector_capacity(size_t bytes) {
    size_t n = ((size_t)256 << 10) / bytes;
    return n > 256 ? 256 : n < 8 ? 8 : (uint32_t)n;
}

// Where the cells of a class start. The lower nine bits, a place in a page of the page tables' second
// level, are different for all classes, and no two of them share a line of such a page with any
// likelihood; the rest is random as far as a quarter of the cell's address space goes.
static uint32_t class_start(unsigned class_index, uint32_t random) {
    enum { ENTRIES = 512, APART = 167 };
    size_t chunks = ((size_t)1 << FIRN_ROOT.cell_shift >> CELL_CHUNK_SHIFT) / 4;
    uint32_t entry = (class_index * APART + FIRN_ROOT.colour) % ENTRIES;
    if (chunks < ENTRIES) {
        return chunks == 0 ? 0 : entry % (uint32_t)chunks;
    }
    return random % (uint32_t)(chunks / ENTRIES) * ENTRIES + entry;
}

static void describe_classes(void) {
    struct root *r = &FIRN_ROOT;
    uint32_t random[SIZE_CLASSES];
    random_seed_bytes(random, sizeof random);
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        struct class_info *c = &r->classes[i];
        size_t bytes = size_class_bytes(i);
        c->bytes = (uint32_t)bytes;
        c->reciprocal = (uint32_t)((((uint64_t)1 << 32) + bytes - 1) / bytes);
        c->span_shift = size_class_span_shift(i);
        c->span_mask = (uint32_t)(((size_t)1 << c->span_shift) - 1);
        c->slots = (uint32_t)(((size_t)1 << c->span_shift) / bytes);
        c->capacity = vector_capacity(bytes);
        c->start = class_start(i, random[i]);
        size_t start_bytes = (size_t)c->start << CELL_CHUNK_SHIFT;
        size_t spans = (((size_t)1 << r->cell_shift) - start_bytes) >> c->span_shift;
        c->max_spans = spans > UINT32_MAX ? UINT32_MAX : (uint32_t)spans;
    }
}

bool root_start(void) {
    enum { LEAST_SHIFT = 34 };
    bool wide = caps_has(CAP_WIDE_ADDRESS);
    unsigned limit_bits = wide ? 47 : 39;
    // 16 TiB of cells and as much for large objects; 128 GiB each where addresses have 39 bits.
    unsigned top = wide ? 44 : 37;
    bool done = false;
    for (unsigned shift = top; caps_has(CAP_RESERVE) && !done && shift >= LEAST_SHIFT; shift--) {
        done = reserve(shift, limit_bits, false);
    }
    // Rationed address space: choose a range, map nothing until it is needed.
    for (unsigned shift = top; !done && shift >= LEAST_SHIFT; shift--) {
        done = reserve(shift, limit_bits, true);
    }
    if (!done) {
        return false;
    }
    uint64_t site_key;
    random_seed_bytes(&site_key, sizeof site_key);
    atomic_store_explicit(&FIRN_ROOT.site_key, site_key | 1, memory_order_relaxed);
    random_seed_bytes(&FIRN_ROOT.slot_key, sizeof FIRN_ROOT.slot_key);
    random_seed_bytes(&FIRN_ROOT.slot_factor, sizeof FIRN_ROOT.slot_factor);
    FIRN_ROOT.slot_factor |= 1;
    random_seed_bytes(&FIRN_ROOT.colour, sizeof FIRN_ROOT.colour);
    describe_classes();
    return true;
}
