// Mesh: gives back the memory of sparse pages, without moving an object.
//
// A page without a used slot is given back as it is. Pages whose used slots do not collide are made to
// share one physical page (search.h finds them, merge.h merges them, one at a time). A span with
// such a page is not allocated from any more; it drains as its blocks are freed, and is private
// memory again when the last one is gone.
//
// A pass goes through the spans of a cell, wherever they are: with a thread, which may be idle or busy, or
// central. It holds no lock but for one page at a time.
#ifndef FIRN_MESH_MESH_H
#define FIRN_MESH_MESH_H

#include "src/base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// One pass over a class, all its partitions. `is_forced`: spans that were allocated from since the last
// pass, too. Returns bytes of pages merged and given back; 0 when another thread is at it, or
// meshing is impossible here. Not in a signal handler. Preserves errno.
size_t mesh_pass(unsigned class_index, bool is_forced);

struct mesh_stats {
    size_t meshed_pages;      // that share frames now
    size_t meshed_pages_most; // at any time
    size_t frames;            // physical pages they share
    size_t purged_pages;      // empty pages of spans in use given back, so far
    size_t merged_pages;      // so far
    size_t refused;           // merges given up half-way, so far
    size_t over_budget;       // merges not tried for want of VMAs, so far
    size_t vmas, vma_budget;
    size_t passes; // over a class
    uint64_t longest_ns;
    const char *engine; // "none" before the first merge
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
