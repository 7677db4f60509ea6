#include "src/cold/shelf.h"

#include "src/base/align.h"
#include "src/base/bits.h"
#include "src/base/fatal.h"

#include <string.h>

enum {
    RECORDS = 512, // in a page
    GROW_BLOCKS = 16,
    BIN_GRANULES = SHELF_BLOCK_GRANULES / SHELF_BINS,
    PAGE_GRANULES = FIRN_PAGE / SHELF_GRANULE,
    SLOP_PAGES = 8,
    WORTH_REUSING = SHELF_BLOCK_GRANULES / 16 // dead granules for which a block is squeezed
};
#define PLACE_VALID ((uint64_t)1 << 63)

// ---- layout -----------------------------------------------------------------------------------

static size_t blobs_bytes(uint32_t blocks) {
    return (size_t)blocks << SHELF_BLOCK_SHIFT;
}
static size_t blocks_bytes(uint32_t blocks) {
    return align_up(blocks * sizeof(struct shelf_block), FIRN_PAGE);
}
// Enough for blobs of 128 bytes on average; more of them are SHELF_FULL.
static uint32_t records_of(uint32_t blocks) {
    uint64_t n = (uint64_t)blocks * (SHELF_BLOCK / 128);
    return n >> SHELF_RECORD_BITS != 0 ? 1u << SHELF_RECORD_BITS : (uint32_t)n;
}
static size_t records_bytes(uint32_t records) {
    return align_up(records / RECORDS * sizeof(struct shelf_records), FIRN_PAGE);
}

size_t shelf_bytes(uint32_t blocks) {
    uint32_t records = records_of(blocks);
    return blobs_bytes(blocks) + blocks_bytes(blocks) + records_bytes(records) +
           records * sizeof(uint64_t);
}

void shelf_make(struct shelf *s, const struct reservation *range, uint32_t blocks, bool is_dumped) {
    s->range = *range;
    s->most_blocks = blocks;
    s->most_records = records_of(blocks);
    s->blocks_at = range->base;
    uintptr_t at = range->base + blobs_bytes(blocks);
    s->blocks = (struct shelf_block *)at;
    at += blocks_bytes(blocks);
    s->records = (struct shelf_records *)at;
    at += records_bytes(s->most_records);
    s->places = (uint64_t *)at;
    s->current = s->empty = SHELF_NONE;
    for (unsigned b = 0; b < SHELF_BINS; b++) {
        s->bins[b] = SHELF_NONE;
    }
    s->is_dumped = is_dumped;
}

static bool commit(struct shelf *s, uintptr_t address, size_t bytes) {
    if (!map_commit(&s->range, address, bytes)) {
        return false;
    }
    if (!s->is_dumped) {
        (void)map_exclude_from_dump(address, bytes);
    }
    return true;
}

static void decommit(struct shelf *s, const void *from, const void *until) {
    uintptr_t end = align_up((uintptr_t)until, FIRN_PAGE);
    if (end > (uintptr_t)from) {
        map_decommit(&s->range, (uintptr_t)from, end - (uintptr_t)from);
    }
}

// What is counted is committed. Where a thread that is not in this child was about to count more, that
// piece stays, and is not used again: a sparse range is not searched for what might be somebody else's.
static void decommit_parts(struct shelf *s) {
    for (uint32_t page = 0; page < s->described_records; page++) {
        if (s->records[page].is_committed != 0) {
            uint64_t *places = &s->places[(size_t)page * RECORDS];
            decommit(s, places, places + RECORDS);
        }
    }
    decommit(s, s->records, &s->records[s->described_records]);
    decommit(s, s->blocks, &s->blocks[s->described_blocks]);
    decommit(s, (void *)s->blocks_at, (void *)(s->blocks_at + blobs_bytes(s->committed_blocks)));
}

void shelf_unmake(struct shelf *s) {
    if (s->range.is_sparse) {
        decommit_parts(s);
    } else {
        map_decommit(&s->range, s->range.base, s->range.bytes);
    }
    memset(s, 0, sizeof *s);
    s->lock = (struct lock)LOCK_INIT(LOCK_STORE);
}

static uintptr_t block_at(const struct shelf *s, uint32_t block) {
    return s->blocks_at + ((uintptr_t)block << SHELF_BLOCK_SHIFT);
}

// ---- what describes blocks and records is believed as little as the blobs ----------------------

