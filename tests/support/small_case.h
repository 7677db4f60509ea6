// Small objects in tests that look inside: one thread plays several, each with a cache of its own.
#ifndef FIRN_TESTS_SMALL_CASE_H
#define FIRN_TESTS_SMALL_CASE_H

#include "hardening/slot.h"
#include "src/cache/cache.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Starts the heap; the calling thread has no cache yet. For cmocka: 0 on success.
int small_start(void **state);

// A further cache, as another thread would have it, and the one the calling thread acts as from now
// on. Returns NULL when there is no memory.
struct cache *small_attach(void);
// The calling thread acts as the one that has this cache.
void small_act_as(struct cache *c);

// Every relation between spans, lists and caches holds, or the process ends with the name of the one
// that does not. No other thread may run.
void small_check(void);

// The span of a small block, and the slot it is in.
struct span *small_span(const void *p);
unsigned small_slot(const void *p);
// The class of blocks of `size` bytes: there is room for a canary, too. The largest size that fits
// slots of so many bytes, and small slots at all.
unsigned small_class(size_t size);
#define SMALL_FIT(slot_bytes) ((slot_bytes)-FIRN_SLOT_EXTRA)
#define SMALL_MOST SMALL_FIT((size_t)SMALL_MAX)
// The cell of blocks of `size` bytes allocated at `site`.
unsigned small_cell(size_t size, uintptr_t site);

// Runs `body` in a child process. False, and what the child said on stderr is repeated there, unless
// it ends well.
bool small_run(void (*body)(void *), void *context);
// The child has to abort with a first line that contains `line`.
bool small_run_aborts(void (*body)(void *), void *context, const char *line);
// In a child a failed check cannot go through cmocka.
#define NEED(condition) ((condition) ? (void)0 : small_failed(#condition, __FILE__, __LINE__))
void small_failed(const char *what, const char *file, int line);

// Limits make the heap give back address space or commit charge along with memory: purged spans
// cannot be read. The heap has started.
bool small_is_rationed(void);

// A generator of the test's own: the same sequence in every run.
uint64_t small_draw(uint64_t *seed, uint64_t bound);

#endif
