// The exported C names. Each line passes on what only an exported function knows: the return
// address of the program's own call. What the functions promise is in front/front.h.
#include "include/firn/firn.h"
#include "src/base/fatal.h"
#include "src/cold/cold.h"
#include "src/front/figures.h"
#include "src/front/front.h"
#include "src/heap/compact.h"
#include "src/heap/life.h"
#include "src/heap/upkeep.h"

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

FIRN_EXPORT void *malloc(size_t size) {
    return front_alloc(size, HEAP_SITE_HERE);
}

FIRN_EXPORT void free(void *p) {
    front_free(p, HEAP_SITE_HERE);
}

FIRN_EXPORT void *calloc(size_t count, size_t size) {
    return front_alloc_zeroed(count, size, FIRN_CALLER());
}

FIRN_EXPORT void *realloc(void *p, size_t size) {
    return front_resize(p, size, FIRN_CALLER());
}

FIRN_EXPORT void *reallocarray(void *p, size_t count, size_t size) {
    return front_resize_array(p, count, size, FIRN_CALLER());
}

FIRN_EXPORT int posix_memalign(void **out, size_t align, size_t size) {
    return front_posix_memalign(out, align, size, FIRN_CALLER());
}

FIRN_EXPORT void *aligned_alloc(size_t align, size_t size) {
    return front_aligned_alloc(align, size, FIRN_CALLER());
}

FIRN_EXPORT void *memalign(size_t align, size_t size) {
    return front_memalign(align, size, FIRN_CALLER());
}

FIRN_EXPORT void *valloc(size_t size) {
    return front_valloc(size, FIRN_CALLER());
}

FIRN_EXPORT void *pvalloc(size_t size) {
    return front_pvalloc(size, FIRN_CALLER());
}

FIRN_EXPORT void cfree(void *p) {
    front_free_as(p, "cfree", HEAP_SITE_HERE);
}

FIRN_EXPORT void free_sized(void *p, size_t size) {
    front_free_sized(p, size, "free_sized", FIRN_CALLER());
}

FIRN_EXPORT void free_aligned_sized(void *p, size_t align, size_t size) {
    front_free_checked(p, &(struct heap_call){"free_aligned_sized", FIRN_CALLER(), size, align});
}

FIRN_EXPORT size_t malloc_usable_size(void *p) {
    return front_usable(p, FIRN_CALLER());
}

FIRN_EXPORT int malloc_trim(size_t pad) {
    fatal_note_call("malloc_trim", FIRN_CALLER());
    return front_trim(pad);
}

FIRN_EXPORT int mallopt(int parameter, int value) {
    return front_mallopt(parameter, value);
}

// Deprecated in favour of mallinfo2, and still called.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
FIRN_EXPORT struct mallinfo mallinfo(void) {
    return figures_mallinfo();
}
#pragma GCC diagnostic pop

FIRN_EXPORT struct mallinfo2 mallinfo2(void) {
    return figures_mallinfo2();
}

FIRN_EXPORT void malloc_stats(void) {
    figures_malloc_stats();
}

FIRN_EXPORT int malloc_info(int options, FILE *stream) {
    return figures_write_xml(options, stream);
}

FIRN_EXPORT int firn_stats(struct firn_stats *out) {
    return figures_fill(out);
}

FIRN_EXPORT size_t firn_object_size(const void *p) {
    return front_object_size(p);
}

FIRN_EXPORT size_t firn_compact(void) {
    return compact_now();
}

FIRN_EXPORT void firn_hint_cold(const void *p, size_t bytes) {
    cold_hint_cold((uintptr_t)p, bytes);
}

FIRN_EXPORT void firn_hint_hot(const void *p, size_t bytes) {
    cold_hint_hot((uintptr_t)p, bytes);
}

FIRN_EXPORT int firn_exclude(const void *p, size_t bytes) {
    return cold_exclude((uintptr_t)p, bytes) ? 0 : -1;
}

FIRN_EXPORT void firn_thaw_all(void) {
    cold_thaw_all();
}

FIRN_EXPORT const char *firn_version(void) {
    return FIGURES_VERSION;
}

FIRN_EXPORT void firn_set_report_handler(void (*handler)(const struct firn_report *)) {
    fatal_set_handler(handler);
}

// Names of glibc's own that programs and older libraries call directly. Without them such a call
// would reach the other allocator.
FIRN_EXPORT void *__libc_malloc(size_t size) {
    return front_alloc(size, HEAP_SITE_HERE);
}

FIRN_EXPORT void __libc_free(void *p) {
    front_free(p, HEAP_SITE_HERE);
}

FIRN_EXPORT void *__libc_calloc(size_t count, size_t size) {
    return front_alloc_zeroed(count, size, FIRN_CALLER());
}

FIRN_EXPORT void *__libc_realloc(void *p, size_t size) {
    return front_resize(p, size, FIRN_CALLER());
}

FIRN_EXPORT void *__libc_reallocarray(void *p, size_t count, size_t size) {
    return front_resize_array(p, count, size, FIRN_CALLER());
}

FIRN_EXPORT void *__libc_memalign(size_t align, size_t size) {
    return front_memalign(align, size, FIRN_CALLER());
}

FIRN_EXPORT void *__libc_valloc(size_t size) {
    return front_valloc(size, FIRN_CALLER());
}

FIRN_EXPORT void *__libc_pvalloc(size_t size) {
    return front_pvalloc(size, FIRN_CALLER());
}

FIRN_EXPORT int __posix_memalign(void **out, size_t align, size_t size) {
    return front_posix_memalign(out, align, size, FIRN_CALLER());
}

// In this file and not in one of their own, so that a program linked with the static archive gets
// them too: an archive's member comes along only when a name in it is wanted.
__attribute__((constructor)) static void malloc_start(void) {
    life_prepare_fork();
    life_decide();
    upkeep_note_constructed();
}

__attribute__((destructor)) static void malloc_end(void) {
    front_end();
}
