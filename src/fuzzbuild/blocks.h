// Blocks: placed against a guard page, watched while they live, inaccessible once freed.
//
// What a freed block becomes (option revoke=N|all). The first N frees of every pair of allocating and
// freeing stack are *revoked*: the pages are inaccessible before free returns, and stay so until
// `quarantine` bytes more were revoked. Further frees of the pair are revoked one time in 1024; the others
// are *resident*: filled with a byte pattern that is checked before the slot is used again, so that a
// write after free is found late and a read after free only by what it does to the program. Revoking
// costs a system call and a page fault, which is most of what an allocation costs here;
// bench/fuzzbuild has the figures.
//
// Everything takes one lock, which single-threaded programs never touch. errno is preserved by free.
#ifndef FIRN_FUZZBUILD_BLOCKS_H
#define FIRN_FUZZBUILD_BLOCKS_H

#include "src/fuzzbuild/space.h"
#include "src/fuzzbuild/trace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCKS_SIZE_UNKNOWN SIZE_MAX

struct blocks_request {
    size_t size;
    size_t align; // 0 or a power of two; the option's at least
    enum block_kind kind;
    bool is_zeroed;
    struct trace_origin from;
};

struct blocks_release {
    enum block_kind kind; // what the caller believes the block to be
    const char *by;       // the function as a report names it: "free", "operator delete"
    size_t size;          // what the caller says it is, or BLOCKS_SIZE_UNKNOWN
    struct trace_origin from;
};

// NULL with errno ENOMEM when memory or a limit is reached (on_limit=abort: does not return).
void *blocks_alloc(const struct blocks_request *r);
// NULL does nothing. Misuse does not return.
void blocks_free(void *p, const struct blocks_release *how);
// realloc: always moves, so that a stale pointer is stale at once. size 0 frees and returns NULL, as
// glibc does.
void *blocks_resize(void *p, size_t size, struct trace_origin from);
// The size that was asked for; 0 for NULL.
size_t blocks_usable(const void *p, struct trace_origin from);

// For a block that the C++ runtime got from malloc on behalf of an operator new.
void blocks_set_kind(void *p, enum block_kind kind);

// Forgets which sites have freed how often: every input of a persistent-mode target begins afresh.
void blocks_next_input(void);

// First address of a block.
uintptr_t blocks_start_of(const struct slot *s, const struct block *b);

// Called by start_now before anything else here.
void blocks_start(void);
// At exit: checks what is live or resident, lists leaks.
void blocks_finish(void);

#endif
