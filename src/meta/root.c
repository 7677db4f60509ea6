#include "src/meta/root.h"

#include "src/os/caps.h"
#include "src/os/random.h"

_Alignas(FIRN_PAGE) union root_pages firn_root_pages; // P-ROOT: alone on its page

// Which classes share a group, and how far into the descriptors' reservation each class's begin. Returns
// the bytes needed.
static size_t lay_out_descriptors(unsigned cell_shift) {
    enum { ALONE = ROOT_SPAN_SHIFT + FIRN_PARTITION_BITS };
    uint32_t group = 0, members = 0;
    size_t at = 0;
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        struct class_info *c = &FIRN_ROOT.classes[i];
        unsigned span_shift = size_class_span_shift(i);
        unsigned step_shift = span_shift - ROOT_SPANS_SHARE;
        step_shift = step_shift < ALONE ? ALONE : step_shift;
        bool is_full = members == 1u << (step_shift - ALONE);
        if (i > 0 && (is_full || span_shift != c[-1].span_shift)) {
            at +=
                ((size_t)1 << cell_shift >> c[-1].span_shift << c[-1].step_shift) + ROOT_SPANS_PLAY;
            group++;
            members = 0;
        }
        c->span_shift = (uint16_t)span_shift;
        c->step_shift = (uint16_t)step_shift;
        c->group = group;
        c->spans = at + ((size_t)members++ << ALONE);
    }
    const struct class_info *last = &FIRN_ROOT.classes[SIZE_CLASSES - 1];
    return at + ((size_t)1 << cell_shift >> last->span_shift << last->step_shift) + ROOT_SPANS_PLAY;
}

// Tells groups apart by line and by page (root.h). Lines: the fast paths look at the first two of a
// descriptor's four.
static void colour_descriptors(void) {
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        struct class_info *c = &FIRN_ROOT.classes[i];
        uintptr_t page = (c->group * 11 + FIRN_ROOT.colour) % 64 * 8;
        uintptr_t line = c->group % ((1u << ROOT_SPAN_SHIFT) / FIRN_CACHE_LINE);
        c->spans += FIRN_ROOT.meta.base + page * FIRN_PAGE + line * FIRN_CACHE_LINE;
    }
}

// The cells take the lower half of the reservation (64 classes' worth, 52 used; the other twelve
// stay inaccessible), large objects the upper half.
static bool reserve(unsigned small_shift, unsigned limit_bits, bool sparse) {
    struct root *r = &FIRN_ROOT;
    size_t half = (size_t)1 << small_shift;
    if (!map_reserve(&r->data, 2 * half, (size_t)1 << 21, limit_bits, sparse)) {
        return false;
    }
    r->cell_shift = small_shift - SIZE_CLASS_SHIFT - FIRN_PARTITION_BITS;
    // P-META
    if (!map_reserve(&r->meta, lay_out_descriptors(r->cell_shift), FIRN_PAGE, limit_bits, sparse)) {
        map_unreserve(&r->data); // the caller tries with less
        return false;
    }
    r->line_shift = r->cell_shift - CELL_LINE_SHIFT;
    r->is_sparse = sparse;
    r->small_base = r->data.base;
    r->small_bytes = (half >> SIZE_CLASS_SHIFT) * SIZE_CLASSES;
    return true;
}

// 256 is what one random byte can reach while a vector is filled (cache/cache.c). For large slots no
// more than 256 KiB of memory that nobody else can use.
static uint16_t vector_capacity(size_t bytes) {
    size_t n = ((size_t)256 << 10) / bytes;
    return n > 256 ? 256 : n < 8 ? 8 : (uint16_t)n;
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
        c->span_mask = (uint32_t)(((size_t)1 << c->span_shift) - 1);
        c->slots = (uint16_t)(((size_t)1 << c->span_shift) / bytes);
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
    colour_descriptors();
    return true;
}
