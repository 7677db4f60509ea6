// Frames: the physical pages that meshed pages share. A frame belongs to one cell (size class and
// partition) from frame_open until its last user is gone: nothing is ever shared across cells.
#ifndef FIRN_MESH_FRAME_H
#define FIRN_MESH_FRAME_H

#include "mesh/search.h"
#include "src/base/compiler.h"

#include <stddef.h>

// Frames are numbered from 1, in the order in which they lie in the file. Each cell has blocks of neighbours
// to itself, so that neighbouring pages find neighbouring frames: mappings that continue each other are
// one to the kernel.
enum { FRAME_NONE = 0, FRAME_BLOCK = SEARCH_PLACES };

// The file behind it is made at first use. With the mesher's lock.
bool frame_start(void) FIRN_CHECKED;

// Up to `wanted` neighbouring frames that were free, each with one user, the caller. Returns the first, which
// leaves the rest `phase` when divided by `cycle`, at most half a block, and how many in *got; FRAME_NONE: no memory
// or no more frames. What is in them is undefined.
struct frame_phase {
    unsigned cycle, phase;
};
uint32_t frame_open(unsigned cell, unsigned wanted, const struct frame_phase *phase, unsigned *got);
// One user more; false if there is none left, and the frame with them.
bool frame_hold(uint32_t number) FIRN_CHECKED;
// One user less. After the last one its memory goes back: at once, or when frames are no longer lent.
void frame_release(uint32_t number);
// While frames are lent, forked children look at what they hold: it must not change.
void frame_set_lent(bool are_lent);
unsigned frame_users(uint32_t number);

// Granules that somebody's live or held slots occupy, or did at the last recount, or will when what is
// planned has been done. Only the mesher (mesh.c, in its pass) reads and writes them.
uint64_t *frame_used(uint32_t number);
// Adds to them.
void frame_claim(uint32_t number, const uint64_t mask[SEARCH_WORDS]);

// A block of a cell, for search_best: bins[i] is what frame first + i holds.
struct frame_block {
    uint32_t first;
    const struct search_page *bins;
    uint64_t usable; // in use and not full
};
// The next of the cell's blocks, the youngest first. *at is 0 at first. False: there is none.
bool frame_next_block(unsigned cell, uint32_t *at, struct frame_block *out);
// The block that the frame is in, if that is one of the cell's.
bool frame_block_of(unsigned cell, uint32_t number, struct frame_block *out);

// Gives these neighbouring frames memory, and those after them that are as new, at most FRAME_FILL at once.
// Only the mesher, which holds them.
enum { FRAME_FILL = 16 };
void frame_fill(uint32_t number, unsigned pages);

// Where all of the frame can be read and written, whoever maps it.
uintptr_t frame_view(uint32_t number);
// Puts this and the next frames in the place of the `pages` pages from `address` on; see memfile_map. They
// are of one block.
bool frame_map(uint32_t number, uintptr_t address, size_t pages, bool *is_lost) FIRN_CHECKED;
// The same for pages that map these frames already: by a mapping of their own; see memfile_map_copy.
bool frame_map_copy(uint32_t number, uintptr_t address, size_t pages, bool *is_lost) FIRN_CHECKED;
// Its place in its block, from 0.
FIRN_INLINE unsigned frame_place(uint32_t number) {
    return number % FRAME_BLOCK;
}

// Forgets what the cell's frames hold, for a recount. True if it has any. With the mesher's lock.
bool frame_clear_used(unsigned cell);

// Frames in use now.
size_t frame_count(void);

// Nobody takes or releases a frame while another thread forks (it holds merge_lock and the classes').
void frame_after_fork_in_child(void);
// In the child, after what it needed was copied: no frame is in use.
void frame_forget(void);
// No frame is opened any more, and none is mapped anew (memfile_seal).
void frame_seal(void);

#endif