// P-COLD-SEAL
static FIRN_NORETURN FIRN_COLD void die(const char *found) {
    struct fatal_info info = {
        .api = "thaw", .class_bytes = FATAL_CLASS_NONE, .size = FATAL_SIZE_UNKNOWN, .found = found};
    fatal(FATAL_COLD_STORE, &info);
}

// Each factor is odd: no single bit of a field changes without the sum.
static uint32_t sum_of(const struct shelf_block *b) {
    return b->used * 0x9e3779b1u + b->live * 0x85ebca77u + b->touched * 0xc2b2ae3du +
           b->next * 0x27d4eb2fu + b->prev * 0x165667b1u + b->bin * 0x7feb352du + 0x846ca68bu;
}

// After each change.
static void note(struct shelf_block *b) {
    b->sum = sum_of(b);
}

// A block that has begun, before its descriptor is used.
static struct shelf_block *block_of(const struct shelf *s, uint32_t block) {
    if (FIRN_UNLIKELY(block >= s->block_count ||
                      s->blocks[block].sum != sum_of(&s->blocks[block]))) {
        die("a block that contradicts itself");
    }
    return &s->blocks[block];
}

static bool is_whole(const struct shelf_records *r) {
    unsigned n = 0;
    for (unsigned w = 0; w < 8; w++) {
        n += bits_count(r->free[w]);
    }
    return r->is_committed == 0   ? n == 0 && r->used == 0
           : r->is_committed == 1 ? n + r->used == RECORDS
                                  : false;
}

// 512 records that are described, before they are used.
static struct shelf_records *records_at(const struct shelf *s, uint32_t page) {
    struct shelf_records *r = &s->records[page];
    if (FIRN_UNLIKELY(!is_whole(r))) {
        die("records that contradict themselves");
    }
    return r;
}

// ---- bins: blocks by how much of them is not live ---------------------------------------------

static uint32_t room_of(const struct shelf_block *b) {
    return SHELF_BLOCK_GRANULES - b->live;
}

static void bin_insert(struct shelf *s, uint32_t block) {
    struct shelf_block *b = block_of(s, block);
    uint32_t bin = room_of(b) / BIN_GRANULES;
    bin = bin < SHELF_BINS ? bin : SHELF_BINS - 1;
    b->bin = bin;
    b->prev = SHELF_NONE;
    b->next = s->bins[bin];
    if (b->next != SHELF_NONE) {
        struct shelf_block *next = block_of(s, b->next);
        next->prev = block;
        note(next);
    }
    note(b);
    s->bins[bin] = block;
    s->bin_mask |= (uint64_t)1 << bin;
}

static void bin_remove(struct shelf *s, uint32_t block) {
    struct shelf_block *b = block_of(s, block);
    FIRN_ENSURE(b->bin < SHELF_BINS);
    if (b->prev != SHELF_NONE) {
        struct shelf_block *prev = block_of(s, b->prev);
        FIRN_ENSURE(prev->next == block);
        prev->next = b->next;
        note(prev);
    } else {
        FIRN_ENSURE(s->bins[b->bin] == block);
        s->bins[b->bin] = b->next;
    }
    if (b->next != SHELF_NONE) {
        struct shelf_block *next = block_of(s, b->next);
        FIRN_ENSURE(next->prev == block);
        next->prev = b->prev;
        note(next);
    }
    if (s->bins[b->bin] == SHELF_NONE) {
        s->bin_mask &= ~((uint64_t)1 << b->bin);
    }
    b->bin = b->next = b->prev = SHELF_NONE;
    note(b);
}

static void bin_update(struct shelf *s, uint32_t block) {
    if (block_of(s, block)->bin != SHELF_NONE) {
        bin_remove(s, block);
        bin_insert(s, block);
    }
}

// ---- records ----------------------------------------------------------------------------------

static bool describe_records(struct shelf *s, uint32_t page) {
    if (page >= s->described_records) {
        uintptr_t from = align_up((uintptr_t)&s->records[s->described_records], FIRN_PAGE);
        uintptr_t until = align_up((uintptr_t)&s->records[page + 1], FIRN_PAGE);
        if (until > from) {
            if (!commit(s, from, until - from)) {
                return false;
            }
            s->index_bytes += until - from;
        }
        s->described_records = page + 1;
    }
    struct shelf_records *r = records_at(s, page);
    if (r->is_committed == 0) {
        if (!commit(s, (uintptr_t)&s->places[(size_t)page * RECORDS], FIRN_PAGE)) {
            return false;
        }
        memset(r->free, 0xff, sizeof r->free);
        r->is_committed = 1;
    }
    return true;
}

