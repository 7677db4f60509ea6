// Start, threads, fork.
#ifndef FIRN_HEAP_LIFE_H
#define FIRN_HEAP_LIFE_H

#include "src/base/compiler.h"
#include "src/cache/cache.h"

#include <stdbool.h>

// Called on the first allocation (before any constructor, possibly from ld.so). Idempotent, safe
// from several threads. Ends by calling life_started once, outside of any lock.
void life_start(void);
bool life_has_started(void);
// True if the heap does not serve this process, and never will (heap/aside.h). Decides it first if need be.
bool life_is_aside(void);
// Whether it is decided.
bool life_is_decided(void);
// Decides that, and no more. For who must not start the heap. Idempotent.
void life_decide(void);

// Supplied by the layer above. The first is called once, before anything is allocated, and reads the options;
// false: the heap shall stand aside. The second, once it has started, applies them.
bool life_may_start(void);
void life_started(void);

// Registers the fork handlers; life_start does it too. To be called as early as can be: the handlers
// run last before a fork and first after it only if they are the first. Later ones may then allocate
// and, worse, wait for a lock whose holder waits for the heap. Idempotent.
void life_prepare_fork(void);

// This thread's cache, made if need be; starts the heap first. NULL: no memory.
struct cache *life_thread_cache(void);
// Whoever called that is done with it. Of a thread that is ending the cache goes at once: nobody tells when its
// last destructor has run.
void life_let_go(void);

// Around a call that forks without running fork handlers.
void life_begin_fork(void);
void life_end_fork(bool in_child);

// A child of a fork that ran no handlers (raw clone) is noticed here, on the slow paths, by a
// page that the kernel wiped.
void life_check_fork(void);

#endif
