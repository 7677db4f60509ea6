// Chunks, slots and runs. All arithmetic between addresses, chunks, slots and descriptors is here and
// in the header.
#include "src/fuzzbuild/space.h"

#include "src/base/align.h"
#include "src/base/fatal.h"
#include "src/os/caps.h"
#include "src/os/map.h"

#include <errno.h>
#include <string.h>

enum { CHUNKS = 1 << 18, EXTENT_CHUNKS = 16, BASE_TRIES = 16 };
#define SPACE_BYTES ((size_t)CHUNKS << SPACE_CHUNK_SHIFT)
#define MAP_CHUNKS ((uint32_t)(CHUNKS * sizeof(uint32_t) >> SPACE_CHUNK_SHIFT))
// Far below what the kernel hands out by itself, far above a program linked without PIE.
#define BASE_FIRST ((uintptr_t)16 << 40)
#define BASE_STEP ((uintptr_t)1 << 40)

// As many pages as leave little of a chunk unused: 31, 20, 15, 12, 10, 8, 7, 6, ... slots.
const uint8_t space_pages_of_class[SPACE_CLASSES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 19, 30, 61};
static uint8_t class_of_pages[SPACE_PAGES_MOST + 1];

struct space_map space_map;

static struct reservation heap;
static uint32_t committed;                 // chunks from the start that are accessible
static uint32_t taken;                     // chunks in use
static uint32_t open_chunk[SPACE_CLASSES]; // where the class takes fresh slots; SPACE_NO_SLOT: none
static uint32_t free_runs = SPACE_NO_SLOT; // given back, oldest first
static uint32_t free_runs_last = SPACE_NO_SLOT;

static unsigned stride_of(unsigned class) {
    return space_pages_of_class[class] + 1u;
}

static unsigned slots_in_chunk(unsigned class) {
    return (SPACE_CHUNK_PAGES - SPACE_FIRST_PAGE) / stride_of(class);
}

static uintptr_t address_of(uint32_t chunk) {
    return heap.base + ((uintptr_t)chunk << SPACE_CHUNK_SHIFT);
}

// splitmix64's finisher: seeds that differ by one give bases that have nothing in common.
static uint64_t mix(uint64_t v) {
    v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
    return v ^ v >> 31;
}

// A fixed place where it is free, so that a replayed crash shows the same addresses; else anywhere. The
// range is only chosen, not mapped: a mapping of what is not in use would be one more for every fork.
// Commits refuse what somebody else took meanwhile.
static bool choose_place(uint64_t seed) {
    heap.bytes = SPACE_BYTES;
    heap.base = BASE_FIRST + ((mix(seed) & 0xfff) << 32);
    heap.is_sparse = true;
    for (unsigned i = 0; i < BASE_TRIES; i++, heap.base += BASE_STEP) {
        if (map_commit(&heap, heap.base, EXTENT_CHUNKS << SPACE_CHUNK_SHIFT)) {
            committed = EXTENT_CHUNKS;
            return true;
        }
    }
    return map_reserve(&heap, SPACE_BYTES, SPACE_CHUNK, 47, true);
}

// Steps of many chunks save system calls; only what is needed is asked for where memory is rationed.
static bool commit_up_to(uint32_t wanted) {
    while (committed < wanted) {
        uint32_t step = wanted - committed;
        uint32_t more = (step + EXTENT_CHUNKS - 1) / EXTENT_CHUNKS * EXTENT_CHUNKS;
        uintptr_t at = address_of(committed);
        bool is_generous = caps_has(CAP_RESERVE) && more <= CHUNKS - committed &&
                           map_commit(&heap, at, (size_t)more << SPACE_CHUNK_SHIFT);
        if (!is_generous && !map_commit(&heap, at, (size_t)step << SPACE_CHUNK_SHIFT)) {
            return false;
        }
        committed += is_generous ? more : step;
    }
    return true;
}

static void set_map(uint32_t chunk, uint32_t entry) {
    ((uint32_t *)heap.base)[chunk] = entry;
}