// The lowest one that is free, so that the upper pages of records empty.
static uint32_t record_take(struct shelf *s) {
    uint32_t pages = s->most_records / RECORDS;
    for (; s->record_page < pages; s->record_page++) {
        if (!describe_records(s, s->record_page)) {
            return SHELF_NONE;
        }
        struct shelf_records *r = &s->records[s->record_page];
        for (unsigned w = 0; w < 8; w++) {
            if (r->free[w] != 0) {
                uint32_t record = s->record_page * RECORDS + w * 64 + bits_lowest(r->free[w]);
                if (FIRN_UNLIKELY(s->places[record] != 0)) {
                    die("a place that is in use and is not");
                }
                r->free[w] &= r->free[w] - 1;
                s->index_bytes += r->used++ == 0 ? FIRN_PAGE : 0;
                return record;
            }
        }
    }
    return SHELF_NONE;
}

static void record_give(struct shelf *s, uint32_t record) {
    uint32_t page = record / RECORDS;
    struct shelf_records *r = records_at(s, page);
    r->free[record % RECORDS / 64] |= (uint64_t)1 << record % 64;
    s->places[record] = 0;
    if (--r->used == 0) {
        // Under the lock, one call for 512 blobs: the page must not be in use meanwhile.
        map_purge((uintptr_t)&s->places[(size_t)page * RECORDS], FIRN_PAGE);
        s->index_bytes -= FIRN_PAGE;
    }
    if (page < s->record_page) {
        s->record_page = page;
    }
}

// ---- blobs ------------------------------------------------------------------------------------

static struct shelf_head *head_at(const struct shelf *s, uint32_t block, uint32_t granule) {
    return (struct shelf_head *)(block_at(s, block) + (uintptr_t)granule * SHELF_GRANULE);
}

static uint64_t place_of(uint32_t block, uint32_t granule) {
    return PLACE_VALID | (uint64_t)block << 16 | granule;
}

// The head at a place that may be anything: in a block, with all its bytes in what is used.
static struct shelf_head *head_checked(const struct shelf *s, uint64_t block, uint32_t granule) {
    if (block >= s->block_count) {
        return NULL;
    }
    const struct shelf_block *b = block_of(s, (uint32_t)block);
    if (b->used > SHELF_BLOCK_GRANULES || granule >= b->used) {
        return NULL;
    }
    struct shelf_head *h = head_at(s, (uint32_t)block, granule);
    return h->granules > 0 && h->granules <= b->used - granule ? h : NULL;
}

static struct shelf_head *find(const struct shelf *s, uint32_t record, uint32_t *block) {
    uint32_t page = record / RECORDS;
    if (page >= s->described_records) {
        return NULL;
    }
    const struct shelf_records *r = records_at(s, page);
    bool is_free = (r->free[record % RECORDS / 64] >> record % 64 & 1) != 0;
    if (r->is_committed == 0 || is_free) {
        return NULL;
    }
    uint64_t place = s->places[record];
    uint64_t number = (place & ~PLACE_VALID) >> 16;
    struct shelf_head *h = head_checked(s, number, (uint32_t)place & 0xffff);
    if ((place & PLACE_VALID) == 0 || h == NULL || h->record != record) {
        return NULL;
    }
    *block = (uint32_t)number;
    return h;
}

const struct shelf_head *shelf_find(const struct shelf *s, uint32_t record) {
    uint32_t block;
    return find(s, record, &block);
}

// What is behind `used` is zeros, and so it stays.
static void append(struct shelf *s, uint32_t block, const struct shelf_head *h, const void *bytes,
                   size_t n) {
    struct shelf_block *b = block_of(s, block);
    struct shelf_head *to = head_at(s, block, b->used);
    *to = *h;
    memcpy(to + 1, bytes, n);
    s->places[h->record] = place_of(block, b->used);
    b->used += h->granules;
    b->live += h->granules;
    uint32_t pages = (b->used + PAGE_GRANULES - 1) / PAGE_GRANULES;
    if (pages > b->touched) {
        s->resident_bytes += (uint64_t)(pages - b->touched) * FIRN_PAGE;
        b->touched = pages;
    }
    note(b);
    s->live_bytes += (uint64_t)h->granules * SHELF_GRANULE;
}

// ---- blocks -----------------------------------------------------------------------------------

