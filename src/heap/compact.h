// Compaction: the mesher's passes, and when they are made.
#ifndef FIRN_HEAP_COMPACT_H
#define FIRN_HEAP_COMPACT_H

#include <stddef.h>

// Gives back all that can be given back: empty spans, empty pages of spans in use, and what sparse pages
// that share a frame no longer need. Returns about how many bytes that was; 0 when there was nothing,
// or when another thread is at it. Not in a signal handler. Preserves errno.
size_t compact_now(void);

#endif
