// Kernel constants newer than the C library's headers. Each is probed before it is relied on.
#ifndef FIRN_OS_KERNEL_H
#define FIRN_OS_KERNEL_H

#include <sys/mman.h>

#ifndef MAP_FIXED_NOREPLACE // Linux 4.17
#define MAP_FIXED_NOREPLACE 0x100000
#endif
#ifndef MREMAP_DONTUNMAP // Linux 5.7
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MADV_WIPEONFORK // Linux 4.14
#define MADV_WIPEONFORK 18
#endif
#ifndef MADV_DONTNEED_LOCKED // Linux 5.18
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_GUARD_INSTALL // Linux 6.13
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#ifndef MADV_PAGEOUT // Linux 5.4
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ // Linux 5.14
#define MADV_POPULATE_READ 22
#endif

// ThreadSanitizer knows a few windows of the address space and ends the process, or maps page zero,
// for a mapping anywhere else: in its builds reservations are small and lie in one of them.
#if defined(__SANITIZE_THREAD__)
#define KERNEL_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define KERNEL_TSAN 1
#endif
#endif
#ifndef KERNEL_TSAN
#define KERNEL_TSAN 0
#endif

#endif