static bool describe_block(struct shelf *s) {
    if (s->block_count < s->described_blocks) {
        return true;
    }
    uintptr_t at = align_up((uintptr_t)&s->blocks[s->described_blocks], FIRN_PAGE);
    if (!commit(s, at, FIRN_PAGE)) {
        return false;
    }
    s->described_blocks =
        (uint32_t)((at + FIRN_PAGE - (uintptr_t)s->blocks) / sizeof(struct shelf_block));
    s->index_bytes += FIRN_PAGE;
    return true;
}

// A block without blobs, or SHELF_NONE.
static uint32_t block_begin(struct shelf *s) {
    uint32_t block = s->empty;
    if (block != SHELF_NONE) {
        struct shelf_block *b = block_of(s, block);
        FIRN_ENSURE(b->live == 0);
        s->empty = b->next;
        b->next = SHELF_NONE;
        note(b);
        return block;
    }
    if (s->block_count == s->most_blocks || !describe_block(s)) {
        return SHELF_NONE;
    }
    if (s->block_count == s->committed_blocks) {
        uint32_t left = s->most_blocks - s->committed_blocks;
        uint32_t step = left < GROW_BLOCKS ? left : GROW_BLOCKS;
        if (!commit(s, block_at(s, s->block_count), blobs_bytes(step))) {
            return SHELF_NONE;
        }
        s->committed_blocks += step;
    }
    block = s->block_count++;
    s->blocks[block] =
        (struct shelf_block){.next = SHELF_NONE, .prev = SHELF_NONE, .bin = SHELF_NONE};
    note(&s->blocks[block]);
    return block;
}

// The record is told when the bytes are there.
static void slide(struct shelf *s, uint32_t block, struct shelf_head *h, uint32_t to) {
    struct shelf_head *there = head_at(s, block, to);
    uint32_t record = h->record;
    memmove(there, h, (size_t)h->granules * SHELF_GRANULE);
    s->places[record] = place_of(block, to);
}

// Closes the gaps that dead blobs left. What is behind is overwritten.
static enum shelf_result squeeze(struct shelf *s, uint32_t block) {
    struct shelf_block *b = block_of(s, block);
    uint32_t to = 0;
    for (uint32_t at = 0; at < b->used;) {
        struct shelf_head *h = head_checked(s, block, at);
        if (h == NULL) {
            return SHELF_DAMAGED;
        }
        uint32_t granules = h->granules, owner;
        if (h->record != SHELF_NONE) {
            if (find(s, h->record, &owner) != h) {
                return SHELF_DAMAGED;
            }
            if (to != at) {
                slide(s, block, h, to);
            }
            to += granules;
        }
        at += granules;
    }
    memset(head_at(s, block, to), 0, (size_t)(b->used - to) * SHELF_GRANULE);
    b->used = to;
    note(b);
    return to == b->live ? SHELF_DONE : SHELF_DAMAGED;
}

static uint64_t waste_of(const struct shelf *s) {
    return s->resident_bytes - s->live_bytes;
}

static bool is_wasteful(const struct shelf *s) {
    return waste_of(s) > s->live_bytes / 32 + (uint64_t)SLOP_PAGES * FIRN_PAGE;
}

// The block with the most room, if that is `least` granules; not in a bin any more.
static uint32_t take_roomiest(struct shelf *s, uint32_t least) {
    if (s->bin_mask == 0) {
        return SHELF_NONE;
    }
    uint32_t block = s->bins[bits_highest(s->bin_mask)];
    if (room_of(block_of(s, block)) < least) {
        return SHELF_NONE;
    }
    bin_remove(s, block);
    return block;
}

// Makes a block current that `granules` fit into.
static enum shelf_result turn_page(struct shelf *s, uint32_t granules) {
    if (s->current != SHELF_NONE) {
        bin_insert(s, s->current);
        s->current = SHELF_NONE;
    }
    uint32_t least = granules > WORTH_REUSING ? granules : WORTH_REUSING;
    uint32_t block = is_wasteful(s) ? take_roomiest(s, least) : SHELF_NONE;
    if (block == SHELF_NONE) {
        block = block_begin(s);
    }
    if (block == SHELF_NONE) {
        block = take_roomiest(s, granules); // no new memory: any room will do
    }
    if (block == SHELF_NONE) {
        return SHELF_FULL;
    }
    s->current = block;
    return squeeze(s, block);
}

static enum shelf_result make_room(struct shelf *s, uint32_t granules) {
    uint32_t block = s->current;
    bool fits = block != SHELF_NONE && block_of(s, block)->used + granules <= SHELF_BLOCK_GRANULES;
    return fits ? SHELF_DONE : turn_page(s, granules);
}

