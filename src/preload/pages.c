// Calls by which a program changes how pages of its memory are mapped. They do what libc's do. Where the pages
// are those of blocks, they leave merging and the cold tier first (heap/own.h): a mapping that others share, or that
// is exchanged for another one, would not keep what the program asked for, and a page that is away would come back
// as it was after it was dropped, or not come along when it is moved.
//
// Firn's own calls are not the program's: the linker renames them (-Wl,--wrap).
//
// Not in the archive, where libc's own definitions may be linked in, too.
#include "src/base/compiler.h"
#include "src/heap/own.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int __wrap_mprotect(void *p, size_t bytes, int protection);
int __wrap_madvise(void *p, size_t bytes, int advice);
int __wrap_mlock2(const void *p, size_t bytes, unsigned flags);
void *__wrap_mremap(void *p, size_t old_bytes, size_t new_bytes, int flags, ...);

int __wrap_mprotect(void *p, size_t bytes, int protection) {
    return (int)syscall(SYS_mprotect, p, bytes, protection);
}

int __wrap_madvise(void *p, size_t bytes, int advice) {
    return (int)syscall(SYS_madvise, p, bytes, advice);
}

int __wrap_mlock2(const void *p, size_t bytes, unsigned flags) {
    return (int)syscall(SYS_mlock2, p, bytes, flags);
}

static void *address_of(long result) {
    return (void *)result; // -1 is MAP_FAILED
}

void *__wrap_mremap(void *p, size_t old_bytes, size_t new_bytes, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    void *to = (flags & MREMAP_FIXED) != 0 ? va_arg(rest, void *) : NULL;
    va_end(rest);
    return address_of(syscall(SYS_mremap, p, old_bytes, new_bytes, flags, to));
}

FIRN_EXPORT int mprotect(void *p, size_t bytes, int protection) {
    return own_pages(p, bytes) ? __wrap_mprotect(p, bytes, protection) : -1;
}

FIRN_EXPORT int pkey_mprotect(void *p, size_t bytes, int protection, int key) {
    if (key == -1) {
        return mprotect(p, bytes, protection);
    }
    return own_pages(p, bytes) ? (int)syscall(SYS_pkey_mprotect, p, bytes, protection, key) : -1;
}

FIRN_EXPORT int madvise(void *p, size_t bytes, int advice) {
    int result = own_pages(p, bytes) ? __wrap_madvise(p, bytes, advice) : -1;
    if (result == 0 && advice == MADV_DONTNEED && own_is_heap(p)) {
        own_drop((uintptr_t)p, bytes);
    }
    return result;
}

// As libc's: it returns the error, and DONTNEED, which would lose data, does nothing.
FIRN_EXPORT int posix_madvise(void *p, size_t bytes, int advice) {
    const int saved = errno;
    int result = advice == POSIX_MADV_DONTNEED || madvise(p, bytes, advice) == 0 ? 0 : errno;
    errno = saved;
    return result;
}

FIRN_EXPORT int mlock(const void *p, size_t bytes) {
    return own_pages(p, bytes) ? (int)syscall(SYS_mlock, p, bytes) : -1;
}

FIRN_EXPORT int mlock2(const void *p, size_t bytes, unsigned flags) {
    return own_pages(p, bytes) ? __wrap_mlock2(p, bytes, flags) : -1;
}

FIRN_EXPORT void *mremap(void *p, size_t old_bytes, size_t new_bytes, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    void *to = (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0 ? va_arg(rest, void *) : NULL;
    va_end(rest);
    if (!own_pages(p, old_bytes)) {
        return MAP_FAILED;
    }
    return address_of(syscall(SYS_mremap, p, old_bytes, new_bytes, flags, to));
}
