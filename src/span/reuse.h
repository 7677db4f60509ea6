// The bounded cache of freed runs that still hold their pages: reused without a system call, purged
// in order of age. Callers hold LOCK_LARGE.
#ifndef FIRN_SPAN_REUSE_H
#define FIRN_SPAN_REUSE_H

#include "src/span/bins.h"
#include "src/span/run.h"

// Valid when zero-filled.
struct reuse {
    struct bins bins;
    struct run *oldest;
    struct run *newest;
    size_t regret_bytes;  // by how much the bound is raised
    size_t evicted_bytes; // purged for the bound of late, and not missed yet
    uint64_t decay_ns;    // when the two were last halved
};

// Takes in a run without an object, freed at `now_ns`, the latest of all.
void reuse_put(struct reuse *reuse, struct run *run, uint64_t now_ns);
// Takes in what is left of a run that was taken out, with that one's age: next to `older` in the
// order of age (NULL: it is the oldest).
void reuse_put_back(struct reuse *reuse, struct run *run, struct run *older);

// Finds a run whose body ends with room for `bytes` at a multiple of `align` and is at most a
// quarter larger; NULL if none is known. Its content is whatever it was.
struct run *reuse_find(const struct reuse *reuse, size_t bytes, size_t align,
                       struct random_stream *random);
// Finds one with room for `bytes` at a multiple of `align` that may be split.
struct run *reuse_find_larger(const struct reuse *reuse, size_t bytes, size_t align,
                              struct random_stream *random);
// Takes out a run.
void reuse_remove(struct reuse *reuse, struct run *run);

// Takes out the oldest; NULL when empty. It is RUN_BUSY then, for the caller to purge and settle.
struct run *reuse_evict(struct reuse *reuse);

// Bytes the cache should hold at most, given the bytes of all live objects.
size_t reuse_bound(const struct reuse *reuse, size_t live_bytes);
bool reuse_is_over(const struct reuse *reuse, size_t live_bytes);
// A run that was taken out is purged for the bound; fresh memory was taken in spite of the cache.
void reuse_note_evicted(struct reuse *reuse, size_t bytes);
void reuse_note_missed(struct reuse *reuse, size_t bytes);

#endif
