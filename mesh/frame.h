// Frames: the physical pages that meshed pages share. A frame belongs to one cell (size class and
// partition) from frame_take until its last user is gone: nothing is ever shared across cells.
#ifndef FIRN_MESH_FRAME_H
#define FIRN_MESH_FRAME_H

#include "mesh/search.h"
#include "src/base/compiler.h"

#include <stddef.h>

// Frames are numbered from 1, in the order in which they lie in the file. Each cell has blocks of neighbours
// to itself, so that neighbouring pages find neighbouring frames: mappings that continue each other are
// one to the kernel.
enum { FRAME_NONE = 0, FRAME_BLOCK = 64 };

struct frame {
    // Granules that somebody's live or held slots occupy, or did at the last recount. Only the mesher
    // (mesh.c, under its lock) reads and writes it.
    uint64_t used[SEARCH_WORDS];
    uint32_t users; // pages that map it, and those about to; 0: free. LOCK_FRAME
    uint32_t cell;  // of its users
};

// The file behind it is made at first use. With the mesher's lock.
bool frame_start(void) FIRN_CHECKED;

// A frame with one user, the caller: number `wanted` if that is free and the cell's, else any.
// What is in it is undefined. FRAME_NONE: no memory or no more frames.
uint32_t frame_take(unsigned cell, uint32_t wanted);
// Whether frame_take would give this one.
bool frame_is_free(unsigned cell, uint32_t number);
// One user more; false if there is none left, and the frame with them.
bool frame_hold(uint32_t number) FIRN_CHECKED;
// One user less. After the last one its memory goes back: at once, or when frames are no longer lent.
void frame_release(uint32_t number);
// While frames are lent, forked children look at what they hold: it must not change.
void frame_set_lent(bool are_lent);

struct frame *frame_at(uint32_t number);
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

// Calls `visit` for each frame in use of the cell. With the mesher's lock; frames may lose users meanwhile.
void frame_walk(unsigned cell, void (*visit)(uint32_t number, struct frame *f, void *context),
                void *context);

// Frames in use now.
size_t frame_count(void);

// Nobody takes or releases a frame while another thread forks (it holds merge_lock and the classes').
void frame_after_fork_in_child(void);
// In the child, after what it needed was copied: no frame is in use.
void frame_forget(void);

#endif
