// The exported C names. Each passes on what only an exported function knows: the program's own call.
#include "src/base/align.h"
#include "src/base/compiler.h"
#include "src/fuzzbuild/blocks.h"
#include "src/fuzzbuild/settings.h"
#include "src/fuzzbuild/verdict.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

// Names that libc's headers do not, or no longer, declare.
void cfree(void *p);
void free_sized(void *p, size_t size);
void free_aligned_sized(void *p, size_t align, size_t size);
void *__libc_malloc(size_t size);
void __libc_free(void *p);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_reallocarray(void *p, size_t count, size_t size);
void *__libc_memalign(size_t align, size_t size);
void *__libc_valloc(size_t size);
void *__libc_pvalloc(size_t size);
int __posix_memalign(void **out, size_t align, size_t size);

FIRN_INLINE void *plain(size_t size, struct trace_origin from) {
    const struct blocks_request r = {.size = size, .from = from};
    return blocks_alloc(&r);
}

FIRN_INLINE void release(void *p, const char *by, size_t size, struct trace_origin from) {
    const struct blocks_release how = {.by = by, .size = size, .from = from};
    blocks_free(p, &how);
}

static void *zeroed(size_t count, size_t size, struct trace_origin from) {
    struct blocks_request r = {.is_zeroed = true, .from = from};
    if (__builtin_mul_overflow(count, size, &r.size)) {
        if (!settings_get()->is_overflow_null) {
            verdict_calloc_overflow(count, size, from);
        }
        errno = ENOMEM;
        return NULL;
    }
    return blocks_alloc(&r);
}

static void *resize_array(void *p, size_t count, size_t size, struct trace_origin from) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return blocks_resize(p, bytes, from);
}

// glibc takes any alignment here and rounds it up to a power of two.
static void *aligned(size_t align, size_t size, struct trace_origin from) {
    struct blocks_request r = {.size = size, .align = 1, .from = from};
    if (align > PTRDIFF_MAX) {
        errno = EINVAL;
        return NULL;
    }
    while (r.align < align) {
        r.align *= 2;
    }
    return blocks_alloc(&r);
}

static void *aligned_strict(size_t align, size_t size, struct trace_origin from) {
    if (!align_is_power(align)) {
        errno = EINVAL;
        return NULL;
    }
    return aligned(align, size, from);
}

static int aligned_posix(void **out, size_t align, size_t size, struct trace_origin from) {
    if (!align_is_power(align) || align % sizeof(void *) != 0) {
        return EINVAL;
    }
    int saved = errno;
    void *p = aligned(align, size, from);
    errno = saved;
    if (p == NULL) {
        return ENOMEM;
    }
    *out = p;
    return 0;
}

static void *whole_pages(size_t size, struct trace_origin from) {
    size_t bytes;
    if (!align_up_checked(size, FIRN_PAGE, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return aligned(FIRN_PAGE, bytes, from);
}

FIRN_EXPORT void *malloc(size_t size) {
    return plain(size, TRACE_HERE());
}

FIRN_EXPORT void free(void *p) {
    release(p, "free", BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void *calloc(size_t count, size_t size) {
    return zeroed(count, size, TRACE_HERE());
}

FIRN_EXPORT void *realloc(void *p, size_t size) {
    return blocks_resize(p, size, TRACE_HERE());
}

FIRN_EXPORT void *reallocarray(void *p, size_t count, size_t size) {
    return resize_array(p, count, size, TRACE_HERE());
}

FIRN_EXPORT int posix_memalign(void **out, size_t align, size_t size) {
    return aligned_posix(out, align, size, TRACE_HERE());
}

FIRN_EXPORT void *aligned_alloc(size_t align, size_t size) {
    return aligned_strict(align, size, TRACE_HERE());
}

FIRN_EXPORT void *memalign(size_t align, size_t size) {
    return aligned(align, size, TRACE_HERE());
}

FIRN_EXPORT void *valloc(size_t size) {
    return aligned(FIRN_PAGE, size, TRACE_HERE());
}

FIRN_EXPORT void *pvalloc(size_t size) {
    return whole_pages(size, TRACE_HERE());
}

FIRN_EXPORT void cfree(void *p) {
    release(p, "cfree", BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void free_sized(void *p, size_t size) {
    release(p, "free_sized", size, TRACE_HERE());
}

FIRN_EXPORT void free_aligned_sized(void *p, size_t align, size_t size) {
    (void)align;
    release(p, "free_aligned_sized", size, TRACE_HERE());
}

FIRN_EXPORT size_t malloc_usable_size(void *p) {
    return blocks_usable(p, TRACE_HERE());
}

// Nothing to give back, nothing to tune: freed memory is inaccessible and holds no pages.
FIRN_EXPORT int malloc_trim(size_t pad) {
    (void)pad;
    return 0;
}

FIRN_EXPORT int mallopt(int parameter, int value) {
    (void)parameter;
    (void)value;
    return 1;
}

// Names of glibc's own that programs and older libraries call directly. Without them such a call
// would reach the other allocator.
FIRN_EXPORT void *__libc_malloc(size_t size) {
    return plain(size, TRACE_HERE());
}

FIRN_EXPORT void __libc_free(void *p) {
    release(p, "free", BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void *__libc_calloc(size_t count, size_t size) {
    return zeroed(count, size, TRACE_HERE());
}

FIRN_EXPORT void *__libc_realloc(void *p, size_t size) {
    return blocks_resize(p, size, TRACE_HERE());
}

FIRN_EXPORT void *__libc_reallocarray(void *p, size_t count, size_t size) {
    return resize_array(p, count, size, TRACE_HERE());
}

FIRN_EXPORT void *__libc_memalign(size_t align, size_t size) {
    return aligned(align, size, TRACE_HERE());
}

FIRN_EXPORT void *__libc_valloc(size_t size) {
    return aligned(FIRN_PAGE, size, TRACE_HERE());
}

FIRN_EXPORT void *__libc_pvalloc(size_t size) {
    return whole_pages(size, TRACE_HERE());
}

FIRN_EXPORT int __posix_memalign(void **out, size_t align, size_t size) {
    return aligned_posix(out, align, size, TRACE_HERE());
}
