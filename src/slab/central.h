// The spans of a size class that no thread owns: partly used ones by occupancy, empty ones waiting
// for reuse or purge. One lock per class; partitions of a class never exchange spans, so addresses
// are not reused across partitions at any level.
#ifndef FIRN_SLAB_CENTRAL_H
#define FIRN_SLAB_CENTRAL_H

#include "src/os/lock.h"
#include "src/os/random.h"
#include "src/span/region.h"
#include "src/span/span.h"

// One (class, partition). Zero until first used.
struct central_cell {
    bool is_ready;
    struct list used[SPAN_BUCKETS];
    struct list dirty; // oldest first
    struct list clean;
};

struct central {
    struct lock lock;
    _Atomic bool must_rebuild; // in a forked child: the lists describe threads that are gone
    size_t dirty_spans;        // of all its partitions
    size_t committed_bytes;    // likewise
};

extern struct central firn_central[SIZE_CLASSES];

// Single-threaded, after root_start.
void central_start(void);
void central_set_purge_delay(uint32_t ms);

// A span of the cell with at least one free slot, now owned by `owner` (whose number is `number`):
// the fullest partly used one, else an empty one, else a fresh one. What is left to chance is drawn
// from `random`, the calling thread's: streams of the classes' own would be 512 bytes for each class in
// use, and a seed. NULL: memory is exhausted.
struct span *central_take(unsigned cell, struct cache *owner, uint64_t number,
                          struct random_stream *random);

// Takes a span back from its owner, who has removed it from its lists and put the slots in hand
// among the free ones. A span without live slots becomes empty. Purges when too much is.
void central_give(struct span *s);

// A span with remote frees, on no queue, whose owner seemed to be nobody: takes them over under the
// lock. False if it has got an owner meanwhile: deliver to that one.
bool central_deliver(struct span *s);

// What takes remote frees over, with the checks of the level; misuse is fatal. Owner or lock holder.
void central_take_remote(struct span *s);

// Purges empty spans older than the delay (all of them if `everything`). True if any was.
bool central_purge(unsigned class_index, uint64_t now_ms, bool everything);

// Address space becomes scarce: gives back the addresses of spans whose memory was given back. With
// all class locks.
void central_release(void);

// Fork. In the child, spans of threads that no longer exist are recovered class by class, when the
// class is next used.
void central_before_fork(void);
void central_after_fork(bool in_child, bool must_rebuild);
// Runs the rebuild of one class now if it is due.
void central_rebuild_if_due(unsigned class_index);

// The layers above: whose caches are dead, and (or NULL) what a freed slot must look like.
typedef bool central_dead_fn(const struct cache *owner);
void central_set_hooks(central_dead_fn *is_dead, span_check_fn *check);

// The mesher's: makes the pages of an ownerless span without a live slot private again, and zero. Called
// with the class lock. False when there is no memory for it: the span stays as it is. Single-threaded,
// before the first span is meshed.
typedef bool central_part_fn(struct span *s);
void central_set_part(central_part_fn *part);

// A cell's lists, for the validator; with the class lock.
const struct central_cell *central_lists(unsigned cell);

struct central_stats {
    size_t live, active_spans, dirty_spans, clean_spans;
};
// Walks the class's descriptors without a lock: exact when nothing else runs.
void central_stats(unsigned class_index, struct central_stats *out);

#endif
