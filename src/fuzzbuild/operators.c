// operator new and delete by their mangled names (Itanium ABI, size_t is `unsigned long`), so that
// the library needs no C++ runtime. A failed operator new is left to the program's runtime: its own,
// found behind this library, calls malloc, runs the new-handler as long as malloc refuses, and throws.
#include "src/base/compiler.h"
#include "src/fuzzbuild/blocks.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

struct operators_nothrow; // std::nothrow_t, passed by reference and never looked at

void *_Znwm(size_t size);
void *_Znam(size_t size);
void *_ZnwmRKSt9nothrow_t(size_t size, const struct operators_nothrow *tag);
void *_ZnamRKSt9nothrow_t(size_t size, const struct operators_nothrow *tag);
void *_ZnwmSt11align_val_t(size_t size, size_t align);
void *_ZnamSt11align_val_t(size_t size, size_t align);
void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t align,
                                         const struct operators_nothrow *tag);
void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t align,
                                         const struct operators_nothrow *tag);
void _ZdlPv(void *p);
void _ZdaPv(void *p);
void _ZdlPvRKSt9nothrow_t(void *p, const struct operators_nothrow *tag);
void _ZdaPvRKSt9nothrow_t(void *p, const struct operators_nothrow *tag);
void _ZdlPvm(void *p, size_t size);
void _ZdaPvm(void *p, size_t size);
void _ZdlPvSt11align_val_t(void *p, size_t align);
void _ZdaPvSt11align_val_t(void *p, size_t align);
void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align,
                                         const struct operators_nothrow *tag);
void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align,
                                         const struct operators_nothrow *tag);
void _ZdlPvmSt11align_val_t(void *p, size_t size, size_t align);
void _ZdaPvmSt11align_val_t(void *p, size_t size, size_t align);

// `align` 0: none given.
static void *allocate(enum block_kind kind, size_t size, size_t align, struct trace_origin from) {
    const struct blocks_request r = {.size = size, .align = align, .kind = kind, .from = from};
    if ((align & (align - 1)) != 0 && align != 0) {
        errno = EINVAL;
        return NULL;
    }
    return blocks_alloc(&r);
}

// The result of dlsym is used before returning: a tail call would show RTLD_NEXT the wrong module. An
// alignment above malloc's is not to be had this way; then the size is one that is refused for sure.
FIRN_COLD static void *fail(enum block_kind kind, size_t size, size_t align) {
    void *(*next)(size_t) = NULL;
    void *found = dlsym(RTLD_NEXT, "_Znwm");
    memcpy(&next, &found, sizeof(found)); // ISO C has no cast from object to function
    void *p = next != NULL ? next(align == 0 ? size : SIZE_MAX) : NULL;
    if (p != NULL) {
        blocks_set_kind(p, kind);
    }
    return p;
}

FIRN_INLINE void *make(enum block_kind kind, size_t size, size_t align, struct trace_origin from) {
    void *p = allocate(kind, size, align, from);
    return FIRN_LIKELY(p != NULL) ? p : fail(kind, size, align);
}

FIRN_INLINE void drop(enum block_kind kind, void *p, size_t size, struct trace_origin from) {
    const struct blocks_release how = {
        .kind = kind,
        .by = kind == BLOCK_NEW ? "operator delete" : "operator delete []",
        .size = size,
        .from = from,
    };
    blocks_free(p, &how);
}

FIRN_EXPORT void *_Znwm(size_t size) {
    return make(BLOCK_NEW, size, 0, TRACE_HERE());
}

FIRN_EXPORT void *_Znam(size_t size) {
    return make(BLOCK_NEW_ARRAY, size, 0, TRACE_HERE());
}

FIRN_EXPORT void *_ZnwmRKSt9nothrow_t(size_t size, const struct operators_nothrow *tag) {
    (void)tag;
    return allocate(BLOCK_NEW, size, 0, TRACE_HERE());
}

FIRN_EXPORT void *_ZnamRKSt9nothrow_t(size_t size, const struct operators_nothrow *tag) {
    (void)tag;
    return allocate(BLOCK_NEW_ARRAY, size, 0, TRACE_HERE());
}

FIRN_EXPORT void *_ZnwmSt11align_val_t(size_t size, size_t align) {
    return make(BLOCK_NEW, size, align, TRACE_HERE());
}

FIRN_EXPORT void *_ZnamSt11align_val_t(size_t size, size_t align) {
    return make(BLOCK_NEW_ARRAY, size, align, TRACE_HERE());
}

FIRN_EXPORT void *_ZnwmSt11align_val_tRKSt9nothrow_t(size_t size, size_t align,
                                                     const struct operators_nothrow *tag) {
    (void)tag;
    return allocate(BLOCK_NEW, size, align, TRACE_HERE());
}

FIRN_EXPORT void *_ZnamSt11align_val_tRKSt9nothrow_t(size_t size, size_t align,
                                                     const struct operators_nothrow *tag) {
    (void)tag;
    return allocate(BLOCK_NEW_ARRAY, size, align, TRACE_HERE());
}

FIRN_EXPORT void _ZdlPv(void *p) {
    drop(BLOCK_NEW, p, BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void _ZdaPv(void *p) {
    drop(BLOCK_NEW_ARRAY, p, BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void _ZdlPvRKSt9nothrow_t(void *p, const struct operators_nothrow *tag) {
    (void)tag;
    drop(BLOCK_NEW, p, BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void _ZdaPvRKSt9nothrow_t(void *p, const struct operators_nothrow *tag) {
    (void)tag;
    drop(BLOCK_NEW_ARRAY, p, BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void _ZdlPvm(void *p, size_t size) {
    drop(BLOCK_NEW, p, size, TRACE_HERE());
}

FIRN_EXPORT void _ZdaPvm(void *p, size_t size) {
    drop(BLOCK_NEW_ARRAY, p, size, TRACE_HERE());
}

FIRN_EXPORT void _ZdlPvSt11align_val_t(void *p, size_t align) {
    (void)align;
    drop(BLOCK_NEW, p, BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void _ZdaPvSt11align_val_t(void *p, size_t align) {
    (void)align;
    drop(BLOCK_NEW_ARRAY, p, BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void _ZdlPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align,
                                                     const struct operators_nothrow *tag) {
    (void)align;
    (void)tag;
    drop(BLOCK_NEW, p, BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void _ZdaPvSt11align_val_tRKSt9nothrow_t(void *p, size_t align,
                                                     const struct operators_nothrow *tag) {
    (void)align;
    (void)tag;
    drop(BLOCK_NEW_ARRAY, p, BLOCKS_SIZE_UNKNOWN, TRACE_HERE());
}

FIRN_EXPORT void _ZdlPvmSt11align_val_t(void *p, size_t size, size_t align) {
    (void)align;
    drop(BLOCK_NEW, p, size, TRACE_HERE());
}

FIRN_EXPORT void _ZdaPvmSt11align_val_t(void *p, size_t size, size_t align) {
    (void)align;
    drop(BLOCK_NEW_ARRAY, p, size, TRACE_HERE());
}