static void set_run(uint32_t first, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        set_map(first + i, i == 0 ? SPACE_LARGE : SPACE_TAIL + i);
    }
    space_chunk(first)->run = count;
    space_chunk(first)->fresh = 1;
}

// The oldest free run of `least` to `most` chunks, no longer free, or SPACE_NO_SLOT.
static uint32_t find_run(uint32_t least, uint32_t most) {
    uint32_t previous = SPACE_NO_SLOT;
    for (uint32_t id = free_runs; id != SPACE_NO_SLOT; id = space_block(id)->next) {
        uint32_t chunk = id / SPACE_SLOTS_MOST, run = space_chunk(chunk)->run;
        if (run >= least && run <= most) {
            uint32_t next = space_block(id)->next;
            if (previous == SPACE_NO_SLOT) {
                free_runs = next;
            } else {
                space_block(previous)->next = next;
            }
            free_runs_last = id == free_runs_last ? previous : free_runs_last;
            return chunk;
        }
        previous = id;
    }
    return SPACE_NO_SLOT;
}

// Opens a run that was free: everything but its descriptors reads as zeros.
static bool open_run(uint32_t first) {
    size_t bytes = ((size_t)space_chunk(first)->run << SPACE_CHUNK_SHIFT) - FIRN_PAGE;
    if (map_unguard(address_of(first) + FIRN_PAGE, bytes)) {
        return true;
    }
    space_give_run(first * SPACE_SLOTS_MOST);
    return false;
}

// When no new chunk is to be had: the first `count` chunks of a free run, the rest of which stays free.
static bool cut_run(uint32_t count, uint32_t *first) {
    uint32_t chunk = find_run(count, CHUNKS), length;
    if (chunk == SPACE_NO_SLOT || !open_run(chunk)) {
        return false;
    }
    length = space_chunk(chunk)->run;
    memset(space_chunk(chunk), 0, sizeof(struct space_chunk));
    if (length > count) {
        uintptr_t rest = address_of(chunk + count);
        set_run(chunk + count, length - count);
        space_block((chunk + count) * SPACE_SLOTS_MOST)->state = BLOCK_RETIRED;
        (void)!map_guard(rest + FIRN_PAGE,
                         ((size_t)(length - count) << SPACE_CHUNK_SHIFT) - FIRN_PAGE);
        space_give_run((chunk + count) * SPACE_SLOTS_MOST);
    }
    *first = chunk;
    return true;
}

static bool take_new_chunks(uint32_t count, uint32_t *first) {
    if (count > CHUNKS - taken) {
        errno = ENOMEM;
        return false;
    }
    if (!commit_up_to(taken + count)) {
        return false;
    }
    *first = taken;
    taken += count;
    space_map.used_bytes = (size_t)taken << SPACE_CHUNK_SHIFT;
    return true;
}

static bool take_chunks(uint32_t count, uint32_t *first) {
    return take_new_chunks(count, first) || cut_run(count, first);
}

bool space_start(uint64_t seed) {
    unsigned class = 0;
    uint32_t first;
    for (unsigned pages = 0; pages <= SPACE_PAGES_MOST; pages++) {
        class += pages > space_pages_of_class[class];
        class_of_pages[pages] = (uint8_t) class;
    }
    for (class = 0; class < SPACE_CLASSES; class ++) {
        space_map.stride_inverse[class] = (uint16_t)(65536u / stride_of(class) + 1);
        open_chunk[class] = SPACE_NO_SLOT;
    }
    if (!choose_place(seed) || !take_chunks(MAP_CHUNKS, &first)) {
        return false;
    }
    space_map.base = heap.base;
    space_map.chunks = (const uint32_t *)heap.base;
    for (uint32_t i = 0; i < MAP_CHUNKS; i++) {
        set_map(i, SPACE_NO_BLOCKS);
    }
    return true;
}

