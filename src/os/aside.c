#include "src/os/aside.h"

#include "src/base/fatal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

enum { PLAIN = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE };

uintptr_t aside_make(size_t bytes) {
    const int saved = errno;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, PLAIN, -1, 0);
    if (p != MAP_FAILED) {
        (void)madvise(p, bytes, MADV_NOHUGEPAGE);
    }
    errno = saved;
    return p != MAP_FAILED ? (uintptr_t)p : 0;
}

void aside_drop(uintptr_t aside, size_t bytes) {
    const int saved = errno;
    (void)munmap((void *)aside, bytes);
    errno = saved;
}

void aside_place(uintptr_t aside, uintptr_t address, size_t bytes) {
    const int saved = errno;
    void *to = (void *)address;
    if (mremap((void *)aside, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to) {
        FIRN_ENSURE(mmap(to, bytes, PROT_READ | PROT_WRITE, PLAIN | MAP_FIXED, -1, 0) == to);
        memcpy(to, (const void *)aside, bytes);
        aside_drop(aside, bytes);
    }
    errno = saved;
}
