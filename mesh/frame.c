// Blocks are made from the lowest number on, so that the file stays dense; a cell's blocks stay its own.
// Place 0 of block 0 is frame 0, which does not exist.
#include "mesh/frame.h"

#include "src/base/bits.h"
#include "src/base/fatal.h"
#include "src/meta/arena.h"
#include "src/meta/root.h"
#include "src/os/lock.h"
#include "src/os/memfile.h"

enum { FULL = 244 }; // granules in use: no page worth merging fits beside them

struct block {
    struct search_page bins[FRAME_BLOCK];
    uint32_t users[FRAME_BLOCK]; // pages that map it, and plans; 0: free. LOCK_FRAME
    uint64_t taken;              // a bit for each place
    uint64_t filled;             // likewise: it has memory. LOCK_FRAME
    uint64_t full;               // the mesher's, like bins
    uint32_t cell;
    uint32_t next; // block of the same cell made before it, + 1; 0: none
};

static struct lock frame_lock = LOCK_INIT(LOCK_FRAME);
static struct block **blocks;       // by number / FRAME_BLOCK
static uint32_t blocks_made;        // those below exist
static uint32_t blocks_most;        // that the file has room for
static uint32_t cell_blocks[CELLS]; // the youngest of each cell, + 1
static size_t in_use;
static bool are_lent; // some that have no user any more may be taken still

bool frame_start(void) {
    if (!memfile_start()) {
        return false;
    }
    blocks_most = (uint32_t)(memfile_bytes() / ((size_t)FRAME_BLOCK << FIRN_PAGE_SHIFT));
    if (blocks == NULL) {
        blocks = arena_alloc(blocks_most * sizeof(struct block *), FIRN_CACHE_LINE);
    }
    return blocks != NULL;
}

static struct block *block_of(uint32_t number) {
    return blocks[number / FRAME_BLOCK];
}

uint64_t *frame_used(uint32_t number) {
    return block_of(number)->bins[frame_place(number)].mask;
}

void frame_claim(uint32_t number, const uint64_t mask[SEARCH_WORDS]) {
    struct block *b = block_of(number);
    uint64_t *used = frame_used(number);
    for (unsigned w = 0; w < SEARCH_WORDS; w++) {
        used[w] |= mask[w];
    }
    if (search_count_granules(used) >= FULL) {
        b->full |= (uint64_t)1 << frame_place(number);
    }
}

static size_t offset_of(uint32_t number) {
    return (size_t)number << FIRN_PAGE_SHIFT;
}

uintptr_t frame_view(uint32_t number) {
    return memfile_view() + offset_of(number);
}

static struct block *make_block(unsigned cell) {
    if (blocks_made == blocks_most) {
        return NULL;
    }
    struct block **place = &blocks[blocks_made];
    if (*place == NULL && (*place = arena_alloc(sizeof **place, FIRN_CACHE_LINE)) == NULL) {
        return NULL;
    }
    (*place)->taken = blocks_made == 0;
    (*place)->filled = 0;
    (*place)->full = 0;
    (*place)->cell = cell;
    (*place)->next = cell_blocks[cell];
    cell_blocks[cell] = ++blocks_made;
    return *place;
}

// The first stretch of free places of a block from a frame of the phase on: as long as wanted or, with `any`, as
// there is.
static unsigned find_stretch(uint32_t index, unsigned wanted, const struct frame_phase *phase,
                             bool any, unsigned *got) {
    const struct block *b = blocks[index];
    unsigned first = index * FRAME_BLOCK % phase->cycle;
    unsigned i = (phase->phase + phase->cycle - first) % phase->cycle;
    for (; i < FRAME_BLOCK; i += phase->cycle) {
        unsigned n = 0;
        while (n < wanted && i + n < FRAME_BLOCK && (b->taken >> (i + n) & 1) == 0) {
            n++;
        }
        if (n == wanted || (any && n > 0)) {
            *got = n;
            return i;
        }
    }
    return FRAME_BLOCK;
}

// With frame_lock. A new block only when no old one has as much room: the file stays dense.
static uint32_t find_free(unsigned cell, unsigned wanted, const struct frame_phase *phase,
                          unsigned *got) {
    for (uint32_t i = cell_blocks[cell]; i != 0; i = blocks[i - 1]->next) {
        unsigned place = find_stretch(i - 1, wanted, phase, false, got);
        if (place < FRAME_BLOCK) {
            return (i - 1) * FRAME_BLOCK + place;
        }
    }
    return make_block(cell) != NULL ? (blocks_made - 1) * FRAME_BLOCK +
                                          find_stretch(blocks_made - 1, wanted, phase, true, got)
                                    : FRAME_NONE;
}

uint32_t frame_open(unsigned cell, unsigned wanted, const struct frame_phase *phase,
                    unsigned *got) {
    lock_acquire(&frame_lock);
    uint32_t number = find_free(cell, wanted, phase, got);
    for (unsigned i = 0; number != FRAME_NONE && i < *got; i++) {
        struct block *b = block_of(number + i);
        unsigned place = frame_place(number + i);
        b->taken |= (uint64_t)1 << place;
        b->full &= ~((uint64_t)1 << place);
        b->users[place] = 1;
        b->bins[place] = (struct search_page){{0}};
        in_use++;
    }
    lock_release(&frame_lock);
    return number;
}

