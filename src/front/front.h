// What C, POSIX and glibc promise about the allocation functions, on top of the heap: sizes that
// cannot exist, null pointers, alignments, overflow, errno. The exported names are one-line calls
// of these (preload/malloc.c, preload/cxx.c).
//
// `site` is always the return address of the program's own call; HEAP_SITE_HERE where an exported function says so
// of itself to front_alloc, front_free or front_free_as. Functions that return a pointer
// return NULL with ENOMEM when there is no memory; other errors are named. Misuse is fatal, as
// heap.h says.
#ifndef FIRN_FRONT_FRONT_H
#define FIRN_FRONT_FRONT_H

#include "src/base/compiler.h"
#include "src/base/fatal.h"
#include "src/heap/fast.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// NULL with errno ENOMEM.
FIRN_COLD void *front_refuse(void);

// malloc. Sizes above PTRDIFF_MAX fail before anything is computed from them (heap_alloc_slow): a
// rounding that wraps around would return a block that is too small.
FIRN_INLINE void *front_alloc(size_t size, uintptr_t site) {
    return heap_alloc_fast(size, site);
}

// free. Preserves errno.
FIRN_INLINE void front_free(void *p, uintptr_t site) {
    heap_free_fast(p, site);
}

// free under another name (cfree, operator delete). Preserves errno.
FIRN_INLINE void front_free_as(void *p, const char *api, uintptr_t site) {
    if (FIRN_UNLIKELY(!heap_free_local(p, api, site))) {
        heap_free_slow(p, &(struct heap_call){api, heap_site(site), FATAL_SIZE_UNKNOWN, 0});
    }
}

// free that names what it frees: call->size and, if not 0, call->align are checked where
// FIRN_CHECK_FREE. NULL is ignored, whatever the size. Preserves errno.
void front_free_checked(void *p, const struct heap_call *call);

// The same for a size alone. An address in a cell of the size's class proves the size right; the
// rest is a plain free.
FIRN_INLINE void front_free_sized(void *p, size_t size, const char *api, uintptr_t site) {
    const uintptr_t offset = (uintptr_t)p - FIRN_ROOT.small_base;
    const unsigned cell = (unsigned)(offset >> FIRN_ROOT.cell_shift);
    if (FIRN_UNLIKELY(size > SMALL_MAX - FIRN_SLOT_EXTRA ||
                      root_cell_class(cell) != size_class_of(size + FIRN_SLOT_EXTRA) ||
                      !heap_free_local(p, api, site))) {
        front_free_checked(p, &(struct heap_call){api, site, size, 0});
    }
}

void *front_alloc_zeroed(size_t count, size_t size, uintptr_t site);
// realloc(NULL, n) is malloc(n); realloc(p, 0) frees p and returns NULL, as in glibc.
void *front_resize(void *p, size_t size, uintptr_t site);
void *front_resize_array(void *p, size_t count, size_t size, uintptr_t site);

// posix_memalign: returns 0, EINVAL (alignment not a power of two times sizeof(void *)) or ENOMEM;
// on failure *out is untouched; errno is preserved always.
int front_posix_memalign(void **out, size_t align, size_t size, uintptr_t site);
// aligned_alloc: EINVAL unless the alignment is a power of two. The size need not be a multiple.
void *front_aligned_alloc(size_t align, size_t size, uintptr_t site);
// memalign as glibc: the alignment is rounded up to a power of two; EINVAL above the largest one.
void *front_memalign(size_t align, size_t size, uintptr_t site);
void *front_valloc(size_t size, uintptr_t site);
// valloc of the size rounded up to whole pages, at least one.
void *front_pvalloc(size_t size, uintptr_t site);

// Bytes that may be written at p; 0 for NULL.
size_t front_usable(const void *p, uintptr_t site);

// firn_object_size (firn.h). Any context.
size_t front_object_size(const void *p);

// mallopt: 1 for the parameters glibc documents, which have nothing to act on here; else 0.
int front_mallopt(int parameter, int value);

// malloc_trim.
int front_trim(size_t pad);

// Before that is decided: the program's malloc is that of `module`, another file. Stays as it is until then.
void front_note_foreign(const char *module);

// Once per process (life_may_start): reads the policy and FIRN_OPTIONS, says hello when verbose. False: off, or there is another malloc.
bool front_start(void);
// At exit: the summary that stats=exit asks for.
void front_end(void);

#endif
