// Mesh: gives back the memory of sparse pages, without moving an object.
//
// A page without a used slot is given back as it is. Pages whose used slots do not collide are made to
// share one physical page (search.h and plan.h find out where they fit, merge.h merges them, a stretch of
// pages at a time). A span with such a page is not allocated from any more; it drains as its blocks are
// freed, and is private memory again when the last one is gone.
//
// A pass goes through the spans of a cell, wherever they are: with a thread, which may be idle or busy, or
// central. It holds no lock but for one span, or one stretch, at a time.
#ifndef FIRN_MESH_MESH_H
#define FIRN_MESH_MESH_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// How a pass goes about it.
struct mesh_pace {
    bool is_forced;           // spans that were allocated from since the last pass, too
    unsigned share;           // percent of a processor, 1 to 100
    bool (*is_stopped)(void); // asked now and then: whether to give up. NULL: never
};

// One pass over a class, all its partitions. Returns bytes of pages merged and given back; 0 when meshing is
// impossible here. Waits for the pass of another thread, which then does not rest. Not in a signal
// handler. Preserves errno.
size_t mesh_pass(unsigned class_index, const struct mesh_pace *pace);

// At most so many memory mappings are spent; 0: what the kernel's limit allows.
void mesh_set_budget(size_t vmas);

// The program is about to lock all its memory: nothing is merged from here on, since a page that is merged would
// be another one, and reserved addresses would be filled in. Holds no lock. Preserves errno.
void mesh_end(void);

// The program is about to change how [address, +bytes) of its blocks is mapped: their spans get memory of their
// own, and are never meshed again. False: not now, for want of memory or because the engine refuses. Holds no
// lock. Preserves errno.
bool mesh_leave(uintptr_t address, size_t bytes) FIRN_CHECKED;

struct mesh_stats {
    size_t meshed_pages;      // that share frames now
    size_t meshed_pages_most; // at any time
    size_t frames;            // physical pages they share
    size_t purged_pages;      // empty pages of spans in use given back, so far
    size_t merged_pages;      // so far
    size_t refused;           // merges given up half-way, so far
    size_t over_budget;       // merges not tried for want of VMAs, so far
    size_t vmas, vma_budget;
    size_t passes;               // over a class
    uint64_t tried;              // frames looked at for a place
    uint64_t longest_ns, p99_ns; // pages were staged
    const char *engine;          // "none" before the first merge
};
void mesh_stats(struct mesh_stats *out);

// Fork, in this order with the other locks: after LOCK_START; and when all of them are held (lend.h). In the
// child each meshed page gets memory of its own, as it was. True if there was any: then the central lists
// have to be rebuilt. `is_expected`: by the thread that called the others.
void mesh_before_fork(void);
void mesh_before_fork_last(void);
void mesh_after_fork_in_parent(void);
bool mesh_after_fork_in_child(bool is_expected) FIRN_CHECKED;

#endif