bool frame_hold(uint32_t number) {
    lock_acquire(&frame_lock);
    uint32_t *users = &block_of(number)->users[frame_place(number)];
    bool is_used = *users > 0;
    *users += is_used;
    lock_release(&frame_lock);
    return is_used;
}

unsigned frame_users(uint32_t number) {
    lock_acquire(&frame_lock);
    unsigned n = block_of(number)->users[frame_place(number)];
    lock_release(&frame_lock);
    return n;
}

// The memory goes back under the lock: else the number could be taken again, and written to, before.
static void drop(uint32_t number) {
    memfile_drop(offset_of(number), FIRN_PAGE);
    block_of(number)->taken &= ~((uint64_t)1 << frame_place(number));
    block_of(number)->filled &= ~((uint64_t)1 << frame_place(number));
    in_use--;
}

void frame_release(uint32_t number) {
    lock_acquire(&frame_lock);
    uint32_t *users = &block_of(number)->users[frame_place(number)];
    FIRN_ENSURE(*users > 0);
    if (--*users == 0 && !are_lent) {
        drop(number);
    }
    lock_release(&frame_lock);
}

void frame_set_lent(bool are_lent_now) {
    lock_acquire(&frame_lock);
    are_lent = are_lent_now;
    for (uint32_t i = 0; !are_lent && i < blocks_made; i++) {
        for (uint64_t taken = blocks[i]->taken; taken != 0; taken &= taken - 1) {
            uint32_t number = i * FRAME_BLOCK + bits_lowest(taken);
            if (number != FRAME_NONE && blocks[i]->users[frame_place(number)] == 0) {
                drop(number);
            }
        }
    }
    lock_release(&frame_lock);
}

// Frames of a batch are opened before the first is used: those after these are of the same plan, or of none and
// then not taken.
static void fill_from(uint32_t number) {
    struct block *b = block_of(number);
    unsigned n = 0;
    lock_acquire(&frame_lock);
    for (uint64_t fresh = (b->taken & ~b->filled) >> frame_place(number);
         (fresh & 1) != 0 && n < FRAME_FILL; fresh >>= 1) {
        b->filled |= (uint64_t)1 << (frame_place(number) + n);
        n++;
    }
    lock_release(&frame_lock);
    if (n > 0) {
        memfile_fill(offset_of(number), (size_t)n << FIRN_PAGE_SHIFT);
    }
}

void frame_fill(uint32_t number, unsigned pages) {
    for (unsigned i = 0; i < pages; i++) {
        fill_from(number + i);
    }
}

bool frame_map(uint32_t number, uintptr_t address, size_t pages, bool *is_lost) {
    FIRN_ENSURE(frame_place(number) + pages <= FRAME_BLOCK);
    return memfile_map(address, offset_of(number), pages << FIRN_PAGE_SHIFT, is_lost);
}

bool frame_map_copy(uint32_t number, uintptr_t address, size_t pages, bool *is_lost) {
    FIRN_ENSURE(frame_place(number) + pages <= FRAME_BLOCK);
    return memfile_map_copy(address, offset_of(number), pages << FIRN_PAGE_SHIFT, is_lost);
}

static void describe(uint32_t index, struct frame_block *out) {
    const struct block *b = blocks[index];
    lock_acquire(&frame_lock);
    uint64_t taken = b->taken;
    lock_release(&frame_lock);
    const uint64_t none = index == 0 ? 1 : 0; // frame 0 does not exist
    *out = (struct frame_block){index * FRAME_BLOCK, b->bins, taken & ~b->full & ~none};
}

bool frame_next_block(unsigned cell, uint32_t *at, struct frame_block *out) {
    uint32_t next = *at == 0 ? cell_blocks[cell] : blocks[*at - 1]->next;
    if (next == 0) {
        return false;
    }
    describe(next - 1, out);
    *at = next;
    return true;
}

bool frame_block_of(unsigned cell, uint32_t number, struct frame_block *out) {
    uint32_t index = number / FRAME_BLOCK;
    if (index >= blocks_made || blocks[index]->cell != cell) {
        return false;
    }
    describe(index, out);
    return true;
}

bool frame_clear_used(unsigned cell) {
    bool any = false;
    for (uint32_t i = cell_blocks[cell]; i != 0; i = blocks[i - 1]->next) {
        struct block *b = blocks[i - 1];
        any = true;
        b->full = 0;
        for (unsigned place = 0; place < FRAME_BLOCK; place++) {
            b->bins[place] = (struct search_page){{0}};
        }
    }
    return any;
}

size_t frame_count(void) {
    lock_acquire(&frame_lock);
    size_t n = in_use;
    lock_release(&frame_lock);
    return n;
}

void frame_after_fork_in_child(void) {
    lock_reset(&frame_lock); // a thread that was counting is not here
}

void frame_forget(void) {
    blocks_made = 0;
    in_use = 0;
    are_lent = false;
    for (unsigned cell = 0; cell < CELLS; cell++) {
        cell_blocks[cell] = 0;
    }
    memfile_forget();
}

void frame_seal(void) {
    lock_acquire(&frame_lock);
    blocks_most = blocks_made;
    memfile_seal((size_t)blocks_made * FRAME_BLOCK << FIRN_PAGE_SHIFT);
    lock_release(&frame_lock);
}