enum shelf_result shelf_put(struct shelf *s, uint16_t kind, const void *blob, size_t bytes,
                            uint32_t *record) {
    uint32_t granules =
        (uint32_t)(align_up(bytes + sizeof(struct shelf_head), SHELF_GRANULE) / SHELF_GRANULE);
    FIRN_ENSURE(granules <= SHELF_BLOCK_GRANULES);
    enum shelf_result result = make_room(s, granules);
    if (result != SHELF_DONE) {
        return result;
    }
    struct shelf_head head = {record_take(s), (uint16_t)granules, kind};
    if (head.record == SHELF_NONE) {
        return SHELF_FULL;
    }
    append(s, s->current, &head, blob, bytes);
    s->count++;
    *record = head.record;
    return SHELF_DONE;
}

static void scrap_whole(struct shelf *s, uint32_t block, struct shelf_scrap *scrap) {
    struct shelf_block *b = block_of(s, block);
    *scrap = (struct shelf_scrap){block, b->touched};
    b->used = b->live = 0;
    note(b);
}

enum shelf_result shelf_drop(struct shelf *s, uint32_t record, struct shelf_scrap *scrap) {
    uint32_t block;
    scrap->block = SHELF_NONE;
    struct shelf_head *h = find(s, record, &block);
    if (h == NULL || block_of(s, block)->live < h->granules) {
        return SHELF_DAMAGED;
    }
    struct shelf_block *b = block_of(s, block);
    size_t bytes = (size_t)h->granules * SHELF_GRANULE;
    memset(h + 1, 0, bytes - sizeof *h);
    h->record = SHELF_NONE;
    record_give(s, record);
    s->live_bytes -= bytes;
    s->count--;
    b->live -= h->granules;
    note(b);
    if (b->live == 0) {
        if (block == s->current) {
            s->current = SHELF_NONE;
        } else {
            bin_remove(s, block);
        }
        scrap_whole(s, block, scrap);
    } else {
        bin_update(s, block);
    }
    return SHELF_DONE;
}

// ---- tidying ----------------------------------------------------------------------------------

bool shelf_is_untidy(const struct shelf *s) {
    return is_wasteful(s) && s->bin_mask != 0;
}

// All live blobs of a block that is in no bin go to the current block, and from one to the next.
static enum shelf_result evacuate(struct shelf *s, uint32_t block) {
    struct shelf_block *b = block_of(s, block);
    for (uint32_t at = 0; at < b->used;) {
        struct shelf_head *h = head_checked(s, block, at);
        uint32_t owner;
        if (h == NULL || (h->record != SHELF_NONE && find(s, h->record, &owner) != h)) {
            return SHELF_DAMAGED;
        }
        uint32_t granules = h->granules;
        if (h->record != SHELF_NONE) {
            enum shelf_result result = make_room(s, granules);
            if (result != SHELF_DONE) {
                return result;
            }
            size_t bytes = (size_t)granules * SHELF_GRANULE;
            append(s, s->current, h, h + 1, bytes - sizeof *h);
            s->live_bytes -= bytes; // counted twice for a moment
            b->live -= granules;
            note(b);
            memset(h + 1, 0, bytes - sizeof *h);
            h->record = SHELF_NONE;
        }
        at += granules;
    }
    return b->live == 0 ? SHELF_DONE : SHELF_DAMAGED;
}

enum shelf_result shelf_tidy(struct shelf *s, struct shelf_scrap *scrap) {
    scrap->block = SHELF_NONE;
    uint32_t block = take_roomiest(s, 1);
    if (block == SHELF_NONE) {
        return SHELF_DONE;
    }
    enum shelf_result result = evacuate(s, block);
    if (result == SHELF_DONE) {
        scrap_whole(s, block, scrap);
    } else if (result == SHELF_FULL) {
        bin_insert(s, block);
    }
    return result;
}

void shelf_give_back(struct shelf *s, const struct shelf_scrap *scrap) {
    if (scrap->block == SHELF_NONE) {
        return;
    }
    map_purge(block_at(s, scrap->block), (size_t)scrap->pages * FIRN_PAGE);
    lock_acquire(&s->lock);
    struct shelf_block *b = block_of(s, scrap->block);
    b->touched = 0;
    s->resident_bytes -= (uint64_t)scrap->pages * FIRN_PAGE;
    b->next = s->empty;
    note(b);
    s->empty = scrap->block;
    lock_release(&s->lock);
}