uintptr_t space_take_chunk(void) {
    uint32_t chunk;
    if (!take_chunks(1, &chunk)) {
        return 0;
    }
    set_map(chunk, SPACE_NO_BLOCKS);
    return address_of(chunk);
}

unsigned space_class_of(size_t pages) {
    return pages <= SPACE_PAGES_MOST ? class_of_pages[pages] : SPACE_LARGE;
}

bool space_take_slot(unsigned class, struct slot *out) {
    uint32_t chunk = open_chunk[class];
    if (chunk == SPACE_NO_SLOT || space_chunk(chunk)->fresh == slots_in_chunk(class)) {
        if (!take_chunks(1, &chunk)) {
            return false;
        }
        set_map(chunk, class);
        open_chunk[class] = chunk;
        (void)!map_guard(address_of(chunk) + FIRN_PAGE, FIRN_PAGE);
    }
    *out = space_slot(chunk * SPACE_SLOTS_MOST + space_chunk(chunk)->fresh++);
    // A refused guard (no markers, VMA budget spent) means less detection, never a failed allocation.
    (void)!map_guard(out->end, FIRN_PAGE);
    return true;
}

bool space_take_run(size_t size, size_t align, struct slot *out) {
    const size_t first_page = SPACE_FIRST_PAGE * FIRN_PAGE;
    size_t bytes, slack = align > FIRN_PAGE ? align : 0;
    if (__builtin_add_overflow(size, slack + first_page + 2 * FIRN_PAGE, &bytes) ||
        bytes > SPACE_BYTES) {
        errno = ENOMEM;
        return false;
    }
    uint32_t count = (uint32_t)((bytes + SPACE_CHUNK - 1) >> SPACE_CHUNK_SHIFT);
    // Not in a run so long that a large block would be lost to a small one.
    uint32_t first = find_run(count, 2 * count);
    if (first != SPACE_NO_SLOT) {
        if (!open_run(first)) {
            return false;
        }
    } else if (take_chunks(count, &first)) {
        set_run(first, count);
    } else {
        return false;
    }
    uintptr_t lowest = address_of(first) + first_page;
    out->id = first * SPACE_SLOTS_MOST;
    out->class = SPACE_LARGE;
    out->data = align > FIRN_PAGE ? align_up(lowest, align) : lowest;
    out->end = align_up(out->data + (size > 0 ? size : 1), FIRN_PAGE);
    (void)!map_guard(out->data - FIRN_PAGE, FIRN_PAGE);
    (void)!map_guard(out->end, FIRN_PAGE);
    return true;
}

void space_give_run(uint32_t id) {
    space_block(id)->next = SPACE_NO_SLOT;
    if (free_runs == SPACE_NO_SLOT) {
        free_runs = id;
    } else {
        space_block(free_runs_last)->next = id;
    }
    free_runs_last = id;
}

// It begins on the first page and ends on the last one.
struct slot space_large_slot(uint32_t id) {
    const struct block *b = space_block(id);
    uintptr_t start = (uintptr_t)space_chunk(id / SPACE_SLOTS_MOST) + b->offset;
    struct slot s = {.id = id, .class = SPACE_LARGE};
    s.data = align_down(start, FIRN_PAGE);
    s.end = align_up(start + (b->size > 0 ? b->size : 1), FIRN_PAGE);
    return s;
}

void space_visit(void (*visit)(const struct slot *s, struct block *b)) {
    for (uint32_t chunk = MAP_CHUNKS; chunk < taken; chunk++) {
        bool has_blocks = space_map.chunks[chunk] <= SPACE_LARGE;
        for (uint32_t i = 0; has_blocks && i < space_chunk(chunk)->fresh; i++) {
            struct slot s = space_slot(chunk * SPACE_SLOTS_MOST + i);
            visit(&s, space_block(s.id));
        }
    }
}

bool space_revoke(const struct slot *s) {
    return map_guard(s->data, s->end - s->data);
}

bool space_restore(const struct slot *s) {
    return map_unguard(s->data, s->end - s->data);
}
