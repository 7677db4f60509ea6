// Blocks are made from the lowest number on, so that the file stays dense; a cell's blocks stay its own.
// Place 0 of block 0 is frame 0, which does not exist.
#include "mesh/frame.h"

#include "src/base/bits.h"
#include "src/base/fatal.h"
#include "src/meta/arena.h"
#include "src/meta/root.h"
#include "src/os/lock.h"
#include "src/os/memfile.h"

struct block {
    struct frame frames[FRAME_BLOCK];
    uint64_t taken; // a bit for each place
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

struct frame *frame_at(uint32_t number) {
    return &block_of(number)->frames[frame_place(number)];
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
    (*place)->cell = cell;
    (*place)->next = cell_blocks[cell];
    cell_blocks[cell] = ++blocks_made;
    return *place;
}

// With frame_lock.
static bool is_free(unsigned cell, uint32_t number) {
    if (number / FRAME_BLOCK >= blocks_made) {
        return false;
    }
    const struct block *b = block_of(number);
    return b->cell == cell && (b->taken >> frame_place(number) & 1) == 0;
}

bool frame_is_free(unsigned cell, uint32_t number) {
    lock_acquire(&frame_lock);
    bool answer = is_free(cell, number);
    lock_release(&frame_lock);
    return answer;
}

// The lowest free place of a block, SEARCH_NONE of a full one. Every fourth place at first: room for
// neighbours.
static unsigned pick_place(const struct block *b) {
    const uint64_t fourth = UINT64_C(0x2222222222222222);
    uint64_t left = ~b->taken;
    return left == 0 ? SEARCH_NONE : bits_lowest((left & fourth) != 0 ? left & fourth : left);
}

static uint32_t find_free(unsigned cell) {
    for (uint32_t i = cell_blocks[cell]; i != 0; i = blocks[i - 1]->next) {
        unsigned place = pick_place(blocks[i - 1]);
        if (place != SEARCH_NONE) {
            return (i - 1) * FRAME_BLOCK + place;
        }
    }
    const struct block *made = make_block(cell);
    return made != NULL ? (blocks_made - 1) * FRAME_BLOCK + pick_place(made) : FRAME_NONE;
}

uint32_t frame_take(unsigned cell, uint32_t wanted) {
    lock_acquire(&frame_lock);
    uint32_t number = wanted != FRAME_NONE && is_free(cell, wanted) ? wanted : find_free(cell);
    if (number != FRAME_NONE) {
        block_of(number)->taken |= (uint64_t)1 << frame_place(number);
        *frame_at(number) = (struct frame){.users = 1, .cell = cell};
        in_use++;
    }
    lock_release(&frame_lock);
    return number;
}

bool frame_hold(uint32_t number) {
    lock_acquire(&frame_lock);
    struct frame *f = frame_at(number);
    bool is_used = f->users > 0;
    f->users += is_used;
    lock_release(&frame_lock);
    return is_used;
}

// The memory goes back under the lock: else the number could be taken again, and written to, before.
static void drop(uint32_t number) {
    memfile_drop(offset_of(number), FIRN_PAGE);
    block_of(number)->taken &= ~((uint64_t)1 << frame_place(number));
    in_use--;
}

void frame_release(uint32_t number) {
    lock_acquire(&frame_lock);
    struct frame *f = frame_at(number);
    FIRN_ENSURE(f->users > 0);
    if (--f->users == 0 && !are_lent) {
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
            if (number != FRAME_NONE && frame_at(number)->users == 0) {
                drop(number);
            }
        }
    }
    lock_release(&frame_lock);
}

bool frame_map(uint32_t number, uintptr_t address, size_t pages, bool *is_lost) {
    FIRN_ENSURE(frame_place(number) + pages <= FRAME_BLOCK);
    return memfile_map(address, offset_of(number), pages << FIRN_PAGE_SHIFT, is_lost);
}

bool frame_map_copy(uint32_t number, uintptr_t address, size_t pages, bool *is_lost) {
    FIRN_ENSURE(frame_place(number) + pages <= FRAME_BLOCK);
    return memfile_map_copy(address, offset_of(number), pages << FIRN_PAGE_SHIFT, is_lost);
}

void frame_walk(unsigned cell, void (*visit)(uint32_t number, struct frame *f, void *context),
                void *context) {
    for (uint32_t i = cell_blocks[cell]; i != 0; i = blocks[i - 1]->next) {
        lock_acquire(&frame_lock);
        uint64_t taken = blocks[i - 1]->taken;
        lock_release(&frame_lock);
        for (; taken != 0; taken &= taken - 1) {
            uint32_t number = (i - 1) * FRAME_BLOCK + bits_lowest(taken);
            if (number != FRAME_NONE) {
                visit(number, frame_at(number), context);
            }
        }
    }
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
